//! Connections that somebody outside may have begun in this host's name while the guard was missing: to connection tracking
//! a guarded service began them, so that whatever the other end sends would pass as an answer.

use std::time::{Duration, Instant};

use super::operations::Operations;
use super::outlasting::{SETTLED, SPARING};
use super::ways_in::WaysIn;
use crate::ruleset::wire::Tracked;
use crate::sys::flows;
use crate::units::{Now, Protocol};

/// When to look for them once more: for a packet that was on its way when the guard came back.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    again_at: Option<Duration>,
    /// The guard was missing since that was set.
    missed: bool,
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

impl Operations {
    /// The guard was missing, or not what it should be.
    pub(super) fn end_claimed(&mut self, now: Now) {
        if self.claimed.again_at.is_some() {
            // Somebody keeps taking it away: what there is to find is found then.
            self.claimed.missed = true;
        } else {
            self.look_at_claimed(now);
        }
    }

    /// Looks once more where that is due.
    pub(super) fn follow_claimed(&mut self, now: Now) {
        if self.claimed.again_at.is_some_and(|at| at <= now.boot) {
            if std::mem::take(&mut self.claimed.missed) {
                self.look_at_claimed(now);
            } else {
                self.claimed.again_at = None;
                self.forget_claimed(now);
            }
        }
    }

    /// With a second look to come, sooner or later by how long this one takes.
    fn look_at_claimed(&mut self, now: Now) {
        let begun = Instant::now();
        self.forget_claimed(now);
        self.claimed.again_at = Some(now.boot + SETTLED.max(begun.elapsed() * SPARING));
    }

    /// Has connection tracking forget what seems to be begun from a guarded port, to somebody outside who is not let in.
    /// If it was this host's own, its next packet begins it anew.
    fn forget_claimed(&mut self, now: Now) {
        let known = match flows::known_connections() {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, "what was begun in this host's name cannot be seen");
                return;
            }
        };
        let mut ways_in = WaysIn::now(&self.settings, self.options);
        let mut ended = 0_usize;
        for flow in &known {
            let as_theirs = turned(flow);
            if self.is_at_guarded(&as_theirs, &mut ways_in)
                && !ways_in.is_here(as_theirs.client.ip())
                && ways_in.is_outside(as_theirs.client.ip())
                && !self.adopted.knows(flow.protocol.number(), as_theirs.client, as_theirs.server)
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
    }

    /// Whether what it leads to is guarded: an app's port, or that of a step.
    fn is_at_guarded(&self, flow: &Tracked, ways_in: &mut WaysIn) -> bool {
        let steps = [self.options.http_port, self.options.https_port].map(|port| port.get());
        let at_step = self.settings.global.steps
            && flow.protocol == Protocol::Tcp
            && steps.contains(&flow.server.port())
            && ways_in.is_here(flow.server.ip());
        at_step || !ways_in.apps(&self.settings.apps, flow).is_empty()
    }
}
