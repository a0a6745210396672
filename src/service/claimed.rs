//! Connections that somebody outside may have begun in this host's name while the guard was missing: to connection tracking
//! a guarded service began them, so that whatever the other end sends would pass as an answer.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::operations::Operations;
use super::outlasting::{SETTLED, SPARING};
use super::ways_in::WaysIn;
use crate::config::{App, Settings};
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::wire::{Attempt, Socket, Tracked};
use crate::sys::flows;
use crate::units::{Now, Protocol};

/// Looking and forgetting together take at most one part in so many of the time: what is forgotten costs only once.
const SPARING_ALL: u32 = 2;
/// From this port on, hosts choose one for what they begin.
const CHOSEN: u16 = 32_768;

/// When to look for them once more: for a packet that was on its way when the guard came back.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    again_at: Option<Duration>,
    /// The guard was missing since that was set.
    missed: bool,
    /// Only what these settings did not guard is looked at.
    of_new: Option<Arc<Settings>>,
}

impl Claimed {
    pub(super) fn due(&self) -> Option<Duration> {
        self.again_at
    }
}

/// The same connection as the other end sees it, had it begun it.
fn turned(flow: &Tracked) -> Tracked {
    Tracked { client: flow.server, server: flow.client, there: flow.client, ..*flow }
}

/// How long to wait for the next look after one that took so long, of which so much for the list.
fn pause(listing: Duration, all: Duration) -> Duration {
    SETTLED.max(listing * SPARING).max(all * SPARING_ALL)
}

/// Whether what it leads to is guarded: an app's port, or that of a step.
fn is_at_guarded(settings: &Settings, options: Options, flow: &Tracked, ways_in: &mut WaysIn) -> bool {
    let steps = [options.http_port, options.https_port].map(|port| port.get());
    let at_step = settings.global.steps
        && flow.protocol == Protocol::Tcp
        && steps.contains(&flow.server.port())
        && ways_in.is_here(flow.server.ip());
    at_step || !ways_in.apps(&settings.apps, flow).is_empty()
}

/// Whether two settings guard the same ports on the same interfaces.
fn guard_the_same(one: &Settings, other: &Settings, options: Options) -> bool {
    let (one, other) = (Layout::new(one, options), Layout::new(other, options));
    let of =
        |layout: &Layout<'_>| (layout.services.clone(), layout.lan.clone(), layout.settings.global.steps);
    one.ext == other.ext && of(&one) == of(&other)
}

/// What tells connections of TCP that were really begun here: forgotten, they would be over.
struct Genuine {
    /// Both ends of sockets at whose port nobody listens.
    begun: BTreeSet<(SocketAddr, SocketAddr)>,
    liberal: bool,
}

impl Genuine {
    fn now() -> Self {
        let sockets = flows::sockets().unwrap_or_else(|error| {
            tracing::debug!(%error, "what this host began itself cannot be seen");
            Vec::new()
        });
        Self::of(&sockets, flows::is_liberal())
    }

    fn of(sockets: &[Socket], liberal: bool) -> Self {
        let listened = sockets.iter().filter(|socket| socket.listens).map(|socket| socket.local.port());
        let listened: BTreeSet<u16> = listened.collect();
        let begun =
            sockets.iter().filter(|socket| !socket.listens && !listened.contains(&socket.local.port()));
        Self { begun: begun.map(|socket| (socket.local, socket.remote)).collect(), liberal }
    }

    /// Whether it is one of them; `apps` are those from whose port it is. Of what LAN hosts began, there is only its state to
    /// tell, and that the port may have been chosen for it.
    fn has(&self, attempt: &Attempt, is_here: bool, apps: &[&App]) -> bool {
        let Attempt { flow, open, .. } = attempt;
        if flow.protocol != Protocol::Tcp {
            return false;
        }
        if is_here {
            return self.begun.contains(&(flow.client, flow.server));
        }
        let port = flow.client.port();
        let in_range = |app: &&App| {
            let mut ranges = app.ports.iter().filter(|ports| !ports.is_single());
            app.destination.port().is_none() && ranges.any(|ports| ports.contains(port))
        };
        *open && !self.liberal && port >= CHOSEN && apps.iter().any(in_range)
    }
}

