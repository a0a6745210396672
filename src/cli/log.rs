//! `knock-agent log`.

mod entry;
mod source;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use self::entry::Entry;
use self::source::{Source, SourceError};
use crate::cli::{Exit, Printer, Tone, plain};
use crate::units::{Lifetime, LogEvent, Network, Severity, Timestamp};

/// The arguments of `log`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Reads systemd's journal, which takes root or a member of the group systemd-journal; or a file of JSON lines: that of a daemon with --log-format json, or what `journalctl -o json` prints. Times are UTC. docs/events.md lists the events and their fields.\n\nExamples:\n  sudo knock-agent log --since 1h\n  sudo knock-agent log --event granted,expired --app ssh --follow\n  sudo knock-agent log --address 203.0.113.7 --json\n  knock-agent log --file /var/log/knock-agent.log -n 20"
)]
pub struct LogArgs {
    /// Only what happened since then: a time ago such as 90m, 2h or 7d, or 2027-01-31T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,

    /// Only of this app
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,

    /// Only about this address or network
    #[arg(long, value_name = "ADDR", value_parser = network)]
    pub address: Option<Network>,

    /// Only these events, such as granted,revoked
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    pub event: Vec<LogEvent>,

    /// Only the last so many
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "follow")]
    pub lines: Option<usize>,

    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,

    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Read this file instead of the journal; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The unit whose journal is read
    #[arg(long, value_name = "UNIT", default_value = "knock-agent", conflicts_with = "file")]
    pub unit: String,
}

/// A moment from which on events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Lifetime),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// The moment, in microseconds since 1970 began.
    fn micros(self, now: SystemTime) -> u64 {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match self {
            Self::Ago(time) => micros(since.saturating_sub(time.as_duration())),
            Self::At(moment) => moment.as_secs().saturating_mul(1_000_000),
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    // Here a day stands for its beginning.
    let moment = if text.contains(['T', 't', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let at = moment.parse().map(Since::At);
    at.or_else(|_| text.parse().map(Since::Ago)).map_err(|_| {
        "write a time ago such as 90m, 2h or 7d, or a moment such as 2027-01-31T18:00:00Z".to_owned()
    })
}

fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error: crate::units::NetworkError| error.to_string())
}

/// Which events are wanted.
struct Wanted {
    since: u64,
    app: Option<String>,
    address: Option<Network>,
    events: Vec<LogEvent>,
}

impl Wanted {
    fn takes(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        entry.micros >= self.since
            && (self.events.is_empty() || self.events.iter().any(|event| event.word() == record.event))
            && self.app.as_ref().is_none_or(|app| record.app.as_ref() == Some(app))
            && self.address.is_none_or(|network| entry.concerns(network))
    }
}

/// Shows what happened.
#[must_use]
pub fn run(args: LogArgs) -> Exit {
    let mut err = Printer::stderr();
    let since = args.since.map_or(0, |since| since.micros(SystemTime::now()));
    let wanted = Wanted { since, app: args.app, address: args.address, events: args.event };
    let from_journal = args.file.is_none();
    let source = match args.file {
        Some(path) => Source::file(&path, args.follow),
        None => Source::journal(&args.unit, args.since.map(|_| since), args.follow),
    };
    let mut out = Printer::stdout();
    let mut shown = 0_u64;
    let mut last: VecDeque<Entry> = VecDeque::new();
    let outcome = source.and_then(|mut source| {
        source.each(|line| {
            if let Some(entry) = Entry::read(line).filter(|entry| wanted.takes(entry)) {
                shown += 1;
                match args.lines {
                    Some(most) => {
                        last.push_back(entry);
                        last.drain(..last.len().saturating_sub(most));
                    }
                    None => show(&entry, args.json, &mut out),
                }
            }
            if out.has_reader() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    });
    last.drain(..).for_each(|entry| show(&entry, args.json, &mut out));
    let exit = match outcome {
        Ok(()) => {
            if shown == 0 && from_journal {
                err.line(format!("note: no such events of {} in the journal", args.unit));
            }
            Exit::Done
        }
        Err(error) => {
            err.line(format!("error: {error}"));
            match error {
                SourceError::Forbidden => Exit::NoPermission,
                SourceError::NoJournal | SourceError::Journal(_) => Exit::Unavailable,
                SourceError::File { .. } | SourceError::Read(_) => Exit::Io,
            }
        }
    };
    out.finish(err.finish(exit))
}

fn show(entry: &Entry, as_json: bool, out: &mut Printer) {
    if as_json {
        return out.line(entry.json());
    }
    let tone = match entry.record.kind().map(LogEvent::severity) {
        Some(Severity::Error) => Some(Tone::Bad),
        Some(Severity::Warn) => Some(Tone::Doubtful),
        Some(Severity::Info) | None => None,
    };
    let event = format!("{:<12}", plain(&entry.record.event));
    let event = tone.map_or_else(|| event.clone(), |tone| out.paint(tone, &event));
    out.line(format!("{}  {event}  {}", entry.time(), plain(&entry.sentence())).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_a_day_and_a_moment_are_understood() {
        let now = UNIX_EPOCH + Duration::from_secs(1_801_418_400);
        for (text, secs) in [
            ("1h", 1_801_414_800),
            ("2027-01-31", 1_801_353_600),
            ("2027-01-31T18:00:00Z", 1_801_418_400),
            ("2027-01-31 18:00Z", 1_801_418_400),
        ] {
            assert_eq!(since(text).unwrap().micros(now), secs * 1_000_000, "{text}");
        }
        assert!(since("yesterday").is_err());
    }
}
