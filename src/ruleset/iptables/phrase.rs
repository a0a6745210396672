//! Writes rules, in the order and words of `iptables-save`, so that what is listed can be compared.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::names;
use crate::ruleset::layout::LOOPBACK;
use crate::units::{Family, IfName, PortRange, Protocol};

const TRACKING: &str = "-m conntrack";

/// A rule in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Phrase {
    source: Option<String>,
    destination: Option<String>,
    iif: Option<String>,
    oif: Option<String>,
    protocol: Option<Protocol>,
    matches: Vec<String>,
    /// What connection tracking says: one match, wherever it was begun, with its options in their order.
    tracking: BTreeMap<Tracking, String>,
}

/// The options of `-m conntrack`, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tracking {
    State,
    Protocol,
    OriginalPort,
    Direction,
}

pub(super) fn rule() -> Phrase {
    Phrase::default()
}

/// Where the client's address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }
}

impl Phrase {
    pub(super) fn sent_by(mut self, host: IpAddr) -> Self {
        self.source = Some(whole(host));
        self
    }

    pub(super) fn sent_to(mut self, host: IpAddr) -> Self {
        self.destination = Some(whole(host));
        self
    }

    pub(super) fn sent_from(mut self, network: &str) -> Self {
        self.source = Some(network.to_owned());
        self
    }

    pub(super) fn sent_into(mut self, network: &str) -> Self {
        self.destination = Some(network.to_owned());
        self
    }

    pub(super) fn iif(mut self, name: &IfName) -> Self {
        self.iif = Some(name.to_string());
        self
    }

    pub(super) fn on_loopback(mut self) -> Self {
        self.iif = Some(LOOPBACK.to_owned());
        self
    }

    pub(super) fn oif(mut self, name: &IfName) -> Self {
        self.oif = Some(name.to_string());
        self
    }

    /// Comes in by the interface, or on the way back goes out by it.
    pub(super) fn interface(self, side: Side, name: &IfName) -> Self {
        match side {
            Side::Source => self.iif(name),
            Side::Destination => self.oif(name),
        }
    }

    pub(super) fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    pub(super) fn with(mut self, text: impl Into<String>) -> Self {
        self.matches.push(text.into());
        self
    }

    pub(super) fn dport(self, protocol: Protocol, ports: PortRange) -> Self {
        self.port(protocol, "--dport", ports)
    }

    pub(super) fn sport(self, protocol: Protocol, ports: PortRange) -> Self {
        self.port(protocol, "--sport", ports)
    }

    fn port(self, protocol: Protocol, which: &str, ports: PortRange) -> Self {
        self.protocol(protocol).with(format!("-m {protocol} {which} {}", span(ports)))
    }

    /// Exactly these of the flags FIN, SYN, RST and ACK.
    pub(super) fn tcp_state(self, flags: &str) -> Self {
        self.protocol(Protocol::Tcp).with(format!("-m tcp --tcp-flags FIN,SYN,RST,ACK {flags}"))
    }

    pub(super) fn not_syn(self) -> Self {
        self.protocol(Protocol::Tcp).with("-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN")
    }

    /// Whatever the other flags are.
    pub(super) fn no_syn(self) -> Self {
        self.protocol(Protocol::Tcp).with("-m tcp ! --tcp-flags SYN SYN")
    }