impl Operations {
    /// The guard was missing, or not what it should be.
    pub(super) fn end_claimed(&mut self, now: Now) {
        self.claimed.of_new = None;
        if self.claimed.again_at.is_some() {
            // Somebody keeps taking it away: what there is to find is found then.
            self.claimed.missed = true;
        } else {
            self.look_at_claimed(now);
        }
    }

    /// The same for what the settings of before did not guard.
    pub(super) fn end_claimed_of_new(&mut self, before: &Settings, now: Now) {
        if guard_the_same(before, &self.settings, self.options) {
            return;
        }
        if self.claimed.again_at.is_some() {
            return self.end_claimed(now);
        }
        self.claimed.of_new = Some(Arc::new(before.clone()));
        self.look_at_claimed(now);
    }

    /// Looks once more where that is due.
    pub(super) fn follow_claimed(&mut self, now: Now) {
        if self.claimed.again_at.is_some_and(|at| at <= now.boot) {
            if std::mem::take(&mut self.claimed.missed) {
                self.look_at_claimed(now);
            } else {
                self.finish_claimed(now);
            }
        }
    }

    /// Looks for the last time, if that is still to come: a start over a guard that stands does not.
    pub(super) fn finish_claimed(&mut self, now: Now) {
        if self.claimed.again_at.take().is_some() {
            self.forget_claimed(now);
            self.claimed.of_new = None;
        }
    }

    /// With a second look to come, sooner or later by how long this one takes.
    fn look_at_claimed(&mut self, now: Now) {
        let begun = Instant::now();
        let listing = self.forget_claimed(now);
        self.claimed.again_at = Some(now.boot + pause(listing, begun.elapsed()));
    }

    /// Has connection tracking forget what seems to be begun from a guarded port, to somebody outside who is not let in; returns
    /// how long the list took. If it was this host's own, its next packet begins it anew, but for TCP: that is left alone.
    fn forget_claimed(&mut self, now: Now) -> Duration {
        let begun = Instant::now();
        let known = match flows::all_attempts() {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, "what was begun in this host's name cannot be seen");
                return Duration::ZERO;
            }
        };
        // Seldom needed: the kernel walks a table of the size of the whole machine's.
        let genuine = LazyCell::new(Genuine::now);
        let listing = begun.elapsed();
        let own = self.own_addresses();
        let mut ways_in = WaysIn::now(&self.settings, self.options).with(own.clone());
        let mut before = self.claimed.of_new.clone().map(|settings| {
            let ways_in = WaysIn::now(&settings, self.options).with(own);
            (settings, ways_in)
        });
        let mut ended = 0_usize;
        for attempt in &known {
            let (flow, as_theirs) = (&attempt.flow, turned(&attempt.flow));
            let was_guarded = |(settings, ways_in): &mut (Arc<Settings>, WaysIn)| {
                is_at_guarded(settings, self.options, &as_theirs, ways_in)
                    && ways_in.is_outside(as_theirs.client.ip())
            };
            if is_at_guarded(&self.settings, self.options, &as_theirs, &mut ways_in)
                && may_be_of_outside(&as_theirs, &mut ways_in)
                && !before.as_mut().is_some_and(was_guarded)
                && !self.adopted.knows(flow.protocol, as_theirs.client, as_theirs.server)
                && !self.is_genuine(&genuine, attempt, &as_theirs, &mut ways_in)
                && !self.is_let_in(&as_theirs, &mut ways_in, now)
            {
                ended += 1;
                if let Err(error) = flows::forget(flow) {
                    tracing::warn!(%error, client = %as_theirs.client, "a connection in this host's name may go on as long as it is tracked");
                }
            }
        }
        if ended > 0 {
            tracing::warn!(
                ended,
                "connections from guarded ports that may have been begun in this host's name while the guard was missing are forgotten"
            );
        }
        listing
    }

    fn is_genuine(
        &self,
        genuine: &Genuine,
        attempt: &Attempt,
        as_theirs: &Tracked,
        ways_in: &mut WaysIn,
    ) -> bool {
        let is_here = ways_in.is_or_was_here(as_theirs.server.ip());
        genuine.has(attempt, is_here, &ways_in.apps(&self.settings.apps, as_theirs))
    }
}

