//! What this process may do and leave behind.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Keeps the process's memory, which holds secrets, out of core dumps and debuggers, and forbids it
/// and its children new privileges, unless it has to run sudo.
///
/// # Errors
/// When the kernel would not.
pub fn harden(runs_sudo: bool) -> Result<(), nix::Error> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    if runs_sudo { Ok(()) } else { prctl::set_no_new_privs() }
}
