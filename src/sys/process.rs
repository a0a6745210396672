//! What this process may do and leave behind.

#[cfg(feature = "client")]
use std::process::Command;

#[cfg(target_os = "linux")]
use nix::sys::prctl;
#[cfg(feature = "gateway")]
use nix::sys::resource::{Resource, setrlimit};

/// Keeps the process's memory, which holds secrets, out of core dumps and debuggers, and forbids it
/// and its children new privileges.
///
/// # Errors
/// When the kernel would not.
#[cfg(feature = "gateway")]
pub fn harden() -> Result<(), nix::Error> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()
}

/// Keeps the process's memory out of core dumps and debuggers, where the system can do that; programs that it
/// starts are as free as ever.
///
/// # Errors
/// When the kernel would not.
#[cfg(feature = "client")]
pub fn conceal() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Becomes another program; comes back only where that fails.
#[cfg(all(feature = "client", unix))]
#[must_use]
pub fn become_program(mut command: Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(&mut command)
}

/// Runs another program and ends as it does; comes back only where that fails.
#[cfg(all(feature = "client", not(unix)))]
#[must_use]
pub fn become_program(mut command: Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
