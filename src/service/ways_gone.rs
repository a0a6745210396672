//! Ways to LAN hosts that are no more: connection tracking goes on translating what was let in by them, and no rule asks for
//! a grant at their ports any longer, so that it has to forget those connections.

use std::collections::BTreeMap;

use super::operations::Operations;
use super::shut_out::ShutOut;
use super::ways_in::{WaysIn, has_port};
use crate::config::{App, Settings};
use crate::ruleset::diff::Live;
use crate::ruleset::lockout::leads_to_lan;
use crate::ruleset::wire::Tracked;
use crate::sys::flows;

/// Whether there were ways to LAN hosts that are not exactly as they were.
pub(super) fn ways_changed(before: &[App], after: &[App]) -> bool {
    let same = |old: &App, new: &App| {
        (&old.destination, &old.protocol, &old.ports) == (&new.destination, &new.protocol, &new.ports)
    };
    let mut to_lan = before.iter().filter(|app| app.destination.host().is_some());
    to_lan.any(|old| !after.iter().any(|new| same(old, new)))
}

/// Whether one of these apps leads whoever addressed that port to the one who answers, on a LAN host.
fn leads(apps: &[App], flow: &Tracked) -> bool {
    apps.iter().any(|app| {
        app.protocol.each().contains(&flow.protocol)
            && has_port(app, flow.server.port())
            && app.destination.host() == Some(flow.there.ip())
            && app.destination.port().unwrap_or(flow.server.port()) == flow.there.port()
    })
}

/// What a guard of before knew of ports and LAN hosts.
#[derive(PartialEq)]
pub(super) struct GuardBefore(Live);

impl GuardBefore {
    /// As it stands now.
    pub(super) fn of(live: Option<&Live>) -> Self {
        let maps = ["services", "lan_4", "lan_6"].map(str::to_owned).into_iter();
        let found = |name: String| Some((name.clone(), live?.elements.get(&name)?.clone()));
        let elements: BTreeMap<_, _> = maps.filter_map(found).collect();
        Self(Live { elements, ..Live::default() })
    }

    fn knew_lan(&self) -> bool {
        self.0.elements.iter().any(|(name, elements)| name != "services" && !elements.is_empty())
    }
}

impl Operations {
    /// After a reload: ends what came by ways that were there before. `had` are those who were let in; all others, whose
    /// grants are over, are known by coming from outside.
    pub(super) fn end_ways_gone(&mut self, before: &Settings, had: &ShutOut) {
        let (was, is) = (before.apps.clone(), self.settings.apps.clone());
        if !ways_changed(&was, &is) {
            return;
        }
        let mut ways_in = WaysIn::now(before, self.options).with(self.own_addresses());
        let prefix = before.global.ipv6_prefix;
        let let_in = |flow: &Tracked| {
            let client = flow.client.ip();
            was.iter().any(|app| had.has(&app.slug, client, prefix, || false))
        };
        self.end_translated(&mut ways_in, let_in, |flow| leads(&was, flow) && !leads(&is, flow));
    }

    /// After a start: ends what came by ways that the guard of before had, and the one that is live now has not. Where an app of this host's has the port, it
    /// needs its grant, and somebody else may forward it.
    pub(super) fn end_ways_of(&mut self, before: &GuardBefore, live: &Live) {
        if !before.knew_lan() || *before == GuardBefore::of(Some(live)) {
            return;
        }
        let is = self.settings.apps.clone();
        let mut ways_in = WaysIn::now(&self.settings, self.options).with(self.own_addresses());
        let is_local = |flow: &Tracked| {
            let mut local = is.iter().filter(|app| app.destination.host().is_none());
            local.any(|app| app.protocol.each().contains(&flow.protocol) && has_port(app, flow.server.port()))
        };
        self.end_translated(
            &mut ways_in,
            |_| false,
            |flow| {
                leads_to_lan(&before.0, flow.protocol, flow.server, flow.there)
                    && !leads(&is, flow)
                    && !is_local(flow)
            },
        );
    }

