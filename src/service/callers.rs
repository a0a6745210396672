//! Who calls on the control socket: so many are served at a time, and root is not kept waiting by others.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::control::{Call, Failure, REQUEST, Reply, Request};
use super::on_disk::{OnDisk, ailment};
use crate::sys::users;

/// Connections that are heard at a time; as many again for root.
const SEATS: usize = 16;
/// Connections of one user that are heard or wait to be.
const OF_ONE_USER: usize = 64;
/// The same for root, who runs what grants to many at once.
const OF_ROOT: usize = 512;
/// How long somebody may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long while others wait: who calls asks at once.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(1);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_millis(200);
/// How long somebody may take to read what may be a million grants,
const READING: Duration = Duration::from_secs(60);
/// and how long may pass in which nothing of it is read.
const PAUSE: Duration = Duration::from_secs(5);
/// So much is given to who reads, at a time.
const PIECE: usize = 1 << 16;
/// Lists of all that stands open, which may be some hundred megabytes each, that are made or read at a time.
const LISTS: usize = 2;

/// Those who call, by user.
type Present = Mutex<BTreeMap<u32, usize>>;

/// Where callers wait and are heard.
struct Room {
    seats: Semaphore,
    waiting: AtomicUsize,
    lists: Semaphore,
}

impl Room {
    fn new() -> Arc<Self> {
        let (seats, lists) = (Semaphore::new(SEATS), Semaphore::new(LISTS));
        Arc::new(Self { seats, waiting: AtomicUsize::new(0), lists })
    }

    fn is_asked_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Who calls.
struct Caller {
    cred: UCred,
    may_rule: bool,
}

impl Caller {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        // Asked at once: the number of a process that has ended may soon be another's.
        Ok(Self { cred, may_rule: users::may_rule(cred.uid(), cred.pid()) })
    }
}

/// A connection of a user, counted as long as it lasts.
struct Guest {
    uid: u32,
    present: Arc<Present>,
}

