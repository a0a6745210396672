//! What is remembered of addresses, for `knock-agent explain`.

use std::net::IpAddr;
use std::time::Duration;

use super::super::expiry::expiry;
use super::super::knocked::slug_of;
use super::super::operations::OperationError;
use super::Enforcer;
use crate::grant::{Happening, Turn, What};
use crate::knock::{Attempt, Credential, Refusal, Step};
use crate::ruleset::explain::{Event, Holder, Pending, Recalled, WRONG_PROOF};
use crate::units::{AppName, ClientAddr, Lifetime, Now};

/// Others who are let in are named up to this many.
const OTHERS: usize = 8;
/// A step 1 of another address is spoken of for so long.
const LATELY: Duration = Duration::from_secs(600);

impl Enforcer {
    pub(super) fn remember_step1(&mut self, client: ClientAddr, app: &AppName, lasts: Lifetime, now: Now) {
        self.remember(client, app.as_str(), Happening::Step1 { seconds: lasts.as_secs() }, now);
    }

    pub(super) fn remember_missing_code(&mut self, attempt: &Attempt, now: Now) {
        self.remember(attempt.client, &attempt.app, Happening::CodeWanted {}, now);
    }

    pub(super) fn remember_refusal(&mut self, attempt: &Attempt, reason: Refusal, now: Now) {
        let step = match attempt.step {
            Step::One => 1,
            Step::Two => 2,
        };
        // A proof holds the time, and a clock that is wrong makes it as wrong as a wrong key does.
        let word = match (reason, &attempt.credential) {
            (Refusal::WrongKey, Credential::Proof(_)) => WRONG_PROOF,
            _ => reason.word(),
        };
        let happening = Happening::Refused { step, reason: word.to_owned() };
        self.remember(attempt.client, &attempt.app, happening, now);
    }

    pub(super) fn remember_failure(
        &mut self,
        client: ClientAddr,
        app: &AppName,
        step: u8,
        error: &OperationError,
        now: Now,
    ) {
        self.remember(client, app.as_str(), Happening::Failed { step, error: error.to_string() }, now);
    }

    /// The app's name may be anything that a stranger sent.
    fn remember(&mut self, client: ClientAddr, app: &str, happening: Happening, now: Now) {
        let slug = self.operations.app(app).ok().map(|app| app.slug.clone());
        let client = self.masked(client);
        self.memory.note(client, slug.as_deref(), happening, now);
    }

    /// What of an address a grant covers.
    fn masked(&self, client: ClientAddr) -> ClientAddr {
        client.masked_v6(self.operations.settings().global.ipv6_prefix)
    }

    pub(super) fn remember_turn(&mut self, turn: &Turn, now: Now) {
        let Turn { what, app, addr, note, lifetime } = turn;
        let (by, seconds) = (note.by.clone(), lifetime.as_secs());
        let happening = match what {
            What::Opened | What::Renewed => {
                Happening::Opened { by, how: note.how.word().to_owned(), seconds }
            }
            What::Closed(end) => Happening::Closed { by, end: end.word().to_owned(), seconds },
        };
        self.memory.note(ClientAddr::new(*addr), Some(slug_of(app)), happening, now);
    }

    /// How many seconds ago the first certificate of those ended that step 2 shows.
    fn certificate_ended(&self, now: Now) -> Option<u64> {
        let serving = self.listener.as_ref()?.borrow();
        let ends = expiry(&serving.pem.as_ref()?.chain)?;
        now.wall.duration_since(ends).ok().map(|over| over.as_secs())
    }

    /// Everything that is known of an address.
    pub(super) fn recall(&mut self, address: IpAddr, now: Now) -> Recalled {
        let client = ClientAddr::new(address);
        let ago = |at: Duration| now.boot.saturating_sub(at).as_secs();
        let network_ago_s = self.memory.last_of_network(client).map(ago);
        let events = self.memory.of(self.masked(client)).into_iter().map(|event| Event {
            ago_s: ago(event.at),
            times: event.times,
            app: event.app,
            happening: event.happening,
        });
        let events = events.collect();
        let locked_out = self.gatekeeper.defence().locked_out(now.boot);
        let network = client.masked_v6(64);
        let lock = locked_out.iter().find(|locked| locked.client.masked_v6(64) == network);
        let settings = self.operations.settings();
        let names: Vec<(AppName, String)> =
            settings.apps.iter().map(|app| (app.name.clone(), app.slug.clone())).collect();
        let (steps, prefix) = (settings.global.steps, settings.global.ipv6_prefix);
        let live = names.iter().filter(|(name, _)| self.gatekeeper.live_step1(client, name, now));
        let step1 = live.map(|(_, slug)| slug.clone()).collect();
        let addr = client.masked_v6(prefix).ip();
        let ledger = self.operations.ledger();
        let holder =
            |(app, address, note, left, _): (&str, IpAddr, crate::grant::Note, Duration, Duration)| Holder {
                app: slug_of(app).to_owned(),
                address,
                by: note.by,
                how: note.how.word().to_owned(),
                left_s: left.as_secs(),
            };
        let grants = self.operations.grants_of(addr, now).into_iter().map(|(app, note, left)| Holder {
            app,
            address: addr,
            by: note.by,
            how: note.how.word().to_owned(),
            left_s: left.as_secs(),
        });
        let pending = self.memory.pending().map(|(address, app, at)| Pending {
            app: app.to_owned(),
            address,
            ago_s: ago(at),
        });
        let mut pending: Vec<Pending> =
            pending.filter(|waits| waits.address != addr && waits.ago_s <= LATELY.as_secs()).collect();
        pending.sort_by_key(|waits| waits.ago_s);
        pending.truncate(OTHERS);
        let options = self.operations.options;
        Recalled {
            pending,
            since_s: ago(self.memory.since()),
            events,
            network_ago_s,
            locked_out_s: lock.map(|locked| locked.left.as_secs()),
            step1,
            grants: grants.collect(),
            others: ledger.longest(now).filter(|(_, at, ..)| *at != addr).take(OTHERS).map(holder).collect(),
            ports: steps.then(|| (options.http_port.get(), options.https_port.get())),
            certificate_ended_s: self.certificate_ended(now),
            all_grants: ledger.len().try_into().unwrap_or(u64::MAX),
            // Whoever answers the caller looks: files may be slow.
            newer: None,
        }
    }
}
