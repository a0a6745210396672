//! What a person types.

use std::io::{self, BufRead};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::units::Secret;

/// Reads a line from standard input, a terminal, without showing it.
///
/// # Errors
/// The reason; the terminal shows what is typed again in any case.
pub fn read_secret() -> io::Result<Secret> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
    let mut line = zeroize::Zeroizing::new(String::with_capacity(256));
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSANOW, &before)?;
    if read? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed"));
    }
    Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
