mod ways;

use super::host::{
    Host, HostBase, HostChain, HostChainKind, HostElement, HostFamily, HostFlowtable, HostHook, HostRule,
    HostSet, TableRef,
};
use super::leads::{Target, Value};
use super::machine::{Fate, pass};
use super::packet::{Packet, TcpFlags, Tracking};
use super::situation::{HostInterface, Listener, Process, Situation};
use super::step::{Comparison, Room, Source, Step, Then};
use super::{Finding, Severity, audit};
use crate::config::Settings;
use crate::ruleset::expr::Verdict;
use crate::ruleset::layout::{Layout, Options};
use crate::units::{Family, Protocol};

fn table() -> TableRef {
    TableRef { family: HostFamily::Inet, table: "host".into() }
}

fn base(hook: HostHook, priority: i32, drops: bool) -> Option<HostBase> {
    Some(HostBase { hook, priority, kind: HostChainKind::Filter, drops, devices: Vec::new() })
}

fn rule(steps: Vec<Step>) -> HostRule {
    HostRule { handle: 7, comment: None, steps }
}

fn chain(name: &str, base: Option<HostBase>, rules: Vec<Vec<Step>>) -> HostChain {
    HostChain { table: table(), name: name.into(), base, rules: rules.into_iter().map(rule).collect() }
}

fn verdict(verdict: Verdict) -> Step {
    Step::Verdict(verdict)
}

fn jump(to: &str) -> Step {
    verdict(Verdict::Jump(to.into()))
}

fn goto(to: &str) -> Step {
    verdict(Verdict::Goto(to.into()))
}

fn perhaps() -> Step {
    Step::Unknown("numgen".into())
}

fn dport(port: u16) -> [Step; 2] {
    [
        Step::Load { source: Source::Payload { base: 2, offset: 2 }, to: 0, len: Some(2) },
        Step::Compare { at: 0, how: Comparison::Eq, data: port.to_be_bytes().to_vec() },
    ]
}

fn marked(mark: u32) -> [Step; 2] {
    [
        Step::Load { source: Source::Meta(3), to: 0, len: Some(4) },
        Step::Compare { at: 0, how: Comparison::Eq, data: mark.to_ne_bytes().to_vec() },
    ]
}

/// The ways out of the chain `input`, and whether each is certain.
fn ends(chains: Vec<HostChain>) -> Vec<(Fate, bool)> {
    let host = Host { chains, ..Host::default() };
    ends_in(&host)
}

fn ends_in(host: &Host) -> Vec<(Fate, bool)> {
    let from = (Some([45, 0, 0, 1].into()), Some(50_000));
    let to = (Some([203, 0, 113, 1].into()), Some(22));
    let mut packet = Packet::new(Family::V4, Protocol::Tcp, from, to, TcpFlags::Syn);
    let input = host.chain(&table(), "input").unwrap();
    pass(host, input, &mut packet).ends.into_iter().map(|end| (end.fate, end.certain)).collect()
}

fn input(rules: Vec<Vec<Step>>) -> HostChain {
    chain("input", base(HostHook::Input, 0, true), rules)
}

#[test]
fn the_first_rule_that_matches_decides_and_else_the_policy() {
    let [load, compare] = dport(22);
    let accept = vec![load, compare, verdict(Verdict::Accept)];
    assert_eq!(ends(vec![input(vec![accept])]), [(Fate::Accepted, true)]);
    let [load, compare] = dport(23);
    let other = vec![load, compare, verdict(Verdict::Accept)];
    assert_eq!(ends(vec![input(vec![other])]), [(Fate::Dropped, true)]);
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let accept = || vec![verdict(Verdict::Accept)];
    let empty = chain("empty", None, vec![]);
    assert_eq!(
        ends(vec![input(vec![vec![jump("empty")], accept()]), empty.clone()]),
        [(Fate::Accepted, true)]
    );
    assert_eq!(ends(vec![input(vec![vec![goto("empty")], accept()]), empty]), [(Fate::Dropped, true)]);
    // A goto inside a jump comes back to where the jump was.
    let outer = chain("outer", None, vec![vec![goto("inner")], vec![verdict(Verdict::Drop)]]);
    let inner = chain("inner", None, vec![vec![verdict(Verdict::Return)]]);
    assert_eq!(
        ends(vec![input(vec![vec![jump("outer")], accept()]), outer, inner]),
        [(Fate::Accepted, true)]
    );
}

