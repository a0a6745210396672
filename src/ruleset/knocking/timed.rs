//! Knocks that change with time, as far as rules say them: the steps themselves are elements that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Deed, KnockGrants, Move, app_stem, find, first_chain, fnv, next_chain, opening};
use crate::config::{App, SequenceClient, Settings};
use crate::units::{PortRange, Protocol};

/// What the names of chains begin with that knocks lead to.
pub const TIMED_CHAINS: &str = "timed";

/// What the rules say of knocks that change with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedRules {
    /// The ports that belong to them.
    pub ports: PortRange,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether the lengths of datagrams count.
    pub sized: bool,
    /// The longest time from the first knock to the last, in seconds.
    pub window_secs: u64,
    /// The longest time from one knock to the next, in seconds.
    pub knock_secs: u64,
    /// How long it is remembered that somebody's knocks were used, in seconds: longer than they are right.
    pub used_secs: u64,
    /// The chains that clients' knocks lead to, each with those that open.
    pub deeds: Vec<(String, Vec<String>)>,
    /// Where each client's knocks lead to, by its place in the list.
    pub of_client: Vec<Arc<str>>,
}

impl TimedRules {
    pub(super) fn of(settings: &Settings, grants: &[KnockGrants]) -> Option<Self> {
        let sequence = settings.time_sequence.as_ref()?;
        let mut deeds = BTreeMap::new();
        let mut of_client = Vec::new();
        for client in &sequence.clients {
            let opens: Vec<&KnockGrants> = apps(settings, client)
                .filter_map(|(app, _, secs)| find(grants, &app_stem(app), secs))
                .collect();
            let chain = chain_of(&opens);
            of_client.push(Arc::from(chain.as_str()));
            deeds.insert(chain, opens.into_iter().map(opening).collect());
        }
        let every = sequence.every.as_secs();
        Some(Self {
            ports: sequence.ports,
            protocol: sequence.protocol,
            sized: sequence.lengths,
            window_secs: sequence.window.as_secs(),
            knock_secs: sequence.knock_window.as_secs(),
            used_secs: sequence.steps().saturating_add(1).saturating_mul(every),
            deeds: deeds.into_iter().collect(),
            of_client,
        })
    }

    /// The chain that remembers a first knock.
    #[must_use]
    pub fn first_chain(&self) -> String {
        first_chain(self.window_secs, self.knock_secs)
    }

    /// The chain that remembers a later one.
    #[must_use]
    pub fn next_chain(&self) -> String {
        next_chain(self.knock_secs)
    }

    /// The chain that opens, once the one of this name has seen that it may.
    #[must_use]
    pub fn opening(chain: &str) -> String {
        format!("{chain}.opens")
    }

    /// Whether there is a chain of that name.
    #[must_use]
    pub fn has_deed(&self, chain: &str) -> bool {
        self.deeds.iter().any(|(name, _)| name == chain)
    }

    pub(super) fn moves(&self) -> [Move; 2] {
        [Move::plain(self.knock_secs, None), Move::plain(self.knock_secs, Some(self.window_secs))]
    }

    /// The chains that open, with what each does.
    pub(super) fn opens<'g>(&self, grants: &'g [KnockGrants]) -> impl Iterator<Item = (String, Deed)> + 'g {
        let all: Vec<String> = self.deeds.iter().flat_map(|(_, opens)| opens.clone()).collect();
        grants.iter().filter_map(move |grants| {
            let chain = opening(grants);
            all.contains(&chain).then(|| (chain, Deed::Opens(grants.clone())))
        })
    }
}

/// What a client opens: each app with its place, and for how many seconds.
fn apps<'s>(
    settings: &'s Settings,
    client: &'s SequenceClient,
) -> impl Iterator<Item = (&'s App, usize, u64)> + 's {
    client.apps.iter().filter_map(|&index| {
        let app = settings.apps.get(index)?;
        Some((app, index, client.duration.unwrap_or(app.duration).as_secs()))
    })
}

/// What all clients open.
pub(super) fn openings(settings: &Settings) -> impl Iterator<Item = (&App, usize, u64)> {
    let clients = settings.time_sequence.iter().flat_map(|sequence| &sequence.clients);
    clients.flat_map(|client| apps(settings, client))
}

/// Named for what it opens; where that is several things, for a hash of them.
fn chain_of(opens: &[&KnockGrants]) -> String {
    match opens {
        [only] => format!("timed_{}", only.stem.trim_start_matches("seq_")),
        several => {
            let stems: Vec<&str> = several.iter().map(|grants| grants.stem.as_str()).collect();
            format!("timeds_{:08x}", fnv(&stems.join(" ")))
        }
    }
}
