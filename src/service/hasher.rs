//! Compares keys that people chose with their hashes: one at a time, in a thread of its own, because each takes
//! milliseconds and megabytes.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::{mpsc, oneshot};

use super::link::Answer;
use crate::knock::Attempt;
use crate::units::Secret;

/// Comparisons that may wait.
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

/// The thread, started when it is first needed.
pub(super) struct Hasher {
    jobs: Option<SyncSender<Job>>,
    done: mpsc::Receiver<Hashed>,
    told: mpsc::Sender<Hashed>,
}

impl Default for Hasher {
    fn default() -> Self {
        let (told, done) = mpsc::channel(WAITING);
        Self { jobs: None, done, told }
    }
}

impl Hasher {
    /// Has a comparison made; the client is turned away where too many wait already.
    pub(super) fn start(&mut self, job: Job) {
        if self.jobs.is_none() {
            self.jobs = spawn(self.told.clone());
        }
        let Some(jobs) = &self.jobs else {
            let _ = job.answer.send(Answer::Unavailable);
            return;
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = jobs.try_send(job) {
            let _ = job.answer.send(Answer::TooMany);
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

fn spawn(told: mpsc::Sender<Hashed>) -> Option<SyncSender<Job>> {
    let (jobs, waiting) = sync_channel::<Job>(WAITING);
    let work = move || {
        for Job { attempt, hash, key, answer } in waiting {
            let fits = fits(&hash, &key);
            if told.blocking_send(Hashed { attempt, hash, fits, answer }).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("hasher".to_owned()).spawn(work);
    thread
        .map(|_| jobs)
        .inspect_err(|error| tracing::error!(%error, "keys cannot be compared with their hashes"))
        .ok()
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
}
