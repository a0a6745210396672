//! How daemon and guard are, a line each.

use crate::cli::{Printer, Tone};
use crate::service::health::{Part, unusable};
use crate::service::on_disk::told;
use crate::service::standing::{Configuration, Standing};
use crate::service::status::Status;

use super::table::time_left;

/// A certificate that ends so soon is to be renewed, in days.
const SOON: i64 = 21;
const DAY: i64 = 86_400;

/// A line: how good it is, about what, and what there is to say.
type Line = (Tone, &'static str, String);

/// Prints what there is to say.
pub(super) fn print(status: &Status, out: &mut Printer) {
    for (tone, about, text) in lines(status) {
        let word = match tone {
            Tone::Bad => "BAD ",
            Tone::Doubtful => "look",
            Tone::Good | Tone::Heading => "ok  ",
        };
        let word = out.paint(tone, word);
        out.line(format!("{word}  {about:<13}  {text}"));
    }
    if let Some(limits) = &status.limits {
        out.line(format!("note: {limits}"));
    }
}

fn lines(status: &Status) -> Vec<Line> {
    match &status.daemon {
        Some(standing) => of_daemon(status, standing),
        None => without_daemon(status),
    }
}

fn without_daemon(status: &Status) -> Vec<Line> {
    let daemon = match &status.unreachable {
        Some(deaf) => format!("does not answer: {deaf}"),
        None => "does not run: nobody can knock, and what others change is not put right; \
                 what is open closes on time, as the kernel does it"
            .to_owned(),
    };
    let (tone, guard) = match (status.switched_off, status.rules_missing) {
        (true, _) => {
            (Tone::Bad, "the table is switched off or not as it was made: ports may stand open".to_owned())
        }
        (false, true) => (
            Tone::Bad,
            "rules are missing, or have nothing to go by, or others stand before them: ports may stand open; \
             `knock-agent guard` puts them in place"
                .to_owned(),
        ),
        // By a configuration, which may want more than that, only `health` judges them.
        (false, false) => (Tone::Good, format!("closed by {}, but for those below", status.backend)),
    };
    vec![(Tone::Bad, "daemon", daemon), (tone, "guard", guard)]
}

fn of_daemon(status: &Status, standing: &Standing) -> Vec<Line> {
    let up = time_left(f64::from(u32::try_from(standing.uptime_s).unwrap_or(u32::MAX)));
    let daemon = format!("{} for {up}, process {}", standing.version, standing.pid);
    let mut lines = vec![(Tone::Good, "daemon", daemon), guard(status, standing)];
    lines.extend(standing.trial_ends_in_s.map(trial));
    if let Some(rule) = &standing.host_rule {
        let chains = rule.chains.join(", ");
        let line = match rule.troubles.first() {
            Some(first) => (Tone::Bad, "host rule", first.clone()),
            None if rule.pending => (
                Tone::Bad,
                "host rule",
                format!("cannot be put in place, what is let in may be dropped: {chains}"),
            ),
            None => (
                Tone::Good,
                "host rule",
                format!("accepts what is let in, in those of these that there are: {chains}"),
            ),
        };
        lines.push(line);
    }
    let heard =
        if standing.listens.is_empty() { "no steps".to_owned() } else { standing.listens.join(" and ") };
    lines.push((Tone::Good, "hears knocks", heard));
    if let Some(front) = &standing.front {
        let again = match front.restarts {
            0 => String::new(),
            1 => ", started anew once".to_owned(),
            times => format!(", started anew {times} times"),
        };
        let trouble = standing.problems.iter().find(|problem| problem.part == Part::Front);
        lines.push(match (front.serves, trouble) {
            (true, Some(trouble)) => (Tone::Bad, "front", format!("{}{again}", trouble.message)),
            (true, None) if front.restarts > 0 => (Tone::Doubtful, "front", format!("serves{again}")),
            (true, None) => (Tone::Good, "front", "serves".to_owned()),
            (false, _) => (Tone::Bad, "front", format!("does not serve: nobody can knock{again}")),
        });
    }
    lines.extend(refused(standing));
    lines.extend(certificate(standing));
    lines.push(configuration(&standing.configuration));
    let told = [Part::Certificate, Part::Configuration, Part::Front];
    let more = standing.problems.iter().filter(|problem| !told.contains(&problem.part));
    lines.extend(more.map(|problem| {
        // One that comes later is no fault, and one that is misspelt looks the same.
        let tone = if problem.part == Part::Interface { Tone::Doubtful } else { Tone::Bad };
        (tone, part(problem.part), problem.message.clone())
    }));
    lines
}

fn trial(left_s: u64) -> Line {
    let left = time_left(f64::from(u32::try_from(left_s).unwrap_or(u32::MAX)));
    let text = format!("all of this is put back as it was in {left}, unless `knock-agent confirm` is said");
    (Tone::Doubtful, "trial", text)
}

fn guard(status: &Status, standing: &Standing) -> Line {
    match standing.rules_as_wanted {
        Some(true) => (Tone::Good, "guard", format!("{}, as the configuration wants it", status.backend)),
        Some(false) => {
            let text = "the rules are not as the configuration wants them: they are being put right, or the log says why not";
            (Tone::Bad, "guard", text.to_owned())
        }
        None => (Tone::Good, "guard", format!("{} in force", status.backend)),
    }
}

fn refused(standing: &Standing) -> Option<Line> {
    standing.certificate_refused.as_deref().map(|why| (Tone::Bad, "certificate", unusable(why)))
}

fn certificate(standing: &Standing) -> Option<Line> {
    let (left, ends) = (standing.certificate_ends_in_s?, standing.certificate_ends.as_deref()?);
    let days = left / DAY;
    Some(match left {
        left if left < 0 => (Tone::Bad, "certificate", format!("has ended ({ends}): clients refuse it")),
        _ if days < SOON => {
            (Tone::Doubtful, "certificate", format!("ends in {days} days ({ends}): renew it"))
        }
        // Of what is on the disk more is said, which a restart would need.
        _ if standing.certificate_refused.is_some() => return None,
        _ => (Tone::Good, "certificate", format!("good for {days} days ({ends})")),
    })
}

fn configuration(configuration: &Configuration) -> Line {
    let Configuration { since, last_reload_good, reloads, refused, newer } = configuration;
    match (last_reload_good, reloads, refused) {
        (false, ..) => {
            let text = format!("the last reload was refused, the log says why; that of {since} is in force");
            (Tone::Bad, "configuration", text)
        }
        _ if newer.is_some() => {
            let text = newer.as_ref().map(told).unwrap_or_default();
            (Tone::Doubtful, "configuration", text)
        }
        (true, 0, _) => (Tone::Good, "configuration", format!("that of the start ({since})")),
        (true, ..) => (Tone::Good, "configuration", format!("reloaded at {since}")),
    }
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Guard => "guard",
        Part::Rules => "rules",
        Part::Host => "host",
        Part::Kernel => "kernel",
        Part::Interface => "interface",
        Part::Daemon => "daemon",
        Part::Front => "front",
        Part::Certificate => "certificate",
        Part::Configuration => "configuration",
        Part::StateFile => "state file",
        Part::LastGoodPlan => "last plan",
        Part::Metrics => "metrics",
        Part::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::health::Ailment;
    use crate::service::standing::{FrontState, HostRule};

    fn standing() -> Standing {
        Standing {
            version: "1.0".to_owned(),
            pid: 7,
            started: "2027-01-31T18:00:00Z".to_owned(),
            uptime_s: 11_040,
            trial_ends_in_s: None,
            rules_as_wanted: Some(true),
            host_rule: Some(HostRule {
                chains: vec!["filter input".to_owned()],
                pending: false,
                troubles: Vec::new(),
            }),
            listens: vec!["tcp/80".to_owned(), "tcp/443".to_owned()],
            ports: None,
            front: Some(FrontState { serves: true, restarts: 0 }),
            configuration: Configuration {
                since: "2027-01-31T18:00:00Z".to_owned(),
                last_reload_good: true,
                reloads: 0,
                refused: 0,
                newer: None,
            },
            certificate_ends: Some("2027-04-01T00:00:00Z".to_owned()),
            certificate_ends_in_s: Some(21 * DAY),
            certificate_refused: None,
            problems: Vec::new(),
        }
    }

    fn of(daemon: Option<Standing>) -> Vec<Line> {
        lines(&Status { backend: "nftables".to_owned(), daemon: daemon.map(Box::new), ..Status::default() })
    }

    /// The one line that is not good.
    fn wrong(change: impl FnOnce(&mut Standing)) -> Line {
        let mut standing = standing();
        change(&mut standing);
        let all: Vec<Line> =
            of(Some(standing)).into_iter().filter(|(tone, ..)| *tone != Tone::Good).collect();
        let [one] = all.as_slice() else { panic!("{all:?}") };
        one.clone()
    }

    #[test]
    fn all_is_well_or_it_is_said_what_is_not() {
        assert!(of(Some(standing())).iter().all(|(tone, ..)| *tone == Tone::Good));
        let days =
            |days: i64| move |standing: &mut Standing| standing.certificate_ends_in_s = Some(days * DAY + 5);
        let (tone, about, text) = wrong(days(20));
        assert_eq!((tone, about), (Tone::Doubtful, "certificate"));
        assert!(text.contains("in 20 days"), "{text}");
        assert_eq!(wrong(days(-1)).0, Tone::Bad);
        let (tone, about, text) =
            wrong(|standing| standing.certificate_refused = Some("no key in it".to_owned()));
        assert_eq!((tone, about), (Tone::Bad, "certificate"));
        assert!(text.contains("no key in it") && text.contains("restart"), "{text}");
        let (mut both, refused) = (standing(), Some("no key in it".to_owned()));
        (both.certificate_ends_in_s, both.certificate_refused) = (Some(DAY), refused);
        let both = of(Some(both)).into_iter().filter(|(_, about, _)| *about == "certificate");
        assert_eq!(both.map(|(tone, ..)| tone).collect::<Vec<_>>(), [Tone::Bad, Tone::Doubtful]);
        assert_eq!(wrong(|standing| standing.rules_as_wanted = Some(false)).1, "guard");
        let (tone, about, text) = wrong(|standing| standing.trial_ends_in_s = Some(290));
        assert_eq!((tone, about), (Tone::Doubtful, "trial"));
        assert!(text.contains("confirm"), "{text}");
        assert_eq!(wrong(|standing| standing.host_rule.as_mut().unwrap().pending = true).1, "host rule");
        assert_eq!(
            wrong(|standing| standing.front = Some(FrontState { serves: false, restarts: 1 })).1,
            "front"
        );
        assert_eq!(
            wrong(|standing| standing.front.as_mut().unwrap().restarts = 2).2,
            "serves, started anew 2 times"
        );
        let deaf = Ailment { part: Part::Front, message: "it does not answer".to_owned() };
        let (tone, _, text) = wrong(|standing| standing.problems.push(deaf));
        assert_eq!((tone, text.as_str()), (Tone::Bad, "it does not answer"));
        assert_eq!(wrong(|standing| standing.configuration.last_reload_good = false).1, "configuration");
    }

    #[test]
    fn without_a_daemon_it_is_said_what_that_means() {
        let lines = of(None);
        assert_eq!((lines[0].0, lines[0].1, lines[1].0), (Tone::Bad, "daemon", Tone::Good));
        assert!(lines[0].2.contains("nobody can knock") && lines[0].2.contains("closes on time"));
        let of = |status: Status| super::lines(&status).remove(1);
        for status in [
            Status { switched_off: true, ..Status::default() },
            Status { rules_missing: true, ..Status::default() },
        ] {
            let (tone, about, text) = of(status);
            assert_eq!((tone, about), (Tone::Bad, "guard"));
            assert!(text.contains("open"), "{text}");
        }
        let deaf = Status { unreachable: Some("no socket".to_owned()), ..Status::default() };
        assert!(super::lines(&deaf)[0].2.starts_with("does not answer: no socket"));
    }
}
