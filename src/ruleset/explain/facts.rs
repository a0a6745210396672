//! What an explanation is given to judge; whoever finds it out is elsewhere.

use std::net::{IpAddr, SocketAddr};

use super::recalled::Recalled;
use crate::ruleset::audit::packet::Interface;
use crate::ruleset::audit::situation::Situation;
use crate::units::Protocol;

/// Why routing has no way for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathTrouble {
    /// No route leads there.
    NoRoute,
    /// This host does not forward what comes in by that interface.
    NotForwarding,
    /// The same, though it forwards what comes in by others.
    NotForwardingThere,
    /// The way back leads by another interface (`rp_filter`).
    ReversePath,
    /// A route says that it is not to go there.
    Forbidden,
}

impl PathTrouble {
    /// The switch that is off where this host does not forward what comes in by an interface, and how it is turned on.
    #[must_use]
    pub fn switch(self, v6: bool, by: &str) -> Option<(String, Vec<String>)> {
        // In such a key a dot of a name is a slash.
        let by = by.replace('.', "/");
        let key = match (self, v6) {
            (Self::NotForwarding | Self::NotForwardingThere, true) => {
                "net.ipv6.conf.all.forwarding".to_owned()
            }
            (Self::NotForwarding, false) => "net.ipv4.ip_forward".to_owned(),
            // Each interface has its own, which `ip_forward` sets when it changes.
            (Self::NotForwardingThere, false) => format!("net.ipv4.conf.{by}.forwarding"),
            (Self::NoRoute | Self::ReversePath | Self::Forbidden, _) => return None,
        };
        let mut how = Vec::new();
        if v6 {
            how.push(format!(
                "# a host that forwards takes no addresses and routes from routers any more; where {by} has its from them, first: sysctl -w net.ipv6.conf.{by}.accept_ra=2"
            ));
        }
        how.push(format!("sysctl -w {key}=1"));
        how.push("# and in /etc/sysctl.d, so that it stays".to_owned());
        Some((key, how))
    }
}

/// Where routing sends a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// To this host.
    Here,
    /// Out of an interface.
    Through(Interface),
    /// Nowhere.
    Nowhere(PathTrouble),
    /// The kernel did not say.
    Unknown,
}

/// What routing rules may ask beside addresses: the protocol, the port of the source, that of the destination.
pub type Ports = (Protocol, u16, u16);

/// Who tells where packets go.
pub trait Routes {
    /// Where a packet goes that came in by that interface.
    fn path(&self, from: IpAddr, to: IpAddr, ports: Option<Ports>, by: &Interface) -> Path;
    /// By which interface this host reaches an address, from an address of its own; none: any.
    ///
    /// # Errors
    /// Why it does not.
    fn towards(
        &self,
        addr: IpAddr,
        from: Option<IpAddr>,
        ports: Option<Ports>,
    ) -> Result<Interface, PathTrouble>;
}

/// What a LAN host did when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It took a connection.
    Takes,
    /// It refused one.
    Refuses,
    /// It did not answer.
    Silent,
    /// Nobody is there: no neighbour, or a router says so.
    Absent,
    /// It was not asked.
    NotAsked,
}

/// A connection that connection tracking knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port that the client addressed.
    pub port: u16,
    /// The port that it came from.
    pub from: u16,
    /// Whether the other end has ever answered.
    pub answered: bool,
    /// Whether both ends have spoken on it, and it is not over.
    pub open: bool,
    /// Whether it is one of TCP that was answered, and the client has not gone on.
    pub half: bool,
    /// How many seconds ago its last packet came; 0 where that is not known.
    pub idle_s: u64,
}

/// What the daemon says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Daemon {
    /// None runs.
    #[default]
    Absent,
    /// One runs and does not say; why.
    Mute(String),
    /// It says this.
    Says(Recalled),
}

/// Everything that is judged.
pub struct Facts<'a> {
    /// The host with everybody's rules, ours included.
    pub situation: &'a Situation,
    /// Where packets go.
    pub routes: &'a dyn Routes,
    /// What the daemon says.
    pub daemon: Daemon,
    /// Whether rules of ours are in force.
    pub guards: bool,
    /// Whether iptables has them, whose sets cannot be looked into here.
    pub by_iptables: bool,
    /// Connections of the client that connection tracking knows.
    pub flows: Vec<Flow>,
    /// How many connections are tracked, and how many may be.
    pub tracked: Option<(u64, u64)>,
    /// TCP ports here where the client began a connection and went no further, for about a minute.
    pub begun: Vec<u16>,
    /// TCP ports whose listener on `::` takes no IPv4.
    pub only_v6: Vec<u16>,
    /// Where a program here listens that does not take the connections that wait for it, so that no more are answered.
    pub full: Vec<SocketAddr>,
    /// Asks a LAN host for a connection.
    pub echo: &'a dyn Fn(IpAddr, u16) -> Echo,
    /// How long grants last in the kernel.
    pub ends: &'a dyn Fn(&str, IpAddr) -> Option<u64>,
}
