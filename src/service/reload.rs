//! A changed configuration or certificate, taken over while running: as a whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::around::Around;
use super::clients_gone::{clients_gone, moved};
use super::daemon::load_two_factor;
use super::front::Step2Config;
use super::kept_plan::PlanKeeper;
use super::knocked::{GrantSet, grants_of_apps};
use super::last_good::LastGood;
use super::last_run;
use super::lockout::adopt;
use super::not_reloaded::{ReloadError, one_line, reasons};
use super::on_disk::{InForce, OnDisk};
use super::operations::{OperationError, Operations, TRIES};
use super::outside::Outside;
use super::record::{Record, number};
use super::served::{Pair, Served};
use super::shut_out::any_keeps;
use super::source::Source;
use super::trial::Trial;
use super::two_factor::Found;
use super::user_files::{LOOK_AT_USERS, UserFiles};
use super::ways_gone::ways_changed;
use crate::backend::BackendError;
use crate::config::{Checked, Settings};
use crate::grant::{Ledger, Note, Succession};
use crate::ruleset::allow::key_address;
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::knocking::Knocking;
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::ruleset::plan::app_set;
use crate::sys::{clock, notify, random};
use crate::units::{Family, LogEvent, Now};

/// How often the files of the certificate are looked at, and a plan that could not be kept is tried again.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);
/// A grant that ends by less than this later than its heir's counts as ending with it.
const SLACK: Duration = Duration::from_millis(250);

/// What is asked of the enforcer.
pub(super) enum Reload {
    /// To tell what is in force.
    InForce(oneshot::Sender<Settings>),
    /// To take this over.
    To(Box<TakeOver>),
}

/// What the enforcer is to take over.
pub(super) struct TakeOver {
    pub(super) settings: Settings,
    pub(super) two_factor: Arc<Found>,
    pub(super) random: [u8; 16],
    pub(super) done: oneshot::Sender<Result<Reloaded, OperationError>>,
}

/// What came of it.
pub(super) struct Reloaded {
    /// Changes to the table.
    pub(super) changes: usize,
    /// Grants that ended because their app or key is no more.
    pub(super) ended: usize,
    /// The plan that is in force now.
    pub(super) good: LastGood,
}

/// Reloads when it is told to, and the certificate also when its files change.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) pair: Option<Pair>,
    pub(super) users: UserFiles,
    /// Why their files are not in force, as it was told.
    pub(super) users_refused: Vec<String>,
    /// The 2FA files in force.
    pub(super) two_factor: Arc<Found>,
    /// The interfaces that are guarded.
    pub(super) outside: Outside,
    /// A start that may still be taken back.
    pub(super) trial: Option<Arc<Trial>>,
    pub(super) state_dir: PathBuf,
    pub(super) plans: Arc<PlanKeeper>,
    /// The folders that can be written to; none: all.
    pub(super) writable: Option<Vec<PathBuf>>,
    /// None without steps.
    pub(super) served: Option<Served>,
    pub(super) enforcer: mpsc::Sender<Reload>,
    /// Who tells what is not in force.
    pub(super) on_disk: OnDisk,
    pub(super) around: Arc<Around>,
}

