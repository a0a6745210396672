//! The daemon while it runs: who serves whom, and how it all ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::watchers::Watchers;
use super::{Daemon, DaemonError};
use crate::service::around::Around;
use crate::service::control;
use crate::service::enforcer::{Enforcer, Stopped};
use crate::service::front::{Reach, bind_step1, bind_step2};
use crate::service::keeper::{FrontError, Keeper};
use crate::service::launcher::Launcher;
use crate::service::link::Pending;
use crate::service::link::serving::{Pem, Serving};
use crate::service::reload::Reloader;
use crate::service::served::{Pair, Served};
use crate::service::trial::Trial;
use crate::sys::netlink::Events;
use crate::sys::{files, notify, seal, users};

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
    ) -> Result<(), DaemonError> {
        let daemon = self.daemon;
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Process)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Process)?;
        let hangup = signal(SignalKind::hangup()).map_err(DaemonError::Process)?;
        let (own_http, own_https, _) = ports(daemon);
        let around = Arc::new(Around::default());
        pem.iter().for_each(|pem| around.certified(pem));
        let (serving_sender, serving) = watch::channel(Serving::of(&daemon.settings, pem));
        let (taken_sender, mut taken) = watch::channel(None);
        let (asks_sender, asks) = mpsc::channel(crate::service::link::MOST_ASKS);
        let keeper = self.keeper(serving, taken_sender, asks_sender, Arc::clone(&around))?;
        let control = control::bind(&daemon.runtime_dir).map_err(|source| DaemonError::Runtime {
            path: control::socket_path(&daemon.runtime_dir),
            source,
        })?;
        let mut watchers = Watchers::prepare(&daemon.settings.metrics, Arc::clone(&around));
        self.seal()?;

        let steps = keeper.is_some();
        let mut front = tokio::spawn(async move {
            match keeper {
                Some(keeper) => keeper.keep().await,
                None => std::future::pending().await,
            }
        });
        let (reload_sender, reloads) = mpsc::channel(1);
        let reloader = Reloader {
            source: daemon.source.clone(),
            pair,
            users: daemon.users.clone(),
            trial: self.trial.cloned(),
            state_dir: daemon.state_dir.clone(),
            served: steps.then(|| Served { serving: serving_sender.clone(), taken: taken.clone() }),
            enforcer: reload_sender,
            around: Arc::clone(&around),
        };
        let (hearing, hears) = oneshot::channel();
        let enforcer = enforcer.with_listener(serving_sender).telling_when_it_hears(hearing).knowing(around);
        let (call_sender, calls) = mpsc::channel(CALLS);
        let (stop, stopped) = oneshot::channel();
        let cleanup = daemon.cleanup;
        let mut enforcing =
            spawn_enforcer(move || enforcer.serve(asks, calls, reloads, events, cleanup, stopped))?;
        let mut operators = tokio::spawn(control::serve(control, call_sender.clone()));
        let unserved = match steps {
            true => tokio::select! {
                ended = &mut front => Some(gone(ended)),
                Ok(_) = taken.wait_for(Option::is_some) => None,
            },
            false => None,
        };
        // Whether the enforcer has ended by itself, and what it all came to.
        let (enforcer_ended, result) = match unserved {
            // It is to be stopped all the same: what is put back now must not be put right by it.
            Some(error) => (false, Err(error)),
            None => {
                let _ = hears.await;
                if let Err(error) = notify::notify("READY=1\nSTATUS=guarding") {
                    tracing::warn!(%error, "systemd could not be told");
                }
                match steps {
                    true => tracing::info!(http_port = own_http, https_port = own_https, "listening"),
                    false => tracing::info!("no steps: nothing listens"),
                }
                watchers.begin(&call_sender);
                let mut reloading = tokio::spawn(reloader.run(hangup));
                let outcome = tokio::select! {
                    _ = terminate.recv() => (false, Ok(())),
                    _ = interrupt.recv() => (false, Ok(())),
                    stopped = &mut enforcing => (true, match stopped {
                        Ok(Stopped::TornDown) => Ok(()),
                        Ok(Stopped::Unused) | Err(_) => Err(DaemonError::Died("the enforcer")),
                    }),
                    seconds = overdue(self.trial.map(Arc::as_ref)) => {
                        (false, Err(DaemonError::NotConfirmed(seconds)))
                    }
                    ended = &mut front => (false, Err(gone(ended))),
                    // Without it, who is disabled would keep on getting in, and nobody would know.
                    _ = &mut reloading => (false, Err(DaemonError::Died("who reloads"))),
                    _ = &mut operators => (false, Err(DaemonError::Died("the control socket"))),
                };
                reloading.abort();
                outcome
            }
        };
        let _ = notify::notify("STOPPING=1");
        watchers.end();
        front.abort();
        operators.abort();
        let _ = self.launcher.end_front();
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

    /// Opens the ports for a front; none where there are no steps.
    fn keeper(
        &self,
        serving: watch::Receiver<Serving>,
        taken: watch::Sender<Option<u32>>,
        asks: mpsc::Sender<Pending>,
        around: Arc<Around>,
    ) -> Result<Option<Keeper>, DaemonError> {
        if !self.daemon.settings.global.steps {
            return Ok(None);
        }
        let (own_http, own_https, reach) = ports(self.daemon);
        let listen = |error| DaemonError::Listen { error };
        let step1 = bind_step1(own_http, reach).map_err(listen)?;
        let step2 = bind_step2(own_https, reach).map_err(listen)?;
        let launcher = Arc::clone(&self.launcher);
        Keeper::new(launcher, step1, step2, serving, taken, asks, around)
            .map(Some)
            .map_err(DaemonError::Process)
    }

    /// Gives up what is not needed from now on, before there is another thread.
    fn seal(&self) -> Result<(), DaemonError> {
        if !self.seals {
            tracing::info!("iptables is a program: this process is not kept from starting some");
            return Ok(());
        }
        // The C library loads all that it looks users up with, for one whom nobody knows.
        let _ = users::name(NOBODYS);
        let daemon = self.daemon;
        let state_file = daemon.settings.global.state_file.as_deref().and_then(Path::parent);
        let mut writable = vec![daemon.runtime_dir.as_path(), daemon.state_dir.as_path()];
        writable.extend(state_file);
        let textfile = daemon.settings.metrics.textfile.as_ref();
        writable.extend(textfile.and_then(|file| file.path.parent()));
        let sealed = seal::enforcer(&writable)?;
        tracing::debug!(%sealed, "the enforcer is sealed");
        Ok(())
    }
}

fn gone(ended: Result<Result<std::convert::Infallible, FrontError>, tokio::task::JoinError>) -> DaemonError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(never)) => match never {},
        Err(_) => DaemonError::Died("who keeps the front"),
    }
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
