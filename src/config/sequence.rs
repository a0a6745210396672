//! One knock sequence, as `sequence` of an app or of the global section says it.

use std::fmt;

use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::units::{Knock, Lifetime, SequenceName};

/// The keys this version knows.
pub(super) const KEYS: &[&str] =
    &["knocks", "window", "knock_window", "strict", "duration", "opens", "closing", "name"];
/// How many sequences one list may have.
const MAX_SEQUENCES: usize = 20_000;
/// How many knocks a sequence may have.
const MAX_KNOCKS: usize = 32;
const WINDOW_SECS: u64 = 10;
/// The kernel remembers every source that has begun to knock for so long.
const LONGEST_WINDOW_SECS: u64 = 3_600;

/// A sequence of knocks and what it does. Printing it for debugging does not tell the knocks.
#[derive(Clone, PartialEq, Eq)]
pub struct KnockSequence {
    /// The app whose list it is in, by its place in the file; none: the global section.
    pub app: Option<usize>,
    /// What other sequences and the log call it.
    pub name: Option<SequenceName>,
    /// The knocks, 1 to 32.
    pub knocks: Vec<Knock>,
    /// The longest time from the first knock to the last, at most an hour.
    pub window: Lifetime,
    /// The longest time from one knock to the next, at most `window`.
    pub knock_window: Lifetime,
    /// Whether any wrong knock afterwards takes back what it opened.
    pub strict: bool,
    /// How long what it opens stays open.
    pub duration: Lifetime,
    /// What it does.
    pub effect: KnockEffect,
}

/// What a sequence of knocks does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnockEffect {
    /// Opens the service of its app.
    Service,
    /// Opens the port of step 1, which is then closed to everybody else.
    Step1,
    /// Opens the port of step 2, which then takes this as well as step 1.
    Step2,
    /// Makes the first knock of the sequence of that name count.
    Sequence(SequenceName),
    /// Takes back what sequences have opened of its app.
    Closes,
}

impl KnockEffect {
    /// The sequence that it opens, if it opens one.
    #[must_use]
    pub fn sequence(&self) -> Option<&SequenceName> {
        match self {
            Self::Sequence(name) => Some(name),
            Self::Service | Self::Step1 | Self::Step2 | Self::Closes => None,
        }
    }
}

impl fmt::Debug for KnockSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnockSequence")
            .field("app", &self.app)
            .field("name", &self.name)
            .field("knocks", &self.knocks.len())
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

/// A sequence with the places that other checks need.
pub(super) struct SequenceDraft {
    /// The sequence; its `app` is not known yet.
    pub sequence: KnockSequence,
    /// Where it is.
    pub spot: Spot,
    /// Where each of its knocks is.
    pub knocks: Vec<Spot>,
    /// Where it says what it opens, if it does.
    pub opens: Option<Spot>,
    /// Whether it says itself how long that stays open.
    pub own_duration: bool,
}

/// Reads the sequences of a section; `duration` is the app's, none in the global section. None if one is wrong.
pub(super) fn read(
    section: &Section<'_>,
    of_app: bool,
    duration: Option<Lifetime>,
    report: &mut Report,
) -> Option<Vec<SequenceDraft>> {
    let Some(field) = section.get("sequence") else { return Some(Vec::new()) };
    let read = |item: &Field<'_>, report: &mut Report| one(item, of_app, duration, report);
    let lists = field.each(MAX_SEQUENCES, report, read)?;
    Some(lists.into_iter().flat_map(|(drafts, _)| drafts).collect())
}

