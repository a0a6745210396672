//! What a sealed process tries in vain: each attempt in a process of its own, which the kernel ends at it.
#![expect(unsafe_code, reason = "whoever took over a process makes the calls that no library makes")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::libc;

const ATTEMPT: &str = "KNOCK_AGENT_TEST_ATTEMPT";
/// What was open when the process was sealed.
static LISTENER: OnceLock<TcpListener> = OnceLock::new();
static CONNECTION: OnceLock<TcpStream> = OnceLock::new();

type Attempt = (&'static str, fn());

/// What the front does all day.
const ALLOWED: &[Attempt] = &[
    ("nothing", || {}),
    ("accept", || {
        let (stream, _) = LISTENER.get().unwrap().accept().unwrap();
        stream.set_nodelay(true).unwrap();
        (&stream).write_all(b"x").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }),
];

/// What neither role does.
const FORBIDDEN: &[Attempt] = &[
    ("tcp-fast-open", || {
        // A listener that is shut down is a socket like any other; it was never connected.
        let listener = LISTENER.get().unwrap().as_raw_fd();
        let anywhere = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 9_u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: all pointers are to values of their length that live until the calls are over.
        unsafe {
            libc::shutdown(listener, libc::SHUT_RDWR);
            libc::sendto(
                listener,
                b"x".as_ptr().cast(),
                1,
                libc::MSG_FASTOPEN,
                (&raw const anywhere).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            );
        }
    }),
    ("tcp-fast-open-sendmsg", || {
        // SAFETY: a message of nothing, to nobody.
        unsafe {
            let message: libc::msghdr = std::mem::zeroed();
            libc::sendmsg(LISTENER.get().unwrap().as_raw_fd(), &raw const message, libc::MSG_FASTOPEN);
        }
    }),
    ("internet-socket", || drop(TcpListener::bind(("127.0.0.1", 0)))),
    ("program", || drop(Command::new("/bin/true").status())),
    ("signal", || drop(nix::sys::signal::kill(nix::unistd::getppid(), None))),
    ("trace", || {
        // SAFETY: no pointers.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
    }),
    ("new-code", || memory(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)),
];

/// What the front does not do, and the enforcer may.
const FORBIDDEN_TO_FRONT: &[Attempt] = &[
    ("file", || drop(std::fs::File::open("/etc/hostname"))),
    ("connect", || drop(TcpStream::connect(("127.0.0.1", 9)))),
    ("thread", || drop(std::thread::Builder::new().spawn(|| {}))),
    ("duplicate", || drop(LISTENER.get().unwrap().try_clone())),
    ("filter-in-the-kernel", || option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER)),
    ("other-protocol", || option(libc::IPPROTO_TCP, libc::TCP_ULP)),
    ("any-code", || memory(libc::PROT_READ | libc::PROT_EXEC)),
];

fn option(level: libc::c_int, name: libc::c_int) {
    let nothing = [0_u8; 16];
    // SAFETY: the kernel reads these bytes and finds them wrong.
    unsafe {
        libc::setsockopt(CONNECTION.get().unwrap().as_raw_fd(), level, name, nothing.as_ptr().cast(), 16);
    }
}

fn memory(protection: libc::c_int) {
    // SAFETY: new memory, which nobody uses.
    unsafe {
        libc::mmap(std::ptr::null_mut(), 4_096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    }
}

fn all() -> impl Iterator<Item = &'static Attempt> {
    ALLOWED.iter().chain(FORBIDDEN).chain(FORBIDDEN_TO_FRONT)
}

/// What became of an attempt of one of this test program's own kind: its exit code, or the signal that ended it.
fn tried(role: &str, attempt: &str) -> (Option<i32>, Option<i32>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "sys::seal::attempts::in_a_process_of_its_own",
        "--test-threads=1",
        "--nocapture",
    ]);
    let status = command.env(ATTEMPT, format!("{role} {attempt}")).output().unwrap().status;
    (status.code(), status.signal())
}

/// The other end of the tests below; without their variable, nothing.
#[test]
fn in_a_process_of_its_own() {
    let Ok(wanted) = std::env::var(ATTEMPT) else { return };
    let (role, wanted) = wanted.split_once(' ').unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    CONNECTION.set(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
    LISTENER.set(listener).unwrap();
    crate::sys::process::harden(false).unwrap();
    let sealed = if role == "front" { super::front() } else { super::enforcer(&[]) };
    assert!(sealed.unwrap().seccomp);
    let (_, attempt) = all().find(|(name, _)| *name == wanted).unwrap();
    attempt();
    std::process::exit(42);
}

#[test]
fn a_sealed_process_answers_who_connects_and_lives() {
    for (attempt, _) in ALLOWED {
        for role in ["front", "enforcer"] {
            assert_eq!(tried(role, attempt), (Some(42), None), "{role}: {attempt}");
        }
    }
}

#[test]
fn a_sealed_front_that_tries_anything_else_is_ended() {
    for (attempt, _) in FORBIDDEN.iter().chain(FORBIDDEN_TO_FRONT) {
        assert_eq!(tried("front", attempt), (None, Some(libc::SIGSYS)), "{attempt}");
    }
}

#[test]
fn a_sealed_enforcer_that_tries_to_start_a_program_or_a_connection_is_ended() {
    for (attempt, _) in FORBIDDEN {
        assert_eq!(tried("enforcer", attempt), (None, Some(libc::SIGSYS)), "{attempt}");
    }
    // It reads files, and has threads.
    for attempt in ["file", "thread"] {
        assert_eq!(tried("enforcer", attempt), (Some(42), None), "{attempt}");
    }
}
