//! The life of the process that hears strangers.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::step2::Tls;
use super::{Ears, Step1Config, Step2Config, serve_step1, serve_step2};
use crate::service::certificate::server_config;
use crate::service::link::frame::{FromFront, ToFront, hear_enforcer, say};
use crate::service::link::serving::Serving;
use crate::service::link::{self, Answer, Ask, MOST_ASKS, Pending};
use crate::sys::{handover, process, resident, seal, signals};

/// The first argument of this process; not for people.
pub const FRONT: &str = "hear-strangers";

/// Hundreds of connections take some megabytes: bytes.
const MEMORY: u64 = 256 << 20;

/// Messages of the enforcer that wait to be heeded.
const HEARD: usize = 16;

/// Serves both steps until the daemon is gone; false where it cannot. The caller has set up the log.
#[must_use]
pub fn front() -> bool {
    match begin() {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "the listeners of both steps end");
            false
        }
    }
}

fn begin() -> io::Result<()> {
    process::take_name(c"knock-front");
    signals::hold_endings()?;
    process::harden(false)?;
    process::give_up_capabilities()?;
    process::end_with_parent()?;
    process::stay_small(MEMORY)?;
    let _ = process::lock_memory();
    let link = handover::inherited()?;
    let (step1, step2) = listeners(&link)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let (step1, step2) = (Ears::from_listeners(step1)?, Ears::from_listeners(step2)?);
    link.set_nonblocking(true)?;
    let link = tokio::net::UnixStream::from_std(link)?;
    // Before anything that a stranger sent is read, or a key.
    let sealed = seal::front().map_err(io::Error::other)?;
    tracing::debug!(%sealed, "the front is sealed");
    runtime.block_on(serve(link, step1, step2))
}

/// The sockets that listen, which the daemon opened: so many of step 1, the others of step 2.
fn listeners(link: &UnixStream) -> io::Result<(Vec<TcpListener>, Vec<TcpListener>)> {
    let mut of_step1 = [0];
    let (count, descriptors) = handover::receive(link, &mut of_step1)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut step1: Vec<TcpListener> = descriptors.into_iter().map(TcpListener::from).collect();
    let step2 = step1.split_off(usize::from(of_step1[0]).min(step1.len()));
    Ok((step1, step2))
}

/// What the listeners are served with, to be changed.
struct Served {
    step1: watch::Sender<Arc<Step1Config>>,
    step2: watch::Sender<Arc<Step2Config>>,
    tls: watch::Sender<Tls>,
}

async fn serve(link: tokio::net::UnixStream, step1: Ears, step2: Ears) -> io::Result<()> {
    let (reader, mut writer) = link.into_split();
    let mut heard = listen(reader);
    let Some(first) = heard.recv().await else { return Ok(()) };
    let ToFront::Serve(serving) = first? else { return Err(io::ErrorKind::InvalidData.into()) };
    let tls = tls(&serving)?;
    let (step1_sender, config1) = watch::channel(Arc::clone(&serving.step1));
    let (step2_sender, config2) = watch::channel(Arc::clone(&serving.step2));
    let (tls_sender, tls) = watch::channel(tls);
    let served = Served { step1: step1_sender, step2: step2_sender, tls: tls_sender };
    let (front, asks) = link::pair();
    let for_step1 = front.clone();
    let ears = [
        tokio::spawn(async move { match serve_step1(step1, config1, for_step1).await {} }),
        tokio::spawn(async move { match serve_step2(step2, tls, config2, front).await {} }),
    ];
    say(&mut writer, FromFront::Taken(serving.version).to_bytes()).await?;
    tokio::spawn(resident::give_back_start_twice());
    let [ear1, ear2] = ears;
    // A task, as to wake what the runtime was begun with takes it system calls.
    let link = tokio::spawn(async move { converse(heard, asks, writer, &served, serving.version).await });
    tokio::select! {
        ended = link => ended.unwrap_or_else(|error| Err(io::Error::other(error))),
        _ = ear1 => Err(io::Error::other("step 1 ended unexpectedly: this is a bug")),
        _ = ear2 => Err(io::Error::other("step 2 ended unexpectedly: this is a bug")),
    }
}

/// Reads what the enforcer says, in a task of its own, because a message that is half read cannot be dropped.
fn listen(mut reader: OwnedReadHalf) -> mpsc::Receiver<io::Result<ToFront>> {
    let (sender, heard) = mpsc::channel(HEARD);
    tokio::spawn(async move {
        while let Some(message) = hear_enforcer(&mut reader).await.transpose() {
            let failed = message.is_err();
            if sender.send(message).await.is_err() || failed {
                return;
            }
        }
    });
    heard
}

/// Passes on asks and answers until the other end is gone.
async fn converse(
    mut heard: mpsc::Receiver<io::Result<ToFront>>,
    mut asks: mpsc::Receiver<Pending>,
    mut writer: OwnedWriteHalf,
    served: &Served,
    first: u32,
) -> io::Result<()> {
    let mut waiting: HashMap<u32, oneshot::Sender<Answer>> = HashMap::new();
    let mut next = 0_u32;
    let mut version = first;
    loop {
        tokio::select! {
            message = heard.recv() => match message.transpose()? {
                None => return Ok(()),
                Some(ToFront::Answer(id, answer)) => {
                    // A client that went away misses its answer.
                    let _ = waiting.remove(&id).map(|client| client.send(answer));
                }
                Some(ToFront::Serve(serving)) => {
                    served.tls.send_replace(tls(&serving)?);
                    served.step1.send_replace(Arc::clone(&serving.step1));
                    served.step2.send_replace(Arc::clone(&serving.step2));
                    version = serving.version;
                    say(&mut writer, FromFront::Taken(version).to_bytes()).await?;
                    resident::give_back_work();
                }
                Some(ToFront::AreYouListening) => {
                    say(&mut writer, FromFront::Taken(version).to_bytes()).await?;
                }
            },
            Some(pending) = asks.recv(), if waiting.len() < MOST_ASKS => {
                let (Ask::Knock(attempt), client) = pending.split();
                say(&mut writer, FromFront::Ask(next, Box::new(attempt)).to_bytes()).await?;
                waiting.insert(next, client);
                next = next.wrapping_add(1);
            }
        }
    }
}

fn tls(serving: &Serving) -> io::Result<Tls> {
    let config = serving.pem.as_ref().map(|pem| server_config(&pem.chain, &pem.key));
    config.transpose().map_err(io::Error::other)
}
