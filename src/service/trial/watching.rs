//! The process that waits beside the daemon.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::{ENDED, GRACE, LEAVE, Order, PUT_BACK, READY};
use crate::backend::{BackendError, Firewall};
use crate::service::snapshot::Snapshot;
use crate::service::taken::{Deed, Taken};
use crate::sys::{clock, process, signals};

/// What it is told of what has ended.
pub(super) fn line(deed: &Deed) -> Option<Vec<u8>> {
    let text = serde_json::to_vec(deed).ok()?;
    Some([&[ENDED][..], &text, b"\n"].concat())
}

/// The life of the process that waits: true if all is as it should be then.
#[must_use]
pub fn watch() -> bool {
    // Whoever ends the daemon ends the whole group; this one has something to do then.
    if signals::hold_endings().is_err()
        || process::harden(false).is_err()
        || process::keep_network_capability_alone().is_err()
    {
        return false;
    }
    let daemon = getppid();
    let mut pipe = BufReader::new(io::stdin());
    let mut text = zeroize::Zeroizing::new(String::new());
    // The daemon gave up before it changed anything.
    if pipe.read_line(&mut text).is_err() || text.is_empty() {
        return true;
    }
    let Ok(mut order) = serde_json::from_str::<Order<Snapshot>>(&text) else { return false };
    let Ok(mut firewall) = Firewall::nftables() else { return false };
    let mut out = io::stdout();
    if writeln!(out, "{READY}").and_then(|()| out.flush()).is_err() {
        return false;
    }
    if is_to_be_left(&mut pipe, Duration::from_secs(order.seconds), daemon, &mut order.before.taken) {
        return true;
    }
    put_back(&order.before, &mut firewall).is_ok()
}

/// Waits for what the daemon says; one that has not ended in time is ended, as it would put back what is changed under it.
fn is_to_be_left(pipe: &mut BufReader<io::Stdin>, limit: Duration, daemon: Pid, taken: &mut Taken) -> bool {
    let last_word = told(pipe, limit + GRACE, taken).or_else(|| {
        if getppid() == daemon {
            let _ = kill(daemon, Signal::SIGKILL);
        }
        // An operator may have been told just before that it stays.
        told(pipe, GRACE, taken)
    });
    last_word == Some(LEAVE)
}

pub(super) fn put_back(before: &Snapshot, firewall: &mut Firewall) -> Result<bool, BackendError> {
    let mut result = before.put_back(firewall, clock::now());
    // A daemon that is just ending may be putting right what it takes for a fault.
    for _ in 0..20 {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
        result = before.put_back(firewall, clock::now());
    }
    result
}

/// The last of what the daemon said by now, also where it ended without a word; none when the time is over. What ended
/// is noted.
fn told(pipe: &mut BufReader<impl io::Read + AsFd>, limit: Duration, taken: &mut Taken) -> Option<u8> {
    let end = Instant::now() + limit;
    let mut last = None;
    loop {
        if pipe.buffer().is_empty() {
            // Whatever was said, something may have been said after it.
            let left =
                if last.is_some() { Duration::ZERO } else { end.saturating_duration_since(Instant::now()) };
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut fds = [PollFd::new(pipe.get_ref().as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(0) if left.is_zero() => return last,
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => return Some(PUT_BACK),
            }
        }
        let mut line = Vec::new();
        if pipe.read_until(b'\n', &mut line).is_err() {
            return Some(PUT_BACK);
        }
        match line.split_first() {
            None => return last.or(Some(PUT_BACK)),
            // One that was ended half-way says nothing.
            Some((&ENDED, text)) => {
                let _ = serde_json::from_slice(text).map(|deed: Deed| taken.note(&deed));
            }
            Some((&word, _)) => last = Some(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;
    use crate::service::taken::Keys;

    #[test]
    fn the_last_word_counts_and_what_ended_is_noted() {
        let mut all = Taken::default();
        let deed = Deed::Took(Keys::from([("app_ssh_4".to_owned(), [vec![203, 0, 113, 2]].into())]));
        assert!(all.note(&deed));
        let took = line(&deed).unwrap();
        let said = |parts: &[&[u8]]| {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(&parts.concat()).unwrap();
            let (mut taken, mut reader) = (Taken::default(), BufReader::new(reader));
            let open = told(&mut reader, Duration::ZERO, &mut taken);
            drop(writer);
            (open, told(&mut reader, Duration::ZERO, &mut taken), taken == all)
        };
        assert_eq!(said(&[]), (None, Some(PUT_BACK), false));
        assert_eq!(said(&[&took]), (None, Some(PUT_BACK), true));
        assert_eq!(said(&[&took, b"c\n"]), (Some(LEAVE), Some(PUT_BACK), true));
        assert_eq!(said(&[b"b\n", &took, b"c\n"]).0, Some(LEAVE));
        assert_eq!(said(&[b"c\n", b"b\n"]).0, Some(PUT_BACK));
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(&[&took, &took[..9]].concat()).unwrap();
        drop(writer);
        let mut taken = Taken::default();
        assert_eq!(told(&mut BufReader::new(reader), Duration::ZERO, &mut taken), Some(PUT_BACK));
        assert_eq!(taken, all);
    }
}
