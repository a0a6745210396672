//! What `iptables-save` and `ipset save` write.

use std::collections::BTreeMap;

use crate::ruleset::iptables::{elements, live, model, recent, restore, save};

/// The first part is what one family's tables hold, the second the other's, the third the sets; they are parted by zero
/// bytes.
///
/// Nothing but what is ours is ever removed.
pub fn iptables(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split('\0');
    let [ipv4, ipv6] = [(); 2].map(|()| save::listing(parts.next().unwrap_or_default()));
    let sets = save::sets(parts.next().unwrap_or_default());
    let _ = recent::entries(parts.next().unwrap_or_default());
    assert!(sets.keys().all(|name| name.starts_with(model::SET_PREFIX)));
    for set in sets.values() {
        let _ = elements::listed(set);
    }
    let _ = recent::listed([&ipv4, &ipv6]);
    let _ = live::live([&ipv4, &ipv6], &sets, &[]);
    for listing in [&ipv4, &ipv6] {
        let _ = listing.guards();
        let wanted = listing.as_tables();
        for change in restore::removal(listing).into_iter().chain(restore::changes(listing, &wanted)) {
            only_ours(&change.text);
        }
        let ours = listing.ours();
        assert_eq!(ours.has_ours(), listing.has_ours());
    }
    let _ = live::live([&ipv4, &save::Listing::default()], &BTreeMap::new(), &[]);
}

/// Every chain that is made, emptied or removed is ours, and so is every rule's target that is put into others' chains.
fn only_ours(text: &str) {
    for line in text.lines() {
        let mut words = line.split(' ');
        let (verb, chain) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let ours = |name: &str| name.starts_with(model::CHAIN_PREFIX);
        match verb {
            "-F" | "-X" | "-N" => assert!(ours(chain), "{line}"),
            "-A" | "-I" | "-D" if !ours(chain) => {
                assert!(line.contains(&format!(" {}", model::CHAIN_PREFIX)), "{line}");
            }
            _ => {}
        }
    }
}
