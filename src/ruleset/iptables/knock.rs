//! Knock sequences by `-m recent`: a list for each state of the automaton, and one for each time that a first knock is
//! good for. A source is in the list of the state where it stands, and its knocks count only while it is in the other.
//!
//! What a full list forgets, a source has not knocked: it opens nothing. Packets to knock ports end here, so their mark
//! is free to tell the agent which sequence it was.

use std::collections::{BTreeMap, BTreeSet};

use super::adopted::{self, Way};
use super::model::Chain;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, Impossible, Keeping, MAX_SECS, port};
use super::{names, recent};
use crate::ruleset::knocking::{
    Deed, KNOCKS_AT_ONCE, KNOCKS_PER_SECOND, KnockGrants, LOG_BYTES, LOG_CLOSED, LOG_GROUP, LOG_OPENED, Move,
    STAY,
};
use crate::units::{Family, Knock, Protocol, START};

/// How many states there may be. The kernel looks for a list by going through all of them, for each rule that asks one.
const MOST_STATES: usize = 64;
/// How many ports one rule compares (`XT_MULTI_PORTS`).
const PORTS_IN_A_RULE: usize = 15;
/// A SYN that is repeated within 72 s is no further knock, as with nftables. In a full table, no knock counts.
const REPEATED: &str = "-m hashlimit --hashlimit-above 50/hour --hashlimit-burst 1 --hashlimit-mode srcip,srcport,dstport \
--hashlimit-name ka_seen --hashlimit-htable-max 262144 --hashlimit-htable-expire 72000";
const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// The chain of a wrong knock.
const WRONG: &str = "knock_wrong";

/// What rules about grants are called.
pub(super) fn label(grants: &KnockGrants) -> String {
    format!("knocked:{}", grants.stem)
}

/// What settings want that iptables cannot do.
pub(super) fn refuse(draft: &Draft<'_>) -> Result<(), Impossible> {
    let knocking = &draft.layout.knocking;
    if knocking.terms.len() > MOST_STATES {
        return Err(Impossible::ManySequences { have: knocking.terms.len(), most: MOST_STATES });
    }
    let Some(long) = knocking.grants.iter().find(|grants| grants.secs > MAX_SECS) else { return Ok(()) };
    let app = long.app.and_then(|index| draft.layout.settings.apps.get(index));
    let app = app.map_or_else(|| "global".to_owned(), |app| app.name.to_string());
    Err(Impossible::TooLong { app, what: "sequence.duration", secs: long.secs })
}

/// The chain that packets to the port of a step go to.
pub(super) fn step_gate(draft: &Draft<'_>, step: u8) -> String {
    let stem = if draft.layout.knocking.before_step(step).is_empty() { "gate" } else { "knocked" };
    format!("step{step}_{stem}")
}

/// What reaches no guarded port is a wrong knock.
pub(super) fn behind_services(draft: &Draft<'_>) -> Vec<String> {
    if draft.layout.knocking.is_empty() {
        return Vec::new();
    }
    let here = || rule().address_type(Side::Destination, "LOCAL");
    vec![
        here().tcp_state("SYN").jump(WRONG, "knock:wrong"),
        here().protocol(Protocol::Udp).state("NEW,UNTRACKED").jump(WRONG, "knock:wrong"),
    ]
}

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    if draft.layout.knocking.is_empty() {
        return Vec::new();
    }
    Knocks { draft, family }.chains()
}

struct Knocks<'d> {
    draft: &'d Draft<'d>,
    family: Family,
}

