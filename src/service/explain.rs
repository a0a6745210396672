//! `knock-agent explain`: finds out what is to be judged, on the host as it is now.

mod routes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::backend::nftables::Nftables;
use crate::backend::{BackendError, Firewall, survey};
use crate::config::{App, Settings};
use crate::ruleset::allow::address_key;
use crate::ruleset::audit::host::{Host, HostElement, HostSet, TableRef};
use crate::ruleset::audit::packet::Interface;
use crate::ruleset::audit::situation::Situation;
use crate::ruleset::audit::step::Step;
use crate::ruleset::diff::SetRef;
use crate::ruleset::explain::legacy;
use crate::ruleset::explain::member::{begin_once, covered, is_in_ours, our_table};
use crate::ruleset::explain::walk::is_ours;
use crate::ruleset::explain::{
    Answer, CLIENT_PORT, Cause, Daemon, Echo, Facts, Finding, Flow, Question, Routes, explain as judge,
};
use crate::ruleset::expr::Verdict;
use crate::ruleset::iptables::names;
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::model::{Element, Elements, GRANTED_SETS, KNOCKED_SETS};
use crate::ruleset::plan::app_set;
use crate::ruleset::wire::Attempt;
use crate::sys::{command, flows, half_open};
use crate::units::{Family, PortRange, Protocol};
use routes::Kernel;

/// With more grants than this, sets of grants are asked for one address rather than read.
const MANY: u64 = 20_000;
/// How long a LAN host is given: an address where nobody is takes the kernel three seconds.
const ECHO: Duration = Duration::from_secs(4);
const LISTING: Duration = Duration::from_secs(10);

/// What an operator asks.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The client's address.
    pub client: IpAddr,
    /// What it wants to reach.
    pub what: Wanted,
    /// The interface by which it comes in; none: as the route to it says.
    pub by: Option<String>,
    /// The address of this host that it turns to; none: one of that interface.
    pub to: Option<IpAddr>,
    /// Whether a LAN host is asked for a connection.
    pub probe: bool,
}

/// What a client wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Every app.
    Everything,
    /// The app of that name.
    App(String),
    /// Whatever is at a port.
    Port(Protocol, u16),
}

/// Explains; an answer for each app, the one that weighs most of each.
///
/// # Errors
/// [`BackendError`] when the kernel's rules cannot be read.
pub fn explain(
    settings: &Settings,
    options: Options,
    daemon: Daemon,
    asked: &Asked,
) -> Result<Vec<Answer>, BackendError> {
    let mut firewall = Firewall::in_place()?;
    let guards = match &mut firewall {
        // Of each family by itself: it may be missing in one.
        Firewall::Iptables(iptables) => iptables.guards_in(Family::of(asked.client.to_canonical()))?,
        nftables @ Firewall::Nftables(_) => nftables.guards()?,
    };
    let by_iptables = matches!(firewall, Firewall::Iptables(_));
    let layout = Layout::new(settings, options);
    let prefix = settings.global.ipv6_prefix;
    let client = asked.client.to_canonical();
    let addresses = [client, covered(client, prefix), covered(client, 64)];
    let many = matches!(&daemon, Daemon::Says(recalled) if recalled.all_grants > MANY);
    let skip = |set: &str| many && (set.starts_with(GRANTED_SETS) || set.starts_with(KNOCKED_SETS));
    let mut nft = Nftables::open()?;
    let mut situation = match survey::whole(&mut nft, &addresses, &skip) {
        Err(BackendError::Unsupported(_)) if by_iptables => Situation::default(),
        other => other?,
    };
    add_legacy(&mut situation);
    if by_iptables {
        let live = firewall.read()?;
        without_our_chains(&mut situation.host);
        fill(&mut situation.host, live.map(|live| live.elements).unwrap_or_default());
    }
    for app in settings.apps.iter().filter(|app| app.once) {
        if app_sets_have(&situation.host, &layout, app, covered(client, prefix)) {
            begin_once(&mut situation.host, &app.slug, client, CLIENT_PORT);
        }
    }
    let guards = guards && !situation.host.dormant.contains(&our_table());
    let routes = Kernel;
    let nft = RefCell::new(nft);
    let facts = Facts {
        situation: &situation,
        routes: &routes,
        daemon,
        guards,
        by_iptables,
        flows: flows_of(client),
        tracked: tracked(),
        begun: half_open::ports_of(client),
        only_v6: flows::listening_for_v6_only().unwrap_or_default(),
        full: flows::full_queues().unwrap_or_default(),
        echo: &|addr, port| if asked.probe { echo(addr, port) } else { Echo::NotAsked },
        ends: &|set, addr| {
            let found = nft.borrow_mut().element(&SetRef::plain(set), &address_key(addr)).ok()??;
            Some(found.timeout?.left_ms / 1_000)
        },
    };
    let by = match &asked.by {
        Some(name) => {
            situation.interface(name).map(|found| Interface { name: name.clone(), index: Some(found.index) })
        }
        None if situation.is_own(client) => {
            situation.interface("lo").map(|lo| Interface { name: lo.name.clone(), index: Some(lo.index) })
        }
        None => came_in_by(&situation, &layout, &routes, client),
    };
    let told = |subject: &Subject<'_>, by: Option<Interface>| {
        let host = asked.to.or_else(|| address_of(&situation, &layout, by.as_ref(), client));
        let all = subject.1.iter().map(|&(protocol, port)| {
            let (app, by, layout) = (subject.0, by.clone(), &layout);
            judge(&facts, &Question { layout, app, protocol, port, client, by, host })
        });
        worst(all)
    };
    let elsewhere = match asked.by {
        Some(_) => Vec::new(),
        None => other_ways(&situation, &layout, by.as_ref(), client),
    };
    let mut answers = Vec::new();
    for subject in wanted(settings, &asked.what, &situation) {
        let Some(mut answer) = told(&subject, by.clone()) else { continue };
        if !matches!(asked.what, Wanted::Port(..)) {
            answer.finding.next.extend(one_of_many(subject.0, client, &answer.service));
        }
        let others =
            elsewhere.iter().filter_map(|by| Some((by.name.as_str(), told(&subject, Some(by.clone()))?)));
        let way = by.as_ref().map_or("", |by| by.name.as_str());
        let guarded = layout.ext.iter().any(|ext| ext.as_str() == way);
        answers.push(by_any_way((way, guarded), client, answer, others.collect()));
    }
    let mut texts = Texts::default();
    answers.iter_mut().for_each(|answer| texts.fill(answer, &situation.host));
    Ok(answers)
}

