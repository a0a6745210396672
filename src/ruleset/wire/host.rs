//! Everybody's chains, rules, sets and flowtables, as the kernel dumps them, for the audit.

use super::attr::Attributes;
use super::expr::verdict;
use super::host_expr::steps;
use super::objects::comment;
use crate::ruleset::audit::host::{
    HostBase, HostChain, HostChainKind, HostElement, HostFamily, HostFlowtable, HostHook, HostRule, HostSet,
    TableRef,
};

const SET_INTERVAL: u32 = 0x4;
const ELEMENT_INTERVAL_END: u32 = 1;
const ELEMENT_CATCHALL: u32 = 2;

fn table_of(object: Attributes<'_>, family: HostFamily) -> Option<TableRef> {
    Some(TableRef { family, table: object.text(1)?.to_owned() })
}

/// `NFT_TABLE_F_OWNER` (Linux 5.12): only the program that made the table may write to it.
pub const OWNED: u32 = 2;

/// A table that only one program may change, and the netlink port of that program.
#[must_use]
pub fn owned_table(payload: &[u8], family: HostFamily) -> Option<(TableRef, Option<u32>)> {
    let table = Attributes(payload);
    let owned = table.be32(2).is_some_and(|flags| flags & OWNED != 0);
    owned.then(|| Some((table_of(table, family)?, table.be32(7)))).flatten()
}

/// A table that is switched off: `NFT_TABLE_F_DORMANT`.
#[must_use]
pub fn dormant_table(payload: &[u8], family: HostFamily) -> Option<TableRef> {
    const DORMANT: u32 = 1;
    let table = Attributes(payload);
    let dormant = table.be32(2).is_some_and(|flags| flags & DORMANT != 0);
    table_of(table, family).filter(|_| dormant)
}

/// A chain, without its rules.
#[must_use]
pub fn host_chain(payload: &[u8], family: HostFamily) -> Option<HostChain> {
    let chain = Attributes(payload);
    let hook = chain.nested(4);
    let base = hook.be32(1).and_then(|number| {
        let mut devices: Vec<String> = hook.text(3).map(str::to_owned).into_iter().collect();
        devices.extend(names(hook.nested(4)));
        devices.sort();
        devices.dedup();
        Some(HostBase {
            hook: hook_of(family, number)?,
            priority: hook.be32(2).unwrap_or(0).cast_signed(),
            kind: if chain.text(7) == Some("nat") { HostChainKind::Nat } else { HostChainKind::Filter },
            // NF_DROP is 0, NF_ACCEPT 1.
            drops: chain.be32(5) == Some(0),
            devices,
        })
    });
    Some(HostChain {
        table: table_of(chain, family)?,
        name: chain.text(3)?.to_owned(),
        base,
        rules: Vec::new(),
    })
}

/// `NF_INET_*`, `NF_BR_*` and `NF_NETDEV_*`.
fn hook_of(family: HostFamily, number: u32) -> Option<HostHook> {
    Some(match (family, number) {
        (HostFamily::Netdev, 0) | (HostFamily::Inet, 5) => HostHook::Ingress,
        (HostFamily::Netdev, 1) => HostHook::Egress,
        (HostFamily::Netdev, _) => return None,
        (_, 0) => HostHook::Prerouting,
        (_, 1) => HostHook::Input,
        (_, 2) => HostHook::Forward,
        (_, 3) => HostHook::Output,
        (_, 4) => HostHook::Postrouting,
        _ => return None,
    })
}

/// A rule, with its table and the name of its chain.
#[must_use]
pub fn host_rule(payload: &[u8], family: HostFamily) -> Option<(TableRef, String, HostRule)> {
    let rule = Attributes(payload);
    let mut out = HostRule {
        handle: rule.be64(3).unwrap_or(0),
        comment: rule.get(7).and_then(comment),
        steps: steps(rule.nested(4)),
    };
    if out.comment.is_none() {
        out.comment = compat_comment(&out);
    }
    Some((table_of(rule, family)?, rule.text(2)?.to_owned(), out))
}

