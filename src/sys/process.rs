//! What this process may do and leave behind.

#[cfg(feature = "client")]
use std::process::Command;

#[cfg(feature = "gateway")]
use nix::sys::mman::{MlockAllFlags, mlockall};
#[cfg(target_os = "linux")]
use nix::sys::prctl;
#[cfg(feature = "gateway")]
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Keeps the process's memory, which holds secrets, out of core dumps and debuggers, and forbids it
/// and its children new privileges, unless it has to run sudo.
///
/// # Errors
/// When the kernel would not.
#[cfg(feature = "gateway")]
pub fn harden(runs_sudo: bool) -> Result<(), nix::Error> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    if runs_sudo { Ok(()) } else { prctl::set_no_new_privs() }
}

/// Gives up all capabilities for good: with [`harden`], nothing that this process starts gets any, not even for root.
///
/// # Errors
/// Those of `capset(2)`.
#[cfg(feature = "gateway")]
pub fn give_up_capabilities() -> std::io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`).
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    // Two of `struct __user_cap_data_struct`: effective, permitted, inheritable.
    let none = [[0_u32; 3]; 2];
    // SAFETY: both point to structures of the layout that version 3 has, which live until the call is over.
    #[allow(unsafe_code)]
    let outcome = unsafe { nix::libc::syscall(nix::libc::SYS_capset, &raw const header, none.as_ptr()) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Keeps all memory, which holds secrets, out of swap space: where it may lock as much as it likes (`LimitMEMLOCK=infinity`, which those
/// that it starts inherit, or `CAP_IPC_LOCK`). Where a limit would have it want memory in vain later, nothing is locked and this is
/// false.
#[cfg(feature = "gateway")]
#[must_use]
pub fn lock_memory() -> bool {
    let all = nix::libc::RLIM_INFINITY;
    let unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, all, all).is_ok()
        || getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == all)
        || has_capability(IPC_LOCK);
    // What is not used yet is locked when it is: the process does not grow by being locked.
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    unlimited && mlockall(flags | on_fault).is_ok()
}

/// Bounds what memory this process can ask for, in bytes, and has it be the first to go where the host has none left.
///
/// # Errors
/// When the kernel would not.
#[cfg(feature = "gateway")]
pub fn stay_small(bytes: u64) -> Result<(), nix::Error> {
    setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?;
    // To be more likely to go takes no privilege (proc(5)); where /proc is read-only, it is as it was.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}

/// The memory of this process that is not swapped out, in bytes (`proc(5)`).
#[cfg(feature = "gateway")]
#[must_use]
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// `CAP_IPC_LOCK` (`linux/capability.h`).
#[cfg(feature = "gateway")]
const IPC_LOCK: u32 = 14;

/// Whether a capability is in force.
#[cfg(feature = "gateway")]
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> number & 1 == 1)
}

/// Gives this process a name for `ps` and `top`: at most 15 bytes, else that of the program's file.
#[cfg(feature = "gateway")]
pub fn take_name(name: &std::ffi::CStr) {
    let _ = prctl::set_name(name);
}

/// Has this process killed when the one that started it ends.
///
/// # Errors
/// When the kernel would not.
#[cfg(feature = "gateway")]
pub fn end_with_parent() -> Result<(), nix::Error> {
    prctl::set_pdeathsig(Some(nix::sys::signal::Signal::SIGKILL))
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

/// How far up the line of parents is looked.
#[cfg(feature = "gateway")]
const GENERATIONS: usize = 32;

/// A variable of the environment of the nearest parent process that has it and can be read.
#[cfg(feature = "gateway")]
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
