//! Those who watch the daemon: figures for Prometheus, and systemd's watchdog.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{Metrics, MetricsAddress};
use crate::service::around::Around;
use crate::service::control::Call;
use crate::service::metrics::{Listener, Source, keep_file};
use crate::service::watchdog;
use crate::sys::files;

/// What is shown to whom, and what does it.
pub(super) struct Watchers {
    metrics: Metrics,
    around: Arc<Around>,
    listener: Option<Listener>,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// Opens what has to be open before the process is sealed. Where figures cannot be shown, people are let in all the same.
    pub(super) fn prepare(metrics: &Metrics, around: Arc<Around>) -> Self {
        let listener = metrics.listen.as_ref().and_then(|address| {
            let bound = Listener::bind(address);
            bound
                .inspect_err(|error| {
                    tracing::error!(%address, %error, "figures cannot be fetched until the daemon is started again");
                    around.without_figures(format!("figures cannot be fetched at {address}: {error}"));
                })
                .ok()
        });
        Self { metrics: metrics.clone(), around, listener, tasks: JoinSet::new() }
    }

    /// Begins, now that there is somebody to ask.
    pub(super) fn begin(&mut self, calls: &mpsc::Sender<Call>) {
        let source = Source::new(Arc::clone(&self.around), calls.clone());
        if let Some(listener) = self.listener.take() {
            self.tasks.spawn(listener.serve(Arc::clone(&source)));
        }
        if let Some(file) = self.metrics.textfile.clone() {
            self.tasks.spawn(async move { match keep_file(file, source).await {} });
        }
        self.tasks.spawn(watchdog::feed(Arc::clone(&self.around), calls.clone()));
    }

    /// Ends, and leaves nothing that looks as if it were still written.
    pub(super) fn end(mut self) {
        self.tasks.abort_all();
        let file = self.metrics.textfile.as_ref().map(|file| file.path.as_path());
        let socket = match &self.metrics.listen {
            Some(MetricsAddress::Unix(path)) => Some(path.as_path()),
            Some(MetricsAddress::Tcp(_)) | None => None,
        };
        for path in file.into_iter().chain(socket) {
            // What cannot be removed is replaced by the next daemon, and old by then.
            let _ = files::remove(path);
        }
    }
}
