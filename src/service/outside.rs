//! Outside interfaces that the configuration names and that guard nothing: this host does not have them now, or
//! packets do not come in by them, or not by that name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::health::{Ailment, Part};
use crate::config::Settings;
use crate::ruleset::audit::{Finding, Severity};
use crate::sys::interfaces::{self, InterfaceState};
use crate::units::{Family, IfName};

mod tunnels;
mod ways;

pub use ways::SOMEWHERE;
use ways::Way;

/// How often a running daemon looks whether they are still there.
const LOOK: Duration = Duration::from_secs(30);

/// Why settings are not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// It exists by another name.
    #[error("{0}")]
    OtherName(Trouble),
    /// What was guarded would stand open.
    #[error(
        "interface_ext: {gone} exists and was guarded, and would not be any more, and {missing} does not exist: if {missing} is misspelt, all ports would stand open. The interfaces are {there}. If it is to come later, name both, or restart knock-agent"
    )]
    Lost {
        /// What would stand open.
        gone: IfName,
        /// What is not there.
        missing: IfName,
        /// What there is.
        there: String,
    },
}

/// The interfaces that are named, by who names them: `global`, or the slug of an app, which none can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside(BTreeMap<String, BTreeSet<IfName>>);

impl Outside {
    pub(super) fn of(settings: &Settings) -> Self {
        let apps = settings.apps.iter().map(|app| (app.slug.clone(), &app.interface_ext));
        let all = apps.chain([("global".to_owned(), &settings.global.interface_ext)]);
        Self(all.map(|(place, names)| (place, names.iter().cloned().collect())).collect())
    }

    fn all(&self) -> BTreeSet<IfName> {
        self.0.values().flatten().cloned().collect()
    }

    /// Whether these may follow others that are in force, by what this host has now; where it does not say, they may.
    ///
    /// # Errors
    /// [`OutsideError`]
    pub(super) fn may_follow(&self, before: &Self) -> Result<(), OutsideError> {
        interfaces::present().map_or(Ok(()), |present| self.follows(before, &present))
    }

    fn follows(&self, before: &Self, present: &[InterfaceState]) -> Result<(), OutsideError> {
        let all = self.all();
        let other = all.iter().find_map(|name| other_name(name, present));
        other.map_or(Ok(()), |trouble| Err(OutsideError::OtherName(trouble)))?;
        lost(&before.all(), &all, present)?;
        // An app with interfaces of its own.
        for (place, names) in &self.0 {
            before.0.get(place).map_or(Ok(()), |had| lost(had, names, present))?;
        }
        Ok(())
    }
}

