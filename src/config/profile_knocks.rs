//! A client's profile that knocks at ports instead of taking the two steps.

use std::path::Path;
use std::time::Duration;

use crate::config::profile::{Families, Profile, SecretSource, families, host, source, then};
use crate::config::report::Report;
use crate::config::section::{Field, Section};
use crate::config::sequence_client::usual_knocks;
use crate::config::shared_keys::Said;
use crate::config::time_sequence::{EVERY_SECS, KINDS, PROTOCOLS, USUAL_PORTS};
use crate::units::{Knock, KnockKind, KnockShape, Lifetime, PortRange, Protocol};

pub(super) const KEYS: &[&str] = &["host", "sequence", "delay", "family", "check", "then"];
pub(super) const TIMED_KEYS: &[&str] =
    &["secret", "code", "pin", "kind", "knocks", "ports", "protocol", "lengths", "every"];
const MAX_KNOCKS: usize = 32;
/// Between knocks.
const PAUSE: Duration = Duration::from_millis(300);

/// How a profile gets in.
#[derive(Clone, Debug)]
pub enum Way {
    /// By the two steps.
    Steps(Box<Profile>),
    /// By knocks at ports.
    Knocks(KnockProfile),
}

impl Way {
    /// The gateway's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Steps(profile) => &profile.host,
            Self::Knocks(profile) => &profile.host,
        }
    }

    /// The TCP port of the service.
    #[must_use]
    pub fn check(&self) -> Option<u16> {
        match self {
            Self::Steps(profile) => profile.check,
            Self::Knocks(profile) => profile.check,
        }
    }

    /// What to start afterwards: a program and its arguments; may be empty.
    #[must_use]
    pub fn then(&self) -> &[String] {
        match self {
            Self::Steps(profile) => &profile.then,
            Self::Knocks(profile) => &profile.then,
        }
    }

    /// Over which address families to knock.
    #[must_use]
    pub fn families(&self) -> Families {
        match self {
            Self::Steps(profile) => profile.families,
            Self::Knocks(profile) => profile.families,
        }
    }
}

/// What a client must know to knock at ports.
#[derive(Clone, Debug)]
pub struct KnockProfile {
    /// The gateway's name or address.
    pub host: String,
    /// What to knock.
    pub knocks: KnocksFrom,
    /// The time from one knock to the next.
    pub pause: Duration,
    /// Over which address families to knock.
    pub families: Families,
    /// The TCP port of the service.
    pub check: Option<u16>,
    /// What to start afterwards: a program and its arguments; may be empty.
    pub then: Vec<String>,
}

/// Which knocks. Printing them for debugging does not tell them.
#[derive(Clone, PartialEq, Eq)]
pub enum KnocksFrom {
    /// Always these.
    Fixed(Vec<Knock>),
    /// Such as change with time.
    Timed(TimedKnocks),
}

/// Knocks that change with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedKnocks {
    /// Where the secret is; none: somebody types the code of an authenticator app, for the kind `KnockKnock` only.
    pub secret: Option<SecretSource>,
    /// Where the PIN is, if there is one.
    pub pin: Option<SecretSource>,
    /// What they look like.
    pub shape: KnockShape,
    /// How often they change.
    pub every: Lifetime,
}

impl TimedKnocks {
    /// Such as knock-agent has unless something else is said, of that kind.
    #[must_use]
    pub fn usual(kind: KnockKind, secret: Option<SecretSource>, pin: Option<SecretSource>) -> Option<Self> {
        let theirs = kind == KnockKind::KnockKnock;
        let ours = PortRange::new(USUAL_PORTS.0, USUAL_PORTS.1).ok()?;
        let shape = KnockShape {
            kind,
            count: usual_knocks(kind),
            ports: if theirs { KnockKind::their_ports() } else { ours },
            protocol: Protocol::Udp,
            lengths: theirs,
        };
        Some(Self { secret, pin, shape, every: Lifetime::from_secs(EVERY_SECS).ok()? })
    }
}

impl std::fmt::Debug for KnocksFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(knocks) => write!(f, "Fixed({})", knocks.len()),
            Self::Timed(timed) => write!(f, "{timed:?}"),
        }
    }
}

