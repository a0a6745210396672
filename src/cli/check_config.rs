//! `knock-agent check-config`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::load::{self, Exposure, Refused};
use crate::cli::outside::Noted;
use crate::cli::{DaemonArgs, Exit, Printer, Tone};
use crate::cli::{companions, installed, readable};
use crate::config::{
    App, Checked, Destination, KnockEffect, KnockSequence, Problem, Problems, ProxyStep2, Settings,
    Step1Reply, User,
};
use crate::units::Lifetime;

/// The arguments of `check-config`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  knock-agent check-config\n  knock-agent check-config --strict --json -c config.yaml"
)]
pub struct CheckConfigArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Reads the configuration and says what it found.
#[must_use]
pub fn run(args: CheckConfigArgs) -> Exit {
    let mut err = Printer::stderr();
    args.daemon.vet(&mut err);
    installed::note(&args.daemon, "check-config", &mut err);
    let exposure = Exposure::of_strict(args.daemon.strict);
    let noted = Noted::default();
    let mut read = load::read_with(&args.daemon.file.config, Some(&args.daemon.steps()), exposure, &noted);
    if let Ok(checked) = &mut read {
        checked.warnings.extend(readable::check(&checked.settings, &args.daemon, noted.files()));
        let found = companions::check(&checked.settings, &args.daemon);
        if companions::exit(&found) == Exit::Done {
            checked.warnings.extend(found);
        } else {
            let problems = Problems { list: found, more: 0 };
            read = Err(Refused { problems, exit: Exit::BadConfig });
        }
    }
    let exit = read.as_ref().map_or_else(|refused| refused.exit, |_| Exit::Done);
    let mut out = Printer::stdout();
    match read {
        read if args.json => out.line(format!("{:#}", as_json(&read))),
        Ok(checked) => {
            load::print_all(&checked.warnings, 0, &mut err);
            summary(&checked, &args.daemon, &mut out);
        }
        Err(refused) => load::print_refused(&refused, &mut err),
    }
    out.finish(err.finish(exit))
}

fn summary(checked: &Checked, daemon: &DaemonArgs, out: &mut Printer) {
    let Settings { global, apps, users, notify, metrics, sequences, automaton: _, time_sequence } =
        &checked.settings;
    let count = |n: usize, what: &str| {
        if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
    };
    let ok = out.paint(Tone::Good, "ok");
    out.line(format!(
        "{}: {ok}, {}, {}",
        daemon.file.config.display(),
        count(apps.len(), "app"),
        count(checked.warnings.len(), "warning"),
    ));
    let reply = match global.step1_reply {
        Step1Reply::Silent => "silent",
        Step1Reply::Http => "answers those who know the path",
    };
    let (http, https) = daemon.public_ports();
    if global.steps {
        out.line(format!("  step 1 on tcp port {http} ({reply}), step 2 on tcp port {https}"));
    } else {
        out.line("  no steps: nothing listens");
    }
    if global.path_rotation.is_some() {
        out.line("  the path of step 1 changes with time");
    }
    if let Some(proxy) = &global.proxy {
        let speaks = match proxy.step2 {
            ProxyStep2::Https => "HTTPS",
            ProxyStep2::Http => "plain HTTP",
        };
        let from: Vec<String> = proxy.trusted.networks().iter().map(ToString::to_string).collect();
        out.line(format!(
            "  a proxy has these ports; it speaks from {} to tcp ports {} and {} ({speaks}), clients by {}",
            from.join(", "),
            proxy.http_port,
            proxy.https_port,
            proxy.header.word(),
        ));
    }
    if !users.is_empty() {
        let off = users.iter().filter(|user| user.disabled).count();
        let disabled = if off == 0 { String::new() } else { format!(", {off} of them disabled") };
        out.line(format!("  {}{disabled}", count(users.len(), "user")));
    }
    if let Some(codes) = companions::codes(&checked.settings) {
        out.line(format!("  {codes}"));
    }
    if !sequences.is_empty() {
        out.line(format!("  {}", count(sequences.len(), "knock sequence")));
    }
    if let Some(timed) = time_sequence {
        let off = timed.clients.iter().filter(|client| client.disabled).count();
        let disabled = if off == 0 { String::new() } else { format!(", {off} of them disabled") };
        out.line(format!(
            "  {}{disabled}, whose knocks at {} ports {} change every {}",
            count(timed.clients.len(), "client"),
            timed.protocol,
            timed.ports,
            timed.every,
        ));
    }
    if !notify.is_empty() {
        let told = [
            (notify.exec.len(), "program"),
            (notify.webhooks.len(), "web server"),
            (notify.mails.len(), "mail server"),
        ];
        let told = told.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(n, what));
        out.line(format!("  told of what happens: {}", told.collect::<Vec<_>>().join(", ")));
    }
    if !metrics.is_empty() {
        let listen = metrics.listen.iter().map(ToString::to_string);
        let file = metrics.textfile.iter().map(|file| file.path.display().to_string());
        out.line(format!("  figures at {}", listen.chain(file).collect::<Vec<_>>().join(", ")));
    }
    let rows: Vec<[String; 5]> = apps
        .iter()
        .enumerate()
        .map(|(index, app)| {
            let clients = time_sequence.iter().flat_map(|timed| &timed.clients);
            [
                app.name.to_string(),
                services(app),
                place(app.destination),
                open_for(app, by_sequence(sequences, index)),
                who(
                    app,
                    users,
                    sequences.iter().filter(|sequence| sequence.app == Some(index)).count(),
                    clients.filter(|client| client.apps.contains(&index)).count(),
                ),
            ]
        })
        .collect();
    out.table(&rows);
}