impl Reloader {
    /// Waits for SIGHUP and for changes of the certificate, for ever.
    pub(super) async fn run(mut self, mut hangup: Signal) {
        let mut certificate = interval(LOOK_AT_CERTIFICATE);
        let mut users = interval(LOOK_AT_USERS);
        for ticks in [&mut certificate, &mut users] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                told = hangup.recv() => match told {
                    Some(()) => self.on_hangup().await,
                    None => return,
                },
                _ = certificate.tick() => {
                    self.plans.again_beside().await;
                    if self.pair.as_ref().is_some_and(Pair::changed) {
                        self.reload_certificate().await;
                    }
                }
                _ = users.tick() => {
                    if self.users.changed() {
                        self.take_over_users().await;
                    }
                }
            }
        }
    }

    async fn on_hangup(&mut self) {
        let begun = format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", clock::monotonic_usec());
        tell_systemd(&begun);
        let done = self.take_over().await;
        let certified = self.reload_certificate().await;
        tell_systemd(match (done, certified) {
            (false, _) => {
                "READY=1\nSTATUS=guarding by the configuration of before: the new one was refused, see the log"
            }
            (true, false) => {
                "READY=1\nSTATUS=guarding with the certificate of before: the new one was refused, see the log"
            }
            (true, true) => "READY=1\nSTATUS=guarding",
        });
    }

    /// Reloads and tells the log; false if everything stays as it was.
    async fn take_over(&mut self) -> bool {
        let outcome = self.reload().await;
        self.around.reloaded(outcome.is_ok());
        match outcome {
            Ok((changes, ended)) => {
                let (changes, grants) = (number(changes), number(ended));
                Record { changes, grants, ..Record::of(LogEvent::Reloaded) }
                    .log("reloaded: the new configuration is in force");
                true
            }
            Err(error) => {
                tracing::warn!("not reloaded: the configuration of before stays in force");
                tell_refused(reasons(&error));
                false
            }
        }
    }

    /// Reads everything before anything is changed; returns the changes to the table and the grants that ended.
    async fn reload(&mut self) -> Result<(usize, usize), ReloadError> {
        let source = self.source.clone();
        let looked = self.users.look();
        // Files may be slow, and step 1 and step 2 are served meanwhile.
        let read = spawn_blocking(move || read(&source)).await.map_err(|_| ReloadError::Ending)?;
        let (settings, two_factor, in_force) = read?;
        let outside = Outside::of(&settings);
        outside.may_follow(&self.outside)?;
        if let (Some(path), Some(writable)) = (&settings.global.state_file, &self.writable)
            && !writable.iter().any(|folder| path.starts_with(folder))
        {
            return Err(self.on_disk.refused(in_force, ReloadError::StateFolder(path.clone())));
        }
        let other_users = (!self.users.are_of(&settings)).then(|| UserFiles::new(&settings));
        let (step2, state_file) = (Step2Config::of(&settings), settings.global.state_file.clone());

        let Reloaded { changes, ended, good } = self.put_in_force(settings, Arc::new(two_factor)).await?;
        match other_users {
            Some(users) => self.users = users,
            None => self.users.taken(looked),
        }
        self.users_refused.clear();
        self.outside = outside;
        self.on_disk.taken(in_force);

        if let Some(served) = &mut self.served {
            served.change(|serving| serving.step2 = Arc::new(step2)).await;
        }
        last_run::goes_on_with(state_file, self.state_dir.clone()).await;
        self.keep_plan(good).await;
        Ok((changes, ended))
    }

    /// Has the enforcer take over these settings.
    pub(super) async fn put_in_force(
        &mut self,
        settings: Settings,
        two_factor: Arc<Found>,
    ) -> Result<Reloaded, ReloadError> {
        let random = random::bytes().map_err(ReloadError::Random)?;
        let (done, finished) = oneshot::channel();
        let order = TakeOver { settings, two_factor: Arc::clone(&two_factor), random, done };
        self.enforcer.send(Reload::To(Box::new(order))).await.map_err(|_| ReloadError::Ending)?;
        let reloaded = finished.await.map_err(|_| ReloadError::Ending)??;
        self.two_factor = two_factor;
        Ok(reloaded)
    }

    /// Keeps the plan in force for a start without a configuration, unless it may still be taken back.
    pub(super) async fn keep_plan(&self, good: LastGood) {
        if self.trial.as_ref().is_none_or(|trial| trial.reloaded(&good)) {
            self.plans.keep_beside(good).await;
        }
    }

    /// Has step 2 served with what the files hold; false if that cannot be used, and what was served before goes on.
    async fn reload_certificate(&mut self) -> bool {
        let Some(pair) = &mut self.pair else { return true };
        let changed = pair.changed();
        match pair.read() {
            Ok(tls) => {
                self.around.certified(&tls);
                if let Some(served) = &mut self.served {
                    served.change(|serving| serving.pem = Some(tls)).await;
                }
                if changed {
                    Record::of(LogEvent::CertificateChanged).log("step 2 is served with the new certificate");
                }
                true
            }
            Err(error) => {
                let reason = one_line(&error);
                self.around.certificate_refused(reason.clone());
                Record { reason: Some(reason), ..Record::of(LogEvent::CertificateRefused) }
                    .log("the new certificate cannot be used: the one of before is served");
                false
            }
        }
    }
}

