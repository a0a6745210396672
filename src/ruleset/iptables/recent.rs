//! Lists of `-m recent`, for kernels and hosts without ipset: one list for each time that something may last,
//! because a list has no times of its own. The rule says how old an entry may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::Chain;
use super::names;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, Impossible};
use super::save::Listing;
use crate::config::Settings;
use crate::ruleset::allow::address_key;
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::ruleset::plan::{app_set, step2_set};
use crate::units::{Family, Network};

/// What is lost without ipset, for whoever has to know.
pub const LIMITS: &str = "without ipset, the lists of -m recent are used: a grant lasts exactly its app's duration, \
nothing can be allowed for a time, what is lost is not put back, and step 1 is one packet and not metered in the kernel; \
install ipset (apt-get install ipset; modprobe -a ip_set xt_set) for the rest";

/// The list that tells how far the kernel's clock is. No packet is compared with it.
pub const CLOCK: &str = "ka_clock";

/// The stem of the chain that names every list. Nothing leads there: it keeps lists alive while others change.
const STEM: &str = "lists";

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// What the kernel calls it.
    pub name: String,
    /// What the model calls the set that it is, or is a part of: `app_ssh_4`.
    pub meaning: String,
    /// Seconds after which an entry opens nothing any more.
    pub secs: u64,
    /// How many bits of an address are compared.
    pub prefix: u8,
}

/// A list with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The list.
    pub list: List,
    /// Its entries that still open something.
    pub elements: Elements,
}

impl List {
    /// The time is a part of the name, so that entries never get another one.
    fn new(meaning: String, secs: u64, prefix: u8) -> Self {
        let name = format!("{}_{secs}", names::set(&meaning));
        Self { name, meaning, secs, prefix }
    }

    fn matching(&self, side: Side) -> String {
        let side = match side {
            Side::Source => "--rsource",
            Side::Destination => "--rdest",
        };
        let family = if self.meaning.ends_with('4') { Family::V4 } else { Family::V6 };
        format!(
            "-m recent --rcheck --seconds {} --name {} --mask {} {side}",
            self.secs,
            self.name,
            mask(family, self.prefix)
        )
    }

    /// The source added to it (`set`) or taken out (`remove`).
    pub(super) fn changed(&self, verb: &str) -> String {
        let family = if self.meaning.ends_with('4') { Family::V4 } else { Family::V6 };
        format!("-m recent --{verb} --name {} --mask {} --rsource", self.name, mask(family, self.prefix))
    }

    /// The entry that an address has: only the bits that are compared.
    #[must_use]
    pub fn entry(&self, address: IpAddr) -> IpAddr {
        crate::units::ClientAddr::new(address).masked_v6(self.prefix).ip()
    }
}

pub(super) fn mask(family: Family, prefix: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::BROADCAST.into(),
        Family::V6 => {
            let cleared = u32::from(128_u8.saturating_sub(prefix));
            Ipv6Addr::from(u128::MAX.checked_shl(cleared).unwrap_or(0)).into()
        }
    }
}

/// The lists of one family.
pub(super) fn lists(layout: &Layout<'_>, family: Family) -> Vec<List> {
    let settings = layout.settings;
    let prefix = if family == Family::V4 { 32 } else { settings.global.ipv6_prefix };
    let apps = settings.apps.iter();
    let mut out: Vec<List> = apps
        .filter(|app| app.families().contains(&family))
        .map(|app| List::new(app_set(&app.slug, family), app.duration.as_secs(), prefix))
        .collect();
    let knocked = layout.knocking.grants.iter().filter(|grants| grants.families.contains(&family));
    out.extend(knocked.map(|grants| {
        let prefix = if grants.service { prefix } else { family.bits() };
        List::new(grants.set(family), grants.secs, prefix)
    }));
    if !settings.global.steps {
        return out;
    }
    let windows = settings.apps.iter().map(|app| app.step2_https_duration);
    let times: BTreeSet<u64> =
        windows.chain([settings.global.token_window]).map(|time| time.as_secs()).collect();
    out.extend(times.into_iter().map(|secs| List::new(step2_set(family), secs, family.bits())));
    out
}

/// The chain that names them.
pub(super) fn chain(layout: &Layout<'_>, family: Family) -> Chain {
    let clock = List { name: CLOCK.to_owned(), meaning: format!("{}", family.digit()), secs: 1, prefix: 128 };
    let mut rules = vec![rule().with(clock.matching(Side::Source)).pass("clock")];
    let all = lists(layout, family);
    rules.extend(
        all.iter()
            .map(|list| rule().with(list.matching(Side::Source)).pass(&format!("list:{}", list.meaning))),
    );
    Chain::new(STEM, rules)
}

/// One phrase for each way to be in that set: for each list, or for each network of the configuration.
pub(super) fn asked(
    draft: &Draft<'_>,
    text: &Phrase,
    meaning: &str,
    family: Family,
    side: Side,
) -> Vec<Phrase> {
    if let Some(slug) = meaning.strip_prefix("allow_") {
        // With the length, also of one address: as iptables lists it.
        return networks(draft, slug, family)
            .map(|network| format!("{}/{}", network.first(), network.prefix_len()))
            .map(|network| match side {
                Side::Source => text.clone().sent_from(&network),
                Side::Destination => text.clone().sent_into(&network),
            })
            .collect();
    }
    let lists = lists(&draft.layout, family).into_iter();
    lists.filter(|list| list.meaning == meaning).map(|list| text.clone().with(list.matching(side))).collect()
}

