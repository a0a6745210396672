//! The life of the process that tells others.

use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::message::Message;
use super::order::{Order, Target, Way};
use super::ways;
#[cfg(feature = "notify")]
use super::{mail, webhook};
use crate::sys::{process, signals};

/// Events that wait for a target which is slow or not there.
const WAITING: usize = 256;
/// Before each further try.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];
/// For what is still to be told when nothing more comes.
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// A mail of the most events, a TLS connection, the authorities of the system and whois, several times: bytes.
const MEMORY_FOR_MAIL: u64 = 64 << 20;

/// A target as the one who reads events knows it.
struct Line {
    wants: Vec<String>,
    sender: SyncSender<Message>,
    missed: u64,
}

/// Reads an order and then events from standard input, and tells them until there are no more; false where it
/// could not begin. The caller has set up the log.
#[must_use]
pub fn tell() -> bool {
    process::take_name(c"knock-herald");
    // Whoever ends the daemon ends the whole group; this one has something to tell then.
    if signals::hold_endings().is_err()
        || process::harden(false).is_err()
        || process::give_up_capabilities().is_err()
    {
        return false;
    }
    let mut input = BufReader::new(io::stdin());
    let mut text = zeroize::Zeroizing::new(String::new());
    if input.read_line(&mut text).is_err() {
        return false;
    }
    let Ok(Order { host, targets }) = serde_json::from_str::<Order>(&text) else { return false };
    drop(text);
    // The library for mail keeps a line that a server sends until it ends, however long; programs get no such bound.
    let of_mail = targets.iter().all(|target| matches!(target.way, Way::Mail(_)));
    if of_mail && process::stay_small(MEMORY_FOR_MAIL).is_err() {
        return false;
    }
    let mut workers = Vec::new();
    let mut lines = Vec::new();
    for target in targets {
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        lines.push(Line { wants: target.events.clone(), sender, missed: 0 });
        let name = host.clone();
        workers.push(std::thread::spawn(move || work(&target, &receiver, &name)));
    }
    for line in input.lines() {
        let Ok(line) = line else { break };
        let Ok(mut message) = serde_json::from_str::<Message>(&line) else { continue };
        message.host.clone_from(&host);
        lines.iter_mut().for_each(|line| line.pass(&message));
    }
    drop(lines);
    wait(workers);
    true
}

impl Line {
    fn pass(&mut self, message: &Message) {
        if !self.wants.contains(&message.event) {
            return;
        }
        let missed = self.missed + message.missed.unwrap_or(0);
        let message = Message { missed: (missed > 0).then_some(missed), ..message.clone() };
        match self.sender.try_send(message) {
            Ok(()) => self.missed = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.missed = missed + 1,
        }
    }
}

/// Tells one target what it is to be told, one after the other.
fn work(target: &Target, receiver: &Receiver<Message>, host: &str) {
    let mut teller = match &target.way {
        Way::Exec { command, timeout } => ways::exec(command, *timeout),
        #[cfg(feature = "notify")]
        Way::Webhook { url, authorization, ca_file } => {
            webhook::webhook(url, authorization.as_ref().map(|text| text.as_str()), ca_file.as_deref())
        }
        #[cfg(feature = "notify")]
        Way::Mail(order) => return mail::work(order, receiver, host),
        #[cfg(not(feature = "notify"))]
        Way::Webhook { .. } | Way::Mail(_) => return tracing::error!(host, "this build tells programs only"),
    };
    while let Ok(message) = receiver.recv() {
        persist(|| teller(&message));
    }
}

/// Tries until it is done, a few times.
pub(super) fn persist(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut pauses = PAUSES.iter();
    while let Err(reason) = attempt() {
        match pauses.next() {
            Some(pause) => {
                tracing::debug!(reason, seconds = pause.as_secs(), "somebody was not told: tried again");
                std::thread::sleep(*pause);
            }
            None => {
                tracing::warn!(reason, "somebody was not told of an event");
                return;
            }
        }
    }
}

/// Until all have ended, but not for ever.
fn wait(workers: Vec<JoinHandle<()>>) {
    let end = Instant::now() + GRACE;
    while workers.iter().any(|worker| !worker.is_finished()) && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
}
