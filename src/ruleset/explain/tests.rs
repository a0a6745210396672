use std::net::IpAddr;

use super::facts::Ports;
use super::recalled::{Event, Newer, Pending, Recalled};
use super::{Answer, Cause, Daemon, Echo, Facts, Path, PathTrouble, Question, Routes, Verdict, explain};
use crate::config::Settings;
use crate::grant::Happening;
use crate::ruleset::audit::host::{
    HostBase, HostChain, HostChainKind, HostElement, HostFamily, HostHook, HostRule, HostSet, TableRef,
};
use crate::ruleset::audit::packet::Interface;
use crate::ruleset::audit::situation::{HostInterface, Listener, Situation};
use crate::ruleset::audit::step::{Comparison, Room, Source, Step, Then};
use crate::ruleset::expr::Verdict as Does;
use crate::ruleset::layout::{Layout, Options};
use crate::units::Protocol;

const CLIENT: [u8; 4] = [203, 0, 113, 9];
const GATE: [u8; 4] = [192, 0, 2, 1];

struct Ways(Path);

impl Routes for Ways {
    fn path(&self, _: IpAddr, _: IpAddr, _: Option<Ports>, _: &Interface) -> Path {
        self.0.clone()
    }

    fn towards(&self, _: IpAddr, _: Option<IpAddr>, _: Option<Ports>) -> Result<Interface, PathTrouble> {
        Ok(ext())
    }
}

fn ext() -> Interface {
    Interface { name: "eth0".into(), index: Some(2) }
}

fn settings() -> Settings {
    let text = "global:\n  http_post_path: /abcdef\n  https_post_path: /ghijkl\n  interface_ext: eth0\n\
                ssh:\n  port: 22\n  destination: local\n  duration: 60\n  step2_https_duration: 10\n  \
                access_key_http: [abcdefghij]\n  access_key_https: [klmnopqrst]\n";
    crate::config::parse("t.yaml", text, None, &crate::config::Alone).unwrap().settings
}

fn table(name: &str) -> TableRef {
    TableRef { family: HostFamily::Inet, table: name.into() }
}

fn chain(of: &str, name: &str, hook: HostHook, priority: i32, rules: Vec<Vec<Step>>) -> HostChain {
    let base = HostBase { hook, priority, kind: HostChainKind::Filter, drops: false, devices: Vec::new() };
    let rules = rules.into_iter().enumerate();
    HostChain {
        table: table(of),
        name: name.into(),
        base: Some(base),
        rules: rules
            .map(|(index, steps)| HostRule {
                handle: index as u64 + 5,
                comment: (of == "knock_agent").then(|| "ka:drop:tcp_22".to_owned()),
                steps,
            })
            .collect(),
    }
}

fn from_set(set: &str, inverted: bool, does: Does) -> Vec<Step> {
    vec![
        Step::Load { source: Source::Payload { base: 1, offset: 12 }, to: 0, len: Some(4) },
        Step::Lookup { set: set.into(), at: 0, inverted, into: Then::Nothing },
        Step::Verdict(does),
    ]
}

/// A set: its table, its name, what is in it; none: it cannot be read.
type Filled = (&'static str, &'static str, Option<Vec<[u8; 4]>>);

/// A host whose gate lets in who is in the set of grants, with `more` chains and these in the sets.
fn host(more: Vec<HostChain>, sets: &[Filled]) -> Situation {
    let mut situation = Situation::default();
    situation.interfaces.push(HostInterface {
        name: "eth0".into(),
        index: 2,
        addresses: vec![(IpAddr::from(GATE), 24)],
        ..HostInterface::default()
    });
    let gate = chain(
        "knock_agent",
        "gate",
        HostHook::Prerouting,
        -150,
        vec![to_port(22, from_set("app_ssh_4", true, Does::Drop))],
    );
    situation.host.chains.push(gate);
    situation.host.chains.extend(more);
    for (of, name, addresses) in sets {
        let element = |addr: [u8; 4]| HostElement { first: Some(addr.to_vec()), ..HostElement::default() };
        let elements = addresses.clone().map(|all| all.into_iter().map(element).collect());
        let set = HostSet { key_len: 4, elements, ..HostSet::default() };
        situation.host.sets.insert((table(of), (*name).to_owned()), set);
    }
    let at = |port| Listener { protocol: Protocol::Tcp, address: [0; 4].into(), port, process: None };
    situation.listeners = Some(vec![at(22), at(8080), at(8443)]);
    situation
}

