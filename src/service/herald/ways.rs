//! How programs are told.

use std::time::Duration;

use super::message::Message;
use crate::sys::command;

/// What is read of the output and of the complaints of a program each.
const OUTPUT: u64 = 64 << 10;
/// What is told of it.
const TOLD: usize = 200;

/// Something that tells of one event; the reason where it could not, without secrets.
pub(super) type Teller<'a> = Box<dyn FnMut(&Message) -> Result<(), String> + 'a>;

/// Runs a program for each event.
pub(super) fn exec(words: &[String], timeout: Duration) -> Teller<'_> {
    Box::new(move |message| {
        let line = format!("{}\n", serde_json::to_string(message).map_err(|error| error.to_string())?);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = words.first().copied().unwrap_or_default();
        let done = command::run_bounded(&words, &line, timeout, OUTPUT)
            .map_err(|error| format!("{program}: {error}"))?;
        if done.status.success() {
            return Ok(());
        }
        let complaint: String =
            done.complaints.lines().next().unwrap_or_default().chars().take(TOLD).collect();
        Err(format!("{program}: {} {complaint}", done.status))
    })
}
