//! Changes of elements, for `ipset restore -exist`, and elements as `ipset save` lists them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::{IpSet, SetContent};
use super::plan::MAX_SECS;
use super::save::{ListedElement, ListedSet};
use super::{adopted, names};
use crate::ruleset::allow::{address_key, key_address, networks};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::keeping::keep;
use crate::ruleset::model::{Element, Elements, KNOCKED_SETS, Timeout};
use crate::units::{Family, Network};

/// An element that is in every set of grants or networks: where it is gone, somebody flushed the set; where it is there, an
/// element that is gone was taken back. A multicast address is the source of no packet that a kernel takes, and
/// these two are reserved, so that nothing is sent there.
#[must_use]
pub fn sentinel(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(224, 0, 0, 0).into(),
        Family::V6 => Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(),
    }
}

/// Longest comment, in bytes (`IPSET_MAX_COMMENT_SIZE` is 255), without the time.
const MAX_COMMENT: usize = 200;

/// Why a change cannot be written for ipset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// Longer than an ipset counts.
    #[error("with iptables nothing can be open for more than {MAX_SECS} s (24 days): choose less")]
    TooLong,
    /// A list of `-m recent` has one time for all.
    #[error(
        "without ipset a grant lasts {0}, no less and no more: leave the time out, or install ipset (apt-get install ipset)"
    )]
    OneTime(String),
    /// The networks that may always come are in the rules.
    #[error(
        "without ipset only the configuration can allow networks (`allow`): write it there and reload, or install ipset (apt-get install ipset)"
    )]
    NoNetworks,
    /// The next address would push out the oldest.
    #[error(
        "{set} is full: {room} addresses have access, and the kernel holds no more (ip_list_tot of the module xt_recent); revoke one, or install ipset (apt-get install ipset)"
    )]
    Full {
        /// The set.
        set: String,
        /// How many fit.
        room: usize,
    },
    /// Changes of rules are not for ipset.
    #[error("not a change of elements: {0}")]
    NotElements(String),
}

/// Changes of elements as commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// What closes.
    pub closing: String,
    /// What opens.
    pub opening: String,
}

/// Writes changes of elements as commands for ipset.
///
/// # Errors
/// [`ElementError`] where ipset cannot do it.
pub fn commands(changes: &[Change]) -> Result<Commands, ElementError> {
    let mut out = Commands::default();
    for (index, change) in changes.iter().enumerate() {
        match change {
            Change::FlushSet(name) if adopted::is_meant(name) => out.closing.push_str(&adopted::flush(name)),
            Change::DeleteElements { set, elements } if adopted::is_meant(&set.name) => {
                out.closing.extend(elements.keys().map(|key| adopted::delete(&set.name, key)));
            }
            Change::AddElements { set, elements } if adopted::is_meant(&set.name) => {
                let each = elements.iter().map(|(key, element)| adopted::add(&set.name, key, element));
                out.opening.extend(each);
            }
            Change::FlushSet(name) => {
                let _ = writeln!(out.closing, "flush {}", names::set(name));
                out.closing.push_str(&sentinel_line(name));
            }
            Change::DeleteElements { set, elements } => {
                let each = elements.iter();
                out.closing.extend(each.map(|(key, element)| deletion(changes, index, set, key, element)));
            }
            Change::AddElements { set, elements } | Change::RenewElements { set, elements } => {
                for (key, element) in elements {
                    let Some(options) = options(element)? else {
                        // What the set has of it may last for hours.
                        if matches!(change, Change::RenewElements { .. }) {
                            out.closing.push_str(&deletion(changes, index, set, key, element));
                        }
                        continue;
                    };
                    for text in texts(key, element) {
                        let _ = writeln!(out.opening, "add {} {text} {options}", names::set(&set.name));
                    }
                }
            }
            other => return Err(ElementError::NotElements(other.to_string())),
        }
    }
    Ok(out)
}

