//! The enforcer: the one who judges knocks and changes the firewall.

mod calls;
mod deeds;
mod expiring;
mod figures;
mod keeping;
mod knocks;
mod lines;
mod mending;
mod recalling;
mod reloading;
mod rotation;
mod standing;
mod telling;
mod timed;

pub use rotation::ServingSender;

use self::expiring::Expiring;
use self::lines::Lines;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::around::Around;
use super::control::{Call, Reply, Request};
use super::hasher::{Hashed, Hasher, Job, Turn};
use super::herald::Herald;
use super::link::{Answer, Ask, Pending};
use super::operations::Operations;
use super::outside::Told;
use super::record::Record;
use super::refusals::Refusals;
use super::reload::{Reload, TakeOver};
use super::repair::{AGAIN, Happened, Patience, Watch};
use super::shut_out::ShutOut;
use super::state::StateFile;
use super::tally::Tally;
use super::trial::Trial;
use super::used_codes::UsedCodesFile;
use crate::grant::{How, Memory};
use crate::knock::{Attempt, Gatekeeper, Refusal, Verdict};
use crate::sys::calendar::Calendar;
use crate::sys::clock;
use crate::sys::netlink::Events;
use crate::units::{AppName, ClientAddr, Now};

/// How often the calendar is compared with the clock that never goes back, as it may be corrected gradually.
const LOOK_AT_CALENDAR: Duration = Duration::from_secs(60);

/// Judge, ledger and kernel in one hand.
pub struct Enforcer {
    operations: Operations,
    gatekeeper: Gatekeeper,
    used_codes: UsedCodesFile,
    state: Option<StateFile>,
    /// When to look at the table, after somebody touched it.
    repair_at: Option<Instant>,
    /// Whether the whole table was removed since the last repair.
    removed: bool,
    /// Who touched it last.
    by: String,
    patience: Patience,
    /// Why it could not be put right when that was last tried, and when that was last said.
    unrepaired: Option<(String, Duration)>,
    /// When something was last put right.
    fought_at: Option<Duration>,
    trial: Option<Arc<Trial>>,
    hasher: Hasher,
    refusals: Refusals,
    memory: Memory,
    /// With whoever makes the host's own chains anew.
    host_patience: Patience,
    herald: Herald,
    /// What is logged of grants, and what is folded.
    lines: Lines,
    /// What is logged once the answer is on its way, with its words for people.
    later: Vec<(Record, &'static str)>,
    /// Who hears step 1; none in tests.
    listener: Option<ServingSender>,
    /// When to try again what the kernel refused.
    path_again_at: Option<Instant>,
    /// The same for knocks that change with time.
    timed_again_at: Option<Instant>,
    /// Users and keys that expire.
    expiring: Expiring,
    /// Who waits for the log of packets to be heard.
    hearing: Option<oneshot::Sender<()>>,
    tally: Tally,
    /// What others know of the daemon.
    around: Arc<Around>,
    /// Interfaces on which nothing is guarded.
    outside: Told,
}

/// Why the enforcer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody asks any more; the guard stays, unless it is a trial's.
    Unused,
    /// The same, but somebody removed or changed the guard, and it cannot be put right.
    Unguarded,
    /// An operator had everything removed.
    TornDown,
}

impl Enforcer {
    /// An enforcer over what was taken over from the kernel.
    #[must_use]
    pub fn new(
        operations: Operations,
        gatekeeper: Gatekeeper,
        used_codes: UsedCodesFile,
        state: Option<StateFile>,
        trial: Option<Arc<Trial>>,
        random: [u8; 16],
        herald: Herald,
    ) -> Self {
        Self {
            operations,
            gatekeeper,
            used_codes,
            state,
            repair_at: None,
            removed: false,
            by: String::new(),
            patience: Patience::default(),
            unrepaired: None,
            fought_at: None,
            trial,
            hasher: Hasher::default(),
            refusals: Refusals::new(&random),
            memory: Memory::new(clock::now()),
            host_patience: Patience::with_reloads(),
            herald,
            lines: Lines::default(),
            later: Vec::new(),
            listener: None,
            path_again_at: None,
            timed_again_at: None,
            expiring: Expiring::default(),
            hearing: None,
            tally: Tally::default(),
            around: Arc::default(),
            outside: Told::default(),
        }
    }

