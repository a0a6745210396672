//! Where the kernel's routing sends packets.

use std::net::IpAddr;

use nix::errno::Errno;

use crate::ruleset::audit::packet::Interface;
use crate::ruleset::explain::facts::Ports;
use crate::ruleset::explain::{Path, PathTrouble, Routes};
use crate::service::forwarding;
use crate::sys::interfaces;
use crate::sys::paths::{Routed, routed};

/// What the kernel's routing says.
pub(super) struct Kernel;

impl Routes for Kernel {
    fn path(&self, from: IpAddr, to: IpAddr, ports: Option<Ports>, by: &Interface) -> Path {
        if by.name == "lo" || by.name.is_empty() {
            return Path::Unknown;
        }
        let stopped = || forwarding::trouble(to, &by.name);
        match routed(Some(from), to, ports, by.index) {
            Ok(Routed::Here) => Path::Here,
            Ok(Routed::Out(index)) => {
                stopped().map_or_else(|| Path::Through(interface(index)), Path::Nowhere)
            }
            // A black hole on the way says the same as a source that routing does not expect there.
            Ok(Routed::Refused(Errno::EINVAL))
                if to.is_ipv6() || self.towards(to, None, None) == Err(PathTrouble::Forbidden) =>
            {
                Path::Nowhere(PathTrouble::Forbidden)
            }
            Ok(Routed::Refused(Errno::EXDEV | Errno::EINVAL)) => Path::Nowhere(PathTrouble::ReversePath),
            Ok(Routed::Refused(Errno::EACCES)) => Path::Nowhere(PathTrouble::Forbidden),
            Ok(Routed::Refused(_)) => Path::Nowhere(stopped().unwrap_or(PathTrouble::NoRoute)),
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
