//! What this process may do and leave behind.

#[cfg(feature = "client")]
use std::process::{Child, Command};
#[cfg(feature = "client")]
use std::time::Duration;
#[cfg(all(feature = "client", unix))]
use std::time::Instant;

#[cfg(feature = "gateway")]
use nix::sys::mman::{MlockAllFlags, mlockall};
#[cfg(target_os = "linux")]
use nix::sys::prctl;
#[cfg(feature = "gateway")]
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Has a program that was started end: it is asked to, and killed if it goes on for that long.
#[cfg(feature = "client")]
pub fn end(child: &mut Child, patience: Duration) {
    #[cfg(unix)]
    if let Ok(pid) = i32::try_from(child.id()) {
        use nix::sys::signal::{Signal, kill};
        // It has had a signal itself if that came from the terminal.
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // Nothing is asked elsewhere.
    #[cfg(not(unix))]
    let _ = patience;
    let _ = child.kill();
    let _ = child.wait();
}

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

/// Keeps from every process that this one starts what whoever started this one left open, beside the three that every
/// process has.
///
/// Kernels before Linux 5.11 do not know that flag of `close_range(2)`: there it is inherited.
#[cfg(feature = "gateway")]
#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper here")]
pub fn pass_nothing_on() {
    // SAFETY: nothing is closed here; descriptors are closed where another program begins.
    unsafe {
        nix::libc::syscall(nix::libc::SYS_close_range, 3_u32, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Gives up all capabilities for good: with [`harden`], nothing that this process starts gets any, not even for root.
///
/// # Errors
/// Those of `capset(2)`.
#[cfg(feature = "gateway")]
pub fn give_up_capabilities() -> std::io::Result<()> {
    set_capabilities(0)
}

/// Gives up all capabilities but that of changing the network; as root, also but those without which root is less than any
/// owner of files, and could leave none to the user that the daemon has at other times. What is not there is not made.
///
/// To be called before any other thread is started.
///
/// # Errors
/// Those of `capset(2)`.
#[cfg(feature = "gateway")]
pub fn keep_network_capability() -> std::io::Result<()> {
    let of_root = [CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH];
    let more: &[u32] = if nix::unistd::geteuid().is_root() { &of_root } else { &[] };
    let wanted = [NET_ADMIN, IPC_LOCK].iter().chain(more).fold(0, |set, number| set | 1_u64 << number);
    set_capabilities(wanted & capabilities("CapPrm"))
}

/// Gives up all capabilities but that of changing the network: for whoever touches no file, and ends no process but one of
/// its own user. What is not there is not made.
///
/// # Errors
/// Those of `capset(2)`.
#[cfg(feature = "gateway")]
pub fn keep_network_capability_alone() -> std::io::Result<()> {
    set_capabilities(1 << NET_ADMIN & capabilities("CapPrm"))
}

/// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`).
#[cfg(feature = "gateway")]
const VERSION_3: u32 = 0x2008_0522;

/// Whose capabilities (`struct __user_cap_header_struct`).
#[cfg(feature = "gateway")]
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Numbers of capabilities (`linux/capability.h`).
#[cfg(feature = "gateway")]
const CHOWN: u32 = 0;
#[cfg(feature = "gateway")]
const DAC_OVERRIDE: u32 = 1;
#[cfg(feature = "gateway")]
const DAC_READ_SEARCH: u32 = 2;
#[cfg(feature = "gateway")]
const NET_ADMIN: u32 = 12;
#[cfg(feature = "gateway")]
const IPC_LOCK: u32 = 14;

/// A set of capabilities of this process; nothing where it is not told.
#[cfg(feature = "gateway")]
fn capabilities(set: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
    found.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// Has these and no others, none of which a program that is started inherits.
#[cfg(feature = "gateway")]
fn set_capabilities(wanted: u64) -> std::io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    // Two of `struct __user_cap_data_struct`: effective, permitted, inheritable.
    let part = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    let sets = [part(wanted), part(wanted >> 32)].map(|bits| [bits, bits, 0]);
    // SAFETY: both point to structures of the layout that version 3 has, which live until the call is over.
    #[allow(unsafe_code)]
    let outcome = unsafe { nix::libc::syscall(nix::libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Whether a process has `CAP_NET_ADMIN`, in whatever user namespace it is. This tells also where `/proc` hides it
/// (`hidepid`, `proc(5)`).
///
/// # Errors
/// When there is no such process (`ESRCH`), or the kernel would not say.
#[cfg(feature = "gateway")]
pub fn has_net_admin(pid: i32) -> Result<bool, nix::Error> {
    let header = Header { version: VERSION_3, pid };
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: both point to structures of the layout that version 3 has, which live until the call is over.
    #[allow(unsafe_code)]
    let outcome = unsafe { nix::libc::syscall(nix::libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    nix::errno::Errno::result(outcome)?;
    let [[effective, ..], _] = sets;
    Ok(effective >> NET_ADMIN & 1 == 1)
}

/// Whether a process is in another user namespace; none where `/proc` hides it.
#[cfg(feature = "gateway")]
#[must_use]
pub fn is_elsewhere(pid: i32) -> Option<bool> {
    let map = |of: &str| std::fs::read_to_string(format!("/proc/{of}/uid_map")).ok();
    Some(map("self")? != map(&pid.to_string())?)
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
        || capabilities("CapEff") >> IPC_LOCK & 1 == 1;
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

/// Has a program killed when the thread that starts it ends, or its whole process.
#[cfg(feature = "gateway")]
#[expect(unsafe_code, reason = "says so before the program begins")]
pub fn end_with_us(command: &mut std::process::Command) {
    let ask = || end_with_parent().map_err(std::io::Error::from);
    // SAFETY: only async-signal-safe calls may be made between fork and exec; this is one system call, and an error number
    // becomes an error without memory being asked for.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, ask) };
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