/// An interface that exists leaves, and one that does not exist comes, or is all that stays.
fn lost(
    before: &BTreeSet<IfName>,
    after: &BTreeSet<IfName>,
    present: &[InterfaceState],
) -> Result<(), OutsideError> {
    let gone = before.iter().find(|name| is(name, present) && !after.contains(*name));
    let none = !after.iter().any(|name| is(name, present));
    let missing = after.iter().find(|name| !is(name, present) && (none || !before.contains(*name)));
    match (gone, missing) {
        (Some(gone), Some(missing)) => {
            Err(OutsideError::Lost { gone: gone.clone(), missing: missing.clone(), there: names(present) })
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn is(name: &IfName, present: &[InterfaceState]) -> bool {
    present.iter().any(|have| have.name == name.as_str())
}

fn names(present: &[InterfaceState]) -> String {
    present.iter().map(|have| have.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A named interface on which nothing is guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    name: IfName,
    why: Why,
}

/// Why that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// There is none. Rules ask packets for the name of their interface, so that one that comes later is guarded from its
    /// first packet.
    Missing,
    /// Packets come in by another one, whose port it is.
    PortOf(String),
    /// It is a VRF or belongs to one.
    InVrf,
    /// Rules know it as another one.
    OtherName(String),
    /// It has no address, and the Internet is behind another one.
    Bypassed(String),
    /// The Internet of these families is behind it, and it is not named.
    NotNamed(Vec<Family>),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, why } = self;
        match why {
            Why::Missing => write!(
                f,
                "interface_ext {name} does not exist now: nothing is guarded on it, and if it is misspelt, ports stand open"
            ),
            Why::PortOf(of) => write!(
                f,
                "interface_ext {name} is a port of {of}: packets come in by {of}, and nothing is guarded; name {of}"
            ),
            Why::InVrf => write!(
                f,
                "interface_ext {name} is a VRF or belongs to one: its addresses are not in the main routing tables, so that packets to them are not recognised as for this host, and nothing is guarded"
            ),
            Why::OtherName(real) => write!(
                f,
                "interface_ext {name} is only another name of {real}, and packets come in by {real}: nothing is guarded; name {real}"
            ),
            Why::Bypassed(way) => write!(
                f,
                "interface_ext {name} has no address, and the way to the Internet is {way}, which is not guarded: packets come in by {way}; name {way}"
            ),
            Why::NotNamed(families) => write!(
                f,
                "a way to the Internet is {name} for {}, and interface_ext does not name it: who comes in by {name} meets no guard",
                families
                    .iter()
                    .map(|family| format!("IPv{}", family.digit()))
                    .collect::<Vec<_>>()
                    .join(" and ")
            ),
        }
    }
}

impl Trouble {
    fn finding(&self, present: &[InterfaceState]) -> Finding {
        let name = &self.name;
        let named = |real: &String| format!("# in the configuration: interface_ext: {real}");
        let (code, fix) = match &self.why {
            Why::Missing => (
                "no-such-interface",
                format!(
                    "# if {name} is misspelt, nothing is guarded: the interfaces are {}\n# if it comes later, nothing is to be done: it is guarded from its first packet",
                    names(present)
                ),
            ),
            Why::PortOf(of) => ("interface-is-a-port", named(of)),
            Why::InVrf => {
                ("interface-in-vrf", format!("ip link set {name} nomaster   # VRFs are not supported"))
            }
            Why::OtherName(real) => ("interface-other-name", named(real)),
            Why::Bypassed(way) => ("interface-bypassed", named(way)),
            Why::NotNamed(_) => (
                "way-not-guarded",
                format!(
                    "# if strangers can come in by {name}, add it to interface_ext; if it is a tunnel of your own, leave it"
                ),
            ),
        };
        let severity = if self.opens() { Severity::Error } else { Severity::Warning };
        Finding { severity, code, message: self.to_string(), fix }
    }

    /// Whether what is named guards nothing; not so where something else could be named as well.
    fn opens(&self) -> bool {
        !matches!(self.why, Why::NotNamed(_))
    }

    fn tell(&self) {
        match self.why {
            Why::Missing | Why::NotNamed(_) => tracing::warn!("{self}"),
            Why::PortOf(_) | Why::InVrf | Why::OtherName(_) | Why::Bypassed(_) => tracing::error!("{self}"),
        }
    }
}

fn other_name(name: &IfName, present: &[InterfaceState]) -> Option<Trouble> {
    let other = |have: &&InterfaceState| have.other_names.iter().any(|other| other == name.as_str());
    let real = present.iter().find(other).filter(|_| !is(name, present))?;
    Some(Trouble { name: name.clone(), why: Why::OtherName(real.name.clone()) })
}

fn trouble(name: &IfName, present: &[InterfaceState]) -> Option<Trouble> {
    let why = |why| Some(Trouble { name: name.clone(), why });
    match present.iter().find(|have| have.name == name.as_str()) {
        None => other_name(name, present).or_else(|| why(Why::Missing)),
        Some(InterfaceState { port_of: Some(of), .. }) => why(Why::PortOf(of.clone())),
        Some(have) if have.in_vrf => why(Why::InVrf),
        Some(_) => None,
    }
}

fn troubles(settings: &Settings, present: &[InterfaceState]) -> Vec<Trouble> {
    let named = Outside::of(settings).all();
    let mut found: Vec<Trouble> = named.iter().filter_map(|name| trouble(name, present)).collect();
    let (ways, all) = (ways::to_the_internet(present), ways::all(present));
    // Addresses are asked for only where they matter.
    if ways.iter().chain(&all).any(|way| !way.is_in(&named))
        && let Ok(numbered) = ways::numbered()
    {
        found.extend(beside(&named, (&ways, &all), &numbered, &found, present));
    }
    found
}

/// What is wrong where the Internet is behind an interface that is not named; by `ways`, or by one of `all` there are.
fn beside(
    named: &BTreeSet<IfName>,
    (ways, all): (&[Way], &[Way]),
    numbered: &BTreeSet<String>,
    found: &[Trouble],
    present: &[InterfaceState],
) -> Vec<Trouble> {
    let mut not_named: Vec<&Way> = ways.iter().chain(all).filter(|way| !way.is_in(named)).collect();
    let mut out = Vec::new();
    if let Some(other) = ways.iter().find(|way| !way.is_in(named)) {
        out = idle(named, ways, other, numbered, found, present);
        // Where that way is named instead, as is said, it is no second one.
        not_named.retain(|way| out.is_empty() || ways.iter().all(|first| first.name != way.name));
    }
    let mut by_name: BTreeMap<IfName, BTreeSet<Family>> = BTreeMap::new();
    for way in not_named {
        if let Ok(name) = way.name.parse() {
            by_name.entry(name).or_default().insert(way.family);
        }
    }
    let why = |families: BTreeSet<Family>| Why::NotNamed(families.into_iter().collect());
    out.extend(by_name.into_iter().map(|(name, families)| Trouble { name, why: why(families) }));
    out
}

/// What is named, and has no address, and is no way.
fn idle(
    named: &BTreeSet<IfName>,
    ways: &[Way],
    other: &Way,
    numbered: &BTreeSet<String>,
    found: &[Trouble],
    present: &[InterfaceState],
) -> Vec<Trouble> {
    let is_idle = |name: &&IfName| {
        is(name, present)
            && !numbered.contains(name.as_str())
            && !ways.iter().any(|way| way.name == name.as_str())
            && !found.iter().any(|trouble| trouble.name == **name)
    };
    let bypassed = |name: &IfName| Trouble { name: name.clone(), why: Why::Bypassed(other.name.clone()) };
    named.iter().filter(is_idle).map(bypassed).collect()
}

/// What an operator should know of them before anything is applied.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let present = interfaces::present().unwrap_or_default();
    if present.is_empty() {
        return Vec::new();
    }
    let troubles = troubles(settings, &present);
    let told = troubles.iter().map(|trouble| trouble.finding(&present));
    told.chain(tunnels::findings(&Outside::of(settings).all(), &present)).collect()
}

