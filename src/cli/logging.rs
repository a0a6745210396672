//! How the log is written: for people or as JSON to standard error, or into systemd's journal with its fields.

use std::fmt::{self, Write as _};
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::plain;
use crate::service::record::{FIELD, Record};
use crate::sys::journal::Journal;
use crate::sys::log_end::LogEnd;
use crate::units::{LogEvent, Timestamp};

/// So long a line waits for whoever reads the log; when that was in vain, the next ones do not wait.
const PATIENCE: Duration = Duration::from_millis(200);

/// In what form the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people; in systemd's journal with the fields of events
    Text,
    /// A JSON object a line
    Json,
}

/// The level and the form; as one word it is passed on to the processes of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStyle {
    level: Level,
    format: LogFormat,
}

impl LogStyle {
    /// The style that a command line asks for, which allows the words of levels only.
    #[must_use]
    pub fn new(level: &str, format: LogFormat) -> Self {
        Self { level: level.parse().unwrap_or(Level::INFO), format }
    }

    /// Whether lines are JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == LogFormat::Json
    }

    /// Whether whoever reads the log gets the fields of events apart.
    #[must_use]
    pub fn has_fields(self) -> bool {
        self.is_json() || Journal::of_standard_error().is_some()
    }

    /// Logs to standard error, or to the journal where that is one.
    pub fn begin(self) {
        let to = match (self.format, Journal::of_standard_error()) {
            (LogFormat::Json, _) => To::Json,
            (LogFormat::Text, Some(journal)) => To::Journal(journal),
            // Whatever takes the lines for systemd has its own time.
            (LogFormat::Text, None) if std::env::var_os("JOURNAL_STREAM").is_some() => To::Bare,
            (LogFormat::Text, None) => To::Text,
        };
        begin(self.level, to);
    }

    /// For a process whose log another one passes on: bare lines, each with its level in front.
    pub fn begin_in_pipe(self) {
        begin(self.level, To::Bare);
    }
}

impl fmt::Display for LogStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.format == LogFormat::Json { "json" } else { "text" };
        write!(f, "{},{format}", self.level)
    }
}

impl FromStr for LogStyle {
    type Err = std::convert::Infallible;

    /// Never fails: a process that hears nothing it knows logs as usual.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (level, format) = text.split_once(',').unwrap_or((text, "text"));
        Ok(Self::new(level, if format == "json" { LogFormat::Json } else { LogFormat::Text }))
    }
}

fn begin(level: Level, to: To) {
    // Only the first one counts; a process has one log.
    let _ = tracing_subscriber::registry()
        .with(Lines::new(to).with_filter(LevelFilter::from_level(level)))
        .try_init();
}

/// Where lines go, and in what form.
#[derive(Debug)]
enum To {
    Text,
    /// Without the time.
    Bare,
    Json,
    Journal(Journal),
}

/// Writes each event of the program as one line.
struct Lines {
    to: To,
    end: LogEnd,
    unread: Mutex<Unread>,
}

/// What could not be written, as nobody read what was there before.
#[derive(Default)]
struct Unread {
    lines: u64,
    /// The last line that was written has no end.
    cut: bool,
}

impl Lines {
    fn new(to: To) -> Self {
        Self { to, end: LogEnd::of_standard_error(), unread: Mutex::default() }
    }

    fn line(&self, level: Level, said: &Said, wall: SystemTime) -> String {
        match &self.to {
            To::Text => format!("{} {}\n", time(wall), text(level, said)),
            To::Bare | To::Journal(_) => format!("{}\n", text(level, said)),
            To::Json => format!("{}\n", json(level, said, wall)),
        }
    }

    fn tell(&self, level: Level, said: &Said, patience: Duration) -> bool {
        let To::Journal(journal) = &self.to else { return false };
        tell(journal, level, said, patience).is_ok()
    }

    /// A log that cannot be written (a full disk, a reader that went away) must not end the daemon, and one that nobody reads
    /// must not keep it from its work.
    fn write(&self, unread: &mut Unread, lines: &str, patience: Duration) -> bool {
        let cut = if unread.cut { "\n" } else { "" };
        let whole = format!("{cut}{lines}");
        match self.end.write(whole.as_bytes(), patience) {
            Ok(length) if length < whole.len() => {
                unread.cut |= length > 0;
                false
            }
            _ => {
                unread.cut = false;
                true
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let (level, wall) = (*event.metadata().level(), SystemTime::now());
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = if unread.lines == 0 { PATIENCE } else { Duration::ZERO };
        if unread.lines > 0 {
            let missing = Said::missing(unread.lines);
            let told = self.tell(Level::WARN, &missing, patience)
                || self.write(&mut unread, &self.line(Level::WARN, &missing, wall), patience);
            if !told {
                unread.lines += 1;
                return;
            }
            unread.lines = 0;
        }
        let told = self.tell(level, &said, patience)
            || self.write(&mut unread, &self.line(level, &said, wall), patience);
        unread.lines += u64::from(!told);
    }
}

/// What one event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
    /// A [`Record`] as JSON, which is read where its fields are wanted.
    record: Option<String>,
    text: String,
}

impl Said {
    /// That so many lines are missing.
    fn missing(lines: u64) -> Self {
        let record = Record { count: Some(lines), ..Record::of(LogEvent::LinesMissing) };
        let what = "lines are missing here: nobody read the log, and nothing waits for that";
        Self {
            message: format!("{what}{}", record.fields()),
            record: serde_json::to_string(&record).ok(),
            ..Self::default()
        }
    }