impl Guest {
    /// None where the user has too many already.
    fn admitted(uid: u32, present: &Arc<Present>) -> Option<Self> {
        let mut counts = present.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        let most = if uid == 0 { OF_ROOT } else { OF_ONE_USER };
        (*count < most).then(|| {
            *count += 1;
            Self { uid, present: Arc::clone(present) }
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// Serves operators until the calls' receiver is gone.
pub(super) async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, on_disk: OnDisk) {
    let (of_root, of_others, present) = (Room::new(), Room::new(), Arc::<Present>::default());
    while !calls.is_closed() {
        let called = listener.accept().await.and_then(|(stream, _)| Ok((Caller::of(&stream)?, stream)));
        let (peer, stream) = match called {
            Ok(called) => called,
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // Whoever has so many gets no answer.
        let Some(guest) = Guest::admitted(peer.cred.uid(), &present) else { continue };
        let room = Arc::clone(if peer.cred.uid() == 0 { &of_root } else { &of_others });
        let (calls, on_disk) = (calls.clone(), on_disk.clone());
        tokio::spawn(async move {
            if let Err(error) = attend(stream, peer, &room, (calls, on_disk)).await {
                tracing::debug!(%error, "a control connection failed");
            }
            drop(guest);
        });
    }
}

async fn attend(
    stream: UnixStream,
    peer: Caller,
    room: &Room,
    (calls, on_disk): (mpsc::Sender<Call>, OnDisk),
) -> io::Result<()> {
    room.waiting.fetch_add(1, Ordering::Relaxed);
    let seat = room.seats.acquire().await;
    room.waiting.fetch_sub(1, Ordering::Relaxed);
    let Ok(seat) = seat else { return Ok(()) };
    let caller = stream.as_fd().try_clone_to_owned()?;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut asked = BufReader::new(reader.take(REQUEST));
    heard(asked.read_line(&mut line), room).await?;
    let request = match understood(&line, &peer) {
        Ok(request) => request,
        Err(refusal) => return tell(&refusal, &mut writer).await,
    };
    // Who waits for a long list, or does not read it, takes no seat of those who ask for something else.
    let _list = match request {
        Request::Status {} => {
            drop(seat);
            Some(room.lists.acquire().await.map_err(io::Error::other)?)
        }
        _ => None,
    };
    let mut reply = answer(request, users::name(peer.cred.uid()), caller, calls).await;
    compare(&mut reply, &on_disk).await;
    tell(&reply, &mut writer).await
}

/// Writes a reply to somebody who reads it.
async fn tell(reply: &Reply, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut text = serde_json::to_string(reply).map_err(io::Error::other)?;
    text.push('\n');
    timeout(READING, async {
        for piece in text.as_bytes().chunks(PIECE) {
            timeout(PAUSE, writer.write_all(piece)).await??;
        }
        writer.shutdown().await
    })
    .await?
}

/// Waits for what somebody asks: not long while others wait.
async fn heard(asked: impl Future<Output = io::Result<usize>>, room: &Room) -> io::Result<usize> {
    let begun = Instant::now();
    let mut asked = std::pin::pin!(asked);
    loop {
        match timeout(LOOK, &mut asked).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                let patience = if room.is_asked_for() { PATIENCE_WITH_OTHERS } else { PATIENCE };
                if begun.elapsed() >= patience {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// Adds what the enforcer does not look at, as the disk may keep it waiting.
async fn compare(reply: &mut Reply, on_disk: &OnDisk) {
    match reply {
        Reply::Explained { recalled } => recalled.newer = on_disk.newer().await.map(Box::new),
        Reply::Health { problems, by_flags, .. } => {
            *by_flags = on_disk.is_of_flags();
            problems.extend(on_disk.newer().await.as_ref().map(ailment));
        }
        Reply::Status { status } => {
            if let Some(standing) = &mut status.daemon {
                standing.configuration.newer = on_disk.newer().await;
                standing.problems.extend(standing.configuration.newer.as_ref().map(ailment));
            }
        }
        Reply::Done { .. } | Reply::Failed { .. } | Reply::Figures(_) => {}
    }
}

fn failed(failure: Failure, message: String) -> Reply {
    Reply::Failed { failure, message }
}

/// What is asked by somebody who may ask it; else what there is to say about it.
fn understood(line: &str, peer: &Caller) -> Result<Request, Box<Reply>> {
    let user = users::name(peer.cred.uid());
    let refused = |failure, message| Err(Box::new(failed(failure, message)));
    if !users::may_operate(peer.cred.uid(), peer.cred.gid()) {
        tracing::warn!(user, "refused on the control socket");
        let message = format!("{user} may not do this: it takes root or a member of group {}", users::GROUP);
        return refused(Failure::Permission, message);
    }
    match serde_json::from_str(line) {
        Ok(request) if Request::is_for_root(&request) && !peer.may_rule => {
            tracing::warn!(user, "somebody asked for what only root may: refused");
            let message =
                format!("{user} may not do this: it takes root, as it is about the guard as a whole");
            refused(Failure::Permission, message)
        }
        Ok(request) => Ok(request),
        Err(error) => refused(Failure::Request, format!("the request cannot be read: {error}")),
    }
}

async fn answer(request: Request, user: String, caller: OwnedFd, calls: mpsc::Sender<Call>) -> Reply {
    let (reply, replied) = oneshot::channel();
    let asked = calls.send(Call { request, user, reply, caller: Some(caller) }).await.is_ok();
    match (asked, replied.await) {
        (true, Ok(reply)) => reply,
        (false, _) | (_, Err(_)) => failed(Failure::Unavailable, "the daemon is stopping".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_takes_only_so_many_connections_and_nobody_else_s() {
        let present = Arc::<Present>::default();
        let all: Vec<Guest> = std::iter::from_fn(|| Guest::admitted(7, &present)).collect();
        assert_eq!(all.len(), OF_ONE_USER);
        let (root, other) = (Guest::admitted(0, &present), Guest::admitted(8, &present));
        assert!(root.is_some() && other.is_some());
        drop((all, root, other));
        assert!(present.lock().unwrap().is_empty(), "nothing is remembered of who went");
    }
}