/// Follows the tables of iptables-legacy as well, where its programs are there to list them.
fn add_legacy(situation: &mut Situation) {
    for family in Family::BOTH {
        let (word, stem) = match family {
            Family::V4 => ("ip ", "iptables"),
            Family::V6 => ("ip6 ", "ip6tables"),
        };
        if !situation.legacy_tables.iter().any(|table| table.starts_with(word)) {
            continue;
        }
        let Some(listed) = command::find(&format!("{stem}-legacy-save"))
            .and_then(|path| command::run(&[path.to_str()?], "", LISTING).ok())
            .filter(|done| done.status.success())
        else {
            continue;
        };
        let chains = legacy::chains(&listed.output, family);
        let read = |table: &str| {
            let name = table.strip_prefix(word);
            name.is_some() && chains.iter().any(|chain| legacy::table_of(&chain.table) == name)
        };
        situation.legacy_tables.retain(|table| !read(table));
        situation.host.chains.extend(chains);
    }
}

/// With iptables, our chains look into ipset, where they cannot be followed.
fn without_our_chains(host: &mut Host) {
    let start = names::chain("");
    let leads_to_ours = |step: &Step| match step {
        Step::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => name.starts_with(&start),
        _ => false,
    };
    host.chains.retain(|chain| !chain.name.starts_with(&start));
    for chain in &mut host.chains {
        chain.rules.retain(|rule| !rule.steps.iter().any(leads_to_ours));
    }
}

/// Takes what ipset has of ours for sets of our table.
fn fill(host: &mut Host, all: BTreeMap<String, Elements>) {
    for (name, elements) in all {
        let key_len = elements.keys().next().map_or(0, Vec::len);
        let of = |(key, element): (Vec<u8>, Element)| HostElement {
            first: Some(key),
            last: element.last,
            ..HostElement::default()
        };
        let elements = Some(elements.into_iter().map(of).collect());
        host.sets.insert((our_table(), name), HostSet { key_len, elements, ..HostSet::default() });
    }
}

/// Whether an address has a grant for an app.
fn app_sets_have(host: &Host, layout: &Layout<'_>, app: &App, addr: IpAddr) -> bool {
    let family = Family::of(addr);
    let by_packets = layout.knocking.of_app(app).map(|grants| grants.set(family));
    std::iter::once(app_set(&app.slug, family)).chain(by_packets).any(|set| is_in_ours(host, &set, addr))
}

/// An app, or none, and ports.
type Subject<'s> = (Option<&'s App>, Vec<(Protocol, u16)>);