impl Knocks<'_> {
    fn chains(&self) -> Vec<Chain> {
        let knocking = &self.draft.layout.knocking;
        let mut out = vec![Chain::new("knocks", self.knocks())];
        out.extend(BOTH.map(|protocol| Chain::new(&ports_chain(protocol), self.ports(protocol))));
        out.extend(
            knocking.ports.iter().map(|&(protocol, port)| {
                Chain::new(&port_chain(protocol, port), self.at_port(protocol, port))
            }),
        );
        let kinds: BTreeMap<&str, &Move> =
            knocking.kinds_of_moves.iter().map(|kind| (kind.chain.as_str(), kind)).collect();
        for (mark, kind) in &knocking.moves {
            let Some(kind) = kinds.get(kind.as_str()) else { continue };
            out.extend(self.moved(*mark, kind));
        }
        out.extend(
            knocking
                .deeds
                .iter()
                .map(|(name, deed)| Chain { name: names::chain(name), rules: self.deed(deed) }),
        );
        out.push(Chain::new("knock_forget", self.forget()));
        out.push(Chain::new("knock_meter", self.meter()));
        out.push(Chain::new("knock_fast", Self::lost("drop:knock:fast")));
        out.push(Chain::new(WRONG, self.wrong()));
        for step in [1, 2] {
            let grants = knocking.before_step(step);
            if !grants.is_empty() {
                out.push(Chain::new(&format!("step{step}_knocked"), self.before_step(step, &grants)));
            }
        }
        out
    }

    /// What comes from outside: to a knock port or not.
    fn knocks(&self) -> Vec<String> {
        let mut rules = Vec::new();
        for protocol in BOTH {
            let ports: Vec<String> = self.ports_of(protocol).map(|port| port.to_string()).collect();
            rules.extend(ports.chunks(PORTS_IN_A_RULE).map(|some| {
                // What is for a whole network, such as mDNS, is neither a knock nor lost.
                let here = rule().protocol(protocol).address_type(Side::Destination, "LOCAL");
                let text = here.with(format!("-m multiport --dports {}", some.join(",")));
                text.goto(&ports_chain(protocol), "knock")
            }));
        }
        rules.push(rule().goto("services", "services"));
        rules
    }

    fn ports_of(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        let ports = self.draft.layout.knocking.ports.iter();
        ports.filter(move |(of, _)| *of == protocol).map(|&(_, port)| port)
    }

    fn ports(&self, protocol: Protocol) -> Vec<String> {
        // A port may have been somebody's before it was knocked at.
        let mut rules: Vec<String> =
            adopted::pass(self.draft, self.family, protocol, Way::Gate).into_iter().collect();
        if protocol == Protocol::Tcp {
            rules.push(rule().not_syn().drop("drop:knock"));
            rules.push(rule().protocol(Protocol::Tcp).with(REPEATED).drop("knock:again"));
        }
        rules.extend(self.ports_of(protocol).filter_map(|number| {
            let single = port(number.try_into().ok()?);
            Some(rule().dport(protocol, single).goto(&port_chain(protocol, number), "knock"))
        }));
        rules
    }

    /// A knock at a port: it may be the next one of somebody who stands before it, or a first one, or it is wrong.
    fn at_port(&self, protocol: Protocol, port: u16) -> Vec<String> {
        let here = |knock: Knock| (knock.protocol(), knock.port()) == (protocol, port);
        let steps = || self.draft.layout.knocking.steps.iter().filter(move |(_, knock, _)| here(*knock));
        let mut rules = Vec::new();
        for &(from, knock, to) in steps().filter(|(from, _, to)| *from != START && from != to) {
            let text = self.sized(knock).with(self.begun(from, "rcheck")).with(self.standing(from, "rcheck"));
            rules.push(match to {
                STAY => text.drop("knock:again"),
                to => text.with(self.standing(from, "remove")).goto(&move_chain(to), "knock:step"),
            });
        }
        for &(_, knock, to) in steps().filter(|(from, ..)| *from == START) {
            rules.push(self.sized(knock).goto(&move_chain(to), "knock:first"));
        }
        rules.extend(Self::lost("drop:knock"));
        rules
    }

    fn sized(&self, knock: Knock) -> Phrase {
        let headers = match self.family {
            Family::V4 => 28,
            Family::V6 => 48,
        };
        knock.length().map_or_else(rule, |bytes| rule().length(headers + u32::from(bytes)))
    }

    /// A knock that counts.
    fn moved(&self, mark: u32, kind: &Move) -> Vec<Chain> {
        let mut rules = Vec::new();
        if kind.window_secs.is_some() {
            // In this order: no packet on another processor finds the old state with the new time.
            rules.push(rule().jump("knock_forget", "knock:forget"));
            rules.push(rule().with(self.begun(mark, "set")).done("knock:begun"));
        }
        rules.push(rule().with(self.standing(mark, "set")).done("knock:remember"));
        let deeds = self.deeds(mark);
        if self.draft.layout.options.log && !deeds.is_empty() {
            rules.push(rule().target(&format!("-j MARK --set-xmark 0x{mark:x}/0xffffffff"), "knock:open"));
        }
        rules.extend(deeds.into_iter().map(|deed| rule().jump(deed, "knock:open")));
        rules.push(rule().drop("drop:knock"));
        let metered = rule().jump("knock_meter", "knock:counted");
        if kind.behind.is_empty() {
            rules.insert(0, metered);
            return vec![Chain::new(&move_chain(mark), rules)];
        }
        // It counts for those only for whom another sequence has opened it.
        let inner = format!("{}_in", move_chain(mark));
        let mut gate = vec![metered];
        for grants in &kind.behind {
            let asked = self.draft.asked(&rule(), &grants.set(self.family), self.family, Side::Source);
            gate.extend(asked.into_iter().map(|text| text.goto(&inner, &label(grants))));
        }
        gate.extend(Self::lost("drop:knock"));
        vec![Chain::new(&inner, rules), Chain::new(&move_chain(mark), gate)]
    }

    /// The chains of what is complete at a state.
    fn deeds(&self, mark: u32) -> Vec<&str> {
        let knocking = &self.draft.layout.knocking;
        let Some((_, chain)) = knocking.opens.iter().find(|(at, _)| *at == mark) else { return Vec::new() };
        match knocking.several.iter().find(|(name, _)| name == chain) {
            Some((_, calls)) => calls.iter().map(String::as_str).collect(),
            None => vec![chain],
        }
    }

    fn deed(&self, deed: &Deed) -> Vec<String> {
        match deed {
            Deed::Opens(grants) if grants.families.contains(&self.family) => {
                let set = grants.set(self.family);
                let mut rules = Vec::new();
                if grants.are_wide(self.family, self.draft.layout.settings.global.ipv6_prefix) {
                    rules.push(rule().sent_from("fe80::/10").pass("knock:link-local"));
                }
                match self.draft.keeping {
                    Keeping::Ipset => {
                        let (name, secs) = (names::set(&set), grants.secs);
                        let add = format!("-j SET --add-set {name} src --exist --timeout {secs}");
                        rules.push(rule().target(&add, "knock:opened"));
                    }
                    Keeping::Recent => rules.extend(self.in_lists(&set, "set", "knock:opened")),
                }
                // Only if it did: one too many opens nothing.
                let open = self.draft.asked(&rule(), &set, self.family, Side::Source).into_iter();
                rules.extend(open.filter_map(|text| self.told(text, LOG_OPENED, grants)));
                rules
            }
            Deed::Opens(_) => Vec::new(),
            Deed::Closes(all) => all.iter().flat_map(|grants| self.close(grants)).collect(),
        }
    }

    /// Takes back what stands open for the source, and tells of it only if it did.
    fn close(&self, grants: &KnockGrants) -> Vec<String> {
        if !grants.families.contains(&self.family) {
            return Vec::new();
        }
        let set = grants.set(self.family);
        let open = self.draft.asked(&rule(), &set, self.family, Side::Source);
        let mut rules: Vec<String> =
            open.into_iter().filter_map(|text| self.told(text, LOG_CLOSED, grants)).collect();
        match self.draft.keeping {
            Keeping::Ipset => {
                rules.push(
                    rule().target(&format!("-j SET --del-set {} src", names::set(&set)), "knock:close"),
                );
            }
            Keeping::Recent => rules.extend(self.in_lists(&set, "remove", "knock:close")),
        }
        rules
    }

    /// Does something with the lists of a set of grants.
    fn in_lists(&self, set: &str, verb: &str, what: &str) -> Vec<String> {
        let lists = recent::lists(&self.draft.layout, self.family).into_iter();
        let these = lists.filter(|list| list.meaning == set);
        these.map(|list| rule().with(list.changed(verb)).done(what)).collect()
    }

    fn told(&self, text: Phrase, what: &str, grants: &KnockGrants) -> Option<String> {
        let stem = names::logged(&grants.stem);
        let target = format!(
            "-j NFLOG --nflog-prefix \"{what}{stem}\" --nflog-group {LOG_GROUP} --nflog-size {LOG_BYTES}"
        );
        self.draft.layout.options.log.then(|| text.target(&target, "knock:told"))
    }

    /// Wherever the source stands, it does no longer.
    fn forget(&self) -> Vec<String> {
        let knocking = &self.draft.layout.knocking;
        let mut rules = self.forget_begun();
        rules.extend(
            knocking
                .terms
                .keys()
                .map(|&mark| rule().with(self.standing(mark, "remove")).done("knock:forget")),
        );
        rules
    }

    /// No knock so far counts any more.
    fn forget_begun(&self) -> Vec<String> {
        let windows: BTreeSet<u64> =
            self.draft.layout.knocking.terms.values().map(|(_, window)| *window).collect();
        let each = windows.into_iter();
        each.map(|secs| rule().with(self.list(&begun(secs), "remove", None)).done("knock:forget")).collect()
    }

    fn wrong(&self) -> Vec<String> {
        let mut rules = self.forget_begun();
        let strict = self.draft.layout.knocking.grants.iter().filter(|grants| grants.strict);
        rules.extend(strict.flat_map(|grants| self.close(grants)));
        rules
    }

    /// What a source does too fast is a wrong knock. So the dear first knocks are few.
    fn meter(&self) -> Vec<String> {
        let mask = match self.family {
            Family::V4 => "",
            Family::V6 => " --hashlimit-srcmask 64",
        };
        let above = format!(
            "-m hashlimit --hashlimit-above {KNOCKS_PER_SECOND}/sec --hashlimit-burst {KNOCKS_AT_ONCE} \
             --hashlimit-mode srcip --hashlimit-name ka_knocks --hashlimit-htable-max 65536 \
             --hashlimit-htable-expire 3000{mask}"
        );
        vec![rule().with(above).goto("knock_fast", "knock:fast")]
    }

    fn lost(what: &str) -> Vec<String> {
        vec![rule().jump(WRONG, "knock:wrong"), rule().drop(what)]
    }

    /// The port of a step is there for those only who have knocked; a connection that began in time may go on.
    fn before_step(&self, step: u8, grants: &[&KnockGrants]) -> Vec<String> {
        let gate = format!("step{step}_gate");
        // Knocks of this host itself are not looked at, so it could make none.
        let here = || rule().on_loopback().goto(&gate, "knock:here");
        let mut rules: Vec<String> = (!self.draft.layout.guards_loopback()).then(here).into_iter().collect();
        for grants in grants {
            let asked = self.draft.asked(&rule(), &grants.set(self.family), self.family, Side::Source);
            rules.extend(asked.into_iter().map(|text| text.goto(&gate, &label(grants))));
        }
        rules.push(rule().going_on(Protocol::Tcp).goto(&gate, "knock:step"));
        rules.push(rule().drop(&format!("drop:step{step}")));
        rules
    }

    /// The list of those who stand at a state, asked or changed.
    fn standing(&self, mark: u32, verb: &str) -> String {
        let secs = self.draft.layout.knocking.terms.get(&mark).map_or(0, |(each, _)| *each);
        self.list(&format!("at_{mark:08x}"), verb, Some(secs))
    }

    /// The list of those whose first knock is still good for a state.
    fn begun(&self, mark: u32, verb: &str) -> String {
        let secs = self.draft.layout.knocking.terms.get(&mark).map_or(0, |(_, window)| *window);
        self.list(&begun(secs), verb, Some(secs))
    }

    fn list(&self, stem: &str, verb: &str, secs: Option<u64>) -> String {
        let secs =
            secs.filter(|_| verb == "rcheck").map(|secs| format!(" --seconds {secs}")).unwrap_or_default();
        let (digit, mask) = (self.family.digit(), recent::mask(self.family, self.family.bits()));
        format!("-m recent --{verb}{secs} --name ka_{stem}_{digit} --mask {mask} --rsource")
    }
}

