//! What this process may do and leave behind.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Keeps the process's memory, which holds secrets, out of core dumps and debuggers, and forbids it
/// and its children new privileges.
///
/// # Errors
/// When the kernel would not.
pub fn harden() -> Result<(), nix::Error> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()
}

/// How far up the line of parents is looked.
const GENERATIONS: usize = 32;

/// A variable of the environment of the nearest parent process that has it and can be read.
#[must_use]
pub fn variable_of_parents(name: &str) -> Option<String> {
    let mut pid = nix::unistd::getppid().as_raw();
    for _ in 0..GENERATIONS {
        if pid <= 1 {
            return None;
        }
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let found = environment.split(|&byte| byte == 0).find_map(|variable| {
            std::str::from_utf8(variable).ok()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        });
        if found.is_some() {
            return found;
        }
        // The name in brackets may hold anything; state and parent follow the last one.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        pid = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    }
    None
}