/// The apps that are asked about, each with one port of every range.
fn wanted<'s>(settings: &'s Settings, what: &Wanted, situation: &Situation) -> Vec<Subject<'s>> {
    let ports = |app: &App| -> Vec<(Protocol, u16)> {
        let here = app.destination.host().is_none();
        let one = |protocol, range: &PortRange| {
            let heard = heard_in(situation, protocol, *range).filter(|_| here);
            (protocol, heard.unwrap_or_else(|| range.first()))
        };
        let each = app.protocol.each().iter();
        each.flat_map(|&protocol| app.ports.iter().map(move |range| one(protocol, range))).collect()
    };
    match what {
        Wanted::Everything => settings.apps.iter().map(|app| (Some(app), ports(app))).collect(),
        Wanted::App(name) => {
            let named = settings.apps.iter().filter(|app| app.name.as_str() == name);
            named.map(|app| (Some(app), ports(app))).collect()
        }
        Wanted::Port(protocol, port) => {
            let guards = |app: &&App| {
                app.protocol.each().contains(protocol) && app.ports.iter().any(|range| range.contains(*port))
            };
            let apps: Vec<_> = settings.apps.iter().filter(guards).map(Some).collect();
            let apps = if apps.is_empty() { vec![None] } else { apps };
            apps.into_iter().map(|app| (app, vec![(*protocol, *port)])).collect()
        }
    }
}

/// The first port of a range where somebody listens whom others than this host reach, or anybody.
fn heard_in(situation: &Situation, protocol: Protocol, range: PortRange) -> Option<u16> {
    let at = situation.listeners.iter().flatten();
    let at = at.filter(|at| at.protocol == protocol && range.contains(at.port));
    at.map(|at| (at.address.to_canonical().is_loopback(), at.port)).min().map(|(_, port)| port)
}

/// That one port was followed of a service that has many.
fn one_of_many(app: Option<&App>, client: IpAddr, service: &str) -> Option<String> {
    let app = app.filter(|app| app.ports.iter().any(|range| !range.is_single()))?;
    let each = app.protocol.each();
    let ports: Vec<String> = app.ports.iter().map(ToString::to_string).collect();
    let protocols: Vec<String> = each.iter().map(ToString::to_string).collect();
    let (ports, protocols) = (ports.join(","), protocols.join(" and "));
    let first = each.first()?;
    Some(format!(
        "# that is about {service}, one of the ports {ports} ({protocols}) of {}; of another one: knock-agent explain {client} {first}/PORT",
        app.name
    ))
}

/// The answer that weighs most, the first of several.
fn worst(answers: impl Iterator<Item = Answer>) -> Option<Answer> {
    answers.reduce(|worst, other| if other.finding.verdict > worst.finding.verdict { other } else { worst })
}

/// The interface by which an address comes in: that of the route to it, unless it is of a guarded interface's own network.
fn came_in_by(
    situation: &Situation,
    layout: &Layout<'_>,
    routes: &Kernel,
    client: IpAddr,
) -> Option<Interface> {
    let back = routes.towards(client, None, None).ok()?;
    let neighbour =
        situation.towards(client).filter(|at| layout.ext.iter().any(|name| name.as_str() == at.name));
    Some(match neighbour {
        Some(at) if at.name != back.name => Interface { name: at.name.clone(), index: Some(at.index) },
        Some(_) | None => back,
    })
}

/// The guarded interfaces by which a client may come in all the same, although the way back to it leads by another one.
fn other_ways(
    situation: &Situation,
    layout: &Layout<'_>,
    by: Option<&Interface>,
    client: IpAddr,
) -> Vec<Interface> {
    let Some(by) = by else { return Vec::new() };
    let at_home = situation.is_own(client)
        || situation.towards(client).is_some_and(|at| at.name == by.name)
        || client.is_loopback();
    let ext = layout.ext.iter().map(|name| name.as_str()).filter(|name| !at_home && *name != by.name);
    let ext = ext.filter_map(|name| situation.interface(name)).filter(|at| !at.is_down);
    ext.map(|at| Interface { name: at.name.clone(), index: Some(at.index) }).collect()
}

