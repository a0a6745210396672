//! What is beside rules: who listens on our ports, tables that cannot be read, programs before all chains.

use super::Trip;
use super::finding::{Finding, Severity};
use super::host::HostHook;
use super::journey::Route;
use super::machine::Deed;
use super::situation::{Listener, Situation};
use crate::ruleset::layout::Layout;
use crate::ruleset::remedy::{iptables_mark, programs};
use crate::units::{PortRange, Protocol};

/// The names of our own processes that have the sockets: whichever has the lower number is found.
const OURS: [&str; 2] = ["knock-agent", "knock-front"];

/// Judges listeners, legacy tables and XDP.
#[must_use]
pub(super) fn services(layout: &Layout<'_>, situation: &Situation, trips: &[Trip]) -> Vec<Finding> {
    let mut out = Vec::new();
    let options = layout.options;
    // With a proxy in front, the ports that clients use are the proxy's.
    let behind = layout.settings.global.proxy.as_ref().map(|proxy| (proxy.http_port, proxy.https_port));
    let (http, https) = behind.unwrap_or((options.http_port, options.https_port));
    let steps = [("step 1", "--http-port", http), ("step 2", "--https-port", https)];
    for (what, flag, port) in steps.into_iter().filter(|_| layout.settings.global.steps) {
        out.extend(taken(situation, what, flag, port.get()));
    }
    out.extend(knocked_at(layout, situation));
    out.extend(silent_services(layout, situation, trips));
    out.extend(legacy(layout, situation));
    out.extend(xdp(layout, situation));
    let names: Vec<&str> = programs(&situation.host).iter().map(|program| program.name()).collect();
    if !names.is_empty() {
        out.push(Finding {
            severity: Severity::Info,
            code: "host-rules",
            message: format!("rules of others on this host: {}", names.join(", ")),
            fix: String::new(),
        });
    }
    out
}

fn who(listener: &Listener) -> String {
    match &listener.process {
        Some(process) => format!("{} (pid {})", process.name, process.pid),
        None => "a process that cannot be told".to_owned(),
    }
}

fn taken(situation: &Situation, what: &str, flag: &str, port: u16) -> Option<Finding> {
    let listeners = situation.listeners.as_ref()?;
    let other = |listener: &&Listener| {
        let ours = listener.process.as_ref().is_some_and(|process| OURS.contains(&process.name.as_str()));
        listener.protocol == Protocol::Tcp && listener.port == port && !ours
    };
    let taker = listeners.iter().find(other)?;
    // Only root may look into others' processes: it could be our own daemon.
    let known = taker.process.is_some();
    Some(Finding {
        severity: if known { Severity::Error } else { Severity::Warning },
        code: "step-port-taken",
        message: format!("tcp port {port} of {what} is taken: {} listens on {}", who(taker), taker.address),
        fix: format!("# stop it, or choose another port for {what}: {flag} PORT"),
    })
}

/// Programs that nobody outside reaches any more, because a sequence knocks at their ports. Which ones is a secret.
fn knocked_at(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let knocked = |listener: &&Listener| {
        layout.knocking.takes(listener.protocol, listener.port)
            && !listener.address.to_canonical().is_loopback()
    };
    let finding = |listener: &Listener| Finding {
        severity: Severity::Warning,
        code: "knock-port-taken",
        message: format!(
            "{} listens on a {} port that a sequence knocks at: nobody outside can reach it there",
            who(listener),
            listener.protocol
        ),
        fix: "# knock at a port where nothing listens, or move the program".to_owned(),
    };
    let mut out: Vec<Finding> = situation.listeners.iter().flatten().filter(knocked).map(finding).collect();
    out.dedup();
    out
}

/// Guarded ports of this host where nobody would answer.
fn silent_services(layout: &Layout<'_>, situation: &Situation, trips: &[Trip]) -> Vec<Finding> {
    let Some(listeners) = &situation.listeners else { return Vec::new() };
    let mut out = Vec::new();
    for segment in &layout.local {
        let answered = listeners.iter().any(|listener| {
            listener.protocol == segment.protocol
                && segment.ports.contains(listener.port)
                && !listener.address.to_canonical().is_loopback()
        });
        if answered || is_forwarded(trips, segment.protocol, segment.ports) {
            continue;
        }
        let names: Vec<&str> = layout.apps(segment).map(|app| app.name.as_str()).collect();
        out.push(Finding {
            severity: Severity::Info,
            code: "nothing-listens",
            message: format!(
                "nothing listens on {} port {} of {} now",
                segment.protocol,
                segment.ports,
                names.join(", ")
            ),
            fix: String::new(),
        });
    }
    out
}

/// Whether somebody else's rules forward the port.
fn is_forwarded(trips: &[Trip], protocol: Protocol, ports: PortRange) -> bool {
    trips
        .iter()
        .filter(|Trip { journey, .. }| {
            journey.route == Route::In && journey.packet.protocol == protocol && journey.ports == ports
        })
        .flat_map(|trip| &trip.met)
        .filter(|meeting| meeting.hook == HostHook::Prerouting)
        .flat_map(|meeting| &meeting.passage.deeds)
        .any(|(deed, ..)| matches!(deed, Deed::Dnat { .. } | Deed::Redirect { .. }))
}

fn legacy(layout: &Layout<'_>, situation: &Situation) -> Option<Finding> {
    if situation.legacy_tables.is_empty() {
        return None;
    }
    let mut fix = vec!["# look at them: iptables-legacy-save; ip6tables-legacy-save".to_owned()];
    if let Some(mark) = layout.settings.global.mark {
        fix.push("# where INPUT or FORWARD drops by default:".to_owned());
        for tool in ["iptables-legacy", "ip6tables-legacy"] {
            let family = if tool.starts_with("ip6") { "ip6 " } else { "ip " };
            if situation.legacy_tables.iter().any(|name| name.starts_with(family)) {
                for chain in ["INPUT", "FORWARD", "OUTPUT"] {
                    fix.push(format!("{tool} -I {chain} {} -j ACCEPT", iptables_mark(mark)));
                }
            }
        }
    }
    Some(Finding {
        severity: Severity::Warning,
        code: "iptables-legacy",
        message: format!(
            "tables of iptables-legacy are loaded ({}): they cannot be read here and may drop what is let through",
            situation.legacy_tables.join(", ")
        ),
        fix: fix.join("\n"),
    })
}

fn xdp<'a>(layout: &'a Layout<'_>, situation: &'a Situation) -> impl Iterator<Item = Finding> + 'a {
    let ext = layout.ext.iter().filter_map(|name| situation.interface(name.as_str()));
    ext.filter(|interface| interface.has_xdp).map(|interface| Finding {
        severity: Severity::Warning,
        code: "xdp",
        message: format!(
            "a program on {} (XDP) sees packets before all rules and may drop or divert them",
            interface.name
        ),
        fix: format!("# look at it: ip link show dev {}; bpftool net", interface.name),
    })
}