/// Says what is wrong with them to whoever asks how the guard is.
pub(super) fn ailments(settings: &Settings) -> Vec<Ailment> {
    let found = interfaces::present().map(|present| troubles(settings, &present)).unwrap_or_default();
    found.iter().filter(|trouble| trouble.opens()).map(Trouble::ailment).collect()
}

impl Trouble {
    fn ailment(&self) -> Ailment {
        Ailment { part: Part::Interface, message: self.to_string() }
    }
}

/// Other names of interfaces, each with what is wrong with it: nothing is to be done with such a configuration.
#[must_use]
pub fn other_names(settings: &Settings) -> Vec<Trouble> {
    let present = interfaces::present().unwrap_or_default();
    Outside::of(settings).all().iter().filter_map(|name| other_name(name, &present)).collect()
}

/// Refuses other names of interfaces.
///
/// # Errors
/// [`OutsideError::OtherName`]
pub(super) fn check(settings: &Settings) -> Result<(), OutsideError> {
    other_names(settings).into_iter().next().map_or(Ok(()), |first| Err(OutsideError::OtherName(first)))
}

/// What the log was told of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    troubles: Vec<Trouble>,
    looked: Option<Instant>,
}

impl Told {
    /// Looks from time to time: interfaces go, and get other names.
    pub(super) fn follow(&mut self, settings: &Settings) {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.look(settings);
        }
    }

    /// Looks now and tells the log what is new; returns what is wrong.
    pub(super) fn look(&mut self, settings: &Settings) -> Vec<Ailment> {
        self.looked = Some(Instant::now());
        if let Ok(present) = interfaces::present() {
            self.tell(troubles(settings, &present));
        }
        self.troubles.iter().filter(|trouble| trouble.opens()).map(Trouble::ailment).collect()
    }

    fn tell(&mut self, found: Vec<Trouble>) {
        let before = std::mem::replace(&mut self.troubles, found);
        self.troubles.iter().filter(|trouble| !before.contains(trouble)).for_each(Trouble::tell);
        let names = |troubles: &[Trouble]| -> BTreeSet<IfName> {
            troubles.iter().map(|trouble| trouble.name.clone()).collect()
        };
        for name in names(&before).difference(&names(&self.troubles)) {
            tracing::info!("interface {name}: nothing is wrong with it any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(names: &[&str]) -> Vec<InterfaceState> {
        let state = |name: &&str| InterfaceState { name: (*name).to_owned(), ..InterfaceState::default() };
        names.iter().map(state).collect()
    }

    fn outside(places: &[(&str, &[&str])]) -> Outside {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        Outside(places.iter().map(|(place, all)| ((*place).to_owned(), names(all))).collect())
    }

    fn global(names: &[&str]) -> Outside {
        outside(&[("global", names)])
    }

    #[test]
    fn what_is_guarded_does_not_give_way_to_what_does_not_exist() {
        let present = present(&["lo", "ext0", "ext1"]);
        let refused = |before: &[&str], after: &[&str]| {
            global(after).follows(&global(before), &present).map_err(|error| error.to_string())
        };
        let told = refused(&["ext0"], &["exto"]).unwrap_err();
        assert!(told.contains("exto does not exist") && told.contains("lo, ext0, ext1"), "{told}");
        assert!(refused(&["ext0", "ext1"], &["ext1", "exto"]).is_err());
        assert!(refused(&["ext0", "ppp0"], &["ppp0"]).is_err(), "nothing that exists is left");
        for (before, after) in [
            (&["ext0"][..], &["ext0"][..]),
            (&["ext0"], &["ext1"]),
            (&["ext0", "ext1"], &["ext1"]),
            (&["ext0"], &["ext0", "ppp0"]),
            (&["ppp0"], &["ppp1"]),
            (&["ppp0"], &["ppp0"]),
            (&["ext0", "ppp0", "ext1"], &["ppp0", "ext1"]),
        ] {
            assert_eq!(refused(before, after), Ok(()), "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_way_to_the_internet_is_guarded_or_told() {
        let present = present(&["eth0", "eth1", "ppp0", "he6"]);
        let names =
            |all: &[&str]| -> BTreeSet<IfName> { all.iter().map(|name| name.parse().unwrap()).collect() };
        let with = |named: &[&str],
                    ways: &[(&str, Family)],
                    also: &[(&str, Family)],
                    numbered: &[&str]|
         -> Vec<String> {
            let ways: Vec<Way> =
                ways.iter().map(|(name, family)| Way { name: (*name).to_owned(), family: *family }).collect();
            let all: Vec<Way> =
                also.iter().map(|(name, family)| Way { name: (*name).to_owned(), family: *family }).collect();
            let numbered = numbered.iter().map(|name| (*name).to_owned()).collect();
            let found = beside(&names(named), (&ways, &all), &numbered, &[], &present);
            found
                .iter()
                .map(|trouble| trouble.finding(&present))
                .map(|each| format!("{} {}", each.severity.word(), each.code))
                .collect()
        };
        let told =
            |named: &[&str], ways: &[(&str, Family)], numbered: &[&str]| with(named, ways, ways, numbered);
        let (v4, v6) = (Family::V4, Family::V6);
        let both = |name| [(name, v4), (name, v6)];
        assert_eq!(told(&["eth0"], &both("eth0"), &["eth0"]), [""; 0]);
        assert_eq!(told(&["eth0"], &both("ppp0"), &["ppp0"]), ["error interface-bypassed"]);
        assert_eq!(
            told(&["eth0"], &both("ppp0"), &["eth0", "ppp0"]),
            ["warning way-not-guarded"],
            "eth0 has the modem"
        );
        assert_eq!(
            told(&["eth0"], &[("eth0", v4), ("he6", v6)], &["eth0", "he6"]),
            ["warning way-not-guarded"]
        );
        assert_eq!(
            told(&["eth0"], &[("eth0", v4), ("he6", v6)], &["he6"]),
            ["warning way-not-guarded"],
            "unnumbered, and in use"
        );
        assert_eq!(told(&["eth0", "ppp0"], &both("ppp0"), &["ppp0"]), [""; 0]);
        assert_eq!(told(&["eth0"], &[], &[]), [""; 0], "no way yet");
        assert_eq!(
            told(&["ppp1"], &both("eth0"), &["eth0"]),
            ["warning way-not-guarded"],
            "that ppp1 is missing is told"
        );
        let also =
            |named: &[&str]| with(named, &both("eth0"), &[("eth0", v4), ("ppp0", v4)], &["eth0", "ppp0"]);
        assert_eq!(also(&["eth0"]), ["warning way-not-guarded"], "a second uplink that is in use");
        assert_eq!(also(&["eth0", "ppp0"]), [""; 0]);
        assert_eq!(
            with(&["eth1"], &both("eth0"), &[("eth0", v4), ("ppp0", v4)], &["eth0"]),
            ["error interface-bypassed", "warning way-not-guarded"]
        );
    }

    #[test]
    fn an_app_with_an_interface_of_its_own_is_not_opened_by_a_misspelt_one() {
        let present = present(&["ext0", "ext1"]);
        let before = outside(&[("global", &["ext0"]), ("ssh", &["ext0"])]);
        let after = outside(&[("global", &["ext0"]), ("ssh", &["exto"])]);
        assert!(matches!(after.follows(&before, &present), Err(OutsideError::Lost { .. })));
        let fresh = outside(&[("global", &["ext0"]), ("ssh", &["ext0"]), ("web", &["ppp0"])]);
        assert_eq!(fresh.follows(&before, &present), Ok(()), "a new app opens nothing");
    }

    #[test]
    fn another_name_of_an_interface_is_refused_with_the_one_that_rules_know() {
        let mut present = present(&["ext0"]);
        present[0].other_names = vec!["enp9s0f0".to_owned()];
        let before = global(&["ext0"]);
        let told = global(&["ext0", "enp9s0f0"]).follows(&before, &present).unwrap_err().to_string();
        assert!(told.contains("enp9s0f0 is only another name of ext0"), "{told}");
        assert_eq!(
            trouble(&"enp9s0f0".parse().unwrap(), &present).unwrap().finding(&present).code,
            "interface-other-name"
        );
    }
}