/// Reads a profile that has `sequence`.
pub(super) fn read(section: &Section<'_>, home: Option<&Path>, report: &mut Report) -> Option<KnockProfile> {
    section.refuse_unknown(
        KEYS,
        super::profile::KEYS,
        "a profile of the two steps, without `sequence`",
        report,
    );
    let host = host(section, report);
    let knocks = section.secret("sequence").and_then(|field| {
        if field.is_section() {
            timed(&field, home, report).map(KnocksFrom::Timed)
        } else {
            fixed(&field, report).map(KnocksFrom::Fixed)
        }
    });
    let pause = Said::read(section.get("delay"), |f| f.parse_with(pause, report));
    let families = families(section, report);
    let check = Said::read(section.get("check"), |f| f.number::<u16>(1..=65_535, report).map(Some)).or(None);
    let then = then(section, report);
    Some(KnockProfile {
        host: host?,
        knocks: knocks?,
        pause: pause.or(PAUSE)?,
        families: families?,
        check: check?,
        then: then?,
    })
}

/// Reads the time between knocks: `300ms`, or whole seconds as all durations.
fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as 300ms or 2s, at most an hour".to_owned();
    let found = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().map_err(|_| wrong())?),
        None if text == "0" => Duration::ZERO,
        None => text.parse::<Lifetime>().map_err(|_| wrong())?.as_duration(),
    };
    if found <= Duration::from_secs(3_600) { Ok(found) } else { Err(wrong()) }
}

fn fixed(field: &Field<'_>, report: &mut Report) -> Option<Vec<Knock>> {
    // Without the text, which is a secret.
    let each = |text: &str| {
        let parsed: Result<Vec<Knock>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        parsed.map_err(|_| "this is not a knock: write tcp/1234, udp/7000, or udp/7000/20")
    };
    let lists = field.each(MAX_KNOCKS, report, |item, report| item.parse_with(each, report))?;
    let all: Vec<Knock> = lists.into_iter().flat_map(|(knocks, _)| knocks).collect();
    if all.len() > MAX_KNOCKS {
        report.error(field.spot(), format!("these are {} knocks, the most is {MAX_KNOCKS}", all.len()));
        return None;
    }
    Some(all)
}

