//! Bits of our mark to which rules of others give a meaning of their own: what is let in is taken for what they mark.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::host::{Host, HostBase, HostChain, HostHook, HostRule, TableRef};
use super::journey::MARK_PRIORITY;
use super::machine::matches;
use super::packet::{Interface, Packet, TcpFlags, Tracking};
use super::situation::Situation;
use super::step::{Source, Step, Then};
use crate::ruleset::expr::{CT_STATUS_DNAT, Verdict};
use crate::ruleset::iptables::model::CHAIN_PREFIX;
use crate::ruleset::layout::Layout;
use crate::units::{Family, Mark, Protocol};

/// Rules that are named; more do not help anybody.
const NAMED: usize = 3;

/// A rule that tells what has our mark from what has none, by some of its bits.
struct Taker<'h> {
    chain: &'h HostChain,
    rule: &'h HostRule,
    bits: u32,
}

/// Judges every rule of others that sees our mark.
#[must_use]
pub(super) fn marks(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let Some(mark) = layout.settings.global.mark else { return Vec::new() };
    let asking = asking(&situation.host);
    if asking.is_empty() {
        return Vec::new();
    }
    let packets = packets(layout, situation);
    let takers = |mark: Mark| -> Vec<Taker<'_>> {
        let all = asking.iter();
        all.filter_map(|&rule| taker(&situation.host, rule, mark, &packets)).collect()
    };
    let taken = |found: &[Taker<'_>]| found.iter().fold(0, |all, taker| all | taker.bits);
    let found = takers(mark);
    if found.is_empty() {
        return Vec::new();
    }
    let free = free(mark, taken(&found), &|mark| taken(&takers(mark)));
    vec![finding((mark, taken(&found)), &found, free)]
}

/// The rules that see our mark, ask for marks and do something about it.
fn asking(host: &Host) -> Vec<(&HostChain, &HostRule)> {
    let asks = |rule: &&HostRule| rule.steps.iter().any(asks_for_mark) && rule.steps.iter().any(changes);
    let seeing = seeing(host);
    let chains = host.chains.iter().filter(|chain| seeing.contains(&(&chain.table, chain.name.as_str())));
    chains.flat_map(|chain| chain.rules.iter().filter(asks).map(move |rule| (chain, rule))).collect()
}

fn asks_for_mark(step: &Step) -> bool {
    match step {
        // NFT_META_MARK
        Step::Load { source, .. } => *source == Source::Meta(3),
        Step::CompatMatch { name, .. } => name == "mark",
        _ => false,
    }
}

/// Whether it is more than a count or a line in a log.
fn changes(step: &Step) -> bool {
    match step {
        Step::Load { .. }
        | Step::Constant { .. }
        | Step::Compare { .. }
        | Step::Range { .. }
        | Step::Mask { .. }
        | Step::Swap { .. }
        | Step::Limit { .. }
        | Step::AddTo(_)
        | Step::Nothing
        | Step::Never
        | Step::CompatMatch { .. }
        | Step::Unknown(_) => false,
        Step::Lookup { into, .. } => *into == Then::Verdict,
        Step::CompatTarget { name, .. } => !matches!(name.as_str(), "LOG" | "NFLOG" | "ULOG" | "TRACE"),
        _ => true,
    }
}

/// The chains that packets may come to after our mark is set.
fn seeing(host: &Host) -> BTreeSet<(&TableRef, &str)> {
    let late = |base: &HostBase| {
        base.hook >= HostHook::Postrouting || base.hook >= HostHook::Input && base.priority > MARK_PRIORITY
    };
    let ours = |chain: &HostChain| chain.name.starts_with(CHAIN_PREFIX);
    let first = host.chains.iter().filter(|chain| chain.base.as_ref().is_some_and(late));
    let mut left: Vec<&HostChain> = first.collect();
    let mut out = BTreeSet::new();
    while let Some(chain) = left.pop() {
        if !ours(chain) && out.insert((&chain.table, chain.name.as_str())) {
            let names =
                chain.rules.iter().flat_map(|rule| &rule.steps).flat_map(|step| leads_to(host, chain, step));
            left.extend(names.filter_map(|name| host.chain(&chain.table, name)));
        }
    }
    out
}

fn leads_to<'h>(host: &'h Host, chain: &HostChain, step: &'h Step) -> Vec<&'h str> {
    let target = |verdict: &'h Verdict| match verdict {
        Verdict::Jump(name) | Verdict::Goto(name) => Some(name.as_str()),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    };
    match step {
        Step::Verdict(verdict) => target(verdict).into_iter().collect(),
        Step::Lookup { set, .. } => {
            let set = host.sets.get(&(chain.table.clone(), set.clone()));
            let elements = set.and_then(|set| set.elements.as_deref()).unwrap_or_default();
            elements.iter().filter_map(|element| target(element.verdict.as_ref()?)).collect()
        }
        _ => Vec::new(),
    }
}