fn granted() -> Filled {
    ("knock_agent", "app_ssh_4", Some(vec![CLIENT]))
}

fn nobody() -> Filled {
    ("knock_agent", "app_ssh_4", Some(Vec::new()))
}

fn ask_by(situation: &Situation, way: Path, daemon: Daemon) -> Answer {
    ask_tracking(situation, way, daemon, None)
}

fn ask_tracking(situation: &Situation, way: Path, daemon: Daemon, tracked: Option<(u64, u64)>) -> Answer {
    let settings = settings();
    let (http_port, https_port) = (8080.try_into().unwrap(), 8443.try_into().unwrap());
    let layout = Layout::new(&settings, Options { http_port, https_port, inner_header: true, log: true });
    let facts = Facts {
        situation,
        routes: &Ways(way),
        daemon,
        guards: true,
        by_iptables: false,
        flows: Vec::new(),
        tracked,
        begun: Vec::new(),
        only_v6: Vec::new(),
        full: Vec::new(),
        echo: &|_, _| Echo::NotAsked,
        ends: &|_, _| Some(30),
    };
    let question = Question {
        layout: &layout,
        app: settings.apps.first(),
        protocol: Protocol::Tcp,
        port: 22,
        client: CLIENT.into(),
        by: Some(ext()),
        host: Some(GATE.into()),
    };
    explain(&facts, &question)
}

fn ask(situation: &Situation, events: Vec<Event>) -> Answer {
    ask_by(situation, Path::Here, Daemon::Says(Recalled { events, ..Recalled::default() }))
}

fn event(ago_s: u64, app: Option<&str>, happening: Happening) -> Event {
    Event { ago_s, times: 1, app: app.map(str::to_owned), happening }
}

#[test]
fn who_is_in_the_set_of_grants_is_let_in_and_who_is_not_has_not_knocked() {
    let found = ask(&host(Vec::new(), &[granted()]), Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Open, Cause::Granted));
    let found = ask(&host(Vec::new(), &[nobody()]), Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Closed, Cause::NotKnocked));
    let step = found.steps.first().unwrap();
    assert_eq!((step.chain.as_str(), step.handle), ("gate", Some(5)));
}

#[test]
fn a_set_that_cannot_be_read_makes_it_unknown_and_names_the_rule() {
    let ban = chain("host", "input", HostHook::Input, 0, vec![from_set("bad", false, Does::Drop)]);
    let found = ask(&host(vec![ban], &[granted(), ("host", "bad", None)]), Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Unknown, Cause::CannotTell));
    assert!(
        found.finding.message.contains("the rule with handle 5 of chain inet host input"),
        "{}",
        found.finding.message
    );
}

#[test]
fn a_list_with_the_address_is_a_ban_and_one_without_it_is_nothing() {
    let ban = || chain("host", "input", HostHook::Input, 0, vec![from_set("bad", false, Does::Drop)]);
    let found = ask(&host(vec![ban()], &[granted(), ("host", "bad", Some(vec![CLIENT]))]), Vec::new());
    assert_eq!(found.finding.cause, Cause::HostBans);
    assert_eq!(found.finding.next, ["nft delete element inet host bad '{ 203.0.113.9 }'"]);
    let found = ask(&host(vec![ban()], &[granted(), ("host", "bad", Some(vec![GATE]))]), Vec::new());
    assert_eq!(found.finding.cause, Cause::Granted);
}

#[test]
fn a_rule_that_drops_everybody_is_no_ban() {
    let wall = chain("host", "input", HostHook::Input, 0, vec![vec![Step::Verdict(Does::Drop)]]);
    let found = ask(&host(vec![wall], &[granted()]), Vec::new());
    assert_eq!(found.finding.cause, Cause::HostDrops);
    assert!(found.finding.next.iter().any(|line| line.starts_with("nft insert rule inet host input")));
}

