//! `knock-agent run`: guard first, then ears.

mod alone;
mod companions;
mod error;
mod insist;
mod serve;
mod watchers;

pub use alone::guard_alone;
pub(super) use companions::load_two_factor;
pub use companions::tls;
pub use error::DaemonError;

use std::cell::Cell;
use std::io;
use std::num::NonZeroU16;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::insist::{insist, insist_guarded};
use self::serve::Guarded;
use super::around::Around;
use super::enforcer::Enforcer;
use super::expired;
use super::herald::Herald;
use super::keeper::Begun;
use super::kept_plan::PlanKeeper;
use super::last_good::LastGood;
use super::last_run;
use super::last_use::LastUse;
use super::launcher::Launcher;
use super::link::serving::Pem;
use super::lockout::{self, Installed};
use super::on_disk::InForce;
use super::operations::{OperationError, Operations};
use super::outside;
use super::record::{Record, number};
use super::served::Pair;
use super::snapshot::Snapshot;
use super::source::Source;
use super::state::{StateFile, resumed};
use super::taken::OnTrial;
use super::trial::{Trial, TrialError, Watcher};
use super::used_codes::UsedCodesFile;
use super::user_files::UserFiles;
use crate::backend::iptables::IptablesError;
use crate::backend::{BackendError, Choice, Firewall};
use crate::config::Settings;
use crate::knock::Gatekeeper;
use crate::ruleset::host_chain::HostChains;
use crate::sys::netlink::Events;
use crate::sys::presence::{self, Claim};
use crate::sys::{clock, files, random, users};
use crate::units::LogEvent;

/// What `run` was told.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The configuration.
    pub settings: Settings,
    /// Where it comes from, for a reload.
    pub source: Source,
    /// What tells this configuration from one that is on the disk later.
    pub in_force: InForce,
    /// The files of users, as they were when the configuration was read.
    pub users: UserFiles,
    /// What firewall is to be used.
    pub firewall: Choice,
    /// The port of step 1 that clients use.
    pub http_port: NonZeroU16,
    /// The port of step 2 that clients use.
    pub https_port: NonZeroU16,
    /// The certificate of step 2; none where TLS ends at a proxy in front.
    pub tls: Option<TlsFiles>,
    /// Whether grants end when the daemon is told to stop.
    pub cleanup: bool,
    /// Chains of the host that are to accept our mark.
    pub host: HostChains,
    /// Where the control socket and the lock are.
    pub runtime_dir: PathBuf,
    /// Where the last good plan is kept.
    pub state_dir: PathBuf,
    /// Within what time it must be confirmed, if at all.
    pub confirm: Option<Duration>,
}