/// What takes an element away, unless this change or a later one puts it there.
fn deletion(changes: &[Change], index: usize, set: &SetRef, key: &[u8], element: &Element) -> String {
    let later = changes.iter().skip(index);
    let again: Vec<String> = later.flat_map(|later| added(later, &set.name, key)).collect();
    let gone = removed(set, key, element).into_iter().filter(|text| !again.contains(text));
    gone.map(|text| format!("del {} {text}\n", names::set(&set.name))).collect()
}

/// Whether the set that the model calls so has the sentinel.
#[must_use]
pub fn has_sentinel(meaning: &str) -> bool {
    ["app_", "allow_", KNOCKED_SETS].iter().any(|stem| meaning.starts_with(stem))
}

fn sentinel_line(meaning: &str) -> String {
    if !has_sentinel(meaning) {
        return String::new();
    }
    let family = if meaning.ends_with("_4") { Family::V4 } else { Family::V6 };
    format!("add {} {} timeout 0\n", names::set(meaning), sentinel(family))
}

/// Commands, with this word as the comment of each sentinel.
#[must_use]
pub fn signed(commands: &str, word: &str) -> String {
    let ends = Family::BOTH.map(|family| format!(" {} timeout 0", sentinel(family)));
    let mut out = String::new();
    for line in commands.lines() {
        out.push_str(line);
        if line.starts_with("add ") && ends.iter().any(|end| line.ends_with(end)) {
            let _ = write!(out, " comment \"{word}\"");
        }
        out.push('\n');
    }
    out
}

/// The word that a set's sentinel has.
#[must_use]
pub fn sign(set: &ListedSet) -> Option<&str> {
    let is_sentinel = |element: &&ListedElement| {
        element.left_secs.is_none()
            && Family::BOTH.iter().any(|&family| element.key == sentinel(family).to_string())
    };
    set.elements.iter().find(is_sentinel)?.comment.as_deref()
}

/// What makes a set, with its sentinel.
#[must_use]
pub fn creation(set: &IpSet) -> String {
    let mut text = format!("create {} {}\n", set.name, set.kind);
    if set.content == SetContent::Kept {
        text.push_str(&sentinel_line(&set.meaning));
    }
    text
}

/// The changes that keep grants of sets which go, or are filled for a shorter time from now on.
#[must_use]
pub fn kept(live: &Live, sets: &BTreeMap<String, ListedSet>, wanted: &[IpSet]) -> Vec<Change> {
    let had = live.ruleset.sets.iter().map(|set| {
        let listed = sets.get(&names::set(&set.name));
        (set.name.as_str(), listed.and_then(|listed| usual(&listed.kind)).map(|secs| secs * 1_000))
    });
    let will = wanted.iter().map(|set| (set.meaning.as_str(), usual(&set.kind).map(|secs| secs * 1_000)));
    keep(live, &had.collect(), &will.collect())
}