#[test]
fn what_became_of_the_address_last_is_the_cause() {
    let closed = |end: &str| Happening::Closed { by: "alice".into(), end: end.into(), seconds: 60 };
    let refused = |step, reason: &str| Happening::Refused { step, reason: reason.into() };
    for (happening, app, cause) in [
        (closed("expired"), Some("ssh"), Cause::GrantExpired),
        (closed("revoked"), Some("ssh"), Cause::GrantRevoked),
        (Happening::Step1 { seconds: 20 }, Some("ssh"), Cause::Step2Missing),
        (Happening::CodeWanted {}, Some("ssh"), Cause::CodeMissing),
        (refused(1, "wrong-key"), None, Cause::KnockRefused),
        (refused(2, "no-step1"), Some("ssh"), Cause::Step1Missing),
        (refused(1, "too-many"), Some("ssh"), Cause::RateLimited),
        (Happening::Failed { step: 2, error: "full".into() }, Some("ssh"), Cause::GrantFailed),
        // Of another app.
        (closed("expired"), Some("web"), Cause::NotKnocked),
    ] {
        let events = vec![event(5, app, happening.clone()), event(60, Some("ssh"), closed("expired"))];
        let events = if cause == Cause::NotKnocked { events[..1].to_vec() } else { events };
        let found = ask(&host(Vec::new(), &[nobody()]), events);
        assert_eq!(found.finding.cause, cause, "{happening:?}");
        assert!(!found.finding.next.is_empty(), "{happening:?}");
    }
}

#[test]
fn without_a_way_no_rule_helps() {
    for (trouble, cause) in [
        // There is always a route to oneself, unless a rule comes before it.
        (PathTrouble::NoRoute, Cause::RouteForbids),
        (PathTrouble::NotForwarding, Cause::RouteForbids),
        (PathTrouble::ReversePath, Cause::ReversePath),
        (PathTrouble::Forbidden, Cause::RouteForbids),
    ] {
        let found = ask_by(&host(Vec::new(), &[granted()]), Path::Nowhere(trouble), Daemon::Absent);
        assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Closed, cause));
    }
}

#[test]
fn without_a_daemon_nobody_hears_a_knock() {
    let found = ask_by(&host(Vec::new(), &[nobody()]), Path::Here, Daemon::Absent);
    assert_eq!(found.finding.cause, Cause::DaemonNotRunning);
}

#[test]
fn where_connection_tracking_takes_no_more_that_is_the_cause() {
    let situation = host(Vec::new(), &[granted()]);
    let full = |now| ask_tracking(&situation, Path::Here, Daemon::Absent, Some((now, 4_096)));
    assert_eq!(full(4_096).finding.cause, Cause::ConntrackFull);
    assert!(full(4_096).finding.next.iter().any(|line| line.contains("nf_conntrack_max=16384")));
    assert_eq!(full(4_000).finding.cause, Cause::Granted);
}

#[test]
fn a_step_1_of_another_address_is_told() {
    let pending = vec![Pending { app: "ssh".into(), address: GATE.into(), ago_s: 9 }];
    let says = Daemon::Says(Recalled { pending, ..Recalled::default() });
    let found = ask_by(&host(Vec::new(), &[nobody()]), Path::Here, says);
    // Where many knock, it is somebody else's.
    assert_eq!(found.finding.cause, Cause::NotKnocked);
    assert!(found.finding.next[0].contains("knock -4"), "{:?}", found.finding.next);
    let other = found.also.iter().find(|note| note.cause == Cause::Step1Elsewhere).unwrap();
    assert!(other.message.starts_with("192.0.2.1 did step 1 9 s ago"), "{}", other.message);
}

#[test]
fn an_interface_that_is_down_comes_before_grants() {
    let mut situation = host(Vec::new(), &[granted()]);
    situation.interfaces[0].is_down = true;
    assert_eq!(ask(&situation, Vec::new()).finding.cause, Cause::InterfaceDown);
}