    /// A later packet of a connection that was let in: to connection tracking the first one of another connection between
    /// the same ports is established as well.
    pub(super) fn going_on(self, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => self.no_syn(),
            Protocol::Udp => self,
        }
        .state("ESTABLISHED")
    }

    pub(super) fn length_at_most(self, max: u16) -> Self {
        self.with(format!("-m length --length 0:{max}"))
    }

    /// Exactly so many bytes, with all headers.
    pub(super) fn length(self, bytes: u32) -> Self {
        self.with(format!("-m length --length {bytes}"))
    }

    pub(super) fn state(self, states: &str) -> Self {
        self.tracked(Tracking::State, format!("--ctstate {states}"))
    }

    pub(super) fn reply(self) -> Self {
        self.tracked(Tracking::Direction, "--ctdir REPLY".to_owned())
    }

    pub(super) fn original(self) -> Self {
        self.tracked(Tracking::Direction, "--ctdir ORIGINAL".to_owned())
    }

    fn tracked(mut self, option: Tracking, text: String) -> Self {
        if self.tracking.is_empty() {
            self.matches.push(TRACKING.to_owned());
        }
        self.tracking.insert(option, text);
        self
    }

    pub(super) fn dnatted(self) -> Self {
        self.state("DNAT")
    }

    /// The port that the client used, whatever it was translated to.
    pub(super) fn original_port(self, protocol: Protocol, ports: PortRange) -> Self {
        let number = protocol.number();
        self.protocol(protocol)
            .tracked(Tracking::Protocol, format!("--ctproto {number}"))
            .tracked(Tracking::OriginalPort, format!("--ctorigdstport {}", span(ports)))
    }

    pub(super) fn address_type(self, side: Side, kinds: &str) -> Self {
        self.with(format!("-m addrtype --{}-type {kinds}", side.word()))
    }

    /// From these kinds of address to none of those.
    pub(super) fn own_to_one_host(self, own: &str, many: &str) -> Self {
        self.with(format!("-m addrtype --src-type {own} ! --dst-type {many}"))
    }

    pub(super) fn in_set(self, meaning: &str, side: Side) -> Self {
        self.with(format!("-m set --match-set {} {}", names::set(meaning), side.word()))
    }

    /// The client's address and port.
    pub(super) fn end_in_set(self, meaning: &str, side: Side) -> Self {
        let word = side.word();
        self.with(format!("-m set --match-set {} {word},{word}", names::set(meaning)))
    }

    /// Does nothing more for the host's rules than to let them go on.
    pub(super) fn pass(self, what: &str) -> String {
        self.target("-j RETURN", what)
    }

    /// Its matches do something by themselves; the packet goes on.
    pub(super) fn done(self, what: &str) -> String {
        self.target("", what)
    }

    pub(super) fn drop(self, what: &str) -> String {
        self.target("-j DROP", what)
    }

    pub(super) fn goto(self, stem: &str, what: &str) -> String {
        self.target(&format!("-g {}", names::chain(stem)), what)
    }

    pub(super) fn jump(self, stem: &str, what: &str) -> String {
        self.target(&format!("-j {}", names::chain(stem)), what)
    }

    pub(super) fn target(self, target: &str, what: &str) -> String {
        let mut words = Vec::new();
        let flag = |flag: &str, value: Option<String>| value.map(|value| format!("{flag} {value}"));
        words.extend(flag("-s", self.source));
        words.extend(flag("-d", self.destination));
        words.extend(flag("-i", self.iif));
        words.extend(flag("-o", self.oif));
        words.extend(flag("-p", self.protocol.map(|protocol| protocol.name().to_owned())));
        for text in self.matches {
            let tracking = text == TRACKING;
            words.push(text);
            if tracking {
                words.extend(self.tracking.values().cloned());
            }
        }
        words.push(format!("-m comment --comment \"ka:{what}\""));
        words.extend((!target.is_empty()).then(|| target.to_owned()));
        words.join(" ")
    }
}

/// This host, by whatever kind of address: everything that is not reached through the routing table.
pub(super) fn for_this_host(family: Family) -> Vec<Phrase> {
    match family {
        Family::V4 => vec![rule().with("-m addrtype ! --dst-type UNICAST")],
        // For IPv6 `UNICAST` says how an address looks, not where it leads.
        Family::V6 => {
            vec![rule().address_type(Side::Destination, "LOCAL,ANYCAST"), rule().sent_into("ff00::/8")]
        }
    }
}

fn span(ports: PortRange) -> String {
    if ports.is_single() { ports.first().to_string() } else { format!("{}:{}", ports.first(), ports.last()) }
}

fn whole(host: IpAddr) -> String {
    format!("{host}/{}", Family::of(host).bits())
}
