//! What can be found out about this host: services, interfaces, addresses, who is connected.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::answers::Service;
use crate::service::outside::SOMEWHERE;
use crate::sys::interfaces::{self, InterfaceState};
use crate::sys::{flows, listeners};
use crate::units::{AppName, IfName, Protocols};

/// A service that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// What it is.
    pub service: Service,
    /// The program's name, if it can be seen.
    pub program: Option<String>,
}

impl Listening {
    /// A name for its app: what people call the service, else the program's name.
    #[must_use]
    pub fn app(&self) -> Option<AppName> {
        match self.program.as_deref() {
            Some("sshd") => "ssh".parse().ok(),
            Some(program) => program.parse().ok(),
            None => usual_name(self.service.port.get()).and_then(|name| name.parse().ok()),
        }
    }
}

/// What usually is at a port.
pub fn usual_name(port: u16) -> Option<&'static str> {
    let known =
        [(22, "ssh"), (1194, "openvpn"), (3389, "rdp"), (51_820, "wireguard"), (5900, "vnc"), (80, "http")];
    known.iter().find(|(at, _)| *at == port).map(|(_, name)| *name)
}

/// The services of this host that others can reach, SSH first.
pub fn services() -> Vec<Listening> {
    let mut out: Vec<Listening> = Vec::new();
    for socket in listeners::listening().unwrap_or_default() {
        let (false, Some(port)) = (socket.address.is_loopback(), NonZeroU16::new(socket.port)) else {
            continue;
        };
        let protocol = if socket.is_tcp { Protocols::Tcp } else { Protocols::Udp };
        let found = Listening {
            service: Service { port, protocol },
            program: socket.process.map(|(_, name)| name).filter(|name| name != "knock-agent"),
        };
        if !out.iter().any(|other| other.service == found.service) {
            out.push(found);
        }
    }
    let is_ssh = |one: &Listening| one.program.as_deref() == Some("sshd") || one.service.port.get() == 22;
    out.sort_by_key(|one| (!is_ssh(one), one.service.protocol != Protocols::Tcp, one.service.port));
    out
}

/// The interfaces of the ways to the internet, that of IPv4 first; none where there is no route.
pub fn outside() -> Vec<IfName> {
    let mut out: Vec<IfName> = Vec::new();
    for (_, far) in SOMEWHERE {
        if let Some(name) = towards(far)
            && name.as_str() != "lo"
            && !out.contains(&name)
        {
            out.push(name);
        }
    }
    out
}

/// The interface by which an address is reached.
pub fn towards(addr: IpAddr) -> Option<IfName> {
    let index = flows::interface_towards(addr).ok()??;
    interfaces::name_of(index)?.parse().ok()
}

/// The names of all interfaces but the loopback's.
pub fn names() -> Vec<String> {
    interfaces::names().unwrap_or_default().into_iter().filter(|name| name != "lo").collect()
}

/// One address of each family by which these interfaces can be reached, IPv4 first.
pub fn addresses(of: &[IfName]) -> Vec<IpAddr> {
    let states = interfaces::states().unwrap_or_default();
    let named = |state: &&InterfaceState| of.iter().any(|name| name.as_str() == state.name);
    let all: Vec<IpAddr> =
        states.iter().filter(named).flat_map(|state| &state.addresses).map(|(addr, _)| *addr).collect();
    let v4 = all.iter().find(|addr| matches!(addr, IpAddr::V4(v4) if !v4.is_link_local()));
    let v6 = all.iter().find(|addr| matches!(addr, IpAddr::V6(v6) if !v6.is_unicast_link_local()));
    v4.into_iter().chain(v6).copied().collect()
}

/// The ports of the two steps: those of the web where nobody has them, as they get through most firewalls.
pub fn step_ports(service: Service) -> Option<(NonZeroU16, NonZeroU16)> {
    let listening = listeners::listening().unwrap_or_default();
    let taken: BTreeSet<u16> =
        listening.iter().filter(|socket| socket.is_tcp).map(|socket| socket.port).collect();
    let free = |port: u16| !taken.contains(&port) && port != service.port.get();
    let pairs = [(80, 443), (8080, 8443), (18_080, 18_443), (28_080, 28_443)];
    let (http, https) = pairs.into_iter().find(|(http, https)| free(*http) && free(*https))?;
    NonZeroU16::new(http).zip(NonZeroU16::new(https))
}