#[test]
fn a_rule_with_a_rate_is_told_beside_the_grant() {
    let rule = vec![Step::Limit { over: true, room: Room::Wide }, Step::Verdict(Does::Drop)];
    let found =
        ask(&host(vec![chain("host", "input", HostHook::Input, 0, vec![rule])], &[granted()]), Vec::new());
    assert_eq!(found.finding.cause, Cause::Granted);
    assert!(found.also.iter().any(|note| note.cause == Cause::RateRule), "{:?}", found.also);
}

fn dropping(rule: Vec<Step>) -> Situation {
    host(vec![chain("host", "input", HostHook::Input, 0, vec![rule])], &[granted()])
}

#[test]
fn a_rate_that_a_few_tries_use_up_makes_it_unknown_and_the_rule_with_the_rate_is_named() {
    let over = vec![Step::Limit { over: true, room: Room::Narrow }, Step::Verdict(Does::Drop)];
    let found = ask(&dropping(over), Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Unknown, Cause::RateRule));
    // Up to the rate it is accepted, and beyond it the policy drops it.
    let under = vec![Step::Limit { over: false, room: Room::Narrow }, Step::Verdict(Does::Accept)];
    let mut situation = dropping(under);
    situation.host.chains[1].base.as_mut().unwrap().drops = true;
    let found = ask(&situation, Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Unknown, Cause::RateRule));
    assert!(found.finding.message.contains("handle 5 of chain inet host input"), "{}", found.finding.message);
    // A quota that is used up is no question.
    let gone = vec![Step::Limit { over: true, room: Room::Gone }, Step::Verdict(Does::Drop)];
    assert_eq!(ask(&dropping(gone), Vec::new()).finding.cause, Cause::HostDrops);
}

#[test]
fn rules_about_lengths_and_options_are_not_guessed_at() {
    let asks = |source, data: Vec<u8>| {
        vec![
            Step::Load { source, to: 0, len: Some(data.len()) },
            Step::Compare { at: 0, how: Comparison::Eq, data },
            Step::Verdict(Does::Drop),
        ]
    };
    let length = Source::Payload { base: 1, offset: 2 };
    let ttl = Source::Payload { base: 1, offset: 8 };
    for (source, data, cause) in [
        (length, vec![0, 52], Cause::CannotTell),
        (length, vec![0, 60], Cause::HostDrops),
        // No first packet of TCP is as long as that.
        (length, vec![2, 0], Cause::Granted),
        (Source::Meta(0), 44_u32.to_ne_bytes().to_vec(), Cause::CannotTell),
        (ttl, vec![117], Cause::CannotTell),
        (ttl, vec![1], Cause::Granted),
        (Source::SegmentSize, 1_412_u16.to_be_bytes().to_vec(), Cause::CannotTell),
        (Source::SegmentSize, 1_460_u16.to_be_bytes().to_vec(), Cause::HostDrops),
        (Source::SegmentSize, 300_u16.to_be_bytes().to_vec(), Cause::Granted),
    ] {
        let found = ask(&dropping(asks(source, data.clone())), Vec::new());
        assert_eq!(found.finding.cause, cause, "{source:?} {data:?}");
    }
}

fn to_port(port: u16, more: Vec<Step>) -> Vec<Step> {
    let load = Step::Load { source: Source::Payload { base: 2, offset: 2 }, to: 0, len: Some(2) };
    let compare = Step::Compare { at: 0, how: Comparison::Eq, data: port.to_be_bytes().to_vec() };
    [vec![load, compare], more].concat()
}

#[test]
fn a_blocked_step_2_comes_before_its_absence_and_after_a_wrong_key() {
    let step1 = || event(5, Some("ssh"), Happening::Step1 { seconds: 20 });
    let wrong = || event(5, None, Happening::Refused { step: 1, reason: "wrong-key".into() });
    let blocks = |rule| {
        let wall = chain("host", "input", HostHook::Input, 0, vec![to_port(8_443, rule)]);
        host(vec![wall], &[nobody()])
    };
    let found = ask(&blocks(vec![Step::Verdict(Does::Drop)]), vec![step1()]);
    assert_eq!(found.finding.cause, Cause::KnockBlocked);
    assert!(found.also.iter().any(|note| note.cause == Cause::Step2Missing));
    let found = ask(&blocks(vec![Step::Verdict(Does::Drop)]), vec![wrong()]);
    assert_eq!(found.finding.cause, Cause::KnockRefused);
    assert!(found.also.iter().all(|note| note.cause != Cause::NotKnocked), "{:?}", found.also);
}

