//! What the front logs. It comes through a pipe, and is passed on as what the front says: a front in somebody else's
//! hands could say anything, but neither in another's name nor without end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::units::is_invisible;

/// What is kept of a line, in bytes.
const LONGEST: u64 = 512;
/// Lines that are passed on at once.
const BURST: u32 = 200;
/// After them, lines in a minute: a front that is well has hardly any.
const A_MINUTE: u32 = 60;
/// The same where a line for each request is wanted (`--log-level debug`).
const A_MINUTE_IN_DETAIL: u32 = 6_000;
/// The wait before the next line that is too many, or the next so many bytes of one that has no end.
const PAUSE: Duration = Duration::from_millis(10);
const UNSEEN: usize = 4_096;
/// How often it is told that lines are missing.
const TELL: Duration = Duration::from_secs(60);

/// Passes on lines until there are no more, as far as the budget goes.
pub(super) async fn pass_on(log: pipe::Receiver, budget: Arc<Mutex<Budget>>) {
    let mut log = BufReader::new(log);
    while let Some(line) = next_line(&mut log).await {
        let (missing, says) = budget.lock().unwrap_or_else(PoisonError::into_inner).spend(Instant::now());
        if let Some(missing) = missing {
            tracing::warn!(lines = missing, "the front logged more than is passed on");
        }
        match says {
            true => say(&line),
            // Whoever logs without end waits for it; where each request has a line, that would be clients.
            false if !tracing::enabled!(tracing::Level::DEBUG) => sleep(PAUSE).await,
            false => yield_now().await,
        }
    }
}

/// What fronts may say, one after the other: they could be made to fill the disk.
pub(super) struct Budget {
    a_minute: u32,
    /// Parts of lines that may be said now.
    left: u64,
    /// Up to when `left` was reckoned.
    at: Instant,
    missing: u64,
    told: Option<Instant>,
}

/// One line: what a rate of one line a minute has after a minute, reckoned in milliseconds.
const LINE: u64 = 60_000;

impl Budget {
    /// A whole one, as of now.
    pub(super) fn new(now: Instant) -> Self {
        let detailed = tracing::enabled!(tracing::Level::DEBUG);
        let a_minute = if detailed { A_MINUTE_IN_DETAIL } else { A_MINUTE };
        Self { a_minute, left: u64::from(BURST) * LINE, at: now, missing: 0, told: None }
    }

    /// How many lines are missing, where it is time to tell, and whether another one may be said.
    fn spend(&mut self, now: Instant) -> (Option<u64>, bool) {
        let passed = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at += Duration::from_millis(passed);
        let more = passed.saturating_mul(u64::from(self.a_minute));
        self.left = self.left.saturating_add(more).min(u64::from(BURST) * LINE);
        let left = self.left.checked_sub(LINE);
        match left {
            Some(left) => self.left = left,
            None => self.missing += 1,
        }
        let is_time = self.missing > 0 && self.told.is_none_or(|told| now.duration_since(told) >= TELL);
        let missing = is_time.then(|| std::mem::take(&mut self.missing));
        if is_time {
            self.told = Some(now);
        }
        (missing, left.is_some())
    }
}

async fn next_line(log: &mut BufReader<pipe::Receiver>) -> Option<String> {
    let mut line = Vec::new();
    let mut unseen = 0_usize;
    loop {
        let byte = log.read_u8().await.ok();
        match byte {
            None if line.is_empty() => return None,
            None | Some(b'\n') => return Some(plain(&line)),
            Some(byte) if (line.len() as u64) < LONGEST => line.push(byte),
            Some(_) => {
                unseen += 1;
                if unseen.is_multiple_of(UNSEEN) {
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One line of text, whatever it was.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a terminal or a reader does something else with it than show it: controls, ends of lines, directions.
fn obeyed(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

fn say(line: &str) {
    let line = line.trim_start();
    let (level, text) = line.split_once(' ').unwrap_or(("", line));
    match level {
        "TRACE" => tracing::trace!("front: {}", text.trim_start()),
        "DEBUG" => tracing::debug!("front: {}", text.trim_start()),
        "INFO" => tracing::info!("front: {}", text.trim_start()),
        "ERROR" => tracing::error!("front: {}", text.trim_start()),
        "WARN" => tracing::warn!("front: {}", text.trim_start()),
        _ => tracing::warn!("front: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_of_text() {
        assert_eq!(plain(b"a\rb\x1b[31mc\xff"), "a\u{fffd}b\u{fffd}[31mc\u{fffd}");
        assert_eq!(plain("a\u{2028}b\u{202e}c".as_bytes()), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn a_front_without_end_fills_no_disk() {
        let start = Instant::now();
        let mut budget = Budget { a_minute: A_MINUTE, ..Budget::new(start) };
        let mut said = 0;
        let mut told = Vec::new();
        // An hour of a hundred lines a second.
        for at in 0..360_000_u64 {
            let (missing, says) = budget.spend(start + Duration::from_millis(at * 10));
            said += u64::from(says);
            told.extend(missing);
        }
        assert_eq!(said, u64::from(BURST) + 60 * u64::from(A_MINUTE) - 1);
        assert!((59..=60).contains(&told.len()), "told {} times", told.len());
        assert_eq!(said + told.iter().sum::<u64>() + budget.missing, 360_000);
        // Whoever is quiet meanwhile has it all again.
        let later = start + Duration::from_secs(7_200);
        assert!((0..BURST).all(|_| budget.spend(later).1));
        assert!(!budget.spend(later).1);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        use tokio::io::AsyncWriteExt;
        let (mut writer, reader) = pipe::pipe().unwrap();
        let writing = tokio::spawn(async move {
            writer.write_all(&vec![b'x'; 100_000]).await.unwrap();
            writer.write_all(b"\nnext\nlast").await.unwrap();
        });
        let mut log = BufReader::new(reader);
        assert_eq!(next_line(&mut log).await.unwrap().len() as u64, LONGEST);
        assert_eq!(next_line(&mut log).await.unwrap(), "next");
        assert_eq!(next_line(&mut log).await.unwrap(), "last");
        assert_eq!(next_line(&mut log).await, None);
        writing.await.unwrap();
    }
}