#[test]
fn after_a_rule_that_may_match_both_ways_are_followed() {
    let both =
        ends(vec![input(vec![vec![perhaps(), verdict(Verdict::Drop)], vec![verdict(Verdict::Accept)]])]);
    assert_eq!(both, [(Fate::Dropped, false), (Fate::Accepted, false)]);
    // Whatever the first rule says, the packet is dropped.
    let either = ends(vec![input(vec![vec![perhaps(), verdict(Verdict::Return)]])]);
    assert_eq!(either, [(Fate::Dropped, true)]);
    let within = chain("within", None, vec![vec![perhaps(), verdict(Verdict::Accept)]]);
    let after = ends(vec![input(vec![vec![jump("within")], vec![verdict(Verdict::Drop)]]), within]);
    assert_eq!(after, [(Fate::Accepted, false), (Fate::Dropped, false)]);
}

#[test]
fn an_honest_client_is_below_every_rate() {
    let over = vec![Step::Limit { over: true, room: Room::Narrow }, verdict(Verdict::Drop)];
    let under = vec![Step::Limit { over: false, room: Room::Wide }, verdict(Verdict::Accept)];
    assert_eq!(ends(vec![input(vec![over, under])]), [(Fate::Accepted, true)]);
}

#[test]
fn ranges_catch_all_elements_and_sets_too_large_to_read_are_looked_up() {
    let element = |first: Option<[u8; 2]>, last: Option<[u8; 2]>, verdict| HostElement {
        first: first.map(Vec::from),
        last: last.map(Vec::from),
        data: Vec::new(),
        verdict,
    };
    let lookup = |into| {
        let load = Step::Load { source: Source::Payload { base: 2, offset: 2 }, to: 0, len: Some(2) };
        vec![load, Step::Lookup { set: "ports".into(), at: 0, inverted: false, into }]
    };
    let mut host = Host { chains: vec![input(vec![lookup(Then::Verdict)])], ..Host::default() };
    let mut set = |elements: Option<Vec<HostElement>>| {
        let set = HostSet { interval: true, key_len: 2, elements, ..HostSet::default() };
        host.sets.insert((table(), "ports".into()), set);
        ends_in(&host)
    };
    let range = element(Some([0, 20]), Some([0, 30]), Some(Verdict::Accept));
    assert_eq!(set(Some(vec![range])), [(Fate::Accepted, true)]);
    let other = element(Some([0, 30]), Some([0, 40]), Some(Verdict::Accept));
    assert_eq!(set(Some(vec![other.clone()])), [(Fate::Dropped, true)]);
    let rest = element(None, None, Some(Verdict::Accept));
    assert_eq!(set(Some(vec![other, rest])), [(Fate::Accepted, true)]);
    assert_eq!(set(None), [(Fate::Dropped, true)], "a list of strangers");
}

#[test]
fn chains_that_call_each_other_for_ever_are_not_followed_for_ever() {
    let again = chain("again", None, vec![vec![jump("again")], vec![jump("again")]]);
    let found = ends(vec![input(vec![vec![jump("again")], vec![jump("nowhere")]]), again]);
    assert!(found.iter().all(|(_, certain)| !certain), "{found:?}");
}

fn settings(more: &str) -> Settings {
    let text = format!(
        "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /a-path\n  https_post_path: /b-path\n\
         lan:\n  port: 2223\n  protocol: tcp\n  destination: 192.168.1.10:22\n  duration: 1h\n  step2_https_duration: 5\n  \
         access_key_http: [first-secret]\n  access_key_https: [other-secret]\n{more}"
    );
    crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings
}

fn situation(chains: Vec<HostChain>) -> Situation {
    let interface = |name: &str, index, v4: [u8; 4]| HostInterface {
        name: name.into(),
        index,
        addresses: vec![(v4.into(), 24)],
        ..HostInterface::default()
    };
    Situation {
        host: Host { chains, ..Host::default() },
        interfaces: vec![interface("eth0", 2, [203, 0, 113, 1]), interface("eth1", 3, [192, 168, 1, 1])],
        ..Situation::default()
    }
}