#[test]
fn where_a_rule_of_others_sends_it_to_nobody_that_rule_is_the_cause() {
    let sends = |to: u16| {
        let to_there = vec![
            Step::Constant { to: 0, data: to.to_be_bytes().to_vec() },
            Step::Redirect { port: Some(0), last_port: None },
        ];
        let mut nat = chain("host", "pre", HostHook::Prerouting, -100, vec![to_port(22, to_there.clone())]);
        nat.base.as_mut().unwrap().kind = HostChainKind::Nat;
        nat.rules.push(HostRule { handle: 9, comment: None, steps: to_port(8_443, to_there) });
        nat
    };
    let found = ask(&host(vec![sends(2_222)], &[granted()]), Vec::new());
    assert_eq!((found.finding.verdict, found.finding.cause), (Verdict::Closed, Cause::Redirected));
    assert!(found.finding.next[0].starts_with("nft delete rule inet host pre handle 5"));
    assert!(found.also.iter().any(|note| note.cause == Cause::NothingListens));
    // A step that is sent elsewhere is heard by nobody.
    let step1 = event(5, Some("ssh"), Happening::Step1 { seconds: 20 });
    let found = ask(&host(vec![sends(2_222)], &[nobody()]), vec![step1]);
    assert_eq!(found.finding.cause, Cause::KnockBlocked);
    assert!(found.finding.next[0].contains("handle 9"), "{:?}", found.finding.next);
}

#[test]
fn who_left_no_trace_is_told_to_knock_and_what_leaves_no_trace() {
    let says = Daemon::Says(Recalled { ports: Some((8_080, 8_443)), ..Recalled::default() });
    let others: Filled = ("knock_agent", "app_ssh_4", Some(vec![GATE]));
    let found = ask_by(&host(Vec::new(), &[others]), Path::Here, says);
    assert_eq!(found.finding.cause, Cause::NotKnocked);
    let next = found.finding.next.join("\n");
    for text in ["have the client knock", "http_post_path", "tcp/8080", "another address"] {
        assert!(next.contains(text), "{text} in {next}");
    }
    assert!(found.finding.message.contains("let in now is 192.0.2.1"), "{}", found.finding.message);
}

#[test]
fn a_configuration_that_was_not_reloaded_is_the_cause_where_it_is_about_knocks() {
    let refused = event(5, Some("ssh"), Happening::Refused { step: 1, reason: "wrong-key".into() });
    let ended = Happening::Closed { by: "alice".into(), end: "expired".into(), seconds: 60 };
    let says = |event: &Event, parts: &[&str]| {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        let newer = Some(Box::new(Newer { changed_s: Some(300), parts, refused: None }));
        let recalled = Recalled { events: vec![event.clone()], newer, ..Recalled::default() };
        ask_by(&host(Vec::new(), &[nobody()]), Path::Here, Daemon::Says(recalled))
    };
    let found = says(&refused, &["ssh.access_key_http", "web.port"]);
    assert_eq!((found.finding.cause, found.also[0].cause), (Cause::NotReloaded, Cause::KnockRefused));
    let message = &found.finding.message;
    assert!(message.contains("5 min ago") && message.contains("ssh.access_key_http"), "{message}");
    assert!(!message.contains("web.port"), "{message}");
    assert!(found.finding.next[0].starts_with("systemctl reload knock-agent"));
    for (event, part) in [
        (&refused, "ssh.duration"),
        (&refused, "web.access_key_http"),
        (&refused, "global.notify"),
        (&event(5, Some("ssh"), ended), "global.http_post_path"),
    ] {
        let found = says(event, &[part]);
        assert_ne!(found.finding.cause, Cause::NotReloaded, "{part}");
        assert!(found.also.iter().any(|note| note.cause == Cause::NotReloaded), "{part}");
    }
    let newer =
        Some(Box::new(Newer { refused: Some("no permission to read this file".into()), ..Newer::default() }));
    let recalled = Recalled { events: vec![refused], newer, ..Recalled::default() };
    let found = ask_by(&host(Vec::new(), &[nobody()]), Path::Here, Daemon::Says(recalled));
    assert!(found.finding.cause == Cause::NotReloaded && found.finding.message.contains("no permission"));
}