fn open_for(app: &App, by_sequence: Option<Lifetime>) -> String {
    let other = by_sequence.filter(|time| *time != app.duration);
    let other = other.map(|time| format!(" (by a sequence {time})")).unwrap_or_default();
    format!("open for {}{other}", app.duration)
}

/// The longest time that a sequence opens the app of that place for.
fn by_sequence(sequences: &[KnockSequence], index: usize) -> Option<Lifetime> {
    let of_it = sequences.iter().filter(|one| one.app == Some(index) && one.effect == KnockEffect::Service);
    of_it.map(|one| one.duration).max()
}

/// Who can open it.
fn who(app: &App, users: &[User], sequences: usize, clients: usize) -> String {
    let users = users.iter().filter(|user| user.apps.iter().any(|theirs| theirs.app == app.name)).count();
    let keys = format!("{} + {} keys", app.access_key_http.len(), app.access_key_https.len());
    let keys = match (app.access_key_http.len(), users) {
        (0, 0) if sequences + clients > 0 => None,
        (_, 0) => Some(keys),
        (0, 1) => Some("1 user".to_owned()),
        (0, users) => Some(format!("{users} users")),
        (_, 1) => Some(format!("{keys}, 1 user")),
        (_, users) => Some(format!("{keys}, {users} users")),
    };
    let knocks = match sequences {
        0 => None,
        1 => Some("1 sequence".to_owned()),
        many => Some(format!("{many} sequences")),
    };
    let timed = match clients {
        0 => None,
        1 => Some("1 client".to_owned()),
        many => Some(format!("{many} clients")),
    };
    keys.into_iter().chain(knocks).chain(timed).collect::<Vec<_>>().join(", ")
}

fn services(app: &App) -> String {
    let protocols: Vec<&str> = app.protocol.each().iter().map(|p| p.name()).collect();
    let ports: Vec<String> = app.ports.iter().map(ToString::to_string).collect();
    format!("{} {}", protocols.join("+"), ports.join(","))
}

fn place(destination: Destination) -> String {
    match destination {
        Destination::Local => "local".to_owned(),
        Destination::Host(ip) => ip.to_string(),
        Destination::HostPort(at) => at.to_string(),
    }
}

fn as_json(read: &Result<Checked, Refused>) -> Value {
    let (problems, more, settings) = match read {
        Ok(checked) => (&checked.warnings, 0, Some(&checked.settings)),
        Err(refused) => (&refused.problems.list, refused.problems.more, None),
    };
    let apps = settings.into_iter().flat_map(|settings| {
        let apps = settings.apps.iter().enumerate();
        apps.map(|(index, app)| app_json(app, by_sequence(&settings.sequences, index)))
    });
    json!({
        "version": 1,
        "ok": read.is_ok(),
        "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
        "more_problems": more,
        "apps": apps.collect::<Vec<_>>(),
    })
}