fn told(settings: &Settings, situation: &Situation) -> Vec<Finding> {
    let port = |n| std::num::NonZeroU16::new(n).unwrap();
    let options = Options { http_port: port(8080), https_port: port(8443), inner_header: true, log: true };
    let mut out = audit(&Layout::new(settings, options), situation);
    out.retain(|finding| finding.severity != Severity::Info);
    out
}

fn offloading(devices: &[&str], before: Vec<Vec<Step>>) -> Situation {
    let established = vec![
        Step::Load { source: Source::Ct { key: 0, direction: None }, to: 0, len: Some(4) },
        Step::Mask { from: 0, to: 0, mask: 2_u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Step::Compare { at: 0, how: Comparison::Ne, data: vec![0; 4] },
        Step::FlowAdd("fast".into()),
    ];
    let rules = before.into_iter().chain([established]).collect();
    let mut out = situation(vec![chain("forward", base(HostHook::Forward, 0, false), rules)]);
    out.host.flowtables.push(HostFlowtable {
        table: table(),
        name: "fast".into(),
        devices: devices.iter().map(|&device| device.to_owned()).collect(),
    });
    out
}

#[test]
fn a_flowtable_that_takes_granted_connections_is_told() {
    let found = told(&settings(""), &offloading(&["eth0", "eth1"], vec![]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].code), (Severity::Warning, "flowtable"));
    assert_eq!(found[0].fix, "nft insert rule inet host forward meta mark 24107 accept");
}

#[test]
fn a_flowtable_of_other_interfaces_or_behind_our_mark_is_none_of_ours() {
    let [load, compare] = marked(24107);
    let excluded = vec![load, compare, verdict(Verdict::Accept)];
    for situation in [offloading(&["eth7"], vec![]), offloading(&["eth0"], vec![excluded])] {
        assert_eq!(told(&settings(""), &situation), []);
    }
    let keeping = settings("  established: keep\n");
    assert_eq!(told(&keeping, &offloading(&["eth0"], vec![])), []);
}

#[test]
fn a_chain_that_accepts_the_mark_only_is_no_obstacle_but_one_that_takes_it_away_is() {
    let accept = || {
        let [load, compare] = marked(24107);
        chain("input", base(HostHook::Input, 0, true), vec![vec![load, compare, verdict(Verdict::Accept)]])
    };
    let out = chain("out", base(HostHook::Output, 0, false), vec![]);
    assert_eq!(told(&settings(""), &situation(vec![accept(), out])), []);
    let wipe = vec![Step::Constant { to: 0, data: vec![0; 4] }, Step::SetMark { from: 0 }];
    let wiper = chain("wiper", base(HostHook::Input, -5, false), vec![wipe]);
    let found = told(&settings(""), &situation(vec![accept(), wiper]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, Severity::Error);
}

#[test]
fn a_host_can_be_judged_as_it_is_with_our_rule_in_place() {
    let custom = chain("NAME_IN", None, vec![vec![verdict(Verdict::Drop)]]);
    let mut situation =
        situation(vec![chain("input", base(HostHook::Input, 0, false), vec![vec![jump("NAME_IN")]]), custom]);
    for settings in [settings(""), settings("").with_mark("0x100/0xff00")] {
        let mark = settings.global.mark.unwrap();
        assert_eq!(told(&settings, &situation).len(), 1);
        let mut kept = situation.clone();
        assert!(kept.host.accept_mark(&table(), "NAME_IN", Some(7), mark));
        assert_eq!(told(&settings, &kept), []);
        let mut late = situation.clone();
        assert!(late.host.accept_mark(&table(), "NAME_IN", None, mark));
        assert_eq!(told(&settings, &late).len(), 1, "behind the drop it is too late");
        late.host.forget(&table(), "NAME_IN", 7);
        assert_eq!(told(&settings, &late), []);
    }
    assert!(!situation.host.accept_mark(&table(), "elsewhere", None, crate::units::Mark::DEFAULT));
}

trait WithMark {
    fn with_mark(self, mark: &str) -> Self;
}

impl WithMark for Settings {
    fn with_mark(mut self, mark: &str) -> Self {
        self.global.mark = Some(mark.parse().unwrap());
        self
    }
}

#[test]
fn an_interface_without_addresses_yet_is_judged_in_both_families() {
    let mut situation = situation(vec![chain("input", base(HostHook::Input, 0, true), vec![])]);
    situation.interfaces.clear();
    let found = told(&settings(""), &situation);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].code, "host-drops-by-default");
}