    /// Has the listener of step 1 follow what the kernel lets through.
    #[must_use]
    pub fn with_listener(mut self, listener: ServingSender) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Tells when what packets do from then on is heard of.
    #[must_use]
    pub fn telling_when_it_hears(mut self, hearing: oneshot::Sender<()>) -> Self {
        self.hearing = Some(hearing);
        self
    }

    /// Answers the front and operators until neither is there any more.
    pub async fn serve(
        mut self,
        mut asks: mpsc::Receiver<Pending>,
        mut calls: mpsc::Receiver<Call>,
        mut reloads: mpsc::Receiver<Reload>,
        events: Option<Events>,
        cleanup: bool,
        stop: oneshot::Receiver<()>,
    ) -> Stopped {
        let mut stop = stop;
        let port = self.operations.firewall().port();
        let look_every = self.operations.firewall().look_every();
        let hosts = self.operations.host_tables();
        let heard = port.zip(events).map(|(port, events)| Watch::new(events, port, hosts));
        let mut watch = match heard.transpose() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "changes to the table by others are not noticed");
                None
            }
        };
        let mut look_at = look_every.map(|every| Instant::now() + every);
        let mut calendar = Calendar::watch()
            .inspect_err(|error| tracing::warn!(%error, "a calendar that is set is noticed late"))
            .ok();
        if self.operations.host_is_pending() {
            self.repair_at = Some(Instant::now() + AGAIN);
        }
        let mut knocks = self.listen(None);
        self.outside.look(self.operations.settings());
        let _ = self.hearing.take().map(|hearing| hearing.send(()));
        self.begin_telling(clock::now());
        let (mut packets_had_a_turn, mut calls_had_a_turn) = (false, false);
        loop {
            let others_turn = std::mem::take(&mut packets_had_a_turn);
            // Where each takes long, operators who come without end keep nobody out.
            let asks_turn = std::mem::take(&mut calls_had_a_turn) && !asks.is_empty();
            self.settle(&mut knocks, clock::now());
            // After the answer to a knock, which waits neither for the disk nor for the log.
            self.keep(clock::now());
            self.used_codes.catch_up(&self.gatekeeper, clock::now());
            self.operations.follow_outlasting(clock::now());
            self.tell_turns(clock::now());
            self.follow_path(clock::now());
            self.follow_expiring(clock::now());
            self.follow_timed(&mut knocks, clock::now());
            self.outside.follow(self.operations.settings());
            let (timed_at, expires_at) = (self.timed_due(), self.expiring_due());
            let (repair_at, summary_at) = (self.repair_at, self.refusals.due());
            let (end_at, path_at) = (self.end_due(), self.path_due());
            tokio::select! {
                biased;
                _ = &mut stop => break,
                // Before the asks, which a flood could keep coming.
                happened = next(&mut watch) => self.on_happened(happened),
                () = due(repair_at) => self.repair(clock::now()),
                () = due(summary_at) => self.summarise(clock::now()),
                () = due(end_at) => {}
                () = due(path_at) => {}
                () = due(timed_at) => {}
                () = due(expires_at) => {}
                () = due(look_at) => {
                    self.look(clock::now());
                    look_at = look_every.map(|every| Instant::now() + every);
                }
                // All of it, and then whoever else waits: it is not only for who knows a sequence that there is time.
                heard = knocks::heard(&mut knocks), if !others_turn => {
                    self.on_heard(heard, clock::now());
                    self.hear_now(&mut knocks, clock::now());
                    packets_had_a_turn = true;
                    let_go().await;
                }
                Some(reload) = reloads.recv() => {
                    // What was told before counts, whatever becomes of the sets.
                    self.hear_now(&mut knocks, clock::now());
                    self.on_reload(reload, clock::now());
                    knocks = self.listen(knocks);
                }
                // The calendar was set, and with it all ends in the state file and the paths of step 1.
                // Or the host woke up, which is heard of in the same way.
                () = calendar_set(&mut calendar) => {}
                () = tokio::time::sleep(LOOK_AT_CALENDAR) => {}
                Some(call) = calls.recv(), if !asks_turn => {
                    if !call.is_awaited() {
                        continue;
                    }
                    // What packets opened before is there to be taken back.
                    self.hear_now(&mut knocks, clock::now());
                    let teardown = call.request == Request::Teardown {};
                    let mut reply = self.on_call(call.request, &call.user, clock::now());
                    let done = matches!(reply, Reply::Done { .. });
                    // Whoever is told that something was taken back can rely on it, also if the power fails now.
                    if done { self.keep_at_once(clock::now()) } else { self.keep(clock::now()) }
                    self.warn_of_stale_file(&mut reply);
                    let _ = call.reply.send(reply);
                    calls_had_a_turn = true;
                    if teardown && done {
                        self.forget();
                        return Stopped::TornDown;
                    }
                }
                hashed = self.hasher.next() => {
                    self.on_hashed(hashed, clock::now());
                    let_go().await;
                }
                // Last: whoever asks without end must not keep an operator from being heard.
                Some(pending) = asks.recv() => {
                    if !pending.is_awaited() {
                        continue;
                    }
                    let (Ask::Knock(attempt), answer) = pending.split();
                    self.on_knock(attempt, answer, clock::now());
                    let_go().await;
                }
                () = std::future::ready(()), if others_turn => {}
            }
        }
        let stays = self.leave(watch, clock::now());
        if cleanup {
            self.close_everything(clock::now());
        }
        self.operations.finish_claimed(clock::now());
        self.keep_at_once(clock::now());
        self.tell_turns(clock::now());
        if stays { Stopped::Unused } else { Stopped::Unguarded }
    }

    fn summarise(&mut self, now: Now) {
        if let Some(attempts) = self.refusals.summarise() {
            self.tell_denials(attempts, now);
        }
    }

    fn on_happened(&mut self, happened: Happened) {
        let boot = clock::now().boot;
        let mut wait = self.patience.wait(boot);
        match happened {
            Happened::Lost => {
                tracing::warn!(
                    "more changes to nftables than could be followed: the table is looked at as a whole"
                );
                self.operations.suspect_timed();
                self.operations.doubt_grants();
            }
            Happened::Touched(touched) => {
                if touched.ours {
                    self.operations.doubt_timed();
                }
                if touched.table_removed {
                    self.removed = true;
                }
                let removed = touched.removed.iter();
                let out: BTreeSet<_> = removed
                    .filter_map(|(set, key)| self.operations.on_removed(set, key, clock::now()))
                    .collect();
                if !out.is_empty() {
                    self.operations.cut_open(&ShutOut::Those { grants: out, networks: Vec::new() });
                }
                self.by = format!("{} (pid {})", touched.process, touched.pid);
                if !touched.ours {
                    wait = self.host_patience.wait(boot);
                }
            }
        }
        // A fight about the one must not hold up the other.
        let at = Instant::now() + wait;
        self.repair_at = Some(self.repair_at.map_or(at, |planned| planned.min(at)));
    }

    fn take_over(&mut self, order: TakeOver, now: Now) {
        let TakeOver { mut settings, two_factor, random, done } = order;
        // It was read a moment ago.
        settings.follow_time(now.wall);
        let names = self.operations.names();
        let outcome = self.operations.reload(settings, now);
        if outcome.is_ok() {
            self.lines.remember_names(names);
            self.operations.follow_mark();
            self.follow_keys(&two_factor, random);
            self.follow_state_file(now);
            self.follow_notify(now);
            self.tell_listener();
            self.outside.look(self.operations.settings());
            self.expiring.forget();
        }
        let _ = done.send(outcome);
    }

    fn on_knock(&mut self, attempt: Attempt, answer: oneshot::Sender<Answer>, now: Now) {
        let verdict = {
            let session = session(&self.operations, attempt.client, now);
            self.gatekeeper.judge(&attempt, &session, now)
        };
        let given = match verdict {
            Verdict::Hash { hash, key } => return self.compare(Job { attempt, hash, key, answer }, now),
            verdict => self.counted(&attempt, verdict, now),
        };
        // A client that went away misses its answer, not its grant.
        let _ = answer.send(given);
    }

    fn compare(&mut self, job: Job, now: Now) {
        let known = self.gatekeeper.defence().got_in_as_named(&job.attempt, now.boot);
        let turn = if known { Turn::First } else { Turn::Later };
        if let Some(Job { attempt, answer, .. }) = self.hasher.start(job, turn) {
            self.gatekeeper.defence_mut().give_back(&attempt, now.boot);
            let _ = answer.send(self.counted(&attempt, Verdict::Refuse(Refusal::Busy), now));
        }
    }

    fn on_hashed(&mut self, hashed: Hashed, now: Now) {
        let Hashed { attempt, hash, fits, answer } = hashed;
        let verdict = {
            let session = session(&self.operations, attempt.client, now);
            self.gatekeeper.judge_hashed(&attempt, &hash, fits, &session, now)
        };
        let given = self.counted(&attempt, verdict, now);
        let _ = answer.send(given);
    }

    fn carry_through(&mut self, attempt: &Attempt, verdict: Verdict, now: Now) -> Answer {
        if self.gatekeeper.take_used() {
            self.used_codes.write(&self.gatekeeper, now);
        }
        let client = attempt.client;
        match verdict {
            Verdict::AdmitToStep2 { app, lifetime } => {
                let given = self.admit(client, &app, lifetime, now);
                if given == Answer::Opened {
                    self.remember_step1(client, &app, lifetime, now);
                }
                given
            }
            Verdict::Grant { app, lifetime, user } => self.grant(client, &app, &user, lifetime, now),
            Verdict::Close { app, user } => self.close(client, &app, &user, now),
            Verdict::NeedToken { readmit } => {
                tracing::debug!(%client, "a one-time code is needed");
                self.remember_missing_code(attempt, now);
                match (readmit, attempt.app.parse::<AppName>()) {
                    (Some(lifetime), Ok(app))
                        if self.admit(client, &app, lifetime, now) != Answer::Opened =>
                    {
                        Answer::Unavailable
                    }
                    _ => Answer::NeedToken,
                }
            }
            Verdict::Refuse(reason) => {
                self.remember_refusal(attempt, reason, now);
                if let Some((whose, lasts)) = self.gatekeeper.take_held() {
                    Refusals::on_held(&attempt.app, &whose, lasts);
                }
                let lockout = self.gatekeeper.defence_mut().take_begun();
                lockout.inspect(|_| self.tally.on_lockout());
                let told = self.refusals.lines_left();
                if let Some(lasts) = lockout.filter(|_| told) {
                    self.tell_lockout(client, lasts, now);
                }
                self.refusals.on_refusal(attempt, reason, lockout, now.boot)
            }
            // Judged by now, unless its key is gone since.
            Verdict::Hash { .. } | Verdict::Alive => Answer::Refused,
        }
    }

    fn forget(&self) {
        if let Some(state) = &self.state
            && let Err(error) = state.forget()
        {
            tracing::error!(file = %state.path().display(), %error, "the grants of before stay in the state file: remove it");
        }
    }

    fn close_everything(&mut self, now: Now) {
        let revoked = self.operations.revoke_all(None);
        let flushed = self.operations.flush_allowed(None, now);
        for error in [revoked.err(), flushed.err()].into_iter().flatten() {
            tracing::error!(%error, "grants could not be closed on shutdown; they end by themselves");
        }
    }
}