/// What `check-ruleset --json` prints of a configuration that it cannot use.
pub(super) fn refused_json(problems: &Problems) -> Value {
    json!({
        "version": 1,
        "ok": false,
        "problems": problems.list.iter().map(problem_json).collect::<Vec<_>>(),
        "more_problems": problems.more,
        "findings": [],
        "changes": [],
    })
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": problem.severity.to_string(),
        "file": problem.file,
        "line": problem.place.map(|place| place.line),
        "column": problem.place.map(|place| place.column),
        "path": problem.path,
        "value": problem.value,
        "message": problem.message,
        "fix": problem.fix,
    })
}

fn app_json(app: &App, by_sequence: Option<Lifetime>) -> Value {
    json!({
        "name": app.name.as_str(),
        "slug": app.slug,
        "protocols": app.protocol.each().iter().map(|p| p.name()).collect::<Vec<_>>(),
        "ports": app.ports.iter().map(|range| json!({"first": range.first(), "last": range.last()})).collect::<Vec<_>>(),
        "destination": place(app.destination),
        "duration_s": app.duration.as_secs(),
        "max_duration_s": app.max_duration.as_secs(),
        "sequence_duration_s": by_sequence.map(Lifetime::as_secs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{StepPorts, parse};

    const TEXT: &str = "\
global: {interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place}
ssh: {port: [22, 2200-2201], protocol: both, duration: 1h, access_key_http: first-secret, access_key_https: other-secret}
";
    const PORTS: StepPorts = StepPorts { http: 8080, https: 8443 };

    #[test]
    fn json_of_a_good_file_names_its_apps_and_no_secret() {
        let value = as_json(
            &parse("x", TEXT, Some(PORTS), &crate::config::Alone)
                .map_err(|problems| Refused { problems, exit: Exit::BadConfig }),
        );
        assert_eq!(value["ok"], true);
        assert_eq!(value["apps"][0]["ports"][1], json!({"first": 2200, "last": 2201}));
        assert_eq!(value["apps"][0]["duration_s"], 3600);
        assert!(!value.to_string().contains("secret"), "{value}");
    }

    #[test]
    fn json_of_a_bad_file_has_places() {
        let text = TEXT.replace("[22, 2200-2201]", "0");
        let value = as_json(
            &parse("x", &text, Some(PORTS), &crate::config::Alone)
                .map_err(|problems| Refused { problems, exit: Exit::BadConfig }),
        );
        assert_eq!(value["ok"], false);
        let problem = &value["problems"][0];
        assert_eq!(
            (&problem["line"], &problem["column"], &problem["path"]),
            (&json!(2), &json!(13), &json!("ssh.port"))
        );
        assert_eq!(problem["value"], "0");
    }

    #[test]
    fn how_long_a_sequence_opens_an_app_is_told() {
        let sequence = "sequence: [{knocks: [1, 5], duration: 2h, closing: [6, 7]}, {knocks: [2, 5]}]";
        let text = TEXT.replace("duration: 1h", &format!("duration: 1h, {sequence}"));
        let checked = parse("x", &text, Some(PORTS), &crate::config::Alone).unwrap();
        let (apps, sequences) = (&checked.settings.apps, &checked.settings.sequences);
        assert_eq!(open_for(&apps[0], by_sequence(sequences, 0)), "open for 1h (by a sequence 2h)");
        assert_eq!(open_for(&apps[0], by_sequence(&[], 0)), "open for 1h");
        let value = as_json(&Ok(checked));
        assert_eq!(value["apps"][0]["sequence_duration_s"], 7_200);
        assert_eq!(value["apps"][0]["max_duration_s"], 3_600);
    }

    #[test]
    fn services_are_named_as_people_write_them() {
        let app = parse("x", TEXT, Some(PORTS), &crate::config::Alone).unwrap().settings.apps.remove(0);
        assert_eq!(services(&app), "tcp+udp 22,2200-2201");
    }
}