#[test]
fn chains_of_a_bridge_matter_where_the_outside_interface_is_one() {
    let table = TableRef { family: HostFamily::Bridge, table: "host".into() };
    let chain = HostChain { table, ..chain("input", base(HostHook::Input, 0, true), vec![]) };
    let mut situation = situation(vec![chain]);
    assert_eq!(told(&settings(""), &situation), []);
    situation.interfaces[0].is_bridge = true;
    let found = told(&settings(""), &situation);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].code), (Severity::Error, "host-drops-early"));
    assert!(
        found[0].fix.starts_with(
            "nft add rule bridge host input meta ibrname '\"eth0\"' tcp dport '{ 2223, 8080, 8443 }' accept"
        ),
        "{found:#?}"
    );
    // Another bridge than the outside one is not let in, and the outside one is.
    for (name, left) in [("eth0", 0), ("br-guest", 1)] {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        // NFT_META_BRI_IIFNAME
        let load = Step::Load { source: Source::Meta(17), to: 0, len: Some(16) };
        let compare = Step::Compare { at: 0, how: Comparison::Eq, data: bytes };
        situation.host.chains[0].rules = vec![rule(vec![load, compare, verdict(Verdict::Accept)])];
        assert_eq!(told(&settings(""), &situation).len(), left, "{name}");
    }
}

/// `meta mark and MASK == VALUE`, and what follows.
fn masked(mask: u32, value: u32, then: Step) -> Vec<Step> {
    let [load, _] = marked(0);
    let mask = Step::Mask { from: 0, to: 0, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] };
    let compare = Step::Compare { at: 0, how: Comparison::Eq, data: value.to_ne_bytes().to_vec() };
    vec![load, mask, compare, then]
}

#[test]
fn bits_of_our_mark_that_others_ask_for_are_told_with_a_mark_that_is_free() {
    let told = |settings: &Settings, hook, priority, rules: Vec<Vec<Step>>| -> Vec<String> {
        let jumped = chain("KUBE", None, rules);
        let nat = HostBase { kind: HostChainKind::Nat, ..base(hook, priority, false).unwrap() };
        let found =
            told(settings, &situation(vec![chain("nat", Some(nat), vec![vec![jump("KUBE")]]), jumped]));
        assert!(found.iter().all(|one| (one.severity, one.code) == (Severity::Warning, "mark-taken")));
        found.into_iter().map(|one| one.fix).collect()
    };
    let after = HostHook::Postrouting;
    let back = || masked(0x4000, 0, verdict(Verdict::Return));
    let (usual, freed) = (settings(""), settings("").with_mark("0x1e2b/0xffffbfff"));
    let fixes = told(&usual, after, 100, vec![back(), vec![Step::Translated]]);
    assert_eq!(fixes.len(), 1);
    assert!(fixes[0].contains("mark: 0x1e2b/0xffffbfff\n"), "{fixes:?}");
    assert_eq!(told(&freed, after, 100, vec![back()]), [""; 0]);
    let accept = || verdict(Verdict::Accept);
    // Without one bit it is another program's.
    let two = vec![masked(1, 1, accept()), masked(3, 2, accept())];
    assert!(told(&usual, after, 100, two)[0].contains("mark: 0x5e28/0xfffffffc\n"));
    let own = settings("").with_mark("0x4000/0xc000");
    assert!(told(&own, after, 100, vec![back()])[0].contains("mark: 0x8000/0x8000\n"));
    let [load, mask, ..] = <[Step; 4]>::try_from(masked(0xff00, 0, accept())).unwrap();
    for how in [Comparison::Eq, Comparison::Ne] {
        let compare = Step::Compare { at: 0, how, data: 0x500_u32.to_ne_bytes().to_vec() };
        let meant = vec![load.clone(), mask.clone(), compare, accept()];
        assert_eq!(told(&settings("").with_mark("0x500/0xff00"), after, 100, vec![meant]), [""; 0]);
    }
    let field = masked(0xff00, 0, accept());
    assert_eq!(told(&settings("").with_mark("0x500/0xff00"), after, 100, vec![field]).len(), 1);
    for (hook, priority, rules) in [
        (HostHook::Prerouting, 0, back()),
        (HostHook::Forward, -150, back()),
        (after, 100, masked(0x8000_0000, 0, accept())),
        (after, 100, masked(u32::MAX, 0, accept())),
        (after, 100, masked(u32::MAX, 24_107, accept())),
        (after, 100, masked(0xffff, 24_107, accept())),
        (after, 100, masked(0x4000, 0x4000, Step::Nothing)),
    ] {
        assert_eq!(told(&usual, hook, priority, vec![rules.clone()]), [""; 0], "{hook:?} {rules:?}");
    }
}