/// The files that step 2 is served with.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// Runs until SIGTERM, SIGINT or an operator's teardown.
///
/// # Errors
/// [`DaemonError`]; from the first change on, the guard stays whatever happens.
pub fn run(mut daemon: Daemon, launcher: Arc<Launcher>, watcher: Option<Watcher>) -> Result<(), DaemonError> {
    let lock_path = lock_path(&daemon.runtime_dir);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| DaemonError::Runtime { path, source }
    };
    files::make_directory(&daemon.runtime_dir, 0o755).map_err(at(&daemon.runtime_dir))?;
    let lock = files::try_lock(&lock_path).map_err(at(&lock_path))?;
    let Some(_lock) = lock else { return Err(DaemonError::AlreadyRuns(lock_path)) };
    let presence = claim_namespace()?;
    // It gets ready while everything else does.
    let begun = daemon.settings.global.steps.then(|| Begun::order(&launcher)).transpose();
    let begun = begun.map_err(DaemonError::Launcher)?;

    let files = daemon.tls.as_ref();
    let pair = files.map(|files| Pair::new(&files.certificate, &files.key));
    let pem = files.map(|files| tls(&files.certificate, &files.key)).transpose()?;
    let two_factor = Arc::new(load_two_factor(&daemon.settings)?);
    outside::check(&daemon.settings)?;
    let random = random::bytes().map_err(DaemonError::Process)?;
    let mut gatekeeper = Gatekeeper::new(&daemon.settings, &two_factor.factors, random);
    let ran_before = last_run::begin(&daemon.state_dir, clock::now());
    let last_use = LastUse::read(&daemon.state_dir);
    let before = files::modified(&LastGood::path(&daemon.state_dir)).max(last_use.until());
    expired::tell_of_calendar(&daemon.settings, before, clock::now().wall);
    let used_codes =
        UsedCodesFile::read(&daemon.runtime_dir, ran_before, last_use, &mut gatekeeper, clock::now());

    let firewall = Firewall::open(daemon.firewall)?;
    if matches!(firewall, Firewall::Iptables(_)) && !daemon.host.is_empty() {
        return Err(BackendError::from(IptablesError::HostChains).into());
    }
    if !firewall.adopts() && daemon.settings.global.adopt_established {
        tracing::warn!(
            "adopt_established: without ipset, connections that are open before the first start are cut"
        );
        daemon.settings.global.adopt_established = false;
    }
    if matches!(firewall, Firewall::Iptables(_)) && daemon.confirm.is_some() {
        return Err(BackendError::from(IptablesError::Confirm).into());
    }
    match firewall {
        Firewall::Iptables(ref iptables) if daemon.firewall.kind.is_none() => tracing::warn!(
            programs = %iptables.variant(),
            "this kernel has no nf_tables, or iptables guards already: iptables and ipset are used"
        ),
        Firewall::Iptables(ref iptables) => {
            tracing::info!(programs = %iptables.variant(), "iptables and ipset are used")
        }
        Firewall::Nftables(_) => {}
    }
    if let Some(limits) = firewall.limits() {
        tracing::warn!("{limits}");
    }
    // Before the guard, so that nothing is missed that happens to it.
    let events = firewall.port().map(|_| Events::open()).transpose().map_err(BackendError::from)?;
    let around = Arc::new(Around::default());
    around.codes_looked_at(two_factor.troubles());
    let plans = Arc::new(PlanKeeper::new(daemon.state_dir.clone(), Arc::clone(&around)));
    let trial = watcher.zip(daemon.confirm);
    let trial = trial.map(|(watcher, limit)| trial_of(&daemon, &plans, watcher, limit)).transpose()?;
    let seals = matches!(firewall, Firewall::Nftables(_));
    let outcome =
        guard(&daemon, &plans, firewall, &OnTrial(trial.clone())).and_then(|(operations, state, good)| {
            let herald = Herald::new(Arc::clone(&launcher));
            let enforcer =
                Enforcer::new(operations, gatekeeper, used_codes, state, trial.clone(), random, herald);
            let good = Cell::new(good);
            let trial = trial.as_ref();
            let guarded =
                Guarded { daemon: &daemon, launcher, trial, seals, good, plans, around, two_factor };
            let outcome = run_guarded(&guarded, enforcer, events, (pem, pair), begun, presence);
            // Who did not get as far as serving guards all the same.
            guarded.keep_plan();
            outcome
        });
    match trial.map_or(Ok(false), |trial| trial.end())? {
        true => Err(match outcome {
            Ok(()) => DaemonError::EndedUnconfirmed,
            Err(error) => {
                Record::of(LogEvent::PutBack).log("everything was put back as it was before");
                error
            }
        }),
        false => outcome,
    }
}

fn run_guarded(
    guarded: &Guarded<'_>,
    enforcer: Enforcer,
    events: Option<Events>,
    (pem, pair): (Option<Arc<Pem>>, Option<Pair>),
    begun: Option<Begun>,
    presence: Option<UnixListener>,
) -> Result<(), DaemonError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Process)?;
    let present = presence.map(|listener| runtime.spawn(be_present(listener)));
    let result = runtime.block_on(guarded.serve(enforcer, events, pem, pair, begun));
    drop(present);
    // A reload that waits for a slow disk must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Two that guard one namespace would undo each other's work.
fn claim_namespace() -> Result<Option<UnixListener>, DaemonError> {
    match presence::claim() {
        Ok(Claim::Ours(listener)) => Ok(Some(listener)),
        Ok(Claim::Theirs(pid)) => Err(DaemonError::AlreadyGuards(pid)),
        // Anybody can take a name; that must not keep the ports from being guarded.
        Ok(Claim::Squatted(uid)) => {
            let user = uid.map_or("unknown".to_owned(), users::name);
            tracing::warn!(
                user,
                "a user holds the name that tells whether a knock-agent guards here: ignored"
            );
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(%error, "it cannot be told whether another knock-agent guards here");
            Ok(None)
        }
    }
}

/// Lets others ask whether somebody is here, and hangs up: what waits would fill the queue.
async fn be_present(listener: UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        if listener.accept().await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The file that a running daemon has locked.
#[must_use]
pub fn lock_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("lock")
}

