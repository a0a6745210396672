//! Short names: ipset allows 31 characters, iptables 28 for a chain.

use super::model::{CHAIN_PREFIX, SET_PREFIX};

const MAX_SET: usize = 31;
const MAX_CHAIN: usize = 28;
const MAX_LOGGED: usize = 50;
/// Hexadecimal digits of the sum that stands for what was cut off.
const SUM: usize = 8;
/// Before the sum; no slug has it, so that a cut name is never another's whole one.
pub const CUT: char = '~';

/// The set that holds what the model calls `meaning`, such as `app_ssh_4`.
#[must_use]
pub fn set(meaning: &str) -> String {
    let (stem, family) = meaning.rsplit_once('_').unwrap_or((meaning, ""));
    let room = MAX_SET - SET_PREFIX.len() - family.len() - 1;
    format!("{SET_PREFIX}{}_{family}", short(stem, room))
}

/// What the model calls a set; none if the name was cut, or is none of ours.
#[must_use]
pub fn meaning(set: &str) -> Option<&str> {
    set.strip_prefix(SET_PREFIX).filter(|name| !name.contains(CUT))
}

/// Whether a set is one of ours.
#[must_use]
pub fn is_ours(set: &str) -> bool {
    let stems = [
        "app_", "allow_", "step1_", "step2_", "spoken_", "talked_", "behind_", "flow_", "seq_", "gate_",
        "new",
    ];
    set.strip_prefix(SET_PREFIX).is_some_and(|name| stems.iter().any(|stem| name.starts_with(stem)))
}

/// The chain of that stem, prefix included.
#[must_use]
pub fn chain(stem: &str) -> String {
    format!("{CHAIN_PREFIX}{}", short(stem, MAX_CHAIN - CHAIN_PREFIX.len()))
}

/// How a set of grants is called in what is logged of it: `NFLOG` has room for 63 characters.
#[must_use]
pub fn logged(stem: &str) -> String {
    short(stem, MAX_LOGGED)
}

/// The text itself where it fits, else its beginning and a sum of all of it. Two texts with one beginning and
/// one sum are told apart by [`clash`].
fn short(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room - SUM - 1).collect();
    format!("{kept}{CUT}{:08x}", sum(text))
}

/// The first name that two of these would share.
#[must_use]
pub fn clash<'a>(meanings: impl Iterator<Item = &'a str>, name: impl Fn(&str) -> String) -> Option<String> {
    let mut seen = std::collections::BTreeMap::new();
    for meaning in meanings {
        let short = name(meaning);
        if seen.insert(short.clone(), meaning).is_some_and(|other| other != meaning) {
            return Some(short);
        }
    }
    None
}

/// FNV-1a, 32 bits.
fn sum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_and_come_back() {
        assert_eq!(set("app_ssh_4"), "ka_app_ssh_4");
        assert_eq!(meaning("ka_app_ssh_4"), Some("app_ssh_4"));
        assert_eq!(chain("svc_tcp_22"), "KA-svc_tcp_22");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let long = "a".repeat(48);
        let (one, other) = (format!("app_{long}_4"), format!("app_{}b_4", &long[1..]));
        for name in [set(&one), set(&other)] {
            assert!(name.len() <= 31 && name.starts_with("ka_app_a") && name.ends_with("_4"), "{name}");
            assert_eq!(meaning(&name), None);
        }
        assert_ne!(set(&one), set(&other));
        assert_ne!(set(&one), set(&one.replace("_4", "_6")));
        assert!(chain(&format!("dnat_{long}")).len() <= 28);
        assert_eq!(clash([one.as_str(), &other, &one].into_iter(), set), None);
        assert_eq!(clash(["a", "b"].into_iter(), |_| "same".into()), Some("same".into()));
    }
}
