use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::{Settings, Step1Reply};
use crate::knock::{Limits, Problem, Step};
use crate::service::front::crowd::{self, Bounds};
use crate::service::front::exchange::{Received, attempt, drain, receive, send};
use crate::service::front::reply::Reply;
use crate::service::link::{Answer, Ask, Front};
use crate::sys::tcp;
use crate::units::{ClientAddr, HttpPath};

/// From being accepted to being closed, nothing takes longer; the last second is for the answer.
const REQUEST: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(4);
const BOUNDS: Bounds = Bounds { total: 256, per_client: 16 };

/// What the listener of step 1 knows.
#[derive(Clone, Debug)]
pub struct Step1Config {
    path: HttpPath,
    reply: Step1Reply,
    limits: Limits,
}

impl Step1Config {
    /// The part of the settings that is about step 1.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            path: settings.global.http_post_path.clone(),
            reply: settings.global.step1_reply,
            limits: Limits::step1(settings.global.step1_max_bytes),
        }
    }
}

/// Serves step 1 for ever, each connection by what is configured when it is accepted; dropping it closes what
/// is open.
pub async fn serve_step1(
    listener: TcpListener,
    config: watch::Receiver<Arc<Step1Config>>,
    link: Front,
) -> Infallible {
    crowd::serve(listener, BOUNDS, |stream, client| {
        let (config, link) = (Arc::clone(&config.borrow()), link.clone());
        async move {
            match config.reply {
                Step1Reply::Silent => listen_in_silence(stream, client, &config, &link).await,
                Step1Reply::Http => answer(stream, client, &config, &link).await,
            }
        }
    })
    .await
}

/// Reads, passes on what is right, and is gone: not a byte is written, whatever came.
async fn listen_in_silence(mut stream: TcpStream, client: ClientAddr, config: &Step1Config, link: &Front) {
    // Before anything is awaited, so that every way out closes like this, being dropped included.
    if let Err(error) = tcp::close_abruptly(&stream) {
        tracing::debug!(%client, %error, "step 1: the connection cannot be closed in silence");
        return;
    }
    let conversation = async {
        match hear(&mut stream, config).await {
            Received::Form(form) => {
                let answer = link.ask(Ask::Knock(attempt(client, Step::One, form))).await;
                tracing::debug!(%client, ?answer, "step 1");
            }
            Received::Problem(problem) => tracing::debug!(%client, ?problem, "step 1: no knock"),
            Received::Nothing => tracing::debug!(%client, "step 1: nothing came"),
        }
    };
    if timeout_at(Instant::now() + REQUEST, conversation).await.is_err() {
        tracing::debug!(%client, "step 1: too slow");
    }
}

/// The variant that answers those who know the path.
async fn answer(mut stream: TcpStream, client: ClientAddr, config: &Step1Config, link: &Front) {
    let start = Instant::now();
    let conversation = async {
        let received = timeout_at(start + REQUEST, hear(&mut stream, config)).await;
        let reply = match received.unwrap_or(Received::Problem(Problem::TooSlow)) {
            Received::Form(form) => {
                let asked =
                    timeout_at(start + REQUEST, link.ask(Ask::Knock(attempt(client, Step::One, form))));
                Reply::from(asked.await.unwrap_or(Answer::Unavailable))
            }
            Received::Problem(problem) => Reply::Problem(problem),
            Received::Nothing => return,
        };
        tracing::debug!(%client, status = reply.status(), "step 1");
        if send(&mut stream, reply).await.is_ok() {
            drain(&mut stream).await;
        }
    };
    if timeout_at(start + WHOLE, conversation).await.is_err() {
        tracing::debug!(%client, "step 1: too slow");
    }
}

async fn hear(stream: &mut TcpStream, config: &Step1Config) -> Received {
    match receive(stream, &config.path, config.limits).await {
        // The runtime may not know yet that more has arrived; the kernel does.
        Received::Form(_) if tcp::has_unread(stream) => Received::Problem(Problem::Malformed),
        received => received,
    }
}

#[cfg(test)]
#[path = "step1_tests.rs"]
mod tests;
