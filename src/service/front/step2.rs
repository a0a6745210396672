use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::config::{Proxy, ProxyStep2, Settings};
use crate::knock::{Attempt, Limits, Problem, Step};
use crate::service::front::crowd::{self, Bounds};
use crate::service::front::exchange::{Received, drain, receive, send};
use crate::service::front::listen::Ears;
use crate::service::front::reply::Reply;
use crate::service::front::sender::{Sender, may_speak, note_nobody};
use crate::service::link::{ANSWER, Answer, Ask, Front};
use crate::sys::tcp;
use crate::units::{ClientAddr, HttpPath};

/// From being accepted: the whole request has come; after [`ANSWER`] the connection is closed.
const REQUEST: Duration = Duration::from_secs(4);
const WHOLE: Duration = Duration::from_secs(5);
const BOUNDS: Bounds = Bounds { total: 256, per_client: 8 };

/// What the listener of step 2 knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step2Config {
    path: HttpPath,
    proxy: Option<Proxy>,
}

impl Step2Config {
    /// The part of the settings that is about step 2.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self { path: settings.global.https_post_path.clone(), proxy: settings.global.proxy.clone() }
    }
}

/// The certificate and all that TLS needs; none where TLS ends at a proxy.
pub type Tls = Option<Arc<ServerConfig>>;

/// Serves step 2 for ever, each connection by what is configured and with the certificate there is when it is
/// accepted; dropping it closes what is open.
pub async fn serve_step2(
    ears: Ears,
    tls: watch::Receiver<Tls>,
    config: watch::Receiver<Arc<Step2Config>>,
    link: Front,
) -> Infallible {
    let bounds = if config.borrow().proxy.is_some() { BOUNDS.for_proxy() } else { BOUNDS };
    crowd::serve(ears, bounds, |stream, peer| {
        let (config, link) = (Arc::clone(&config.borrow()), link.clone());
        let tls = tls.borrow().clone();
        may_speak(peer, config.proxy.as_ref(), "step 2").then_some(async move {
            let conversation = Conversation { peer, start: Instant::now(), config: &config, link: &link };
            if timeout_at(conversation.start + WHOLE, conversation.hold(stream, tls)).await.is_err() {
                tracing::debug!(%peer, "step 2: too slow");
            }
        })
    })
    .await
}

/// One connection and what it is served with.
#[derive(Clone, Copy)]
struct Conversation<'c> {
    peer: ClientAddr,
    start: Instant,
    config: &'c Step2Config,
    link: &'c Front,
}

impl Conversation<'_> {
    async fn hold(self, mut stream: TcpStream, tls: Tls) {
        let peer = self.peer;
        // The answer is one small write that nothing follows: waiting to fill a packet only delays it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "step 2: the answer may take longer");
        }
        let proxy = self.config.proxy.as_ref();
        let sender = match timeout_at(self.start + REQUEST, Sender::on(&mut stream, peer, proxy)).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(why)) => return note_nobody(peer, why, "step 2"),
            Err(_) => {
                tracing::debug!(%peer, "step 2: no header of the proxy in time");
                return;
            }
        };
        // In plain text with a proxy only, and nobody else gets this far where there is one.
        match (proxy.map_or(ProxyStep2::Https, |proxy| proxy.step2), tls) {
            (ProxyStep2::Http, _) => self.in_plain_text(stream, sender).await,
            (ProxyStep2::Https, Some(tls)) => self.over_tls(stream, sender, tls).await,
            (ProxyStep2::Https, None) => {
                tracing::error!("step 2 has no certificate: its clients are turned away");
            }
        }
    }

    async fn over_tls(self, stream: TcpStream, sender: Sender<'_>, tls: Arc<ServerConfig>) {
        let peer = self.peer;
        let accept = TlsAcceptor::from(tls).accept(stream).into_fallible();
        match timeout_at(self.start + REQUEST, accept).await {
            Ok(Ok(mut tls)) => {
                if self.exchange(&mut tls, sender, |_| false).await {
                    drain(tls.get_mut().0).await;
                }
            }
            Ok(Err((error, mut stream))) => {
                tracing::debug!(%peer, %error, "step 2: no TLS");
                if stream.shutdown().await.is_ok() {
                    drain(&mut stream).await;
                }
            }
            Err(_) => tracing::debug!(%peer, "step 2: no handshake in time"),
        }
    }

    async fn in_plain_text(self, mut stream: TcpStream, sender: Sender<'_>) {
        if self.exchange(&mut stream, sender, tcp::has_unread).await {
            drain(&mut stream).await;
        }
    }

    /// Reads a request, has it judged and answers it; false where there was nobody to answer.
    async fn exchange<S>(self, io: &mut S, sender: Sender<'_>, has_unread: impl Fn(&S) -> bool) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { peer, start, config, link } = self;
        let received =
            receive(io, std::slice::from_ref(&config.path), Limits::step2(), sender, start + REQUEST).await;
        let reply = match received {
            Received::Form(..) | Received::Nobody(_) if has_unread(io) => Reply::Problem(Problem::Malformed),
            Received::Form(client, form) => {
                let ask = link.ask(Ask::Knock(Attempt::of(client, Step::Two, form)));
                Reply::from(timeout_at(start + ANSWER, ask).await.unwrap_or(Answer::Unavailable))
            }
            Received::Nobody(why) => {
                note_nobody(peer, why, "step 2");
                Reply::Problem(Problem::Malformed)
            }
            Received::Problem(problem) => Reply::Problem(problem),
            Received::Silence => Reply::Problem(Problem::TooSlow),
            Received::Nothing => return false,
        };
        tracing::debug!(%peer, status = reply.status(), "step 2");
        send(io, reply).await.is_ok()
    }
}

#[cfg(test)]
#[path = "step2_tests.rs"]
mod tests;