fn begun(secs: u64) -> String {
    format!("begun_{secs}")
}

/// The chain of everything that arrives at knock ports.
pub(super) fn ports_chain(protocol: Protocol) -> String {
    format!("knock_{protocol}")
}

fn port_chain(protocol: Protocol, port: u16) -> String {
    format!("knock_{protocol}_{port}")
}

fn move_chain(mark: u32) -> String {
    format!("knock_{mark:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::model::Tables;
    use crate::ruleset::iptables::plan::{Matcher, plan};
    use crate::ruleset::layout::Options;

    fn tables(keeping: Keeping, sequences: &str) -> Result<Tables, Impossible> {
        let text = format!(
            "global: {{interface_ext: eth0, steps: off}}\nssh: {{port: 22, duration: 60, sequence: {sequences}}}\n"
        );
        let settings = crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings;
        let port = |n| std::num::NonZeroU16::new(n).unwrap();
        let options = Options { http_port: port(80), https_port: port(443), inner_header: true, log: true };
        plan(&settings, options, Matcher::Bpf, keeping)
    }

    fn rules<'t>(tables: &'t Tables, starts: &'t str) -> impl Iterator<Item = &'t Chain> {
        let both = tables.ipv4.iter().chain(&tables.ipv6).filter(|table| table.name == "mangle");
        both.flat_map(|table| &table.chains).filter(move |chain| chain.name.starts_with(starts))
    }

    const MIXED: &str = "[{knocks: [1, u:2, udp/9/20], strict: true, closing: [5, 6]}, {knocks: [1, 3], opens: inner}, {knocks: [7, 8], name: inner, duration: 5}]";

    #[test]
    fn every_packet_to_a_knock_port_is_dropped_in_the_end() {
        for keeping in [Keeping::Ipset, Keeping::Recent] {
            let tables = tables(keeping, MIXED).unwrap();
            let mut some = 0;
            for prefix in ["KA-knock_tcp_", "KA-knock_udp_"] {
                for chain in rules(&tables, prefix) {
                    assert!(chain.rules.last().unwrap().ends_with("-j DROP"), "{}", chain.name);
                    let ways = chain.rules.iter().filter_map(|rule| rule.split_once("-g "));
                    for (_, to) in ways {
                        let next = rules(&tables, to).find(|chain| chain.name == to).unwrap();
                        assert!(next.rules.last().unwrap().ends_with("-j DROP"), "{to}");
                        some += 1;
                    }
                }
            }
            assert_eq!(some, 2 * 8, "one way to each state in either family");
        }
    }

    #[test]
    fn where_ipset_is_gone_nothing_is_left_that_opens() {
        let left = tables(Keeping::Ipset, MIXED).unwrap().without_sets();
        let opens = |rule: &&String| rule.contains("ka:knocked:") || rule.contains(" SET ");
        assert_eq!(rules(&left, "KA-").flat_map(|chain| &chain.rules).find(opens), None);
    }

    #[test]
    fn a_state_has_the_same_list_whatever_other_sequences_there_are() {
        let lists = |sequences: &str| -> BTreeSet<String> {
            let tables = tables(Keeping::Ipset, sequences).unwrap();
            let forget = rules(&tables, "KA-knock_forget").flat_map(|chain| &chain.rules);
            forget
                .filter_map(|rule| rule.split(" --name ").nth(1)?.split(' ').next().map(str::to_owned))
                .collect()
        };
        let few = lists("[{knocks: [1, 2, 3]}]");
        assert_eq!(few.len(), 2 * 4);
        assert!(few.is_subset(&lists("[{knocks: [4, 5]}, {knocks: [1, 9]}, {knocks: [1, 2, 3]}]")));
        assert!(few.is_disjoint(&lists("[{knocks: [1, 2, 3], window: 11}]")), "another time is another list");
    }

    #[test]
    fn more_than_lists_are_good_for_is_refused() {
        let many = |count: usize| {
            let each: Vec<String> = (1..=count).map(|n| format!("{{knocks: [{n}00, {n}01]}}")).collect();
            tables(Keeping::Ipset, &format!("[{}]", each.join(", ")))
        };
        assert!(many(32).is_ok());
        assert_eq!(many(33), Err(Impossible::ManySequences { have: 66, most: 64 }));
        let long = tables(Keeping::Recent, "{knocks: [1, 2], duration: 25d}");
        let told = long.unwrap_err().to_string();
        assert!(told.contains("sequence.duration of ssh is 2160000 s"), "{told}");
    }
}
