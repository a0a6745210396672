//! The daemon while it runs: who serves whom, and how it all ends.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::watchers::Watchers;
use super::{Daemon, DaemonError};
use crate::service::around::Around;
use crate::service::enforcer::{Enforcer, Stopped};
use crate::service::front::{Reach, bind_step1, bind_step2};
use crate::service::keeper::{Begun, FrontError, Keeper};
use crate::service::kept_plan::PlanKeeper;
use crate::service::last_good::LastGood;
use crate::service::launcher::Launcher;
use crate::service::link::Pending;
use crate::service::link::serving::{Pem, Serving};
use crate::service::on_disk::OnDisk;
use crate::service::outside::Outside;
use crate::service::record::Record;
use crate::service::reload::Reloader;
use crate::service::served::{Pair, Served};
use crate::service::trial::Trial;
use crate::service::two_factor::Found;
use crate::service::{callers, control, last_run};
use crate::sys::netlink::Events;
use crate::sys::{files, notify, process, resident, seal, signals, users};
use crate::units::LogEvent;

/// A number that no user has.
const NOBODYS: u32 = u32::MAX - 1;
/// Control requests that may wait for the enforcer.
const CALLS: usize = 16;
/// How long a last reply may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What guards, and what it was told.
pub(super) struct Guarded<'d> {
    pub(super) daemon: &'d Daemon,
    pub(super) launcher: Arc<Launcher>,
    pub(super) trial: Option<&'d Arc<Trial>>,
    /// Whether this process never starts a program from now on: iptables would be one.
    pub(super) seals: bool,
    /// The plan in force, until it is kept.
    pub(super) good: Cell<Option<LastGood>>,
    pub(super) plans: Arc<PlanKeeper>,
    pub(super) around: Arc<Around>,
    pub(super) two_factor: Arc<Found>,
}