/// Has everything ready to be put back.
fn trial_of(
    daemon: &Daemon,
    plans: &Arc<PlanKeeper>,
    mut watcher: Watcher,
    limit: Duration,
) -> Result<Arc<Trial>, DaemonError> {
    let mut firewall = Firewall::nftables()?;
    let before = Snapshot::of(firewall.read()?.as_ref(), clock::now()).ok_or(TrialError::Foreign)?;
    watcher.order(&before, limit)?;
    let options = firewall.options(&daemon.settings, daemon.http_port, daemon.https_port)?;
    let good = LastGood::of(&daemon.settings, firewall.plan(&daemon.settings, options)?);
    let (plans, state_dir) = (Arc::clone(plans), daemon.state_dir.clone());
    let on_confirmed = move |good: &LastGood, state_file: Option<&Path>| {
        plans.keep(good);
        last_run::starts_with(state_file, &state_dir);
    };
    tracing::warn!(
        seconds = limit.as_secs(),
        "say `knock-agent confirm` in time, else all is put back as it was"
    );
    Ok(Arc::new(Trial::new((watcher, before), limit, good, Box::new(on_confirmed))))
}

/// Ends the grants of users and keys that the settings do not let in any more.
fn end_those_gone(operations: &mut Operations) -> Result<(), OperationError> {
    let ended = insist_guarded(operations, |operations| operations.end_grants_of_those_gone(clock::now()))?;
    if ended > 0 {
        tracing::info!(ended, "grants of users and keys that are not in the configuration any more end");
    }
    Ok(())
}

/// Puts the guard in place and takes over what grants there are.
fn guard(
    daemon: &Daemon,
    plans: &PlanKeeper,
    mut firewall: Firewall,
    trial: &OnTrial,
) -> Result<(Operations, Option<StateFile>, Option<LastGood>), DaemonError> {
    let options = firewall.options(&daemon.settings, daemon.http_port, daemon.https_port)?;
    let good = LastGood::of(&daemon.settings, firewall.plan(&daemon.settings, options)?);
    let (mut before, on_trial) = (None, trial.is_on());
    let Installed { live, read_at, changes } = insist(|| {
        lockout::install(&mut firewall, &daemon.settings, options, good.plan(), trial, &mut before)
    })?;
    let mut operations = Operations::over(firewall, &live, daemon.settings.clone(), options, read_at);
    operations.on_trial = trial.clone();
    if let Some(lockout::Before { outlasting, guard, own }) = before {
        (operations.outlasting, operations.own) = (outlasting, own);
        operations.end_ways_of(&guard, &live);
    }
    drop(live);
    let note = if on_trial { last_run::tries } else { last_run::starts_with };
    note(daemon.settings.global.state_file.as_deref(), &daemon.state_dir);
    let mut state = StateFile::resume(&mut operations, clock::now()).and_then(resumed);
    if let Some(state) = state.as_mut().filter(|_| on_trial) {
        state.begin_trial(&operations, clock::now());
    }
    end_those_gone(&mut operations)?;
    insist_guarded(&mut operations, |operations| operations.sync_allowed(clock::now()))?;
    operations.make_addresses_known(good.plan());
    operations.resume_timed(&daemon.runtime_dir, &daemon.state_dir, clock::now());
    match operations.keep_host(daemon.host.clone()) {
        Ok(0) => {}
        Ok(changes) => tracing::info!(changes, "chains of the host accept our mark"),
        Err(error) => {
            tracing::error!(%error, "the host's chains could not be changed: what is let in may be dropped there");
        }
    }
    // A guard that has stood until now let nobody begin anything in this host's name.
    if changes > 0 {
        operations.end_claimed(clock::now());
    }
    operations.end_strangers(clock::now());
    let record = Record {
        changes: number(changes),
        grants: number(operations.ledger().len()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        backend: Some(operations.firewall().name().to_owned()),
        ..Record::of(LogEvent::Started)
    };
    record.log("the guard is in place");
    if on_trial {
        return Ok((operations, state, None));
    }
    // Later, if that can be done by a process that is sealed: the folder is there, and what it makes there is its own.
    let made = files::make_directory(&daemon.state_dir, 0o700);
    if made.is_err() || !files::is_own(&daemon.state_dir) {
        plans.keep(&good);
        return Ok((operations, state, None));
    }
    Ok((operations, state, Some(good)))
}