    /// Has connection tracking forget what clients began with an address of this host and a LAN host answers, by a way that
    /// is gone. What was there before the guard came by rules of the host's own, and so did what comes from inside.
    fn end_translated(
        &mut self,
        ways_in: &mut WaysIn,
        was_let_in: impl Fn(&Tracked) -> bool,
        is_gone: impl Fn(&Tracked) -> bool,
    ) {
        let known = match flows::known_connections() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "connections to LAN hosts by ports that lead there no more may go on, as the kernel does not list them: `conntrack -D -q ADDRESS` with the LAN host's ends them"
                );
                return;
            }
        };
        let mut ended = 0_usize;
        for flow in known.iter().filter(|flow| flow.server.ip() != flow.there.ip() && is_gone(flow)) {
            if !ways_in.is_or_was_here(flow.server.ip())
                || !(was_let_in(flow) || ways_in.is_outside(flow.client.ip()))
                || self.adopted.knows(flow.protocol, flow.client, flow.server)
            {
                continue;
            }
            self.outlasting.on_cut(flow);
            match flows::forget(flow) {
                Ok(()) => ended += 1,
                Err(error) => {
                    tracing::warn!(%error, client = %flow.client, "a connection to a LAN host that was to end may go on as long as it is tracked");
                }
            }
        }
        if ended > 0 {
            tracing::info!(ended, "connections to LAN hosts by ports that lead there no more are cut");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alone, parse};
    use crate::units::Protocol;

    fn apps(text: &str) -> Vec<App> {
        let keys = "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
        let sections = text.split('\n').enumerate().map(|(n, app)| {
            let fields: String = app.split("; ").map(|field| format!("  {field}\n")).collect();
            format!("app{n}:\n{fields}{}", keys.replace('N', &n.to_string()))
        });
        let global = "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n";
        let text = global.to_owned() + &sections.collect::<String>();
        parse("test", &text, None, &Alone).unwrap_or_else(|p| panic!("{p}\n{text}")).settings.apps
    }

    #[test]
    fn a_way_is_a_protocol_a_port_and_the_end_that_it_leads_to() {
        let all = apps(
            "port: [7000, 7001]; protocol: both; destination: 10.0.0.5\nport: 2222; destination: 10.0.0.5:22\nport: 22",
        );
        let led = |protocol, port: u16, there: &str| {
            let [client, server] = [("198.51.100.1", 4000), ("203.0.113.1", port)]
                .map(|(addr, port)| std::net::SocketAddr::new(addr.parse().unwrap(), port));
            leads(&all, &Tracked { protocol, client, server, there: there.parse().unwrap(), zone: 0 })
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (protocol, port, there) in
            [(tcp, 7000, "10.0.0.5:7000"), (udp, 7001, "10.0.0.5:7001"), (tcp, 2222, "10.0.0.5:22")]
        {
            assert!(led(protocol, port, there), "{protocol} {port} {there}");
        }
        for (protocol, port, there) in [
            (tcp, 7000, "10.0.0.5:7001"),
            (tcp, 7002, "10.0.0.5:7002"),
            (tcp, 7000, "10.0.0.6:7000"),
            (udp, 2222, "10.0.0.5:22"),
            (tcp, 2222, "10.0.0.5:2222"),
            (tcp, 22, "10.0.0.5:22"),
            (tcp, 22, "203.0.113.1:22"),
        ] {
            assert!(!led(protocol, port, there), "{protocol} {port} {there}");
        }
    }

    #[test]
    fn ways_change_with_ports_protocols_and_destinations_of_lan_hosts_only() {
        let before = apps("port: [7000, 7001]; protocol: both; destination: 10.0.0.5\nport: 22");
        let changed = |after: &str| ways_changed(&before, &apps(after));
        assert!(!changed("port: [7000, 7001]; protocol: both; destination: 10.0.0.5\nport: 23"));
        assert!(!changed(
            "port: 23\nport: [7000, 7001]; protocol: both; destination: 10.0.0.5; established: keep"
        ));
        for after in [
            "port: 22",
            "port: 7001; protocol: both; destination: 10.0.0.5",
            "port: [7000, 7001]; protocol: udp; destination: 10.0.0.5",
            "port: [7000, 7001]; protocol: both; destination: 10.0.0.6",
            "port: [7000, 7001]; protocol: both",
        ] {
            assert!(changed(after), "{after}");
        }
    }
}
