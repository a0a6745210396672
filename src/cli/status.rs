//! `knock-agent status`.

use std::collections::BTreeMap;

use clap::Args;

use crate::backend::{BackendError, Firewall};
use crate::cli::load::{self, Exposure};
use crate::cli::operate::{ask_daemon, exit_of, exit_of_backend};
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::control::{Reply, Request};
use crate::service::status::{Kind, Row, Service, Status, status};

/// The arguments of `status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Works without the daemon: the kernel knows.")]
pub struct StatusArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Shows who is let in.
#[must_use]
pub fn run(args: StatusArgs) -> Exit {
    show(&args.file, args.json, |_| true, true)
}

/// Shows the rows that are wanted and nothing else.
pub(super) fn show_grants(file: &ConfigArg, wanted: impl Fn(&Row) -> bool) -> Exit {
    show(file, false, wanted, false)
}

fn show(file: &ConfigArg, as_json: bool, wanted: impl Fn(&Row) -> bool, strangers: bool) -> Exit {
    let mut err = Printer::stderr();
    let found = match ask_daemon(file, &Request::Status {}, &mut err) {
        Ok(Some(Reply::Status { status })) => Ok(Some(status)),
        Ok(Some(Reply::Failed { failure, message })) => {
            err.line(format!("error: {message}"));
            Err(exit_of(failure))
        }
        Ok(Some(Reply::Done { .. } | Reply::Explained { .. })) => Err(Exit::Bug),
        Ok(None) => from_kernel(file).map_err(|error| {
            err.line(format!("error: {error}"));
            exit_of_backend(&error)
        }),
        Err(exit) => Err(exit),
    };
    let mut found = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            err.line(
                "error: nothing is guarded here: no rules of knock-agent are in force; start knock-agent first",
            );
            return err.finish(Exit::Unavailable);
        }
        Err(exit) => return err.finish(exit),
    };
    found.grants.retain(wanted);
    let mut out = Printer::stdout();
    if as_json {
        match serde_json::to_string(&found) {
            Ok(text) => out.line(text),
            Err(_) => return err.finish(Exit::Bug),
        }
    } else {
        print(&found, &mut out);
        if strangers {
            print_strangers(&found, &mut out);
        }
    }
    out.finish(err.finish(Exit::Done))
}

/// The kernel alone tells; the configuration only lends the names, where it can be read.
fn from_kernel(file: &ConfigArg) -> Result<Option<Status>, BackendError> {
    let settings = load::read(&file.config, None, Exposure::Warn).map(|checked| checked.settings).ok();
    let prefix = settings.as_ref().map_or(128, |settings| settings.global.ipv6_prefix);
    let apps = settings.map(|settings| settings.apps).unwrap_or_default();
    let names: BTreeMap<String, String> =
        apps.into_iter().map(|app| (app.slug, app.name.to_string())).collect();
    let mut firewall = Firewall::in_place()?;
    let live = firewall.read()?;
    let limits = firewall.limits();
    Ok(live.map(|live| Status { limits, ..status(firewall.name(), &live, &names, prefix, None) }))
}

fn print(status: &Status, out: &mut Printer) {
    if let Some(limits) = &status.limits {
        out.line(format!("note: {limits}"));
    }
    if status.grants.is_empty() {
        out.line("nobody is let in");
        return;
    }
    let mut rows = vec![["APP", "ADDRESS", "MAY REACH", "TIME LEFT", "BY", "HOW"].map(str::to_owned)];
    rows.extend(status.grants.iter().map(|row| {
        [
            row.app.clone(),
            row.address.clone(),
            match row.kind {
                Kind::Step2 => "step 2".to_owned(),
                Kind::Service | Kind::Allow => services(&row.services),
            },
            row.expires_in_s.map_or("for ever".to_owned(), time_left),
            if row.by.is_empty() { "-".to_owned() } else { row.by.clone() },
            row.how.clone(),
        ]
    }));
    out.table(&rows);
}

/// Who is locked out, and what was refused.
fn print_strangers(status: &Status, out: &mut Printer) {
    if !status.locked_out.is_empty() {
        out.line("");
        let mut rows = vec![["LOCKED OUT", "TIME LEFT", "OF", "TIMES"].map(str::to_owned)];
        rows.extend(status.locked_out.iter().map(|locked| {
            let whole = u32::try_from(locked.lifetime_s).unwrap_or(u32::MAX);
            let (left, whole) = (time_left(locked.expires_in_s), time_left(f64::from(whole)));
            [locked.address.clone(), left, whole, locked.times.to_string()]
        }));
        out.table(&rows);
    }
    if !status.refused.is_empty() {
        out.line("");
        let words: Vec<String> = status.refused.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        out.line(format!("refused since the start: {}", words.join(", ")));
    }
}

fn services(services: &[Service]) -> String {
    let words: Vec<String> = services
        .iter()
        .map(|s| {
            if s.first == s.last {
                format!("{}/{}", s.protocol, s.first)
            } else {
                format!("{}/{}-{}", s.protocol, s.first, s.last)
            }
        })
        .collect();
    if words.is_empty() { "every app".to_owned() } else { words.join(" ") }
}

/// `1d 2h`, `3h 04m`, `5m 06s`, `7.8s`.
fn time_left(seconds: f64) -> String {
    // Not negative and far below 2^53.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1}s"),
        (0, 0, m) => format!("{m}m {:02}s", whole % 60),
        (0, h, m) => format!("{h}h {m:02}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_told_in_two_units() {
        for (seconds, text) in
            [(7.8, "7.8s"), (306.0, "5m 06s"), (11_040.0, "3h 04m"), (93_600.0, "1d 2h"), (0.0, "0.0s")]
        {
            assert_eq!(time_left(seconds), text);
        }
    }
}