/// What the configuration allows under the name of a set, in pieces that iptables lists as they were written.
fn networks<'a>(draft: &Draft<'a>, set: &'a str, family: Family) -> impl Iterator<Item = Network> + use<'a> {
    let settings = draft.layout.settings;
    let named = |slug: &str| set.strip_suffix(&format!("_{}", family.digit())) == Some(slug);
    let of_app = settings.apps.iter().find(|app| named(&app.slug)).map(|app| &app.allow);
    let all = of_app.or_else(|| named("all").then_some(&settings.global.allow));
    all.into_iter().flatten().copied().filter(move |network| network.family() == family).flat_map(|network| {
        if network.prefix_len() > 0 {
            return vec![network];
        }
        let upper = match network.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(128, 0, 0, 0)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0)),
        };
        [network.first(), upper].into_iter().filter_map(|half| Network::around(half, 1).ok()).collect()
    })
}

/// What settings want that lists cannot do.
pub(super) fn refuse(settings: &Settings) -> Result<(), Impossible> {
    for user in &settings.users {
        for own in &user.apps {
            let app = settings.apps.iter().find(|app| app.name == own.app);
            if let Some(app) = app.filter(|app| app.duration != own.duration) {
                return Err(Impossible::OneTime { app: app.name.to_string(), only: app.duration });
            }
        }
    }
    Ok(())
}

/// The lists that rules name.
#[must_use]
pub fn listed(listings: [&Listing; 2]) -> Vec<List> {
    let mangle = listings.into_iter().filter_map(|listing| listing.tables.get("mangle"));
    let rules = mangle.filter_map(|table| table.chains.get(&names::chain(STEM))).flatten();
    rules.filter_map(|rule| read(rule)).collect()
}

fn read(rule: &str) -> Option<List> {
    let after = |word: &str| {
        let mut words = rule.split(' ');
        words.by_ref().find(|found| *found == word)?;
        words.next()
    };
    let meaning = rule.split_once("ka:list:")?.1.split(['"', ' ']).next()?.to_owned();
    let prefix = match after("--mask")?.parse().ok()? {
        IpAddr::V4(_) => 32,
        IpAddr::V6(mask) => u8::try_from(u128::from(mask).leading_ones()).ok()?,
    };
    Some(List { name: after("--name")?.to_owned(), meaning, secs: after("--seconds")?.parse().ok()?, prefix })
}

/// The entries of a list as the kernel shows them, with the time of the last change of each, in jiffies.
#[must_use]
pub fn entries(text: &str) -> BTreeMap<IpAddr, u64> {
    let entry = |line: &str| {
        let address = line.strip_prefix("src=")?.split(' ').next()?.parse().ok()?;
        let seen = line.split_once("last_seen: ")?.1.split(' ').next()?.parse().ok()?;
        Some((address, seen))
    };
    text.lines().filter_map(entry).collect()
}

/// What is left of an entry, at `now` of a clock with `hz` ticks a second; none: it ended, or nobody can tell.
#[must_use]
pub fn left(list: &List, seen: u64, now: u64, hz: u64) -> Option<Timeout> {
    let total_ms = list.secs.checked_mul(1_000)?;
    let age_ms = now.checked_sub(seen)?.checked_mul(1_000)?.checked_div(hz)?;
    let left_ms = total_ms.checked_sub(age_ms).filter(|&left| left > 0)?;
    Some(Timeout { total_ms, left_ms })
}

/// An element for an entry: nothing tells who it is for.
#[must_use]
pub fn element(address: IpAddr, timeout: Timeout) -> (Vec<u8>, Element) {
    (address_key(address), Element { timeout: Some(timeout), ..Element::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(secs: u64) -> List {
        List::new("app_ssh_6".into(), secs, 64)
    }

    #[test]
    fn an_entry_lasts_the_time_of_its_list_and_not_a_tick_longer() {
        let left = |seen, now| left(&list(60), seen, now, 250).map(|t| t.left_ms);
        assert_eq!(left(1_000, 1_000), Some(60_000));
        assert_eq!(left(1_000, 1_000 + 250 * 59), Some(1_000));
        assert_eq!(left(1_000, 1_000 + 250 * 60), None);
        assert_eq!(left(1_001, 1_000), None, "a clock that went round tells nothing");
        assert_eq!(super::left(&list(60), 1, 2, 0), None);
    }

    #[test]
    fn the_kernels_lines_are_read_in_both_families() {
        let text = "src=203.0.113.2 ttl: 0 last_seen: 4299527548 oldest_pkt: 2 4299527500, 4299527548\n\
                    src=fd00:0000:0000:0000:0000:0000:0000:0001 ttl: 0 last_seen: 77 oldest_pkt: 1 77\nodd\n";
        let found = entries(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&"203.0.113.2".parse::<IpAddr>().unwrap()], 4_299_527_548);
        assert_eq!(found[&"fd00::1".parse::<IpAddr>().unwrap()], 77);
    }

    #[test]
    fn a_list_is_known_again_by_its_rule_and_another_time_is_another_list() {
        let rule = rule().with(list(60).matching(Side::Source)).pass("list:app_ssh_6");
        assert_eq!(read(&rule), Some(list(60)));
        assert_ne!(list(60).name, list(61).name);
        let address = "fd00::1:2:3:4".parse().unwrap();
        assert_eq!(list(60).entry(address), "fd00::".parse::<IpAddr>().unwrap());
    }
}
