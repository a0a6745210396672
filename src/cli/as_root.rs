//! What sudo starts for a daemon that is not root (`--use-sudo`): iptables' programs, with its standard input where that may be.

use std::io::{self, Read, Write};

use crate::backend::iptables::as_root;
use crate::cli::{Exit, Printer};

/// More than the commands for a million elements.
const MAX_INPUT: u64 = 256 << 20;

/// Runs what these words say, as if it were started directly.
pub(super) fn run(words: &[String]) -> Exit {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = input().map_err(|error| format!("standard input: {error}"));
    let outcome = outcome.and_then(|input| as_root::run(&words, &input).map_err(|error| error.to_string()));
    match outcome {
        Ok(done) => {
            let written = io::stdout().write_all(done.output.as_bytes());
            let told = io::stderr().write_all(done.complaints.as_bytes());
            let code = done.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            if written.and(told).is_err() { Exit::Io } else { Exit::Other(code) }
        }
        Err(reason) => {
            let mut err = Printer::stderr();
            err.line(format!("knock-agent: {reason}"));
            err.finish(Exit::NoPermission)
        }
    }
}

fn input() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}