/// iptables keeps comments in a match.
fn compat_comment(rule: &HostRule) -> Option<String> {
    use crate::ruleset::audit::step::Step;
    rule.steps.iter().find_map(|step| match step {
        Step::CompatMatch { name, info, .. } if name == "comment" => {
            let text = info.split(|&byte| byte == 0).next().unwrap_or_default();
            Some(String::from_utf8_lossy(text).into_owned())
        }
        _ => None,
    })
}

/// A set without its elements, with its table and name.
#[must_use]
pub fn host_set(payload: &[u8], family: HostFamily) -> Option<(TableRef, String, HostSet)> {
    let set = Attributes(payload);
    let length = |kind| set.be32(kind).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let fields: Vec<usize> = set
        .nested(9)
        .nested(2)
        .filter_map(|(_, field)| Attributes(field).be32(1))
        .filter_map(|len| usize::try_from(len).ok())
        .collect();
    let out = HostSet {
        interval: set.be32(3).unwrap_or(0) & SET_INTERVAL != 0,
        key_len: length(5),
        fields: if fields.len() > 1 { fields } else { Vec::new() },
        data_len: length(7),
        size: set.nested(9).be32(1),
        elements: None,
    };
    Some((table_of(set, family)?, set.text(2)?.to_owned(), out))
}

/// One element as it is stored, and whether it only says where a range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHostElement {
    pub(crate) element: HostElement,
    ends_range: bool,
}

/// The elements in one message of a dump.
#[must_use]
pub fn host_elements(payload: &[u8]) -> Vec<RawHostElement> {
    Attributes(payload).nested(3).filter_map(|(_, item)| host_element(Attributes(item))).collect()
}

fn host_element(item: Attributes<'_>) -> Option<RawHostElement> {
    let flags = item.be32(3).unwrap_or(0);
    let first = item.nested(1).get(1).map(<[u8]>::to_vec);
    if first.is_none() && flags & ELEMENT_CATCHALL == 0 {
        return None;
    }
    Some(RawHostElement {
        element: HostElement {
            first,
            last: item.nested(10).get(1).map(<[u8]>::to_vec),
            data: item.nested(2).get(1).unwrap_or_default().to_vec(),
            verdict: verdict(item.nested(2).nested(2)),
        },
        ends_range: flags & ELEMENT_INTERVAL_END != 0,
    })
}

/// Puts the two halves of ranges together again, in order.
#[must_use]
pub fn host_ranges(set: &HostSet, raw: Vec<RawHostElement>) -> Vec<HostElement> {
    let halves = set.interval && set.fields.is_empty();
    let (mut keyed, mut out): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for raw in raw {
        if halves && raw.element.first.is_some() {
            keyed.push(raw);
        } else {
            out.push(raw.element);
        }
    }
    // At one key, the end of the range before it comes first.
    keyed.sort_by(|a, b| a.element.first.cmp(&b.element.first).then(b.ends_range.cmp(&a.ends_range)));
    let mut open: Option<HostElement> = None;
    for raw in keyed {
        if let Some(mut range) = open.take() {
            // The same key twice is no range, least of all one that goes round the end.
            let next = raw.element.first.as_ref().filter(|&next| Some(next) > range.first.as_ref());
            range.last = next.map(|next| before(next)).or_else(|| range.first.clone());
            out.push(range);
        }
        if !raw.ends_range {
            open = Some(raw.element);
        }
    }
    if let Some(mut range) = open {
        range.last = range.first.as_ref().map(|first| vec![0xff; first.len()]);
        out.push(range);
    }
    out.sort_by(|a, b| a.first.cmp(&b.first));
    out
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut out = key.to_vec();
    for byte in out.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    out
}

/// A flowtable.
#[must_use]
pub fn host_flowtable(payload: &[u8], family: HostFamily) -> Option<HostFlowtable> {
    let flowtable = Attributes(payload);
    let mut devices: Vec<String> = names(flowtable.nested(3).nested(3)).collect();
    devices.sort();
    Some(HostFlowtable { table: table_of(flowtable, family)?, name: flowtable.text(2)?.to_owned(), devices })
}

