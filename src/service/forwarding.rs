//! LAN hosts that nobody gets to, as this host does not forward.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

use super::health::Ailment;
use crate::config::{App, Settings};
use crate::ruleset::audit::{Finding, Severity};
use crate::ruleset::explain::PathTrouble;
use crate::sys::interfaces;
use crate::sys::paths::{Routed, routed};

/// Why this host forwards nothing to such an address that comes in by that interface, where it does not.
pub(super) fn trouble(to: IpAddr, by: &str) -> Option<PathTrouble> {
    let stops = match to {
        IpAddr::V4(_) => reads(&format!("net/ipv4/conf/{by}/forwarding"), "0"),
        // Linux 6.17 and later may forward what comes in by one interface only.
        IpAddr::V6(_) => {
            reads("net/ipv6/conf/all/forwarding", "0")
                && !reads(&format!("net/ipv6/conf/{by}/force_forwarding"), "1")
        }
    };
    let only_there = to.is_ipv4() && !reads("net/ipv4/ip_forward", "0");
    stops.then_some(if only_there { PathTrouble::NotForwardingThere } else { PathTrouble::NotForwarding })
}

fn reads(key: &str, value: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{key}")).is_ok_and(|text| text.trim() == value)
}

/// A switch that is off.
#[derive(Debug)]
struct Off {
    trouble: PathTrouble,
    v6: bool,
    /// The first interface that it stops.
    by: String,
    /// The apps that nobody gets to, and their LAN hosts.
    stopped: BTreeSet<String>,
}

/// Each switch that keeps packets to or from LAN hosts of apps.
fn switched_off(settings: &Settings) -> Vec<Off> {
    let mut out: BTreeMap<String, Off> = BTreeMap::new();
    for app in &settings.apps {
        let Some(host) = app.destination.host() else { continue };
        for by in interfaces_between(app, host) {
            let Some(trouble) = trouble(host, &by) else { continue };
            let Some((switch, _)) = trouble.switch(host.is_ipv6(), &by) else { continue };
            let off = out.entry(switch).or_insert_with(|| Off {
                trouble,
                v6: host.is_ipv6(),
                by,
                stopped: BTreeSet::new(),
            });
            off.stopped.insert(format!("{} ({host})", app.name));
        }
    }
    out.into_values().collect()
}

/// Where clients come in, and the answers; none where the address is one of this host.
fn interfaces_between(app: &App, host: IpAddr) -> Vec<String> {
    let inside = match routed(None, host, None, None) {
        Ok(Routed::Here) => return Vec::new(),
        Ok(Routed::Out(index)) => interfaces::name_of(index),
        Ok(Routed::Refused(_)) | Err(_) => None,
    };
    app.interface_ext.iter().map(|name| name.as_str().to_owned()).chain(inside).collect()
}

impl Off {
    fn message(&self, switch: &str) -> String {
        let apps = self.stopped.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = match self.trouble {
            PathTrouble::NotForwardingThere => format!("what comes in by {}", self.by),
            _ => format!("IPv{}", if self.v6 { 6 } else { 4 }),
        };
        format!("this host does not forward {what} ({switch} is off): who is let in does not get to {apps}")
    }

    fn finding(&self) -> Option<Finding> {
        let (switch, fix) = self.trouble.switch(self.v6, &self.by)?;
        let message = self.message(&switch);
        Some(Finding { severity: Severity::Error, code: "forwarding-off", message, fix: fix.join("\n") })
    }
}

/// What an operator should know of them before anything is applied.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    switched_off(settings).iter().filter_map(Off::finding).collect()
}

/// The same for whoever asks how the guard is.
pub(super) fn ailments(settings: &Settings) -> Vec<Ailment> {
    findings(settings).into_iter().map(Ailment::of_host).collect()
}
