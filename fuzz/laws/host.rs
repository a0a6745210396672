//! What the kernel says about tables of others, and what the audit makes of it.

use crate::ruleset::audit::host::{HostFamily, HostSet};
use crate::ruleset::wire;

use super::choices::Choices;

/// The first byte says what the rest is, the second the family.
///
/// Ranges come out in order and do not overlap.
pub fn host(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (what, family) = (choices.below(5), HostFamily::ALL[choices.below(HostFamily::ALL.len())]);
    let payload = choices.rest();
    match what {
        0 => {
            let _ = wire::owned_table(payload, family);
            let _ = wire::host_chain(payload, family);
        }
        1 => {
            let _ = wire::host_rule(payload, family);
        }
        2 => {
            let _ = wire::host_set(payload, family);
        }
        3 => {
            let _ = wire::host_flowtable(payload, family);
        }
        _ => ranges(payload),
    }
}

fn ranges(payload: &[u8]) {
    let mut raw = wire::host_elements(payload);
    let single = HostSet { interval: true, key_len: 4, ..HostSet::default() };
    let _ = wire::host_ranges(&HostSet { fields: vec![4, 2], ..single.clone() }, raw.clone());
    raw.retain(|raw| raw.element.first.as_deref().is_none_or(|key| key.len() == 4));
    let listed = wire::host_ranges(&single, raw);
    let mut last: Option<&[u8]> = None;
    for element in &listed {
        let Some(first) = element.first.as_deref() else { continue };
        // The same key twice is its own neighbour.
        assert!(last.is_none_or(|last| last <= first), "ranges overlap");
        last = element.last.as_deref();
        assert!(last.is_some_and(|last| last >= first), "a range that ends before it begins");
    }
}