impl Guarded<'_> {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// [`DaemonError`]; the guard stays.
    pub(super) async fn serve(
        &self,
        enforcer: Enforcer,
        events: Option<Events>,
        pem: Option<Arc<Pem>>,
        pair: Option<Pair>,
        begun: Option<Begun>,
    ) -> Result<(), DaemonError> {
        let daemon = self.daemon;
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Process)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Process)?;
        let hangup = signal(SignalKind::hangup()).map_err(DaemonError::Process)?;
        signals::let_hangup_pass().map_err(|errno| DaemonError::Process(errno.into()))?;
        let (own_http, own_https, _) = ports(daemon);
        let around = Arc::clone(&self.around);
        pem.iter().for_each(|pem| around.certified(pem));
        let (serving_sender, serving) = watch::channel(Serving::of(&daemon.settings, pem));
        let (taken_sender, mut taken) = watch::channel(None);
        let (asks_sender, asks) = mpsc::channel(crate::service::link::MOST_ASKS);
        let keeper = self.keeper(begun, serving, taken_sender, asks_sender)?;
        let keeper = keeper.map(|keeper| keeper.known_by(Arc::clone(&around)));
        let control = control::bind(&daemon.runtime_dir).map_err(|source| DaemonError::Runtime {
            path: control::socket_path(&daemon.runtime_dir),
            source,
        })?;
        let mut watchers = Watchers::prepare(&daemon.settings.metrics, Arc::clone(&around));
        let writable = self.seal()?;

        let steps = keeper.is_some();
        let (front_ended, mut front) = oneshot::channel();
        let (reload_sender, reloads) = mpsc::channel(1);
        let on_disk = OnDisk::new(daemon.source.clone(), daemon.in_force.clone());
        let reloader = Reloader {
            on_disk: on_disk.clone(),
            source: daemon.source.clone(),
            pair,
            users: daemon.users.clone(),
            users_refused: Vec::new(),
            two_factor: Arc::clone(&self.two_factor),
            outside: Outside::of(&daemon.settings),
            trial: self.trial.cloned(),
            state_dir: daemon.state_dir.clone(),
            plans: Arc::clone(&self.plans),
            writable,
            served: steps.then(|| Served { serving: serving_sender.clone(), taken: taken.clone() }),
            enforcer: reload_sender,
            around: Arc::clone(&around),
        };
        let (hearing, hears) = oneshot::channel();
        let enforcer = enforcer.with_listener(serving_sender).telling_when_it_hears(hearing).knowing(around);
        let (call_sender, calls) = mpsc::channel(CALLS);
        let (stop, stopped) = oneshot::channel();
        let cleanup = daemon.cleanup;
        // On one thread, as most of what either does is for the other.
        let mut enforcing = spawn_enforcer(move || async move {
            let keeping = keep(keeper, front_ended);
            let how = enforcer.serve(asks, calls, reloads, events, cleanup, stopped).await;
            drop(keeping);
            how
        })?;
        // The front gets ready meanwhile. Whoever is told that all is ready can rely on it.
        self.keep_plan();
        let mut operators = tokio::spawn(callers::serve(control, call_sender.clone(), on_disk.clone()));
        // Whether the enforcer has ended by itself, and what it all came to.
        let (enforcer_ended, mut result) = {
            let mut end = pin!(async {
                tokio::select! {
                    _ = terminate.recv() => (false, Ok(())),
                    _ = interrupt.recv() => (false, Ok(())),
                    stopped = &mut enforcing => (true, match stopped {
                        Ok(Stopped::TornDown) => {
                            // During a trial those of before are there, too.
                            last_run::starts_with(None, &self.daemon.state_dir);
                            Ok(())
                        }
                        Ok(Stopped::Unused | Stopped::Unguarded) | Err(_) => Err(DaemonError::Died("the enforcer")),
                    }),
                    seconds = overdue(self.trial.map(Arc::as_ref)) => {
                        (false, Err(DaemonError::NotConfirmed(seconds)))
                    }
                    // Where the enforcer ended, who keeps the front did, too, without a word.
                    Ok(error) = &mut front => (false, Err(error.into())),
                    _ = &mut operators => (false, Err(DaemonError::Died("the control socket"))),
                }
            });
            // Where nobody serves, it is to be stopped all the same: what is put back must not be put right by it.
            tokio::select! {
                how = &mut end => how,
                () = ready(steps, &mut taken, hears) => {
                    if let Err(error) = notify::notify("READY=1\nSTATUS=guarding") {
                        tracing::warn!(%error, "systemd could not be told");
                    }
                    match steps {
                        true => {
                            let services = vec![format!("tcp/{own_http}"), format!("tcp/{own_https}")];
                            Record { services, ..Record::of(LogEvent::Ready) }.log("listening");
                        }
                        false => Record::of(LogEvent::Ready).log("no steps: nothing listens"),
                    }
                    watchers.begin(&call_sender);
                    let mut reloading = tokio::spawn(reloader.run(hangup));
                    tokio::spawn(resident::give_back_start_twice());
                    let how = tokio::select! {
                        how = &mut end => how,
                        // Without it, who is disabled would keep on getting in, and nobody would know.
                        _ = &mut reloading => (false, Err(DaemonError::Died("who reloads"))),
                    };
                    reloading.abort();
                    how
                }
            }
        };
        let _ = notify::notify("STOPPING=1");
        watchers.end();
        operators.abort();
        if enforcer_ended {
            // The reply to whoever had everything removed is on its way, in a task of its own.
            tokio::time::sleep(LAST_WORDS).await;
        } else {
            let _ = stop.send(());
            if enforcing.await == Ok(Stopped::Unguarded) {
                result = Err(DaemonError::Unguarded(result.err().map(Box::new)));
            } else {
                // An unconfirmed guard does not stay: it is told next that all was put back.
                let stays = self.trial.is_none_or(|trial| trial.is_confirmed());
                Record::of(LogEvent::Stopped).log(if stays { "stopped; the guard stays" } else { "stopped" });
            }
        }
        // Nobody starts another one now.
        let _ = self.launcher.end_front();
        let _ = files::remove(&control::socket_path(&daemon.runtime_dir));
        result
    }

    /// Has the plan in force be there for `knock-agent guard`, once, and waits for the disk.
    pub(super) fn keep_plan(&self) {
        if let Some(good) = self.good.take() {
            self.plans.keep(&good);
        }
    }

    /// Opens the ports for a front; none where there are no steps.
    fn keeper(
        &self,
        begun: Option<Begun>,
        serving: watch::Receiver<Serving>,
        taken: watch::Sender<Option<u32>>,
        asks: mpsc::Sender<Pending>,
    ) -> Result<Option<Keeper>, DaemonError> {
        if !self.daemon.settings.global.steps {
            return Ok(None);
        }
        let (own_http, own_https, reach) = ports(self.daemon);
        let listen = |error| DaemonError::Listen { error };
        let step1 = bind_step1(own_http, reach).map_err(listen)?;
        let step2 = bind_step2(own_https, reach).map_err(listen)?;
        let launcher = Arc::clone(&self.launcher);
        let begun = match begun {
            Some(begun) => launcher.front_begun().map(|()| begun),
            None => Begun::start(&launcher),
        };
        let begun = begun.map_err(FrontError::Start)?;
        Keeper::new(launcher, begun, step1, step2, serving, taken, asks)
            .map(Some)
            .map_err(DaemonError::Process)
    }

    /// Gives up what is not needed from now on, before there is another thread; returns the folders that can still be
    /// written to, if not all.
    fn seal(&self) -> Result<Option<Vec<PathBuf>>, DaemonError> {
        if !self.seals {
            tracing::info!("iptables is a program: this process is not kept from starting some");
            return Ok(None);
        }
        // The C library loads all that it looks users up with, for one whom nobody knows.
        let _ = users::name(NOBODYS);
        let daemon = self.daemon;
        let state_file = daemon.settings.global.state_file.as_deref().and_then(Path::parent);
        let mut writable = vec![daemon.runtime_dir.clone(), daemon.state_dir.clone()];
        writable.extend(state_file.map(Path::to_owned));
        let textfile = daemon.settings.metrics.textfile.as_ref();
        writable.extend(textfile.and_then(|file| file.path.parent()).map(Path::to_owned));
        process::keep_network_capability().map_err(DaemonError::Process)?;
        let folders: Vec<&Path> = writable.iter().map(PathBuf::as_path).collect();
        let sealed = seal::enforcer(&folders)?;
        tracing::debug!(%sealed, "the enforcer is sealed");
        Ok(Some(writable))
    }
}

/// Until the first front serves and the enforcer hears what happens to the ruleset.
async fn ready(steps: bool, taken: &mut watch::Receiver<Option<u32>>, hears: oneshot::Receiver<()>) {
    if steps && taken.wait_for(Option::is_some).await.is_err() {
        // There will be none: why is told elsewhere.
        std::future::pending::<()>().await;
    }
    let _ = hears.await;
}

/// Keeps a front, if there is to be one; what is returned is to be held meanwhile.
fn keep(keeper: Option<Keeper>, ended: oneshot::Sender<FrontError>) -> Option<oneshot::Sender<FrontError>> {
    let Some(keeper) = keeper else { return Some(ended) };
    tokio::spawn(async move {
        let Err(error) = keeper.keep().await;
        let _ = ended.send(error);
    });
    None
}

/// The ports to listen on, and who can reach them at all.
fn ports(daemon: &Daemon) -> (u16, u16, Reach) {
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