#[test]
fn our_own_daemon_on_the_step_ports_is_no_obstacle() {
    let listener = |name: Option<&str>| Listener {
        protocol: Protocol::Tcp,
        address: [0, 0, 0, 0].into(),
        port: 8443,
        process: name.map(|name| Process { pid: 7, name: name.to_owned() }),
    };
    let with = |listener| Situation { listeners: Some(vec![listener]), ..situation(vec![]) };
    for ours in ["knock-agent", "knock-front"] {
        assert_eq!(told(&settings(""), &with(listener(Some(ours)))), []);
    }
    let found = told(&settings(""), &with(listener(Some("nginx"))));
    assert_eq!((found[0].severity, found[0].code), (Severity::Error, "step-port-taken"));
    let found = told(&settings(""), &with(listener(None)));
    assert_eq!((found[0].severity, found[0].code), (Severity::Warning, "step-port-taken"));
}

#[test]
fn a_program_on_a_port_that_is_knocked_at_is_told_without_the_port() {
    let settings = settings("  sequence: {knocks: [1234, udp/5678]}\n");
    let at = |protocol, port, address: [u8; 4]| {
        let process = Some(Process { pid: 7, name: "nginx".to_owned() });
        let listener = Listener { protocol, address: address.into(), port, process };
        let situation = Situation { listeners: Some(vec![listener]), ..situation(vec![]) };
        told(&settings, &situation).into_iter().find(|finding| finding.code == "knock-port-taken")
    };
    let found = at(Protocol::Udp, 5678, [0, 0, 0, 0]).unwrap();
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.message.contains("nginx (pid 7)") && !found.message.contains("5678"), "{}", found.message);
    assert_eq!(at(Protocol::Tcp, 5678, [0, 0, 0, 0]), None);
    assert_eq!(at(Protocol::Tcp, 1234, [127, 0, 0, 1]), None);
}

#[test]
fn a_program_before_all_rules_is_told() {
    let mut situation = situation(vec![]);
    situation.interfaces[0].has_xdp = true;
    let found = told(&settings(""), &situation);
    assert_eq!((found[0].severity, found[0].code), (Severity::Warning, "xdp"));
}

#[test]
fn a_packet_that_is_not_tracked_has_no_status() {
    let mut packet = Packet::new(Family::V6, Protocol::Udp, (None, None), (None, Some(53)), TcpFlags::Syn);
    packet.tracking = Tracking::UNTRACKED;
    assert_eq!(packet.load(Source::Ct { key: 2, direction: None }, Some(4)), None);
    assert_eq!(
        packet.load(Source::Ct { key: 0, direction: None }, Some(4)).unwrap(),
        [64, 0, 0, 0].map(Some)
    );
    assert_eq!(packet.port(true), Some(53));
    assert_eq!(packet.port(false), None);
}

