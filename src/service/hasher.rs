//! Compares keys that people chose with their hashes: one at a time, in a thread of its own, because each takes
//! milliseconds and megabytes.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::{mpsc, oneshot};

use super::link::Answer;
use crate::knock::Attempt;
use crate::units::Secret;

/// Comparisons that may wait of those who got in before, and as many of strangers.
const WAITING: usize = 4;

/// A comparison to be made.
pub(super) struct Job {
    /// The attempt it is about.
    pub attempt: Attempt,
    /// The hash in the PHC string format.
    pub hash: Secret,
    /// The key that was presented.
    pub key: Secret,
    /// Who waits for the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// A comparison that has been made.
pub(super) struct Hashed {
    pub attempt: Attempt,
    /// What the key was compared with.
    pub hash: Secret,
    pub fits: bool,
    pub answer: oneshot::Sender<Answer>,
}

/// Whose comparison it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Somebody's who got in as that user before: the next.
    First,
    /// A stranger's.
    Later,
}

/// Where comparisons wait.
struct Queues {
    first: SyncSender<Job>,
    later: SyncSender<Job>,
    /// One for each that waits in either.
    bell: SyncSender<()>,
}

/// The thread, started when it is first needed.
pub(super) struct Hasher {
    queues: Option<Queues>,
    done: mpsc::Receiver<Hashed>,
    told: mpsc::Sender<Hashed>,
}

impl Default for Hasher {
    fn default() -> Self {
        let (told, done) = mpsc::channel(WAITING);
        Self { queues: None, done, told }
    }
}

impl Hasher {
    /// Has a comparison made; gives it back where too many wait already.
    pub(super) fn start(&mut self, job: Job, turn: Turn) -> Option<Job> {
        if self.queues.is_none() {
            self.queues = spawn(self.told.clone());
        }
        match &self.queues {
            Some(queues) => queues.put(job, turn),
            None => Some(job),
        }
    }

    /// The next comparison that has been made; may be dropped and called again without loss.
    pub(super) async fn next(&mut self) -> Hashed {
        match self.done.recv().await {
            Some(hashed) => hashed,
            // Never: a sender of it is kept here.
            None => std::future::pending().await,
        }
    }
}

impl Queues {
    fn put(&self, job: Job, turn: Turn) -> Option<Job> {
        let queue = match turn {
            Turn::First => &self.first,
            Turn::Later => &self.later,
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = queue.try_send(job) {
            return Some(job);
        }
        // There is room for one of each that can wait.
        let _ = self.bell.try_send(());
        None
    }
}

fn spawn(told: mpsc::Sender<Hashed>) -> Option<Queues> {
    let ((first, known), (later, strangers)) = (sync_channel(WAITING), sync_channel(WAITING));
    let (bell, rings) = sync_channel(2 * WAITING);
    let work = move || {
        while let Some(Job { attempt, hash, key, answer }) = next(&rings, &known, &strangers) {
            let fits = fits(&hash, &key);
            if told.blocking_send(Hashed { attempt, hash, fits, answer }).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("hasher".to_owned()).spawn(work);
    thread
        .map(|_| Queues { first, later, bell })
        .inspect_err(|error| tracing::error!(%error, "keys cannot be compared with their hashes"))
        .ok()
}

/// The next job, when there is one; none when nobody can bring any.
fn next(rings: &Receiver<()>, known: &Receiver<Job>, strangers: &Receiver<Job>) -> Option<Job> {
    rings.recv().ok()?;
    known.try_recv().or_else(|_| strangers.try_recv()).ok()
}

fn fits(hash: &Secret, key: &Secret) -> bool {
    PasswordHash::new(hash.expose())
        .is_ok_and(|hash| Argon2::default().verify_password(key.expose().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn only_the_key_that_was_hashed_fits() {
        // echo -n 'correct horse' | argon2 saltsalt -id -t 1 -k 64 -p 1 -e
        let hash =
            secret("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y");
        assert!(fits(&hash, &secret("correct horse")));
        assert!(!fits(&hash, &secret("correct horsf")));
        assert!(!fits(&secret("$argon2id$v=19$m=64,t=1,p=1$!$!"), &secret("correct horse")));
    }

    #[test]
    fn strangers_who_wait_neither_hold_up_who_got_in_before_nor_take_their_room() {
        let ((first, known), (later, strangers)) = (sync_channel(WAITING), sync_channel(WAITING));
        let (bell, rings) = sync_channel(2 * WAITING);
        let queues = Queues { first, later, bell };
        let job = |user: usize| Job {
            attempt: Attempt {
                client: crate::units::ClientAddr::new([192, 0, 2, 1].into()),
                step: crate::knock::Step::One,
                app: "ssh".to_owned(),
                credential: crate::knock::Credential::Key(secret("a-key-of-mine")),
                user: Some(user.to_string()),
                token: None,
                duration: None,
                action: crate::knock::Action::Open,
            },
            hash: secret(""),
            key: secret(""),
            answer: oneshot::channel().0,
        };
        for (from, turn) in [(10, Turn::Later), (20, Turn::First)] {
            let left = (from..from + 9).filter_map(|user| queues.put(job(user), turn)).count();
            assert_eq!(left, 9 - WAITING);
        }
        drop(queues);
        let order = std::iter::from_fn(|| next(&rings, &known, &strangers)?.attempt.user);
        assert_eq!(order.collect::<Vec<_>>(), ["20", "21", "22", "23", "10", "11", "12", "13"]);
    }
}
