//! `knock-agent run`: guard first, then ears.

use std::io;
use std::num::NonZeroU16;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::certificate::{CertificateError, server_config};
use super::control;
use super::enforcer::{Enforcer, Stopped};
use super::front::{
    ListenError, Reach, Step1Config, Step2Config, Tls, bind_step1, bind_step2, serve_step1, serve_step2,
};
use super::last_good::LastGood;
use super::link;
use super::lockout::{self, Installed};
use super::operations::{OperationError, Operations};
use super::outside;
use super::reload::{Pair, Reloader, Served, Source};
use super::snapshot::Snapshot;
use super::state::{StateFile, resumed};
use super::trial::{Trial, TrialError, Watcher};
use super::two_factor::{self, TwoFactorError};
use super::used_codes::UsedCodesFile;
use super::user_files::UserFiles;
use crate::backend::iptables::IptablesError;
use crate::backend::{BackendError, Choice, Firewall};
use crate::config::Settings;
use crate::knock::{Gatekeeper, TwoFactor};
use crate::ruleset::host_chain::HostChains;
use crate::sys::netlink::Events;
use crate::sys::presence::{self, Claim};
use crate::sys::{clock, files, notify, random, users};

/// Control requests that may wait for the enforcer.
const CALLS: usize = 16;

/// How long a last reply may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What `run` was told.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The configuration.
    pub settings: Settings,
    /// Where it comes from, for a reload.
    pub source: Source,
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

