//! Connections that outlast their grants (`established: keep`), and those that only began because the guard was missing
//! for a moment: to the rule that lets established ones pass both are the same, so that the agent has to know them apart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::knocked::slug_of;
use super::operations::Operations;
use super::own::OwnAddresses;
use super::shut_out::{ShutOut, any_keeps};
use super::ways_in::WaysIn;
use crate::config::{App, Established, Settings};
use crate::ruleset::diff::Live;
use crate::ruleset::layout::Options;
use crate::ruleset::lockout::is_guarded;
use crate::ruleset::wire::Tracked;
use crate::sys::flows;
use crate::units::{ClientAddr, Now};

/// So long after the end of a grant, connection tracking has everything that began during it.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// Looking takes at most one part in so many of the time.
pub(super) const SPARING: u32 = 20;

/// Protocol, and both ends as the client knows them.
type Ends = (u8, SocketAddr, SocketAddr);

fn ends(flow: &Tracked) -> Ends {
    (flow.protocol.number(), flow.client, flow.server)
}

/// Connections that live on although nobody lets their clients in any more.
#[derive(Debug)]
pub(super) struct Outlasting {
    flows: BTreeSet<Ends>,
    /// Who was let in until a moment ago.
    over: ShutOut,
    /// When to look what those have open.
    look_at: Option<Duration>,
    /// Not before this.
    rest_until: Duration,
    /// When to look for strangers once more: a packet that was on its way when the guard came back, or what one
    /// listing lacked.
    again_at: Option<Duration>,
}

impl Default for Outlasting {
    fn default() -> Self {
        let (flows, over) = (BTreeSet::new(), ShutOut::networks(Vec::new()));
        Self { flows, over, look_at: None, rest_until: Duration::ZERO, again_at: None }
    }
}

impl Outlasting {
    /// At a start over a guard that has stood until now: what is connected to its ports was let in once.
    pub(super) fn of_before(live: Option<&Live>, settings: &Settings, options: Options) -> Self {
        let mut out = Self::default();
        let Some(live) = live.filter(|_| any_keeps(&settings.apps)) else { return out };
        let mut own = OwnAddresses::default();
        own.learn(Some(live));
        let mut ways_in = WaysIn::now(settings, options).with(own.all());
        let mut is_of_before = |flow: &Tracked| {
            keeps(&ways_in.apps(&settings.apps, flow))
                && is_guarded(live, flow.protocol, flow.server, flow.there)
        };
        match flows::known_connections() {
            Ok(known) => out.flows = known.iter().filter(|flow| is_of_before(flow)).map(ends).collect(),
            Err(error) => {
                tracing::warn!(%error, "connections that outlasted their grants cannot be seen: they end if somebody flushes the rules");
            }
        }
        out
    }

    /// It ends by hand.
    pub(super) fn on_cut(&mut self, flow: &Tracked) {
        self.flows.remove(&ends(flow));
    }

    fn look_due(&self) -> Option<Duration> {
        self.look_at.map(|at| at.max(self.rest_until))
    }

    fn was_let_in(&mut self, out: ShutOut, now: Now) {
        if let (
            ShutOut::Those { grants, networks },
            ShutOut::Those { grants: more_grants, networks: more_networks },
        ) = (&mut self.over, out)
        {
            grants.extend(more_grants);
            networks.extend(more_networks);
            self.look_at.get_or_insert(now.boot + SETTLED);
        }
    }
}

/// Whether connections to what these apps share live on.
fn keeps(apps: &[&App]) -> bool {
    apps.iter().any(|app| app.established == Established::Keep)
}