fn timed(field: &Field<'_>, home: Option<&Path>, report: &mut Report) -> Option<TimedKnocks> {
    let section = field.section(report)?;
    section.refuse_unknown(TIMED_KEYS, &[], "", report);
    let code = section.get("code");
    let kind = Said::read(section.get("kind"), |f| f.choice(KINDS, report));
    let kind = kind.or(if code.is_some() { KnockKind::KnockKnock } else { KnockKind::Secret })?;
    let secret = match (section.secret("secret"), &code) {
        (Some(field), None) => Some(source(&field, home, report)?),
        (None, Some(field)) => {
            field.choice(&[("prompt", ())], report)?;
            if kind != KnockKind::KnockKnock {
                report.error_fix(
                    field.key(),
                    "codes make knocks of the kind knock-knock only",
                    "write `secret: ...`",
                );
            }
            None
        }
        (None, None) => {
            section.missing("secret", "{file: ~/.config/knock-agent/secret}", report);
            return None;
        }
        (Some(_), Some(field)) => {
            report.error_fix(field.key(), "there is a secret too, which makes the codes", "keep one of them");
            return None;
        }
    };
    let pin = match section.secret("pin") {
        None => None,
        Some(field) => {
            let pin = source(&field, home, report)?;
            if matches!(pin, SecretSource::Inline(_)) && secret.is_some() {
                let message = "who gets hold of this computer has the secret and the PIN";
                report.warning(field.key(), message, "write `pin: prompt` to type it");
            }
            Some(pin)
        }
    };
    let usual = TimedKnocks::usual(kind, secret, pin)?;
    if kind == KnockKind::KnockKnock {
        for field in ["ports", "protocol", "lengths", "every"].iter().filter_map(|key| section.get(key)) {
            report.error_fix(field.key(), "with the kind knock-knock this is always the same", "remove it");
        }
    }
    let shape = usual.shape;
    let count = Said::read(section.get("knocks"), |f| f.number(1..=i128::from(KnockKind::MOST), report));
    let ports = Said::read(section.get("ports"), |f| f.parse_with(str::parse::<PortRange>, report));
    let protocol = Said::read(section.get("protocol"), |f| f.choice(PROTOCOLS, report));
    let lengths = Said::read(section.get("lengths"), |f| f.switch(report));
    let every = Said::read(section.get("every"), |f| f.lifetime(report));
    let shape = KnockShape {
        kind,
        count: count.or(shape.count)?,
        ports: ports.or(shape.ports)?,
        protocol: protocol.or(shape.protocol)?,
        lengths: lengths.or(shape.lengths)?,
    };
    Some(TimedKnocks { shape, every: every.or(usual.every)?, ..usual })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Way, parse_profile};

    fn parse(text: &str) -> Result<(KnockProfile, usize), Problems> {
        let text = format!("host: gate.example.com\n{text}");
        let (way, warnings) = parse_profile("home.yaml", &text, Some(Path::new("/home/alice")))?;
        let Way::Knocks(profile) = way else { panic!("{way:?}") };
        Ok((profile, warnings.len()))
    }

    fn timed_of(text: &str) -> TimedKnocks {
        match parse(text).unwrap().0.knocks {
            KnocksFrom::Timed(timed) => timed,
            KnocksFrom::Fixed(_) => panic!("{text}"),
        }
    }

    #[test]
    fn a_profile_knocks_at_ports_that_stay_the_same() {
        let (profile, _) = parse("sequence: [tcp/1234, \"udp/7000/3, 9012\"]\ndelay: 50ms\ncheck: 22\nthen: [ssh, gate]\nfamily: 4\n").unwrap();
        let KnocksFrom::Fixed(knocks) = &profile.knocks else { panic!("{profile:?}") };
        assert_eq!(knocks.len(), 3);
        assert_eq!((profile.pause.as_millis(), profile.check, profile.then.len()), (50, Some(22), 2));
        assert_eq!(profile.families, Families::V4);
        assert!(!format!("{profile:?}").contains("1234"));
    }

    #[test]
    fn a_profile_knocks_at_ports_that_change_with_time() {
        let usual = timed_of("sequence: {secret: {file: ~/secret}, pin: prompt}\n");
        assert_eq!(usual.secret, Some(SecretSource::File("/home/alice/secret".into())));
        assert_eq!((usual.pin, usual.every.as_secs()), (Some(SecretSource::Prompt), 30));
        assert_eq!((usual.shape.count, usual.shape.lengths), (4, false));
        let other =
            timed_of("sequence: {secret: ABCD, knocks: 8, ports: 1000-3000, protocol: tcp, every: 1m}\n");
        assert_eq!((other.shape.count, other.shape.ports.last(), other.every.as_secs()), (8, 3_000, 60));
        assert!(!format!("{other:?}").contains("ABCD"));
        let typed = timed_of("sequence: {code: prompt}\n");
        assert_eq!((typed.secret, typed.shape.kind, typed.shape.count), (None, KnockKind::KnockKnock, 3));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_secrets() {
        for (text, wanted) in [
            ("sequence: {}\n", "this key is missing"),
            ("sequence: [tcp/77777]\n", "not a knock"),
            ("sequence: {secret: SESAME, code: prompt}\n", "keep one of them"),
            ("sequence: {code: prompt, kind: secret}\n", "of the kind knock-knock only"),
            ("sequence: {secret: SESAME, kind: knock-knock, ports: 1-2}\n", "always the same"),
            ("sequence: {secret: SESAME, knocks: 9}\n", "1 to 8"),
            ("sequence: [1, 2]\ndelay: fast\n", "300ms"),
            ("sequence: [1, 2]\nhttp_post_path: /x\n", "a profile of the two steps"),
        ] {
            let problems = parse(text).unwrap_err().to_string();
            assert!(problems.contains(wanted), "{text}: {problems}");
            assert!(!problems.contains("SESAME") && !problems.contains("77777"), "{problems}");
        }
        assert_eq!(parse("sequence: {secret: ABCD, pin: inline}\n").unwrap().1, 1);
    }
}