/// What a change puts into the set under this key.
fn added(change: &Change, name: &str, key: &[u8]) -> Vec<String> {
    match change {
        Change::AddElements { set, elements } | Change::RenewElements { set, elements }
            if set.name == name =>
        {
            let element = elements.get(key);
            let lasts = |element: &&Element| element.timeout.is_none_or(|t| t.left_ms >= 1000);
            element.filter(lasts).map(|element| texts(key, element)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// What goes with an element. Of networks that begin at one address ipset holds one of each length, and only one of them is
/// in [`listed`]: all of them go.
fn removed(set: &SetRef, first: &[u8], element: &Element) -> Vec<String> {
    if !set.interval {
        return texts(first, element);
    }
    let last = element.last.as_deref().unwrap_or(first);
    let begins = |start: IpAddr| {
        let family = Family::of(start);
        let all = (1..=family.bits()).filter_map(move |length| Network::around(start, length).ok());
        all.filter(move |network| network.first() == start && *network != Network::host(sentinel(family)))
    };
    pieces(first, last)
        .into_iter()
        .flat_map(|piece| begins(piece.first()))
        .map(|net| net.to_string())
        .collect()
}

/// Time and comment; none for an element that has less than a second left, because ipset counts whole ones.
fn options(element: &Element) -> Result<Option<String>, ElementError> {
    let (left, total) = match element.timeout {
        None => (0, None),
        Some(Timeout { left_ms, .. }) if left_ms < 1_000 => return Ok(None),
        Some(Timeout { left_ms, total_ms }) => (left_ms / 1_000, Some(total_ms.div_ceil(1_000))),
    };
    if left > MAX_SECS {
        return Err(ElementError::TooLong);
    }
    let comment = plain(element.comment.as_deref().unwrap_or_default());
    let comment = comment + &total.map(|secs| format!(" ({secs} s)")).unwrap_or_default();
    let comment = if comment.is_empty() { comment } else { format!(" comment \"{comment}\"") };
    Ok(Some(format!("timeout {left}{comment}")))
}

/// A comment that ipset can read back: no quotes, no control characters, not too long.
fn plain(comment: &str) -> String {
    let mut out = String::new();
    for c in comment.chars() {
        let c = if c.is_control() || "\"\\".contains(c) { '_' } else { c };
        if out.len() + c.len_utf8() > MAX_COMMENT {
            break;
        }
        out.push(c);
    }
    out
}

/// The addresses or networks that an element stands for.
fn texts(first: &[u8], element: &Element) -> Vec<String> {
    match &element.last {
        None => key_address(first).map(|addr| addr.to_string()).into_iter().collect(),
        Some(last) => pieces(first, last).iter().map(Network::to_string).collect(),
    }
}

/// Networks as ipset takes them: all of a family are two halves.
fn pieces(first: &[u8], last: &[u8]) -> Vec<Network> {
    let whole = |network: &Network| network.prefix_len() == 0;
    networks(first, last)
        .into_iter()
        .flat_map(|network| {
            if !whole(&network) {
                return vec![network];
            }
            let upper = match network.family() {
                Family::V4 => IpAddr::V4(Ipv4Addr::new(128, 0, 0, 0)),
                Family::V6 => IpAddr::V6(Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0)),
            };
            let halves = [Network::around(network.first(), 1), Network::around(upper, 1)];
            halves.into_iter().flatten().collect()
        })
        .collect()
}

/// Elements of ranges as ipset holds them: one per network.
#[must_use]
pub fn as_networks(elements: &Elements) -> Elements {
    let mut out = Elements::new();
    for (first, element) in elements {
        let last = element.last.as_ref().unwrap_or(first);
        for network in pieces(first, last) {
            out.insert(address_key(network.first()), Element { last: last_key(network), ..element.clone() });
        }
    }
    out
}

fn last_key(network: Network) -> Option<Vec<u8>> {
    (network.prefix_len() < network.family().bits()).then(|| address_key(network.last()))
}

/// The elements of a listed set, without the sentinel, and whether that was there.
#[must_use]
pub fn listed(set: &ListedSet) -> (Elements, bool) {
    let mut out = Elements::new();
    let mut guarded = false;
    let usual = usual(&set.kind);
    for listed in &set.elements {
        let Some(network) = listed.key.parse::<Network>().ok() else { continue };
        if network == Network::host(sentinel(network.family())) && listed.left_secs.is_none() {
            guarded = true;
            continue;
        }
        let key = address_key(network.first());
        // Of those that begin at one address the widest lets most in, and is the one that somebody has to know of.
        if out.get(&key).is_none_or(|have| have.last < last_key(network)) {
            out.insert(key, element(network, listed, usual));
        }
    }
    (out, guarded)
}

/// How long what rules add to a set lasts; none where each element says its own time.
fn usual(kind: &str) -> Option<u64> {
    let rest = kind.split_once(" timeout ")?.1;
    rest.split(' ').next()?.parse().ok().filter(|&secs| secs > 0)
}

fn element(network: Network, listed: &ListedElement, usual: Option<u64>) -> Element {
    let comment = listed.comment.as_deref().unwrap_or_default();
    let (comment, total) = match comment.rsplit_once(" (") {
        Some((words, rest)) => match rest.strip_suffix(" s)").and_then(|secs| secs.parse::<u64>().ok()) {
            Some(secs) => (words, Some(secs)),
            None => (comment, None),
        },
        None => (comment, None),
    };
    let timeout = listed.left_secs.map(|left| {
        let total_ms = total.or(usual).unwrap_or(left).max(left).saturating_mul(1_000);
        Timeout { total_ms, left_ms: left.saturating_mul(1_000) }
    });
    Element {
        last: last_key(network),
        verdict: None,
        mark: None,
        timeout,
        comment: (!comment.is_empty()).then(|| comment.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::save;

    fn set(name: &str) -> SetRef {
        SetRef::plain(name)
    }

    fn grant(addr: &str, left_ms: u64) -> (Vec<u8>, Element) {
        let timeout = Some(Timeout { total_ms: 60_000, left_ms });
        let comment = Some("bob \"the\\ two-step".to_owned());
        (address_key(addr.parse().unwrap()), Element { timeout, comment, ..Element::default() })
    }

    #[test]
    fn a_grant_is_written_in_whole_seconds_and_never_more() {
        let elements = Elements::from([grant("203.0.113.2", 59_999), grant("203.0.113.3", 999)]);
        let written = commands(&[Change::RenewElements { set: set("app_ssh_4"), elements }]).unwrap();
        assert_eq!(
            written.opening,
            "add ka_app_ssh_4 203.0.113.2 timeout 59 comment \"bob _the_ two-step (60 s)\"\n"
        );
        assert_eq!(written.closing, "del ka_app_ssh_4 203.0.113.3\n");
    }

    #[test]
    fn what_is_to_end_within_a_second_does_not_go_on_as_it_was() {
        let change = |left| Change::RenewElements {
            set: set("app_ssh_4"),
            elements: Elements::from([grant("203.0.113.3", left)]),
        };
        let written = commands(&[change(999)]).unwrap();
        assert_eq!(
            (written.closing.as_str(), written.opening.as_str()),
            ("del ka_app_ssh_4 203.0.113.3\n", "")
        );
        let again = commands(&[change(999), change(5_000)]).unwrap();
        assert_eq!((again.closing.as_str(), again.opening.lines().count()), ("", 1));
        let new = Change::AddElements {
            set: set("app_ssh_4"),
            elements: Elements::from([grant("203.0.113.3", 999)]),
        };
        assert_eq!(commands(&[new]).unwrap(), Commands::default());
    }

    #[test]
    fn what_is_removed_and_added_again_is_not_gone_in_between() {
        let elements = || Elements::from([grant("203.0.113.2", 10_000)]);
        let name = || set("app_ssh_4");
        let changes = [
            Change::DeleteElements { set: name(), elements: elements() },
            Change::AddElements { set: name(), elements: elements() },
        ];
        assert_eq!(commands(&changes).unwrap().closing, "");
        assert_eq!(commands(&changes[..1]).unwrap().closing, "del ka_app_ssh_4 203.0.113.2\n");
    }

    #[test]
    fn a_network_that_becomes_narrower_does_not_stay_what_it_was() {
        let set = || SetRef { interval: true, ..set("allow_all_4") };
        let network = |text: &str| {
            let network: Network = text.parse().unwrap();
            let element = Element { last: last_key(network), ..Element::default() };
            Elements::from([(address_key(network.first()), element)])
        };
        let delete = |text: &str| Change::DeleteElements { set: set(), elements: network(text) };
        let add = |text: &str| Change::AddElements { set: set(), elements: network(text) };
        let closing = |changes: &[Change]| commands(changes).unwrap().closing;
        let narrower = closing(&[delete("192.0.2.0/24"), add("192.0.2.0/25")]);
        assert!(narrower.contains("del ka_allow_all_4 192.0.2.0/24\n"), "{narrower}");
        assert!(!narrower.contains("/25\n"), "{narrower}");
        // What another version left beside it goes as well, and nothing that begins elsewhere.
        let gone = closing(&[delete("192.0.2.0/25")]);
        for length in ["/23", "/24", "/25", ""] {
            assert!(gone.contains(&format!("del ka_allow_all_4 192.0.2.0{length}\n")), "{gone}");
        }
        assert!(gone.lines().all(|line| line.contains(" 192.0.2.0")), "{gone}");
        assert_eq!(closing(&[delete("192.0.2.1")]), "del ka_allow_all_4 192.0.2.1\n");
        let many = closing(&[delete("224.0.0.0/4")]);
        assert!(
            many.contains(" 224.0.0.0/4\n") && !many.contains(" 224.0.0.0\n"),
            "the sentinel stays: {many}"
        );
    }

    #[test]
    fn of_networks_that_begin_at_one_address_the_widest_is_seen() {
        for order in [["/25", "/24", ""], ["", "/24", "/25"]] {
            let lines = order.map(|length| format!("add ka_allow_all_4 192.0.2.0{length} timeout 0\n"));
            let text = format!("create ka_allow_all_4 hash:net\n{}", lines.concat());
            let (read, _) = listed(&save::sets(&text)["ka_allow_all_4"]);
            assert_eq!(read.len(), 1);
            let last = address_key("192.0.2.255".parse().unwrap());
            assert_eq!(read.values().next().unwrap().last.as_ref(), Some(&last));
        }
    }

    #[test]
    fn a_flushed_set_of_grants_keeps_its_sentinel() {
        let written = commands(&[Change::FlushSet("app_ssh_6".into()), Change::FlushSet("step2_4".into())]);
        assert_eq!(
            written.unwrap().closing,
            "flush ka_app_ssh_6\nadd ka_app_ssh_6 ff00:: timeout 0\nflush ka_step2_4\n"
        );
    }

    #[test]
    fn nothing_lasts_longer_than_ipset_counts_and_rules_are_not_elements() {
        let elements = Elements::from([grant("203.0.113.2", (MAX_SECS + 1) * 1000)]);
        let change = Change::RenewElements { set: set("app_ssh_4"), elements };
        assert_eq!(commands(&[change]), Err(ElementError::TooLong));
        assert!(matches!(commands(&[Change::AddTable]), Err(ElementError::NotElements(_))));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let elements = Elements::from([grant("2001:db8::2", 10_000)]);
        let written =
            commands(&[Change::AddElements { set: set("app_ssh_6"), elements: elements.clone() }]).unwrap();
        let text =
            format!("create ka_app_ssh_6 hash:ip\nadd ka_app_ssh_6 ff00:: timeout 0\n{}", written.opening);
        let (read, guarded) = listed(&save::sets(&text)["ka_app_ssh_6"]);
        assert!(guarded);
        let timeouts = |all: &Elements| all.values().map(|e| e.timeout).collect::<Vec<_>>();
        assert_eq!(timeouts(&read), timeouts(&elements));
        assert_eq!(read.values().next().unwrap().comment.as_deref(), Some("bob _the_ two-step"));
    }

    #[test]
    fn ranges_are_held_as_networks_and_all_of_a_family_as_halves() {
        let range = |first: &str, last: &str| {
            let (first, last) = (address_key(first.parse().unwrap()), address_key(last.parse().unwrap()));
            Elements::from([(first, Element { last: Some(last), ..Element::default() })])
        };
        let held = |elements: &Elements| -> Vec<String> {
            as_networks(elements).iter().flat_map(|(key, element)| texts(key, element)).collect()
        };
        assert_eq!(held(&range("10.0.0.1", "10.0.0.4")), ["10.0.0.1", "10.0.0.2/31", "10.0.0.4"]);
        assert_eq!(held(&range("0.0.0.0", "255.255.255.255")), ["0.0.0.0/1", "128.0.0.0/1"]);
        let all = range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(held(&all), ["::/1", "8000::/1"]);
        assert_eq!(as_networks(&as_networks(&all)), as_networks(&all));
    }
}