fn read(source: &Source) -> Result<(Settings, Found, InForce), ReloadError> {
    let checked = source.read().map_err(ReloadError::Configuration)?;
    let in_force = InForce::of(&checked);
    let Checked { settings, warnings, .. } = checked;
    for warning in warnings {
        tracing::warn!("{}", one_line(&warning));
    }
    let two_factor = load_two_factor(&settings).map_err(ReloadError::Files)?;
    Ok((settings, two_factor, in_force))
}

/// A line in the log for each reason.
pub(super) fn tell_refused(reasons: Vec<String>) {
    for line in reasons {
        let text = format!("not reloaded: {line}");
        Record { reason: Some(line), ..Record::of(LogEvent::NotReloaded) }.log_as(&text);
    }
}

fn tell_systemd(state: &str) {
    if let Err(error) = notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

impl Operations {
    /// Puts other settings in force, in one change of the table. Grants go on, except those of apps and keys that
    /// are no more.
    ///
    /// # Errors
    /// [`OperationError`]; everything is then as it was.
    pub(super) fn reload(&mut self, settings: Settings, now: Now) -> Result<Reloaded, OperationError> {
        self.ledger.expire(now);
        // What is missing is not new: connections to ports that were guarded before needed a grant.
        if let Err(error) = self.repair(false, now) {
            tracing::warn!(%error, "the table is not as it was before the reload");
        }
        let prefix = settings.global.ipv6_prefix;
        let sets = self.grant_sets();
        let knocking = std::mem::replace(&mut self.knocking, Knocking::of(&settings));
        self.let_go_of_deeds(&knocking, now);
        self.expect_mark(settings.global.mark);
        let before = std::mem::replace(&mut self.settings, settings);
        let (ledger, allowed, options) = (self.ledger.clone(), self.allowed.clone(), self.options);
        let outcome = self.succeed(&before, &sets, now);
        self.know_table();
        if outcome.is_ok() {
            self.end_strangers_of_new(&before, now);
        }
        match &outcome {
            Ok(_) if prefix != before.global.ipv6_prefix => {
                self.forget_gone_sets(&sets, now);
                tracing::warn!(
                    "ipv6_prefix was changed: IPv6 clients that are let in may have to knock again"
                );
            }
            Ok(_) => self.forget_gone_sets(&sets, now),
            Err(_) => {
                (self.settings, self.ledger, self.allowed) = (before, ledger, allowed);
                self.options = options;
                self.knocking = Knocking::of(&self.settings);
                // Nothing to do, unless somebody else was at the table at the same time.
                self.follow_mark();
                if let Err(error) = self.repair(false, now) {
                    tracing::error!(%error, "the table is neither as before nor as it should be");
                }
            }
        }
        outcome
    }

    fn succeed(
        &mut self,
        before: &Settings,
        sets: &[GrantSet],
        now: Now,
    ) -> Result<Reloaded, OperationError> {
        // What mattered to nobody before was not asked.
        self.options =
            self.firewall.options(&self.settings, self.options.http_port, self.options.https_port)?;
        let plan = self.firewall.plan(&self.settings, self.options)?;
        let good = LastGood::of(&self.settings, plan);
        let slugs: Vec<String> = self.settings.apps.iter().map(|app| app.slug.clone()).collect();
        self.allowed.retain(|have| have.app.as_ref().is_none_or(|app| slugs.contains(app)));
        let moved = moved(before, &self.settings);
        let mut successions = self.successions_from(before, now.wall);
        successions.retain(|slug, _| !moved.contains(slug));
        let clients = clients_gone(before, &self.settings, now);
        let gone: Vec<&str> = before.apps.iter().map(|app| app.slug.as_str()).collect();
        let gone: Vec<&str> = gone.into_iter().filter(|slug| !slugs.iter().any(|s| s == slug)).collect();

        let keeps = any_keeps(&before.apps);

        let mut result = Err(OperationError::NoTable);
        for _ in 0..TRIES {
            let mut live = self.firewall.read()?;
            self.own.learn(live.as_ref());
            let had = live.as_ref();
            let had = had.filter(|_| keeps || ways_changed(&before.apps, &self.settings.apps));
            let had = had.map(|live| self.who_was_in(sets, live, before));
            let with_sets =
                live.as_mut().map_or(0, |live| self.let_go_with_clients(&clients, &moved, sets, live, now));
            let none = Live::default();
            let have = live.as_ref().unwrap_or(&none);
            let (mut more, mut ended) = (Vec::new(), grants_of_apps(&gone, have) + with_sets);
            for (slug, succession) in &successions {
                let (changes, less) = hand_over(slug, succession, have, &self.ledger, now);
                more.extend(changes);
                ended += less;
            }
            let (changes, of_clients) = self.end_of_those(&clients, &moved, &successions, have, now);
            self.ended_by_reload(&successions, &clients, &moved, &changes, now);
            more.extend(changes);
            ended += of_clients.len();
            more.extend(self.allowed_changes(have, now));
            // Without ipset nobody could tell them from the rest.
            if good.plan().adopts() {
                more.extend(adopt(&self.settings, self.options, live.as_ref()));
            }
            match self.firewall.install_over(live.as_ref(), good.plan(), more) {
                Ok(changes) => {
                    self.expired_by = now.wall;
                    for slug in gone {
                        self.ledger.revoke_app(slug);
                    }
                    for (key, addr) in of_clients {
                        self.ledger.revoke(&key, addr);
                    }
                    for (slug, succession) in &successions {
                        self.ledger.succeed(slug, None, succession);
                    }
                    // In case somebody removes the table: those that live on from now on are not in memory yet.
                    match self.firewall.read() {
                        Ok(live) => {
                            let live = live.unwrap_or_default();
                            self.note_kept(&live, now);
                            self.adopted.learn(&live, now);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "connections that live on would not outlast a flush")
                        }
                    }
                    if let Some(had) = &had {
                        self.end_ways_gone(before, had);
                    }
                    if let Some(had) = had.filter(|_| keeps) {
                        self.cut_open_of(&before.apps, before.global.ipv6_prefix, &had);
                    }
                    return Ok(Reloaded { changes, ended, good });
                }
                // A grant may have ended between being read and being removed, or somebody else been at it.
                Err(error @ (BackendError::Refused { .. } | BackendError::NotAsWritten(_))) => {
                    result = Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        result
    }
}

/// The changes to an app's grants after a change of its keys, and how many end.
pub(super) fn hand_over(
    slug: &str,
    succession: &Succession,
    live: &Live,
    ledger: &Ledger,
    now: Now,
) -> (Vec<Change>, usize) {
    let mut out = Vec::new();
    let mut ended = 0;
    if succession.changes_nothing() {
        return (out, ended);
    }
    for family in Family::BOTH {
        let name = app_set(slug, family);
        let (mut gone, mut renewed) = (Elements::new(), Elements::new());
        for (key, element) in live.elements.get(&name).into_iter().flatten() {
            let users = key_address(key).map(|addr| ledger.users(slug, addr, now)).unwrap_or_default();
            match inherited(element, users, succession) {
                Some(after) if after == *element => {}
                Some(after) => drop(renewed.insert(key.clone(), after)),
                None => drop(gone.insert(key.clone(), element.clone())),
            }
        }
        ended += gone.len();
        let set = SetRef::plain(name);
        if !gone.is_empty() {
            out.push(Change::DeleteElements { set: set.clone(), elements: gone });
        }
        if !renewed.is_empty() {
            out.push(Change::RenewElements { set, elements: renewed });
        }
    }
    (out, ended)
}

/// What a grant in the kernel is after a change of keys; none: it ends. It never lasts longer than before, and
/// shorter only where whoever had it longest had it by a key that is no more.
pub(super) fn inherited(
    element: &Element,
    users: Vec<crate::grant::User>,
    succession: &Succession,
) -> Option<Element> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let users = if users.is_empty() {
        let times = element.timeout.map_or((u64::MAX, u64::MAX), |t| (t.left_ms, t.total_ms));
        let [left, total] = [times.0, times.1].map(Duration::from_millis);
        vec![(Note::parse(element.comment.as_deref()), left, total)]
    } else {
        users
    };
    let renamed = |note: &Note| succession.note(note).as_ref() != Some(note);
    if !users.iter().any(|(note, ..)| renamed(note)) {
        return Some(element.clone());
    }
    let (heirs, less) = succession.heirs(users);
    let (note, left, lifetime) = heirs.into_iter().next()?;
    let shorter = |had: Timeout| less && had.left_ms > ms(left + SLACK);
    let timeout = match element.timeout {
        Some(had) if shorter(had) => Some(Timeout { total_ms: ms(lifetime.max(left)), left_ms: ms(left) }),
        had => had,
    };
    Some(Element { timeout, comment: Some(note.to_string()), ..element.clone() })
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