impl Operations {
    /// Notes who is not let in any more by the mere passing of time, and a moment later what those have open. Looks for
    /// strangers where that is due.
    pub(super) fn follow_outlasting(&mut self, now: Now) {
        self.own.look(now);
        self.follow_claimed(now);
        if !any_keeps(&self.settings.apps) {
            return;
        }
        self.note_ends(now);
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now.boot);
        if is_due(self.outlasting.again_at) {
            self.outlasting.again_at = None;
            self.look_at_kept(|_| true, now);
        } else if is_due(self.outlasting.look_due()) {
            self.look_at_kept(|_| false, now);
        }
    }

    /// When there is something to do for [`Operations::follow_outlasting`].
    pub(super) fn outlasting_due(&self) -> Option<Duration> {
        if !any_keeps(&self.settings.apps) {
            return self.claimed.due();
        }
        let Outlasting { again_at, .. } = self.outlasting;
        let networks = self.allowed.iter().filter_map(|allowed| allowed.until);
        networks.chain(self.outlasting.look_due()).chain(again_at).chain(self.claimed.due()).min()
    }

    /// Takes note that somebody is not let in any more whose connections live on.
    pub(super) fn note_over(&mut self, out: ShutOut, now: Now) {
        self.outlasting.was_let_in(out, now);
    }

    /// Forgets networks whose time is over.
    pub(super) fn expire_allowed(&mut self, now: Now) {
        let is_over = |until: Option<Duration>| until.is_some_and(|until| until <= now.boot);
        let over = self.allowed.extract_if(.., |allowed| is_over(allowed.until));
        let over: Vec<_> = over.map(|allowed| (allowed.app, allowed.network)).collect();
        if !over.is_empty() && any_keeps(&self.settings.apps) {
            self.note_over(ShutOut::networks(over), now);
        }
    }

    fn note_ends(&mut self, now: Now) {
        self.ledger.expire(now);
        let ran_out = self.ledger.journal().take_ran_out();
        if !ran_out.is_empty() {
            let grants = ran_out.iter().map(|(key, addr)| (slug_of(key).to_owned(), *addr)).collect();
            self.note_over(ShutOut::Those { grants, networks: Vec::new() }, now);
        }
        self.expire_allowed(now);
    }

    /// The guard was missing, or not what it should be: ends what strangers began meanwhile.
    pub(super) fn end_strangers(&mut self, now: Now) {
        if any_keeps(&self.settings.apps) {
            self.note_ends(now);
            self.outlasting.again_at = Some(now.boot + SETTLED);
            self.look_at_kept(|_| true, now);
        }
    }

    /// The same at ports at which connections did not live on by the settings of before. Ends what was begun in this host's
    /// name where those did not guard.
    pub(super) fn end_strangers_of_new(&mut self, before: &Settings, now: Now) {
        self.end_claimed_of_new(before, now);
        if any_keeps(&self.settings.apps) {
            self.note_ends(now);
            let mut ways_in = WaysIn::now(before, self.options).with(self.own_addresses());
            self.look_at_kept(|flow| !keeps(&ways_in.apps(&before.apps, flow)), now);
        }
    }

    /// Whether a client is let in by the kernel or the ledger, whose clocks may be a moment apart.
    pub(super) fn is_let_in(&mut self, flow: &Tracked, ways_in: &mut WaysIn, now: Now) -> bool {
        let addr = ClientAddr::new(flow.client.ip()).masked_v6(self.settings.global.ipv6_prefix).ip();
        let at = ways_in.apps(&self.settings.apps, flow).into_iter();
        let mut sets = at.flat_map(|app| self.grant_sets_of(&app.slug));
        sets.any(|set| !self.ledger.users(&set.key, addr, now).is_empty())
            || self.may_reach(flow, ways_in, now.boot)
    }

    /// Brings what is known of connections that outlast their grants up to date, and has connection tracking forget those
    /// of strangers that are meant.
    fn look_at_kept(&mut self, mut is_meant: impl FnMut(&Tracked) -> bool, now: Now) {
        let begun = std::time::Instant::now();
        let known = match flows::known_connections() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "connections that are kept cannot be seen: what began while the guard was missing may go on");
                self.outlasting.look_at = None;
                return;
            }
        };
        let before = std::mem::take(&mut self.outlasting);
        let mut ways_in = WaysIn::now(&self.settings, self.options).with(self.own_addresses());
        let prefix = self.settings.global.ipv6_prefix;
        let (mut stay, mut ended) = (BTreeSet::new(), 0_usize);
        for flow in &known {
            let at = ways_in.apps(&self.settings.apps, flow);
            if !keeps(&at) {
                continue;
            }
            let (ends, client) = (ends(flow), flow.client.ip());
            let mut slugs = at.iter().map(|app| app.slug.as_str());
            if before.flows.contains(&ends)
                || slugs.any(|slug| before.over.has(slug, client, prefix, || true))
            {
                stay.insert(ends);
            } else if is_meant(flow)
                && ways_in.is_outside(client)
                && !self.adopted.knows(flow.protocol, flow.client, flow.server)
                && !self.is_let_in(flow, &mut ways_in, now)
            {
                ended += 1;
                if let Err(error) = flows::forget(flow) {
                    tracing::warn!(%error, client = %flow.client, "a stranger's connection may go on as long as it is tracked");
                }
            }
        }
        let rest_until = now.boot + begun.elapsed() * SPARING;
        self.outlasting =
            Outlasting { flows: stay, rest_until, again_at: before.again_at, ..Outlasting::default() };
        if ended > 0 {
            tracing::warn!(ended, "connections that began while the guard was missing are cut");
        }
    }
}