/// Whether the client may be outside. Answers may go elsewhere than the main way to it, by policies of marks or of sources: so
/// whoever this host itself may have begun something to, and for a LAN host all who are not beside it.
fn may_be_of_outside(as_theirs: &Tracked, ways_in: &mut WaysIn) -> bool {
    let (client, server) = (as_theirs.client.ip(), as_theirs.server.ip());
    if ways_in.is_here(client) {
        return false;
    }
    ways_in.is_here(server) || ways_in.is_outside(client) || !ways_in.are_together(client, server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alone, parse};

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_forgotten_delays_the_next_look_less_than_what_is_listed() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(1), ms(2)), SETTLED);
        assert_eq!(pause(ms(100), ms(150)), ms(2_000));
        assert_eq!(pause(ms(60), ms(1_500)), ms(3_000));
    }

    #[test]
    fn tcp_is_genuine_by_a_socket_that_was_not_accepted_or_by_a_port_that_a_lan_host_chose() {
        let socket = |local, remote| Socket { local: at(local), remote: at(remote), listens: false };
        let listener = Socket { listens: true, ..socket("0.0.0.0:22", "0.0.0.0:0") };
        let sockets = [
            listener,
            socket("203.0.113.1:22", "198.51.100.1:4000"),
            socket("203.0.113.1:40848", "198.51.100.1:25"),
        ];
        let keys = "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
        let text = format!(
            "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n\
             game:\n  port: [33000, 20000-21000, 45000-46000]\n  destination: 10.0.0.5\n{}one:\n  port: 22\n  destination: 10.0.0.5:50000\n{}",
            keys.replace('N', "1"),
            keys.replace('N', "2"),
        );
        let apps = parse("test", &text, None, &Alone).unwrap().settings.apps;
        let apps: Vec<&App> = apps.iter().collect();
        let has = |liberal, open, protocol, from: &str, to: &str| {
            let (client, server) = (at(from), at(to));
            let flow = Tracked { protocol, client, server, there: server, zone: 0 };
            let attempt = Attempt { flow, answered: open, open, state: None, left_s: 9 };
            let is_here = from.starts_with("203.");
            Genuine::of(&sockets, liberal).has(&attempt, is_here, &apps)
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert!(has(true, false, tcp, "203.0.113.1:40848", "198.51.100.1:25"));
        assert!(!has(false, true, tcp, "203.0.113.1:40848", "198.51.100.2:25"), "no socket");
        assert!(!has(false, true, tcp, "203.0.113.1:22", "198.51.100.1:4000"), "somebody listens there");
        assert!(!has(false, true, udp, "203.0.113.1:40848", "198.51.100.1:25"));
        let far = "198.51.100.1:25";
        assert!(has(false, true, tcp, "10.0.0.5:45123", far));
        assert!(!has(true, true, tcp, "10.0.0.5:45123", far), "anything passes as a part of it");
        assert!(!has(false, false, tcp, "10.0.0.5:45123", far), "it was never answered");
        assert!(!has(false, true, udp, "10.0.0.5:45123", far));
        for from in ["10.0.0.5:33000", "10.0.0.5:20500", "10.0.0.5:50000"] {
            assert!(!has(false, true, tcp, from, far), "{from} is the port of a service");
        }
    }
}