/// What is said where a client may come in by several interfaces, by the first of which the way back to it leads; `guarded`:
/// that one is, too. Private addresses are believed to be inside; all others may well come in outside, whatever routes say.
fn by_any_way(
    (by, guarded): (&str, bool),
    client: IpAddr,
    mut first: Answer,
    others: Vec<(&str, Answer)>,
) -> Answer {
    let if_by = |way: &str, hidden: Finding| {
        let Finding { cause, message, .. } = hidden;
        Finding::open(cause, format!("if it comes in by {way} (--by {way}), another answer holds: {message}"))
    };
    if guarded {
        let others = others.into_iter().filter(|(_, other)| {
            let Finding { verdict, cause, .. } = &other.finding;
            *cause != Cause::NoAddress && (*verdict, *cause) != (first.finding.verdict, first.finding.cause)
        });
        let notes: Vec<Finding> = others.map(|(name, other)| if_by(name, other.finding)).collect();
        first.also.splice(0..0, notes);
        return first;
    }
    let worst = others
        .into_iter()
        .reduce(|one, other| if other.1.finding.verdict > one.1.finding.verdict { other } else { one });
    let is_private = match client {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    let Some((name, other)) = worst.filter(|(_, other)| other.finding.verdict >= first.finding.verdict)
    else {
        return first;
    };
    let (mut shown, hidden, way) = if is_private { (first, other, name) } else { (other, first, by) };
    shown.also.insert(0, if_by(way, hidden.finding));
    shown
}

/// An address of this host that the client turns to.
fn address_of(
    situation: &Situation,
    layout: &Layout<'_>,
    by: Option<&Interface>,
    client: IpAddr,
) -> Option<IpAddr> {
    let family = Family::of(client);
    if situation.is_own(client) {
        return Some(client);
    }
    let of = |name: &str| situation.interface(name).and_then(|interface| interface.address(family));
    let is_outside = by.is_some_and(|by| layout.ext.iter().any(|name| name.as_str() == by.name));
    let here = by.and_then(|by| of(&by.name));
    // Who comes in elsewhere may turn to any of them.
    here.or_else(|| layout.ext.iter().filter(|_| !is_outside).find_map(|name| of(name.as_str())))
}

fn tracked() -> Option<(u64, u64)> {
    let number = |name: &str| {
        fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse::<u64>().ok()
    };
    number("nf_conntrack_count").zip(number("nf_conntrack_max"))
}

/// `TCP_CONNTRACK_SYN_RECV`.
const SYN_RECEIVED: u8 = 2;

fn flows_of(client: IpAddr) -> Vec<Flow> {
    let flow = |attempt: Attempt| Flow {
        protocol: attempt.flow.protocol,
        port: attempt.flow.server.port(),
        from: attempt.flow.client.port(),
        answered: attempt.answered,
        open: attempt.open,
        half: attempt.state == Some(SYN_RECEIVED),
        idle_s: full_s(&attempt).map_or(0, |full| full.saturating_sub(u64::from(attempt.left_s))),
    };
    flows::attempts_of(client).unwrap_or_default().into_iter().map(flow).collect()
}

/// For how many seconds a connection of that state is remembered after a packet.
fn full_s(attempt: &Attempt) -> Option<u64> {
    const STATES: [&str; 8] =
        ["syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close"];
    let state = attempt.state.map(|state| usize::from(state).checked_sub(1).and_then(|at| STATES.get(at)));
    let name = match (attempt.flow.protocol, attempt.answered) {
        (Protocol::Tcp, _) => format!("nf_conntrack_tcp_timeout_{}", state??),
        (Protocol::Udp, true) => "nf_conntrack_udp_timeout_stream".to_owned(),
        (Protocol::Udp, false) => "nf_conntrack_udp_timeout".to_owned(),
    };
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
    text.trim().parse().ok()
}

/// Asks a LAN host for a connection, which is closed at once.
fn echo(addr: IpAddr, port: u16) -> Echo {
    match TcpStream::connect_timeout(&SocketAddr::new(addr, port), ECHO) {
        Ok(_) => Echo::Takes,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Echo::Refuses,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Echo::Absent,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Echo::Silent,
            _ => Echo::NotAsked,
        },
    }
}

/// Rules of others in nft's own words, where nft is there to tell them.
#[derive(Default)]
struct Texts {
    chains: BTreeMap<(TableRef, String), String>,
}

impl Texts {
    fn fill(&mut self, answer: &mut Answer, host: &Host) {
        for step in &mut answer.steps {
            let Some(handle) = step.handle.filter(|_| !is_ours(&step.table)) else { continue };
            if legacy::table_of(&step.table).is_some() {
                step.rule = comment(host, &step.table, &step.chain, handle);
                continue;
            }
            let end = format!("# handle {handle}");
            let listed = self.listing(&step.table, &step.chain);
            let line = listed.lines().find(|line| line.trim_end().ends_with(&end));
            let text = line.map(|line| line.trim().trim_end_matches(&end).trim().to_owned());
            step.rule = text.or_else(|| comment(host, &step.table, &step.chain, handle));
        }
    }

    fn listing(&mut self, table: &TableRef, chain: &str) -> &str {
        let key = (table.clone(), chain.to_owned());
        self.chains.entry(key).or_insert_with(|| {
            let nft = command::find("nft").and_then(|path| path.to_str().map(str::to_owned));
            let listed = nft.and_then(|nft| {
                let words = [&nft, "-a", "list", "chain", table.family.word(), &table.table, chain];
                command::run(&words, "", LISTING).ok()
            });
            listed.map(|done| done.output).unwrap_or_default()
        })
    }
}

fn comment(host: &Host, table: &TableRef, chain: &str, handle: u64) -> Option<String> {
    host.chain(table, chain)?.rules.iter().find(|rule| rule.handle == handle)?.comment.clone()
}
