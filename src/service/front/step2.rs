use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::config::Settings;
use crate::knock::{Limits, Problem, Step};
use crate::service::front::crowd::{self, Bounds};
use crate::service::front::exchange::{Received, attempt, drain, receive, send};
use crate::service::front::reply::Reply;
use crate::service::link::{Answer, Ask, Front};
use crate::units::{ClientAddr, HttpPath};

/// From being accepted: the whole request has come, the enforcer has answered, the connection is closed.
const REQUEST: Duration = Duration::from_secs(4);
const ANSWER: Duration = Duration::from_millis(4_500);
const WHOLE: Duration = Duration::from_secs(5);
const BOUNDS: Bounds = Bounds { total: 256, per_client: 8 };

/// What the listener of step 2 knows.
#[derive(Clone, Debug)]
pub struct Step2Config {
    path: HttpPath,
}

impl Step2Config {
    /// The part of the settings that is about step 2.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self { path: settings.global.https_post_path.clone() }
    }
}

/// Serves step 2 for ever, each connection by what is configured and with the certificate there is when it is
/// accepted; dropping it closes what is open.
pub async fn serve_step2(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    config: watch::Receiver<Arc<Step2Config>>,
    link: Front,
) -> Infallible {
    crowd::serve(listener, BOUNDS, |stream, client| {
        let (config, link) = (Arc::clone(&config.borrow()), link.clone());
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
        async move {
            let start = Instant::now();
            let conversation = converse(stream, client, start, &acceptor, &config, &link);
            if timeout_at(start + WHOLE, conversation).await.is_err() {
                tracing::debug!(%client, "step 2: too slow");
            }
        }
    })
    .await
}

async fn converse(
    stream: TcpStream,
    client: ClientAddr,
    start: Instant,
    acceptor: &TlsAcceptor,
    config: &Step2Config,
    link: &Front,
) {
    // The answer is one small write that nothing follows: waiting to fill a packet only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%client, %error, "step 2: the answer may take longer");
    }
    let mut tls = match timeout_at(start + REQUEST, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(tls)) => tls,
        Ok(Err((error, mut stream))) => {
            tracing::debug!(%client, %error, "step 2: no TLS");
            if stream.shutdown().await.is_ok() {
                drain(&mut stream).await;
            }
            return;
        }
        Err(_) => {
            tracing::debug!(%client, "step 2: no handshake in time");
            return;
        }
    };
    let received = timeout_at(start + REQUEST, receive(&mut tls, &config.path, Limits::step2())).await;
    let reply = match received.unwrap_or(Received::Problem(Problem::TooSlow)) {
        Received::Form(form) => {
            let asked = timeout_at(start + ANSWER, link.ask(Ask::Knock(attempt(client, Step::Two, form))));
            Reply::from(asked.await.unwrap_or(Answer::Unavailable))
        }
        Received::Problem(problem) => Reply::Problem(problem),
        Received::Nothing => return,
    };
    tracing::debug!(%client, status = reply.status(), "step 2");
    if send(&mut tls, reply).await.is_ok() {
        drain(tls.get_mut().0).await;
    }
}

#[cfg(test)]
#[path = "step2_tests.rs"]
mod tests;