/// Why the daemon does not run. Whatever guard was in place by then stays.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs.
    #[error("another knock-agent runs already: {} is locked", .0.display())]
    AlreadyRuns(PathBuf),
    /// Another one, with other files, guards this network namespace.
    #[error("another knock-agent (pid {0}) guards this network namespace already: stop it first")]
    AlreadyGuards(i32),
    /// A file of the certificate cannot be read.
    #[error("{}: {source}", path.display())]
    CertificateFile {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The certificate of step 2 cannot be used.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Certificate {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// 2FA files cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))]
    TwoFactor(Vec<TwoFactorError>),
    /// The firewall would not.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What was in the kernel could not be taken over.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// A port cannot be listened on.
    #[error("{error}: {}", error.source)]
    Listen {
        /// Which, and the reason.
        error: ListenError,
    },
    /// A file or socket of the runtime directory.
    #[error("{}: {source}", path.display())]
    Runtime {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The process could not be set up.
    #[error("the process cannot be set up: {0}")]
    Process(#[source] io::Error),
    /// There would be no going back.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// Nobody confirmed it in time.
    #[error("nobody said `knock-agent confirm` within {0} s: everything was put back as it was before")]
    NotConfirmed(u64),
    /// It ended before anybody confirmed it.
    #[error("ended before `knock-agent confirm`: everything was put back as it was before")]
    EndedUnconfirmed,
    /// A part of the daemon ended by itself.
    #[error("{0} ended unexpectedly: this is a bug; the guard and running grants stay")]
    Died(&'static str),
}

/// Runs until SIGTERM, SIGINT or an operator's teardown.
///
/// # Errors
/// [`DaemonError`]; from the first change on, the guard stays whatever happens.
pub fn run(mut daemon: Daemon, watcher: Option<Watcher>) -> Result<(), DaemonError> {
    let lock_path = lock_path(&daemon.runtime_dir);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| DaemonError::Runtime { path, source }
    };
    files::make_directory(&daemon.runtime_dir, 0o755).map_err(at(&daemon.runtime_dir))?;
    let lock = files::try_lock(&lock_path).map_err(at(&lock_path))?;
    let Some(_lock) = lock else { return Err(DaemonError::AlreadyRuns(lock_path)) };
    let presence = claim_namespace()?;

    let files = daemon.tls.as_ref();
    let pair = files.map(|files| Pair::new(&files.certificate, &files.key));
    let tls = files.map(|files| tls(&files.certificate, &files.key)).transpose()?;
    let two_factor = load_two_factor(&daemon.settings)?;
    let random = random::bytes().map_err(DaemonError::Process)?;
    let mut gatekeeper = Gatekeeper::new(&daemon.settings, &two_factor, random);
    let used_codes = UsedCodesFile::read(&daemon.runtime_dir, &mut gatekeeper, clock::now());

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
    let trial =
        watcher.zip(daemon.confirm).map(|(watcher, limit)| trial(&daemon, watcher, limit)).transpose()?;
    let outcome = guard(&daemon, firewall, trial.is_some()).and_then(|(operations, state)| {
        let enforcer = Enforcer::new(operations, gatekeeper, used_codes, state, trial.clone(), random);
        run_guarded(&daemon, enforcer, events, tls, pair, presence, trial.as_ref())
    });
    match trial.map_or(Ok(false), |trial| trial.end())? {
        true => Err(match outcome {
            Ok(()) => DaemonError::EndedUnconfirmed,
            Err(error) => {
                tracing::warn!("everything was put back as it was before");
                error
            }
        }),
        false => outcome,
    }
}

fn run_guarded(
    daemon: &Daemon,
    enforcer: Enforcer,
    events: Option<Events>,
    tls: Tls,
    pair: Option<Pair>,
    presence: Option<UnixListener>,
    trial: Option<&Arc<Trial>>,
) -> Result<(), DaemonError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Process)?;
    let present = presence.map(|listener| runtime.spawn(be_present(listener)));
    let result = runtime.block_on(serve(daemon, enforcer, events, tls, pair, trial));
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

pub(super) fn load_two_factor(settings: &Settings) -> Result<Vec<TwoFactor>, DaemonError> {
    let found = two_factor::load(settings).map_err(DaemonError::TwoFactor)?;
    if let Some(folder) = &found.missing_folder {
        tracing::warn!(folder = %folder.display(), "the 2FA folder does not exist: no key needs a one-time code");
    } else if settings.global.two_factor_folder.is_some() {
        tracing::info!(keys = found.factors.len(), "keys that need a one-time code");
    }
    Ok(found.factors)
}

/// A certificate file holds some kilobytes.
const MAX_PEM: u64 = 1 << 20;

/// Step 2's TLS, from the files that `run` was told.
///
/// # Errors
/// [`DaemonError`] for files that cannot be read or used.
pub fn tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, DaemonError> {
    let read = |path: &Path| {
        files::read_text(path, MAX_PEM)
            .map(zeroize::Zeroizing::new)
            .map_err(|source| DaemonError::CertificateFile { path: path.to_owned(), source })
    };
    let (chain_pem, key_pem) = (read(certificate)?, read(key)?);
    server_config(chain_pem.as_bytes(), key_pem.as_bytes()).map_err(|source| DaemonError::Certificate {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// Has everything ready to be put back.
fn trial(daemon: &Daemon, mut watcher: Watcher, limit: Duration) -> Result<Arc<Trial>, DaemonError> {
    let mut firewall = Firewall::nftables()?;
    let before = Snapshot::of(firewall.read()?.as_ref(), clock::now()).ok_or(TrialError::Foreign)?;
    watcher.order(before, limit)?;
    let options = firewall.options(&daemon.settings, daemon.http_port, daemon.https_port)?;
    let good = LastGood::of(&daemon.settings, firewall.plan(&daemon.settings, options)?);
    let state_dir = daemon.state_dir.clone();
    let on_confirmed = move |good: &LastGood| keep(good, &state_dir);
    tracing::warn!(
        seconds = limit.as_secs(),
        "say `knock-agent confirm` in time, else all is put back as it was"
    );
    Ok(Arc::new(Trial::new(watcher, limit, good, Box::new(on_confirmed))))
}

fn keep(good: &LastGood, state_dir: &Path) {
    if let Err(error) = good.keep(state_dir) {
        tracing::warn!(%error, "this plan is not kept: `knock-agent guard` cannot fall back on it");
    }
}

/// Puts the guard in place and takes over what grants there are.
fn guard(
    daemon: &Daemon,
    mut firewall: Firewall,
    on_trial: bool,
) -> Result<(Operations, Option<StateFile>), DaemonError> {
    let options = firewall.options(&daemon.settings, daemon.http_port, daemon.https_port)?;
    let good = LastGood::of(&daemon.settings, firewall.plan(&daemon.settings, options)?);
    let Installed { live, read_at, changes } =
        lockout::install(&mut firewall, &daemon.settings, options, good.plan())?;
    let mut operations = Operations::over(firewall, &live, daemon.settings.clone(), options, read_at);
    drop(live);
    let mut state = StateFile::resume(&mut operations, clock::now()).and_then(resumed);
    if let Some(state) = state.as_mut().filter(|_| on_trial) {
        state.begin_trial(&operations, clock::now());
    }
    let ended = operations.end_grants_of_those_gone(clock::now())?;
    if ended > 0 {
        tracing::info!(ended, "grants of users and keys that are not in the configuration any more end");
    }
    operations.sync_allowed(clock::now())?;
    operations.make_addresses_known(good.plan());
    operations.resume_timed(&daemon.runtime_dir, clock::now());
    outside::tell(&daemon.settings);
    match operations.keep_host(daemon.host.clone()) {
        Ok(0) => {}
        Ok(changes) => tracing::info!(changes, "chains of the host accept our mark"),
        Err(error) => {
            tracing::error!(%error, "the host's chains could not be changed: what is let in may be dropped there");
        }
    }
    tracing::info!(changes, grants = operations.ledger().len(), "the guard is in place");
    if !on_trial {
        keep(&good, &daemon.state_dir);
    }
    Ok((operations, state))
}

async fn serve(
    daemon: &Daemon,
    enforcer: Enforcer,
    events: Option<Events>,
    tls: Tls,
    pair: Option<Pair>,
    trial: Option<&Arc<Trial>>,
) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Process)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Process)?;
    let hangup = signal(SignalKind::hangup()).map_err(DaemonError::Process)?;
    let listen = |error| DaemonError::Listen { error };
    let (own_http, own_https, reach) = ears(daemon);
    let steps = daemon.settings.global.steps;
    let step1 = steps.then(|| bind_step1(own_http, reach)).transpose().map_err(listen)?;
    let step2 = steps.then(|| bind_step2(own_https, reach)).transpose().map_err(listen)?;
    let control = control::bind(&daemon.runtime_dir)
        .map_err(|source| DaemonError::Runtime { path: control::socket_path(&daemon.runtime_dir), source })?;

    let (step1_sender, config1) = watch::channel(Arc::new(Step1Config::of(&daemon.settings)));
    let (step2_sender, config2) = watch::channel(Arc::new(Step2Config::of(&daemon.settings)));
    let (tls_sender, tls) = watch::channel(tls);
    let (reload_sender, reloads) = mpsc::channel(1);
    let reloader = Reloader {
        source: daemon.source.clone(),
        pair,
        users: daemon.users.clone(),
        trial: trial.cloned(),
        state_dir: daemon.state_dir.clone(),
        served: Served { step2: step2_sender, tls: tls_sender },
        enforcer: reload_sender,
    };
    let (hearing, hears) = oneshot::channel();
    let enforcer = enforcer.with_listener(step1_sender).telling_when_it_hears(hearing);
    let (link, asks) = link::pair();
    let (call_sender, calls) = mpsc::channel(CALLS);
    let (stop, stopped) = oneshot::channel();
    let cleanup = daemon.cleanup;
    let enforcing = spawn_enforcer(move || enforcer.serve(asks, calls, reloads, events, cleanup, stopped))?;
    let front = link.clone();
    let mut ears = [
        tokio::spawn(async move {
            let Some(step1) = step1 else { return std::future::pending().await };
            match serve_step1(step1, config1, front).await {}
        }),
        tokio::spawn(async move {
            let Some(step2) = step2 else { return std::future::pending().await };
            match serve_step2(step2, tls, config2, link).await {}
        }),
        tokio::spawn(control::serve(control, call_sender)),
    ];
    let _ = hears.await;
    if let Err(error) = notify::notify("READY=1\nSTATUS=guarding") {
        tracing::warn!(%error, "systemd could not be told");
    }
    match steps {
        true => tracing::info!(http_port = own_http, https_port = own_https, "listening"),
        false => tracing::info!("no steps: nothing listens"),
    }
    let reloading = tokio::spawn(reloader.run(hangup));

    let mut enforcing = enforcing;
    let [ear1, ear2, ear3] = &mut ears;
    // Whether the enforcer has ended by itself, and what it all came to.
    let (enforcer_ended, result) = tokio::select! {
        _ = terminate.recv() => (false, Ok(())),
        _ = interrupt.recv() => (false, Ok(())),
        stopped = &mut enforcing => (true, match stopped {
            Ok(Stopped::TornDown) => Ok(()),
            Ok(Stopped::Unused) | Err(_) => Err(DaemonError::Died("the enforcer")),
        }),
        seconds = overdue(trial.map(Arc::as_ref)) => (false, Err(DaemonError::NotConfirmed(seconds))),
        _ = ear1 => (false, Err(DaemonError::Died("step 1"))),
        _ = ear2 => (false, Err(DaemonError::Died("step 2"))),
        _ = ear3 => (false, Err(DaemonError::Died("the control socket"))),
    };
    let _ = notify::notify("STOPPING=1");
    reloading.abort();
    for ear in &ears {
        ear.abort();
    }
    if enforcer_ended {
        // The reply to whoever had everything removed is on its way, in a task of its own.
        tokio::time::sleep(LAST_WORDS).await;
    } else {
        let _ = stop.send(());
        let _ = enforcing.await;
        tracing::info!("stopped; the guard stays");
    }
    let _ = files::remove(&control::socket_path(&daemon.runtime_dir));
    result
}

/// The ports to listen on, and who can reach them at all.
fn ears(daemon: &Daemon) -> (u16, u16, Reach) {
    match &daemon.settings.global.proxy {
        None => (daemon.http_port.get(), daemon.https_port.get(), Reach::Everybody),
        Some(proxy) => {
            let reach = if proxy.trusted.is_loopback() { Reach::ThisHost } else { Reach::Everybody };
            (proxy.http_port.get(), proxy.https_port.get(), reach)
        }
    }
}

/// The seconds in which nobody confirmed.
async fn overdue(trial: Option<&Trial>) -> u64 {
    match trial {
        Some(trial) => trial.overdue().await,
        None => std::future::pending().await,
    }
    trial.map_or(0, |trial| trial.limit.as_secs())
}

/// The enforcer has a thread of its own, because netlink blocks and TLS should not wait for it.
fn spawn_enforcer<F>(
    serve: impl FnOnce() -> F + Send + 'static,
) -> Result<oneshot::Receiver<Stopped>, DaemonError>
where
    F: Future<Output = Stopped>,
{
    let (done, stopped) = oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Process)?;
    std::thread::Builder::new()
        .name("enforcer".to_owned())
        .spawn(move || {
            let how = runtime.block_on(async { serve().await });
            let _ = done.send(how);
        })
        .map_err(DaemonError::Process)?;
    Ok(stopped)
}