/// A list of names of interfaces (`NFTA_DEVICE_NAME`).
fn names(list: Attributes<'_>) -> impl Iterator<Item = String> {
    list.filter_map(|(_, name)| {
        std::str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name)).ok().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;
    use crate::ruleset::audit::step::Step;

    fn half(key: u8, ends_range: bool) -> RawHostElement {
        RawHostElement {
            element: HostElement { first: Some(vec![0, key]), ..HostElement::default() },
            ends_range,
        }
    }

    #[test]
    fn a_flowtable_is_read_with_its_interfaces() {
        let devices = [attribute(1, b"eth0\0"), attribute(1, b"eth1\0")].concat();
        let hook = [attribute(1, &[0; 4]), attribute(2, &[0; 4]), attribute(3, &devices)].concat();
        let payload =
            [attribute(1, b"vyos_filter\0"), attribute(2, b"VYOS_FLOWTABLE_FT\0"), attribute(3, &hook)]
                .concat();
        let found = host_flowtable(&payload, HostFamily::Ip).unwrap();
        assert_eq!(found.table.to_string(), "ip vyos_filter");
        assert_eq!(found.name, "VYOS_FLOWTABLE_FT");
        assert_eq!(found.devices, ["eth0", "eth1"]);
    }

    #[test]
    fn a_set_is_read_with_the_room_in_it() {
        let named = [attribute(1, b"host\0"), attribute(2, b"seen\0")].concat();
        let sized = [named.clone(), attribute(9, &attribute(1, &7_u32.to_be_bytes()))].concat();
        let size = |payload: &[u8]| host_set(payload, HostFamily::Ip).unwrap().2.size;
        assert_eq!((size(&named), size(&sized)), (None, Some(7)));
    }

    #[test]
    fn what_a_rule_adds_to_a_set_is_read_and_what_it_takes_out_matters_little() {
        let step = |operation: u32| {
            let data = [attribute(1, b"seen\0"), attribute(3, &operation.to_be_bytes())].concat();
            let item = [attribute(1, b"dynset\0"), attribute(2, &data)].concat();
            steps(Attributes(&attribute(1, &item)))
        };
        assert_eq!(step(0), [Step::AddTo("seen".to_owned())]);
        assert_eq!(step(1), [Step::AddTo("seen".to_owned())]);
        assert_eq!(step(2), [Step::Nothing]);
    }

    #[test]
    fn halves_of_ranges_are_paired_and_the_last_one_reaches_to_the_end() {
        let set = HostSet { interval: true, key_len: 2, ..HostSet::default() };
        let found = host_ranges(&set, vec![half(9, false), half(0, true), half(6, true), half(1, false)]);
        let ends: Vec<_> =
            found.iter().map(|e| (e.first.clone().unwrap()[1], e.last.clone().unwrap())).collect();
        assert_eq!(ends, [(1, vec![0, 5]), (9, vec![0xff, 0xff])]);
    }

    #[test]
    fn the_same_key_twice_is_no_range_and_does_not_go_round_the_end() {
        let set = HostSet { interval: true, key_len: 2, ..HostSet::default() };
        let found = host_ranges(&set, vec![half(0, false), half(0, false), half(3, true)]);
        let ends: Vec<_> = found.iter().map(|element| element.last.clone().unwrap()).collect();
        assert_eq!(ends, [vec![0, 0], vec![0, 2]]);
    }

    #[test]
    fn nonsense_is_no_object() {
        for payload in [&[][..], &[1, 2, 3], &attribute(2, b"x\0")] {
            assert_eq!(host_chain(payload, HostFamily::Inet), None);
            assert_eq!(host_rule(payload, HostFamily::Inet), None);
            assert_eq!(host_set(payload, HostFamily::Inet), None);
            assert_eq!(host_flowtable(payload, HostFamily::Inet), None);
            assert!(host_elements(payload).is_empty());
        }
    }
}
