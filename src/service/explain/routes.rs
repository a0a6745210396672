//! Where the kernel's routing sends packets.

use std::fs;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::ruleset::audit::packet::Interface;
use crate::ruleset::explain::facts::Ports;
use crate::ruleset::explain::{Path, PathTrouble, Routes};
use crate::sys::interfaces;
use crate::sys::paths::{Routed, routed};

/// What the kernel's routing says.
pub(super) struct Kernel;

impl Routes for Kernel {
    fn path(&self, from: IpAddr, to: IpAddr, ports: Option<Ports>, by: &Interface) -> Path {
        if by.name == "lo" || by.name.is_empty() {
            return Path::Unknown;
        }
        let forwards = || !is_off(&forwarding_key(to, &by.name));
        match routed(Some(from), to, ports, by.index) {
            Ok(Routed::Here) => Path::Here,
            Ok(Routed::Out(_)) if !forwards() => Path::Nowhere(not_forwarding(to)),
            Ok(Routed::Out(index)) => Path::Through(interface(index)),
            // A black hole on the way says the same as a source that routing does not expect there.
            Ok(Routed::Refused(Errno::EINVAL))
                if to.is_ipv6() || self.towards(to, None, None) == Err(PathTrouble::Forbidden) =>
            {
                Path::Nowhere(PathTrouble::Forbidden)
            }
            Ok(Routed::Refused(Errno::EXDEV | Errno::EINVAL)) => Path::Nowhere(PathTrouble::ReversePath),
            Ok(Routed::Refused(Errno::EACCES)) => Path::Nowhere(PathTrouble::Forbidden),
            Ok(Routed::Refused(_)) if !forwards() => Path::Nowhere(not_forwarding(to)),
            Ok(Routed::Refused(_)) => Path::Nowhere(PathTrouble::NoRoute),
            Err(_) => Path::Unknown,
        }
    }

    fn towards(
        &self,
        addr: IpAddr,
        from: Option<IpAddr>,
        ports: Option<Ports>,
    ) -> Result<Interface, PathTrouble> {
        match routed(from, addr, ports, None) {
            Ok(Routed::Out(index)) => Ok(interface(index)),
            Ok(Routed::Here) => Ok(Interface { name: "lo".to_owned(), index: Some(1) }),
            // Of routes that forbid: a black hole, a prohibition, one that says unreachable.
            Ok(Routed::Refused(Errno::EINVAL | Errno::EACCES | Errno::EHOSTUNREACH)) => {
                Err(PathTrouble::Forbidden)
            }
            Ok(Routed::Refused(_)) | Err(_) => Err(PathTrouble::NoRoute),
        }
    }
}

fn interface(index: u32) -> Interface {
    Interface { name: interfaces::name_of(index).unwrap_or_default(), index: Some(index) }
}

fn forwarding_key(to: IpAddr, by: &str) -> String {
    match to {
        IpAddr::V4(_) => format!("net/ipv4/conf/{by}/forwarding"),
        IpAddr::V6(_) => "net/ipv6/conf/all/forwarding".to_owned(),
    }
}

/// Whether this host forwards nothing, or nothing that comes in there.
fn not_forwarding(to: IpAddr) -> PathTrouble {
    match to.is_ipv4() && !is_off("net/ipv4/ip_forward") {
        true => PathTrouble::NotForwardingThere,
        false => PathTrouble::NotForwarding,
    }
}

fn is_off(key: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{key}")).is_ok_and(|text| text.trim() == "0")
}
