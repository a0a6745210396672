use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::{Proxy, Settings, Step1Reply};
use crate::knock::{Attempt, Limits, Problem, Step};
use crate::service::front::crowd::{self, Bounds, Heard};
use crate::service::front::exchange::{Received, drain, receive, send};
use crate::service::front::listen::Ears;
use crate::service::front::reply::Reply;
use crate::service::front::sender::{Sender, may_speak, note_nobody};
use crate::service::link::{Answer, Ask, Front};
use crate::sys::tcp;
use crate::units::{ClientAddr, HttpPath};

/// From being accepted to being closed, nothing takes longer; the last second is for the answer.
const REQUEST: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(4);
const BOUNDS: Bounds = Bounds { total: 256, per_client: 16 };

/// What the listener of step 1 knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step1Config {
    paths: Vec<HttpPath>,
    reply: Step1Reply,
    limits: Limits,
    proxy: Option<Proxy>,
}

impl Step1Config {
    /// The part of the settings that is about step 1.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let global = &settings.global;
        Self {
            paths: global.step1_paths.clone(),
            reply: global.step1_reply,
            limits: match global.proxy {
                None => Limits::step1(global.step1_max_bytes),
                Some(_) => Limits::step1_behind_proxy(global.step1_max_bytes),
            },
            proxy: global.proxy.clone(),
        }
    }
}

/// Serves step 1 for ever, each connection by what is configured when it is accepted; dropping it closes what
/// is open.
pub async fn serve_step1(ears: Ears, config: watch::Receiver<Arc<Step1Config>>, link: Front) -> Infallible {
    let bounds = if config.borrow().proxy.is_some() { BOUNDS.for_proxy() } else { BOUNDS };
    crowd::serve(ears, bounds, |stream, peer, heard| {
        let (config, link) = (Arc::clone(&config.borrow()), link.clone());
        // The kernel has waited for it, unless it had too many to wait for.
        if tcp::has_unread(&stream) {
            heard.note();
        }
        may_speak(peer, config.proxy.as_ref(), "step 1").then_some(async move {
            match (config.reply, &config.proxy) {
                (Step1Reply::Silent, None) => listen_in_silence(stream, peer, &heard, &config, &link).await,
                (Step1Reply::Http, _) | (_, Some(_)) => answer(stream, peer, &heard, &config, &link).await,
            }
        })
    })
    .await
}

/// Waits until something comes, and notes it.
async fn await_first_byte(stream: &TcpStream, heard: &Heard, until: Instant) {
    if timeout_at(until, stream.readable()).await.is_ok() {
        heard.note();
    }
}

/// Reads, passes on what is right, and is gone: not a byte is written, whatever came.
async fn listen_in_silence(
    mut stream: TcpStream,
    client: ClientAddr,
    heard: &Heard,
    config: &Step1Config,
    link: &Front,
) {
    // Before anything is awaited, so that every way out closes like this, being dropped included.
    if let Err(error) = tcp::close_abruptly(&stream) {
        tracing::debug!(%client, %error, "step 1: the connection cannot be closed in silence");
        return;
    }
    let until = Instant::now() + REQUEST;
    let conversation = async {
        await_first_byte(&stream, heard, until).await;
        match hear(&mut stream, config, Sender::Known(client), until).await {
            Received::Form(client, form) => {
                let answer = link.ask(Ask::Knock(Attempt::of(client, Step::One, form))).await;
                tracing::debug!(%client, ?answer, "step 1");
            }
            Received::Problem(problem) => tracing::debug!(%client, ?problem, "step 1: no knock"),
            Received::Nobody(why) => note_nobody(client, why, "step 1"),
            Received::Nothing | Received::Silence => tracing::debug!(%client, "step 1: nothing came"),
        }
    };
    if timeout_at(until, conversation).await.is_err() {
        tracing::debug!(%client, "step 1: too slow");
    }
}

/// The variant that answers those who know the path.
async fn answer(mut stream: TcpStream, peer: ClientAddr, heard: &Heard, config: &Step1Config, link: &Front) {
    let start = Instant::now();
    let conversation = async {
        let until = start + REQUEST;
        await_first_byte(&stream, heard, until).await;
        let sender = match timeout_at(until, Sender::on(&mut stream, peer, config.proxy.as_ref())).await {
            Ok(Ok(sender)) => sender,
            // Whoever does not speak the protocol of the proxy has no use for an answer.
            Ok(Err(why)) => return note_nobody(peer, why, "step 1"),
            Err(_) => return tracing::debug!(%peer, "step 1: no header of the proxy in time"),
        };
        let reply = match hear(&mut stream, config, sender, until).await {
            Received::Form(client, form) => {
                let asked = timeout_at(until, link.ask(Ask::Knock(Attempt::of(client, Step::One, form))));
                Reply::from(asked.await.unwrap_or(Answer::Unavailable))
            }
            Received::Nobody(why) => {
                note_nobody(peer, why, "step 1");
                Reply::Problem(Problem::Malformed)
            }
            Received::Problem(problem) => Reply::Problem(problem),
            // The kernel lets through what begins with the path: who sends nothing does not know it.
            Received::Nothing | Received::Silence => return,
        };
        tracing::debug!(%peer, status = reply.status(), "step 1");
        if send(&mut stream, reply).await.is_ok() {
            drain(&mut stream).await;
        }
    };
    if timeout_at(start + WHOLE, conversation).await.is_err() {
        tracing::debug!(%peer, "step 1: too slow");
    }
}

async fn hear(stream: &mut TcpStream, config: &Step1Config, sender: Sender<'_>, until: Instant) -> Received {
    match receive(stream, &config.paths, config.limits, sender, until).await {
        // The runtime may not know yet that more has arrived; the kernel does.
        Received::Form(..) | Received::Nobody(_) if tcp::has_unread(stream) => {
            Received::Problem(Problem::Malformed)
        }
        received => received,
    }
}

#[cfg(test)]
#[path = "step1_tests.rs"]
mod tests;