#[test]
fn the_mark_of_a_connection_is_followed_from_chain_to_chain_and_to_its_answers() {
    let number = |number: u32| number.to_ne_bytes().to_vec();
    let set = vec![Step::Constant { to: 0, data: number(7) }, Step::SetConnectionMark { from: 0 }];
    let is_seven = vec![
        Step::Load { source: Source::Ct { key: 3, direction: None }, to: 0, len: Some(4) },
        Step::Compare { at: 0, how: Comparison::Eq, data: number(7) },
        Step::Verdict(Does::Drop),
    ];
    let marks = || chain("host", "marks", HostHook::Prerouting, -150, vec![to_port(22, set.clone())]);
    let drops = |hook| chain("host", "drops", hook, 5, vec![is_seven.clone()]);
    let cause = |more| ask(&host(more, &[granted()]), Vec::new()).finding.cause;
    assert_eq!(cause(vec![marks(), drops(HostHook::Input)]), Cause::HostDrops);
    assert_eq!(cause(vec![marks(), drops(HostHook::Output)]), Cause::HostDropsReply);
    assert_eq!(cause(vec![drops(HostHook::Input), drops(HostHook::Output)]), Cause::Granted);
}

#[test]
fn what_comes_with_connection_tracking_may_come_before_it() {
    let state = |state: u32| {
        vec![
            Step::Load { source: Source::Ct { key: 0, direction: None }, to: 0, len: Some(4) },
            Step::Compare { at: 0, how: Comparison::Eq, data: state.to_ne_bytes().to_vec() },
            Step::Verdict(Does::Drop),
        ]
    };
    let new = crate::ruleset::expr::ct_state::NEW;
    let cause = |priority, steps: Vec<Step>| {
        let wall = chain("host", "pre", HostHook::Prerouting, priority, vec![steps]);
        ask(&host(vec![wall], &[granted()]), Vec::new()).finding.cause
    };
    assert_eq!(cause(-199, state(new)), Cause::HostDrops);
    assert_eq!(cause(-200, state(new)), Cause::CannotTell);
    assert_eq!(cause(-201, state(new)), Cause::Granted);
    assert_eq!(cause(-200, vec![Step::Verdict(Does::Drop)]), Cause::HostDrops);
}

#[test]
fn no_rule_is_named_for_deletion_that_is_about_more_than_the_address() {
    let asks = |data: &[u8], does| {
        let source = Source::Payload { base: 1, offset: 12 };
        vec![
            Step::Load { source, to: 0, len: Some(data.len()) },
            Step::Compare { at: 0, how: Comparison::Eq, data: data.to_vec() },
            Step::Verdict(does),
        ]
    };
    let mut out = chain("host", "out", HostHook::Input, 0, vec![vec![Step::Verdict(Does::Drop)]]);
    out.base = None;
    let next = |steps| {
        let input = chain("host", "input", HostHook::Input, 0, vec![steps]);
        let found = ask(&host(vec![input, out.clone()], &[granted()]), Vec::new());
        assert_eq!(found.finding.cause, Cause::HostBans);
        found.finding.next
    };
    let jump = || Does::Jump("out".into());
    assert_eq!(next(asks(&CLIENT, jump())), ["nft delete rule inet host input handle 5"]);
    let shown = next(asks(&CLIENT[..3], jump()));
    assert_eq!(shown[..2], ["nft -a list chain inet host out", "nft -a list chain inet host input"]);
    assert!(shown[2].starts_with("# "), "{shown:?}");
}
