//! Which ports of a range are tried: those that somebody's rules may tell apart.

use std::collections::BTreeSet;

use super::host::{Host, HostSet};
use super::step::Step;
use crate::units::PortRange;

/// Ports between the ends of one range.
const MOST_PORTS: usize = 32;
/// Addresses of one family of one interface.
pub(super) const MOST_ADDRESSES: usize = 8;

/// All numbers in others' rules and sets that may be ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(BTreeSet<u16>);

impl Samples {
    pub(super) fn of(host: &Host) -> Self {
        let mut out = Self::default();
        let rules = host.chains.iter().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| &rule.steps).for_each(|step| out.note_step(step));
        host.sets.values().for_each(|set| out.note_set(set));
        out
    }

    fn note_step(&mut self, step: &Step) {
        match step {
            Step::Compare { data, .. } => self.note(data, u16::from_be_bytes),
            Step::Range { first, last, .. } => {
                self.note(first, u16::from_be_bytes);
                self.note(last, u16::from_be_bytes);
            }
            Step::CompatMatch { name, info, .. } if matches!(name.as_str(), "tcp" | "udp" | "multiport") => {
                self.note(info, u16::from_ne_bytes);
            }
            _ => {}
        }
    }

    fn note_set(&mut self, set: &HostSet) {
        const PORT: usize = 2;
        let whole = [set.key_len];
        let fields = if set.fields.is_empty() { whole.as_slice() } else { set.fields.as_slice() };
        let mut at = 0;
        for &len in fields {
            if len == PORT {
                let keys = set.elements.iter().flatten().flat_map(|element| [&element.first, &element.last]);
                for key in keys.flatten() {
                    self.note(key.get(at..at + len).unwrap_or_default(), u16::from_be_bytes);
                }
            }
            at = (at + len).next_multiple_of(4);
        }
    }

    fn note(&mut self, bytes: &[u8], read: impl Fn([u8; 2]) -> u16) {
        let pairs = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
        self.0.extend(pairs.map(read));
    }

    /// The ends of a range, and what lies between them that is named somewhere or is next to that.
    pub(super) fn within(&self, range: PortRange) -> BTreeSet<u16> {
        let (first, last) = (range.first(), range.last());
        let named = || self.0.range(first.saturating_sub(1)..=last.saturating_add(1)).copied();
        let beside = named().flat_map(|port| [port.saturating_sub(1), port.saturating_add(1)]);
        let inner = named().chain(beside).filter(|&port| first < port && port < last);
        let mut seen = BTreeSet::new();
        let inner: Vec<u16> = inner.filter(|&port| seen.insert(port)).take(MOST_PORTS).collect();
        inner.into_iter().chain([first, last]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::audit::host::{HostChain, HostElement, HostFamily, HostRule, TableRef};
    use crate::ruleset::audit::step::Comparison;

    fn table() -> TableRef {
        TableRef { family: HostFamily::Inet, table: "host".to_owned() }
    }

    fn samples(steps: Vec<Step>, set: HostSet) -> Samples {
        let rules = vec![HostRule { steps, ..HostRule::default() }];
        let chain = HostChain { table: table(), name: "input".to_owned(), base: None, rules };
        let mut host = Host { chains: vec![chain], ..Host::default() };
        host.sets.insert((table(), "ports".to_owned()), set);
        Samples::of(&host)
    }

    fn within(samples: &Samples, range: &str) -> Vec<u16> {
        samples.within(range.parse().unwrap()).into_iter().collect()
    }

    #[test]
    fn ports_that_rules_and_sets_name_are_tried_with_their_neighbours() {
        let bytes = |ports: &[u16]| ports.iter().flat_map(|port| port.to_be_bytes()).collect::<Vec<_>>();
        let steps = vec![
            Step::Compare { at: 0, how: Comparison::Eq, data: bytes(&[3335]) },
            // Source and destination in one.
            Step::Compare { at: 0, how: Comparison::Eq, data: bytes(&[9, 4335]) },
            Step::Range { at: 0, outside: false, first: bytes(&[5330]), last: bytes(&[5335]) },
            Step::CompatMatch {
                name: "tcp".to_owned(),
                revision: 0,
                info: [0_u16, 65_535, 6335, 6335].into_iter().flat_map(u16::to_ne_bytes).collect(),
            },
        ];
        let element = |first: Vec<u8>| HostElement { first: Some(first), ..HostElement::default() };
        let concatenated = HostSet {
            key_len: 8,
            fields: vec![1, 2],
            elements: Some(vec![element(vec![6, 0, 0, 0, 0x1c, 0x2f, 0, 0])]),
            ..HostSet::default()
        };
        let samples = samples(steps, concatenated);
        for (range, ports) in [
            ("3330-3339", &[3330, 3334, 3335, 3336, 3339][..]),
            ("4330-4339", &[4330, 4334, 4335, 4336, 4339]),
            ("5331-5339", &[5331, 5334, 5335, 5336, 5339]),
            ("6330-6339", &[6330, 6334, 6335, 6336, 6339]),
            ("7210-7219", &[7210, 7214, 7215, 7216, 7219]),
            ("8000-8009", &[8000, 8009]),
            ("22", &[22]),
        ] {
            assert_eq!(within(&samples, range), ports, "{range}");
        }
    }

    #[test]
    fn of_many_ports_some_are_tried() {
        let elements = (1000..2000_u16)
            .map(|port| HostElement { first: Some(port.to_be_bytes().to_vec()), ..HostElement::default() });
        let set = HostSet { key_len: 2, elements: Some(elements.collect()), ..HostSet::default() };
        let found = within(&samples(Vec::new(), set), "900-65535");
        assert_eq!(found.len(), MOST_PORTS + 2);
    }
}