/// A rule that redirects to what a map has for the port; the packet's port is not known.
fn looked_up(elements: Option<Vec<HostElement>>) -> Vec<Target> {
    let load = Step::Load { source: Source::Payload { base: 2, offset: 2 }, to: 0, len: Some(2) };
    let lookup = Step::Lookup { set: "to".into(), at: 0, inverted: false, into: Then::Register(16) };
    let steps = vec![load, lookup, Step::Redirect { port: Some(16), last_port: None }];
    let mut host = Host {
        chains: vec![chain("pre", base(HostHook::Prerouting, -100, false), vec![steps])],
        ..Host::default()
    };
    let set = HostSet { key_len: 2, data_len: 2, elements, ..HostSet::default() };
    host.sets.insert((table(), "to".into()), set);
    let mut packet =
        Packet::new(Family::V4, Protocol::Tcp, (None, None), (None, None), TcpFlags::Syn).crafted();
    let pre = host.chain(&table(), "pre").unwrap();
    pass(&host, pre, &mut packet).leads.into_iter().flat_map(|lead| lead.targets).collect()
}

#[test]
fn a_translation_leads_to_every_value_of_its_map_and_anywhere_where_that_cannot_be_read() {
    let element = |key: u16, to: u16| HostElement {
        first: Some(key.to_be_bytes().to_vec()),
        data: to.to_be_bytes().to_vec(),
        ..HostElement::default()
    };
    let to = |port| Target { addr: Value::Ours, port };
    let found = looked_up(Some(vec![element(80, 8080), element(81, 8080), element(90, 2223)]));
    assert_eq!(found, [to(Value::Within(2223, 2223)), to(Value::Within(8080, 8080))]);
    assert_eq!(looked_up(Some(Vec::new())), [], "nothing is found in it");
    assert_eq!(looked_up(None), [to(Value::Any)]);
}

#[test]
fn only_what_may_be_a_guarded_port_of_this_host_is_an_alias() {
    // What is guarded here is at a LAN host, so the ports of the steps are all that this host has.
    let leads = |steps: Vec<Step>, hook, priority| {
        let mut chain = chain("pre", base(hook, priority, false), vec![steps]);
        if hook == HostHook::Prerouting && priority == -100 {
            chain.base.as_mut().unwrap().kind = HostChainKind::Nat;
        }
        let found = told(&settings(""), &situation(vec![chain]));
        found
            .into_iter()
            .filter(|finding| finding.code != "step-port-redirected")
            .map(|finding| (finding.code, finding.message.contains("may bring")))
            .collect::<Vec<_>>()
    };
    let constant = |to, data: &[u8]| Step::Constant { to, data: data.to_vec() };
    let port = |to, port: u16| constant(to, &port.to_be_bytes());
    let redirect = |last| Step::Redirect { port: Some(0), last_port: last };
    let nat = |steps| leads(steps, HostHook::Prerouting, -100);
    let alias = |may| vec![("guarded-port-alias", may)];
    assert_eq!(nat(vec![port(0, 8000), port(16, 8100), redirect(Some(16))]), alias(false));
    assert_eq!(nat(vec![port(0, 8000), port(16, 8070), redirect(Some(16))]), []);
    let own = constant(32, &[203, 0, 113, 0]);
    let dnat =
        |last_addr| Step::Dnat { addr: Some(32), last_addr, v6: false, port: Some(0), last_port: None };
    let until = |last: [u8; 4]| vec![port(0, 8080), own.clone(), constant(48, &last), dnat(Some(48))];
    assert_eq!(nat(until([203, 0, 113, 1])), alias(false));
    assert_eq!(nat(until([203, 0, 113, 0])), []);
    let unknown = Step::Load { source: Source::Unknown, to: 0, len: Some(16) };
    assert_eq!(nat(vec![unknown.clone(), redirect(None)]), alias(true));
    assert_eq!(nat(vec![unknown, constant(32, &[10, 0, 0, 5]), dnat(None)]), []);
    let write = |base, offset| Step::Write { base, offset, len: 2, from: 0 };
    for (base, offset) in [(2, 2), (1, 42)] {
        let steps = || vec![port(0, 8080), write(base, offset)];
        let after = leads(steps(), HostHook::Input, 0);
        assert_eq!(after, [("stateless-translation", false)], "{base}");
        assert_eq!(leads(vec![port(0, 8081), write(base, offset)], HostHook::Input, 0), []);
        assert_eq!(leads(steps(), HostHook::Output, 0), []);
    }
    let sport = leads(vec![port(0, 8080), write(2, 0)], HostHook::Prerouting, -140);
    assert_eq!(sport, []);
}