    fn put(&mut self, field: &Field, value: Value, text: &dyn fmt::Display) {
        let _ = write!(self.text, " {}={text}", field.name());
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.put(field, format!("{value:?}").into(), &format_args!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            FIELD => self.record = Some(value.to_owned()),
            _ => self.put(field, value.into(), &format_args!("{value:?}")),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into(), &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into(), &value);
    }
}

/// `2026-01-31T18:00:00.123456Z`.
fn time(wall: SystemTime) -> String {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = Timestamp::from_secs(since.as_secs()).map(|at| at.to_string()).unwrap_or_default();
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), since.subsec_micros())
}

/// ` INFO message field=value`, without anything that a terminal obeys or that turns text around.
fn text(level: Level, said: &Said) -> String {
    plain(&format!("{level:>5} {}{}", said.message, said.text))
}

fn json(level: Level, said: &Said, wall: SystemTime) -> String {
    let mut line = Map::new();
    line.insert("time".to_owned(), time(wall).into());
    line.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
    line.insert("message".to_owned(), said.message.as_str().into());
    let record: Option<Value> = said.record.as_ref().and_then(|record| serde_json::from_str(record).ok());
    let fields = said.fields.clone().into_iter();
    let fields = fields.chain(record.as_ref().and_then(Value::as_object).cloned().unwrap_or_default());
    for (name, value) in fields {
        line.entry(name).or_insert(value);
    }
    Value::Object(line).to_string()
}

/// Tells the journal, whose names are upper case and unmistakably ours.
fn tell(journal: &Journal, level: Level, said: &Said, patience: Duration) -> io::Result<()> {
    // `syslog(3)`.
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let record = said.record.as_ref().and_then(|record| serde_json::from_str::<Record>(record).ok());
    let pairs = record.as_ref().map(Record::pairs).unwrap_or_default();
    let named: Vec<(String, String)> = pairs
        .into_iter()
        .map(|(name, value)| (format!("KNOCK_AGENT_{}", name.to_ascii_uppercase()), value))
        .collect();
    let line = text(level, said);
    let first =
        [("PRIORITY", priority), ("SYSLOG_IDENTIFIER", "knock-agent"), ("MESSAGE", line.trim_start())];
    let named = named.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    journal.send(first.into_iter().chain(named), patience)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is said while something happens.
    fn heard(happens: impl FnOnce()) -> Vec<(Level, Said)> {
        #[derive(Clone, Default)]
        struct Ear(Arc<Mutex<Vec<(Level, Said)>>>);
        impl<S: Subscriber> Layer<S> for Ear {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut said = Said::default();
                event.record(&mut said);
                self.0.lock().unwrap().push((*event.metadata().level(), said));
            }
        }
        let ear = Ear::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(ear.clone()), happens);
        std::mem::take(&mut *ear.0.lock().unwrap())
    }

    fn line_of(happens: impl FnOnce()) -> (String, Value) {
        let wall = UNIX_EPOCH + Duration::from_micros(1_801_418_400_000_042);
        let all = heard(happens);
        let [(level, said)] = all.as_slice() else { panic!("{all:?}") };
        (text(*level, said), serde_json::from_str(&json(*level, said, wall)).unwrap())
    }

    #[test]
    fn an_event_has_its_fields_in_both_forms() {
        let record =
            Record { app: Some("ssh".to_owned()), lifetime_s: Some(60), ..Record::of(LogEvent::Granted) };
        let (text, json) = line_of(|| record.log("granted"));
        assert_eq!(text, " INFO granted app=ssh lifetime_s=60");
        assert_eq!(
            json,
            serde_json::json!({"time": "2027-01-31T18:00:00.000042Z", "level": "info", "event": "granted",
                "message": "granted app=ssh lifetime_s=60", "app": "ssh", "lifetime_s": 60})
        );
    }

    #[test]
    fn whatever_a_line_says_it_stays_one_line_and_its_own() {
        let (text, json) =
            line_of(|| tracing::warn!(user = "a\nb\u{1b}[31m", level = "no", count = 3, "x\ny"));
        assert_eq!(text, " WARN x\u{fffd}y user=\"a\\nb\\u{1b}[31m\" level=\"no\" count=3");
        assert_eq!(json["level"], "warn", "a field does not take the place of what every line has");
        assert_eq!((&json["message"], &json["user"]), (&"x\ny".into(), &"a\nb\u{1b}[31m".into()));
    }

    #[test]
    fn the_style_is_passed_on_as_one_word() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let style = LogStyle::new("debug", format);
            assert_eq!(style.to_string().parse(), Ok(style));
        }
        assert_eq!("".parse(), Ok(LogStyle::new("info", LogFormat::Text)));
    }
}