/// A sequence, and the one that closes again if there is one.
fn one(
    field: &Field<'_>,
    of_app: bool,
    duration: Option<Lifetime>,
    report: &mut Report,
) -> Option<Vec<SequenceDraft>> {
    let section = field.section(report)?;
    section.refuse_unknown(KEYS, crate::config::app::KEYS, "the section of an app", report);
    let name = match section.get("name") {
        None => Some(None),
        Some(field) => field.parse_text::<SequenceName>(report).map(Some),
    };
    let found = match section.secret("knocks") {
        Some(field) => knocks(&field, report),
        None => {
            section.missing("knocks", "[tcp/1234, tcp/5678, udp/9012]", report);
            None
        }
    };
    let (window, knock_window) = windows(&section, report)?;
    let strict = section.get("strict").map_or(Some(false), |field| field.switch(report));
    let duration = match section.get("duration") {
        Some(field) => field.lifetime(report),
        None => duration.or(Some(window)),
    };
    let opens = section.get("opens");
    let effect = effect(opens.as_ref(), &section, of_app, report);
    let closing = match section.secret("closing") {
        None => Some(None),
        Some(field) if !of_app => {
            report.error(field.key(), "there is nothing here that a closing sequence could close: remove it");
            None
        }
        Some(field) => knocks(&field, report).map(Some),
    };
    let (found, closing) = (found?, closing?);
    let sequence = |knocks: &[(Knock, Spot)], effect, name| {
        Some(KnockSequence {
            app: None,
            name,
            knocks: knocks.iter().map(|(knock, _)| *knock).collect(),
            window,
            knock_window,
            strict: strict?,
            duration: duration?,
            effect,
        })
    };
    let draft = |sequence, knocks: Vec<(Knock, Spot)>| SequenceDraft {
        sequence,
        spot: section.spot(),
        knocks: knocks.into_iter().map(|(_, spot)| spot).collect(),
        opens: opens.as_ref().map(Field::spot),
        own_duration: section.get("duration").is_some(),
    };
    let mut out = vec![draft(sequence(&found, effect?, name?)?, found)];
    if let Some(closing) = closing {
        out.push(draft(sequence(&closing, KnockEffect::Closes, None)?, closing));
    }
    Some(out)
}

/// The knocks of a list, or of a text with commas or blanks between them.
fn knocks(field: &Field<'_>, report: &mut Report) -> Option<Vec<(Knock, Spot)>> {
    let read = |item: &Field<'_>, report: &mut Report| {
        // Without the text, which is a secret.
        let each = |text: &str| {
            Knock::list(text).map_err(|_| {
                "this is not a knock: write tcp/1234, udp/7000, or udp/7000/20 for a datagram of 20 bytes (t:1234, u:7000, 1234, 1234:udp are understood too)"
            })
        };
        let found = item.parse_with(each, report)?;
        Some(found.into_iter().map(|knock| (knock, item.spot())).collect::<Vec<_>>())
    };
    let lists = field.each(MAX_KNOCKS, report, read)?;
    let all: Vec<(Knock, Spot)> = lists.into_iter().flat_map(|(knocks, _)| knocks).collect();
    if all.len() > MAX_KNOCKS {
        report.error(field.spot(), format!("these are {} knocks, the most is {MAX_KNOCKS}", all.len()));
        return None;
    }
    Some(all)
}

/// The longest time for all knocks and that from one to the next; none if that is wrong.
pub(super) fn windows(section: &Section<'_>, report: &mut Report) -> Option<(Lifetime, Lifetime)> {
    let whole = window(section, "window", report).unwrap_or(Lifetime::from_secs(WINDOW_SECS).ok());
    let each = window(section, "knock_window", report).unwrap_or(whole);
    let (whole, each) = (whole?, each?);
    if let Some(at) = section.get("knock_window").filter(|_| each > whole) {
        report
            .error(at.spot(), format!("{each} from knock to knock is longer than the whole window, {whole}"));
        return None;
    }
    Some((whole, each))
}

/// A time window; the outer option is none where nothing is said.
fn window(section: &Section<'_>, key: &str, report: &mut Report) -> Option<Option<Lifetime>> {
    let field = section.get(key)?;
    let window = field.lifetime(report);
    if window.is_some_and(|window| window.as_secs() > LONGEST_WINDOW_SECS) {
        report.error(field.spot(), "a knock is remembered for an hour at most");
        return Some(None);
    }
    Some(window)
}

fn effect(
    field: Option<&Field<'_>>,
    section: &Section<'_>,
    of_app: bool,
    report: &mut Report,
) -> Option<KnockEffect> {
    let Some(field) = field else {
        if !of_app {
            section.missing("opens", "step-1", report);
            return None;
        }
        return Some(KnockEffect::Service);
    };
    let text = field.text(report)?;
    let effect = match text {
        "service" => KnockEffect::Service,
        "step-1" => KnockEffect::Step1,
        "step-2" => KnockEffect::Step2,
        name => match name.parse() {
            Ok(name) => KnockEffect::Sequence(name),
            Err(error) => {
                report.error_fix(
                    field.spot(),
                    format!("{error}"),
                    "write service, step-1, step-2, or the name of another sequence",
                );
                return None;
            }
        },
    };
    let (here, where_else) = match effect {
        KnockEffect::Service => (of_app, "into the section of an app"),
        KnockEffect::Step1 | KnockEffect::Step2 => (!of_app, "into `global`: the port is that of all apps"),
        KnockEffect::Sequence(_) | KnockEffect::Closes => (true, ""),
    };
    if !here {
        report.error_fix(field.spot(), "this does not open that", format!("write the sequence {where_else}"));
        return None;
    }
    Some(effect)
}
