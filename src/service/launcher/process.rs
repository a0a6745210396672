//! The life of the process that starts others.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use super::{DONE, END_FRONT, FRONT, NOT_DONE, PROGRAM, RUNNING, TELLER};
use crate::service::{front, herald};
use crate::sys::{handover, process, resident, signals};

/// Starts what it is told to until the daemon is gone, and ends the front then; false where it could not begin.
#[must_use]
pub fn launch(level: &str) -> bool {
    process::take_name(c"knock-launcher");
    // Whoever ends the daemon ends the whole group; this one ends with the daemon.
    if signals::hold_endings().is_err()
        || process::harden(false).is_err()
        || process::give_up_capabilities().is_err()
    {
        return false;
    }
    let Ok(mut socket) = handover::inherited() else { return false };
    let mut running = None;
    let mut order = [0];
    while let Ok((1, descriptors)) = handover::receive(&socket, &mut order) {
        let outcome = carry_out(order, descriptors, level, &mut running);
        if reply(&mut socket, outcome).is_err() {
            break;
        }
        // It waits from now on, for years perhaps.
        resident::give_back_start();
    }
    end(&mut running);
    true
}

fn carry_out(
    order: [u8; 1],
    descriptors: Vec<OwnedFd>,
    level: &str,
    running: &mut Option<Child>,
) -> io::Result<i32> {
    let mut descriptors = descriptors.into_iter();
    match (order, descriptors.next(), descriptors.next()) {
        ([FRONT], Some(link), Some(log)) => {
            end(running);
            let mut command = program(front::FRONT, level);
            // It needs nothing of the environment, so it gets nothing.
            command.env_clear().stdin(Stdio::from(link)).stderr(Stdio::from(log));
            *running = Some(command.spawn()?);
            Ok(0)
        }
        ([TELLER], Some(input), None) => {
            let mut child = program(herald::TELLER, level).stdin(Stdio::from(input)).spawn()?;
            // It ends by itself when nothing more comes, of which somebody has to take note.
            thread::Builder::new().spawn(move || child.wait())?;
            Ok(0)
        }
        ([END_FRONT], None, None) => Ok(end(running).map_or(RUNNING, ExitStatus::into_raw)),
        _ => Err(io::Error::from_raw_os_error(nix::libc::EINVAL)),
    }
}

fn program(role: &str, level: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(PROGRAM).arg(role).arg(level).current_dir("/").stdout(Stdio::null());
    command
}

/// How it ended, if that was before.
fn end(running: &mut Option<Child>) -> Option<ExitStatus> {
    let mut child = running.take()?;
    let _ = child.kill();
    // One that was ending keeps its own reason.
    child.wait().ok().filter(|status| status.signal() != Some(nix::libc::SIGKILL))
}

fn reply(socket: &mut UnixStream, outcome: io::Result<i32>) -> io::Result<()> {
    let (word, code) = match outcome {
        Ok(status) => (DONE, status),
        Err(error) => (NOT_DONE, error.raw_os_error().unwrap_or(nix::libc::EIO)),
    };
    let mut bytes = vec![word];
    bytes.extend(code.to_be_bytes());
    socket.write_all(&bytes)
}
