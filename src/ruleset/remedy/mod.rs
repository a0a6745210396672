//! What an operator does so that a host's own rules let our packets through, in the language of
//! whoever owns those rules.

mod docker;
mod firewalld;
mod fw4;
mod iptables;
mod libvirt;
mod nft;
mod program;
mod proxmox;
mod ufw;
mod vyos;

use crate::ruleset::audit::host::{Host, HostHook, TableRef};
use crate::ruleset::audit::journey::{Journey, Route};
use crate::ruleset::audit::machine::Place;
use crate::units::{Mark, PortRange, Protocol};

pub use program::{Program, program_of, programs};

/// By what a host's chain can tell what we let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// By our mark.
    Mark(Mark),
    /// By ports: the gate has let through only what may be there.
    Ports,
}

/// A base chain that must let packets of ours through, and does not.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its table.
    pub table: &'a TableRef,
    /// Its name.
    pub chain: &'a str,
    /// Its hook.
    pub hook: HostHook,
    /// Where packets are lost first.
    pub place: Option<&'a Place>,
    /// The chains that lost packets came through.
    pub visited: &'a [String],
    /// How it can tell them.
    pub admission: Admission,
    /// What is lost.
    pub journeys: &'a [Journey],
}

/// A port that must be let through: from or to it, of this host or of a LAN host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passer {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether it is the source port.
    pub is_source: bool,
    /// The ports.
    pub ports: PortRange,
}

impl Need<'_> {
    /// The ports of what is lost, as packets have them at that chain.
    #[must_use]
    pub fn passers(&self) -> Vec<Passer> {
        let mut out: Vec<Passer> = self.journeys.iter().map(|journey| self.passer(journey)).collect();
        out.sort();
        out.dedup();
        out
    }

    fn passer(&self, journey: &Journey) -> Passer {
        let protocol = journey.packet.protocol;
        let here = |port: Option<u16>| {
            port.and_then(|port| PortRange::new(port, port).ok()).unwrap_or(journey.ports)
        };
        match (journey.route, journey.forwarded) {
            (Route::Out, _) => Passer { protocol, is_source: true, ports: journey.ports },
            (Route::Through, None) => {
                Passer { protocol, is_source: true, ports: here(journey.packet.port(false)) }
            }
            (Route::Through, Some((_, port))) if self.hook >= HostHook::Input => {
                Passer { protocol, is_source: false, ports: here(Some(port)) }
            }
            (Route::In | Route::Through, _) => Passer { protocol, is_source: false, ports: journey.ports },
        }
    }

    /// The outside interfaces that are concerned.
    #[must_use]
    pub fn outside(&self) -> Vec<&str> {
        let mut out: Vec<&str> = self
            .journeys
            .iter()
            .filter_map(|journey| match journey.route {
                Route::In => journey.packet.iif.as_ref(),
                Route::Through if journey.forwarded.is_some() => journey.packet.iif.as_ref(),
                Route::Through | Route::Out => journey.packet.oif.as_ref(),
            })
            .map(|interface| interface.name.as_str())
            .collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// What matches our mark, in nft's words.
#[must_use]
pub fn mark_matcher(mark: Mark) -> String {
    nft::matcher(mark)
}

/// What matches our mark, in iptables' words.
#[must_use]
pub fn iptables_mark(mark: Mark) -> String {
    iptables::by_mark(mark)
}

/// What to do, as lines for a shell; lines for people begin with `#`.
#[must_use]
pub fn admit(host: &Host, need: &Need<'_>) -> String {
    let lines = match program_of(host, need.table, need.chain) {
        Program::Vyos14 => vyos::admit_14(host, need),
        Program::Vyos13 => vyos::admit_13(need),
        Program::Fw4 => fw4::admit(host, need),
        Program::Ufw => ufw::admit(need),
        Program::Firewalld => firewalld::admit(need),
        Program::DockerNft => docker::admit_nft(need),
        Program::DockerIptables if need.hook == HostHook::Forward => docker::admit_iptables(need),
        Program::Proxmox => proxmox::admit(need),
        Program::ProxmoxNft => proxmox::admit_nft(need),
        Program::Libvirt => libvirt::admit(need),
        Program::Iptables | Program::DockerIptables => iptables::admit(need, "iptables", need.chain),
        Program::Fail2ban | Program::Crowdsec | Program::PlainNft => nft::admit(need),
    };
    lines.join("\n")
}
