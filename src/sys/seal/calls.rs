//! Which system calls each role makes. What is not named ends the process at once, so that nobody can try around.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Role;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What any program of Rust's makes: memory, locks, time, its own end.
const ALWAYS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
];

/// Open sockets and pipes, and waiting for them.
const STREAMS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_writev,
];
#[cfg(target_arch = "x86_64")]
const STREAMS_OF_OLD: &[i64] = &[libc::SYS_accept, libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const STREAMS_OF_OLD: &[i64] = &[];

/// Files, sockets of one's own, threads, users and groups as the C library looks them up.
const ENFORCER: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_capget,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getppid,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_readlinkat,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
#[cfg(target_arch = "x86_64")]
const ENFORCER_OF_OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ENFORCER_OF_OLD: &[i64] = &[];

/// Sending, with the place of its flags: with one of them a socket that is open becomes a connection to anywhere
/// (`MSG_FASTOPEN`, `tcp(7)`), without `connect(2)`, and landlock does not hear of it.
const SENDING: &[(i64, u8)] = &[(libc::SYS_sendmmsg, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendto, 3)];

/// Changing the mode of a file, with its place: landlock has no say in that, and a mode can make a program run as its owner.
const MODES: &[(i64, u8)] = &[(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2)];
#[cfg(target_arch = "x86_64")]
const MODES_OF_OLD: &[(i64, u8)] = &[(libc::SYS_chmod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MODES_OF_OLD: &[(i64, u8)] = &[];
/// `S_ISUID` and `S_ISGID` (`inode(7)`).
const RUN_AS_ANOTHER: libc::c_int = 0o6000;

/// Where `mmap(2)` and `mprotect(2)` have the protection, and `clone(2)` its flags.
const PROTECTION: u8 = 2;
const FLAGS: u8 = 0;

/// Requests of `ioctl(2)` that descriptors of any kind know (`asm-generic/ioctls.h`, the same on these machines).
const FIONBIO: libc::c_int = 0x5421;
const FIOCLEX: libc::c_int = 0x5451;
const FIONREAD: libc::c_int = 0x541b;
const TCGETS: libc::c_int = 0x5401;
/// Names and numbers of interfaces (`linux/sockios.h`).
const SIOCGIFNAME: libc::c_int = 0x8910;
const SIOCGIFINDEX: libc::c_int = 0x8933;
/// Names of threads and memory; what modules that look up users ask when they are loaded.
const PRCTL: [libc::c_int; 5] =
    [libc::PR_SET_NAME, libc::PR_GET_NAME, PR_SET_VMA, libc::PR_CAPBSET_READ, libc::PR_GET_SECCOMP];
/// With which the C library names memory (`linux/prctl.h`).
const PR_SET_VMA: libc::c_int = 0x5356_4d41;

/// The programs for the kernel, all of which hold.
pub(super) fn programs(role: Role) -> Result<Vec<BpfProgram>, BackendError> {
    let mut rules: Rules = [ALWAYS, STREAMS, STREAMS_OF_OLD].concat().into_iter().map(always).collect();
    // Only the writing half: a listener, which the next front is to have, is not ended by that.
    rules.insert(libc::SYS_shutdown, any_of(1, &[libc::SHUT_WR])?);
    let mut programs = Vec::new();
    match role {
        Role::Front => {
            let never_executable = vec![without(PROTECTION, libc::PROT_EXEC)?];
            rules.insert(libc::SYS_mmap, never_executable.clone());
            rules.insert(libc::SYS_mprotect, never_executable);
            // Whether a descriptor waits, and nothing that makes another one.
            rules.insert(libc::SYS_fcntl, any_of(1, &[libc::F_GETFD, libc::F_GETFL, libc::F_SETFL])?);
            rules.insert(libc::SYS_ioctl, any_of(1, &[FIONBIO, FIONREAD])?);
            rules.insert(libc::SYS_fstat, Vec::new());
            // Bytes alone: whoever is handed a socket (SCM_RIGHTS) and drops it may have to wait for its end.
            let plain = !(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
            rules.insert(libc::SYS_sendto, vec![without(3, plain)?]);
            // How its connections send and end; no filters or other programs for the kernel, no other protocols above TCP.
            let options = [(libc::SOL_SOCKET, libc::SO_LINGER), (libc::IPPROTO_TCP, libc::TCP_NODELAY)];
            rules.insert(libc::SYS_setsockopt, options.into_iter().map(option).collect::<Result<_, _>>()?);
        }
        Role::Enforcer => {
            rules.extend([ENFORCER, ENFORCER_OF_OLD].concat().into_iter().map(always));
            rules.insert(libc::SYS_setsockopt, Vec::new());
            rules.insert(libc::SYS_shutdown, Vec::new());
            for (call, flags) in SENDING {
                rules.insert(*call, vec![without(*flags, libc::MSG_FASTOPEN)?]);
            }
            for (call, mode) in [MODES, MODES_OF_OLD].concat() {
                rules.insert(call, vec![without(mode, RUN_AS_ANOTHER)?]);
            }
            // Modules of the C library that look up users may be loaded; what is written is never run.
            let not_both =
                vec![without(PROTECTION, libc::PROT_WRITE)?, without(PROTECTION, libc::PROT_EXEC)?];
            rules.insert(libc::SYS_mmap, not_both.clone());
            rules.insert(libc::SYS_mprotect, not_both);
            rules.insert(libc::SYS_socket, Vec::new());
            rules.insert(
                libc::SYS_ioctl,
                any_of(1, &[FIONBIO, FIOCLEX, FIONREAD, TCGETS, SIOCGIFNAME, SIOCGIFINDEX])?,
            );
            // Threads, and no processes.
            let thread = libc::CLONE_THREAD as u64;
            let is_thread = SeccompCondition::new(
                FLAGS,
                SeccompCmpArgLen::Qword,
                SeccompCmpOp::MaskedEq(thread),
                thread,
            )?;
            rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
            rules.insert(libc::SYS_clone3, Vec::new());
            rules.insert(libc::SYS_prctl, any_of(0, &PRCTL)?);
            programs.push(without_clone3()?);
            programs.push(without_internet()?);
        }
    }
    programs.push(compiled(rules, SeccompAction::KillProcess, SeccompAction::Allow)?);
    Ok(programs)
}

/// Its flags are in memory, where no filter sees them: the C library takes `clone(2)` where this is not there.
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    compiled(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

/// No socket but local ones and netlink. A module that looks users up may try, and does without.
fn without_internet() -> Result<BpfProgram, BackendError> {
    let others = |family: libc::c_int| {
        let family = u64::from(family.cast_unsigned());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let neither = SeccompRule::new(vec![others(libc::AF_UNIX)?, others(libc::AF_NETLINK)?])?;
    let rules = Rules::from([(libc::SYS_socket, vec![neither])]);
    compiled(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EAFNOSUPPORT as u32))
}

fn compiled(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, others, these, TargetArch::try_from(std::env::consts::ARCH)?)?.try_into()
}

fn always(call: i64) -> (i64, Vec<SeccompRule>) {
    (call, Vec::new())
}

/// An argument without any of these bits.
fn without(argument: u8, bit: libc::c_int) -> Result<SeccompRule, BackendError> {
    let mask = SeccompCmpOp::MaskedEq(u64::from(bit.cast_unsigned()));
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, 0)?])
}

/// An option of `setsockopt(2)`, by its level and name.
fn option((level, name): (libc::c_int, libc::c_int)) -> Result<SeccompRule, BackendError> {
    let equal = |argument: u8, value: libc::c_int| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    SeccompRule::new(vec![equal(1, level)?, equal(2, name)?])
}

/// An argument that is one of these.
fn any_of(argument: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    let equal = |value: &libc::c_int| {
        let value = u64::from(value.cast_unsigned());
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![condition])
    };
    values.iter().map(equal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_programs_of_this_size() {
        for role in [Role::Front, Role::Enforcer] {
            for program in programs(role).unwrap() {
                assert!((2..4_096).contains(&program.len()), "BPF_MAXINSNS, linux/bpf_common.h");
            }
        }
    }
}