/// What is let in, and its answers: all that is not known of them may be anything.
fn packets(layout: &Layout<'_>, situation: &Situation) -> Vec<Packet> {
    let anywhere = || Some(Interface { name: String::new(), index: None });
    let mut out = Vec::new();
    for name in &layout.ext {
        let index = situation.interface(name.as_str()).map(|known| known.index);
        let outside = || Some(Interface { name: name.as_str().to_owned(), index });
        for (family, protocol) in
            Family::BOTH.into_iter().flat_map(|f| [(f, Protocol::Tcp), (f, Protocol::Udp)])
        {
            let bare = Packet::new(family, protocol, (None, None), (None, None), TcpFlags::Syn).crafted();
            for tracking in [Tracking::NEW, Tracking::ESTABLISHED, Tracking::REPLY] {
                let (iif, oif) = match tracking.direction {
                    0 => (outside(), anywhere()),
                    _ => (anywhere(), outside()),
                };
                for (for_here, status) in
                    [(true, 0), (false, 0), (true, CT_STATUS_DNAT), (false, CT_STATUS_DNAT)]
                {
                    let tracking = Tracking { status, ..tracking };
                    out.push(Packet {
                        iif: iif.clone(),
                        oif: oif.clone(),
                        tracking,
                        for_here,
                        ..bare.clone()
                    });
                }
            }
        }
    }
    out
}

/// The bits by which a rule tells our mark from none; none where it does not, or asks for our whole mark: that is
/// meant for us.
fn taker<'h>(
    host: &Host,
    (chain, rule): (&'h HostChain, &'h HostRule),
    mark: Mark,
    packets: &[Packet],
) -> Option<Taker<'h>> {
    let mut bits = 0;
    for packet in packets {
        let judge = |value: u32| {
            let mut packet = packet.clone();
            packet.mark = value.to_ne_bytes().map(Some);
            matches(host, &chain.table, rule, &mut packet)
        };
        let (ours, none) = (judge(mark.value()), judge(0));
        if ours == none {
            continue;
        }
        let bits_where = |tells: &dyn Fn(u32) -> bool| {
            (0..u32::BITS).map(|at| 1 << at).filter(|&bit| tells(bit)).fold(0, |all, bit| all | bit)
        };
        let of_ours = bits_where(&|bit| judge(mark.value() ^ bit) != ours);
        let asked = of_ours | bits_where(&|bit| judge(bit) != none);
        // A mark of one bit is not told from others' where that bit keeps something away from us.
        let meant_for_us =
            of_ours & mark.value() == mark.value() && (ours > none || mark.value().count_ones() > 1);
        // Any mark at all: there is no other one to be had.
        if !meant_for_us && asked != u32::MAX {
            bits |= asked;
        }
    }
    (bits != 0).then_some(Taker { chain, rule, bits })
}

/// A mark like ours without the bits that others ask for, which leaves those alone.
fn free(mark: Mark, mut found: u32, bits_taken: &dyn Fn(Mark) -> u32) -> Option<Mark> {
    let mut taken = 0;
    while found != 0 {
        taken |= found;
        let mask = match mark.mask() & !taken {
            0 => !taken,
            mask => mask,
        };
        let value = match mark.value() & mask {
            0 => mask & mask.wrapping_neg(),
            value => value,
        };
        let candidate: Mark = format!("{value:#x}/{mask:#x}").parse().ok().filter(|_| value != 0)?;
        found = bits_taken(candidate) & !taken;
        if found == 0 {
            return Some(candidate);
        }
    }
    None
}

fn finding((mark, bits): (Mark, u32), found: &[Taker<'_>], free: Option<Mark>) -> Finding {
    let mut places: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|Taker { chain, rule, .. }| {
            format!("chain {} {}, handle {}", chain.table, chain.name, rule.handle)
        })
        .collect();
    if found.len() > NAMED {
        places.push(format!("and {} more", found.len() - NAMED));
    }
    let fix = match free {
        Some(free) => format!(
            "# in the configuration, a mark that leaves those bits as they are: under global: mark: {free}\n# then restart knock-agent; what this host's rules say of the old mark needs the new one: run check-ruleset again"
        ),
        None => "# no bit of a mark is free: under global: mark: 0, and check-ruleset says what the host then needs".to_owned(),
    };
    Finding {
        severity: Severity::Warning,
        code: "mark-taken",
        message: format!(
            "rules of others give bits {bits:#x} of our mark {:#x} a meaning of their own, and do to what is let in what they do to what they mark themselves: {}",
            mark.value(),
            places.join("; ")
        ),
        fix,
    }
}