/// What happens next, where changes are watched; else nothing ever does.
async fn next(watch: &mut Option<Watch>) -> Happened {
    if let Some(watching) = watch {
        match watching.next().await {
            Ok(happened) => return happened,
            Err(error) => tracing::error!(%error, "changes to the table by others are no longer noticed"),
        }
    }
    *watch = None;
    std::future::pending().await
}

/// Waits until the calendar is set; where that cannot be heard, for ever.
async fn calendar_set(calendar: &mut Option<Calendar>) {
    if let Some(watching) = calendar {
        match watching.set().await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "a calendar that is set is noticed late"),
        }
    }
    *calendar = None;
    std::future::pending().await
}

/// Has an answer on its way before the disk and the log have their turn.
async fn let_go() {
    // Who passes answers on is a task of this thread,
    yield_now().await;
    // and the front may wait for this very processor.
    std::thread::yield_now();
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tells whether somebody's grant for an app, made by two steps, runs at an address.
fn session(operations: &Operations, client: ClientAddr, now: Now) -> impl Fn(&AppName, &str) -> bool + '_ {
    move |app, user| {
        let Ok(app) = operations.app(app.as_str()) else { return false };
        let addr = client.masked_v6(operations.settings().global.ipv6_prefix);
        let users = operations.ledger().users(&app.slug, addr.ip(), now);
        users.iter().any(|(note, ..)| note.how == How::TwoStep && note.by == user)
    }
}
