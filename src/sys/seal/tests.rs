//! What a sealed process can do, tried by processes of their own on this kernel.
#![expect(unsafe_code, reason = "system calls that no safe function makes")]

use super::*;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::libc;

/// Tells a process of the test which role it plays, and what it tries then.
const ROLE: &str = "SEALED_ROLE";
const DEED: &str = "SEALED_DEED";
/// Where it may write, if it may at all.
const FOLDER: &str = "SEALED_FOLDER";
/// What it says when it could.
const COULD: i32 = 40;
/// When it could not, and lives.
const COULD_NOT: i32 = 41;

/// A process of this test seals itself and tries something: how it ends.
fn attempt(role: &str, deed: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    let folder = std::env::temp_dir().join(format!("sealed-{}-{role}-{deed}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let done = Command::new(program)
        .args(["--exact", "sys::seal::tests::what_a_sealed_process_tries", "--ignored", "--test-threads=1"])
        .env(ROLE, role)
        .env(DEED, deed)
        .env(FOLDER, &folder)
        .current_dir("/")
        .output();
    fs::remove_dir_all(&folder).unwrap();
    done.unwrap().status
}

#[test]
#[ignore = "not for people: a process that the other tests start"]
fn what_a_sealed_process_tries() {
    let (Ok(role), Ok(deed)) = (std::env::var(ROLE), std::env::var(DEED)) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let folder = std::path::PathBuf::from(std::env::var(FOLDER).unwrap());
    nix::sys::prctl::set_no_new_privs().unwrap();
    let sealed = match role.as_str() {
        "front" => front(),
        _ => enforcer(&[&folder]),
    };
    assert_eq!(sealed.unwrap(), Sealed { landlock: true, seccomp: true });
    let could = match deed.as_str() {
        "talk" => {
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).is_ok()
        }
        "memory" => vec![1_u8; 64 << 20].iter().any(|&byte| byte == 1),
        "read" => fs::read("/etc/passwd").is_ok(),
        "write" => fs::write("/tmp/sealed-must-not-be", "x").is_ok(),
        "write-below" => {
            let (first, second) = (folder.join("a"), folder.join("b"));
            fs::write(&first, "x").is_ok() && fs::rename(&first, &second).is_ok()
        }
        "remove" => fs::remove_file("/etc/hostname").is_ok(),
        "list" => fs::read_dir("/").is_ok(),
        "tcp" => TcpListener::bind("127.0.0.1:0").is_ok(),
        "connect" => TcpStream::connect(listener.local_addr().unwrap()).is_ok(),
        "everything" => do_everything(&folder),
        "hand-over" => {
            let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            crate::sys::handover::send(&one, b"x", &[std::os::fd::AsFd::as_fd(&client)]).is_ok()
        }
        "out-of-band" => raw4(libc::SYS_sendto, [client.as_raw_fd(), 0, 0, libc::MSG_OOB]),
        "mode" => crate::sys::files::set_mode(&folder, 0o700).is_ok(),
        "mode-elsewhere" => raw(libc::SYS_chmod, [0, 0o4777, 0]),
        "owner" => nix::unistd::chown(&folder, None, None).is_ok(),
        "end-writing" => client.shutdown(std::net::Shutdown::Write).is_ok(),
        "end-listening" => raw(libc::SYS_shutdown, [listener.as_raw_fd(), libc::SHUT_RD, 0]),
        "fast-open" => fast_open(&listener),
        "fast-open-message" => {
            let message = [listener.as_raw_fd(), 0, libc::MSG_FASTOPEN];
            raw(libc::SYS_sendmsg, message)
        }
        "kernel-filter" => option(&client, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        "protocol-above-tcp" => option(&client, libc::IPPROTO_TCP, libc::TCP_ULP),
        "no-delay" => client.set_nodelay(true).is_ok(),
        "udp" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        "local" => std::os::unix::net::UnixDatagram::unbound().is_ok(),
        "raw" => raw(libc::SYS_socket, [libc::AF_PACKET, libc::SOCK_RAW, 0]),
        "netlink" => raw(libc::SYS_socket, [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER]),
        "exec" => Command::new("/bin/true").status().is_ok(),
        "exec-here" => raw(libc::SYS_execve, [0, 0, 0]),
        "fork" => raw(libc::SYS_clone, [libc::SIGCHLD, 0, 0]),
        "thread" => std::thread::spawn(|| 1).join().is_ok(),
        "kill" => raw(libc::SYS_kill, [nix::unistd::getppid().as_raw(), 0, 0]),
        "ptrace" => raw(libc::SYS_ptrace, [nix::unistd::getppid().as_raw(), 0, 0]),
        "steal" => raw(libc::SYS_pidfd_open, [nix::unistd::getppid().as_raw(), 0, 0]),
        "read-memory" => raw(libc::SYS_process_vm_readv, [nix::unistd::getppid().as_raw(), 0, 0]),
        "run-data" => map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC),
        "run" => map(libc::PROT_READ | libc::PROT_EXEC),
        "namespace" => raw(libc::SYS_unshare, [libc::CLONE_NEWUSER, 0, 0]),
        "bpf" => raw(libc::SYS_bpf, [0, 0, 0]),
        "ring" => raw(libc::SYS_io_uring_setup, [1, 0, 0]),
        "keys" => raw(libc::SYS_keyctl, [0, 0, 0]),
        "module" => raw(libc::SYS_init_module, [0, 0, 0]),
        other => panic!("{other} is not known"),
    };
    std::process::exit(if could { COULD } else { COULD_NOT });
}

fn raw4(call: libc::c_long, [first, second, third, fourth]: [libc::c_int; 4]) -> bool {
    // SAFETY: as above.
    unsafe { libc::syscall(call, first, second, third, fourth) >= 0 }
}

/// What the daemon calls while it runs: whether each is carried out matters less than that it does not end the process.
fn do_everything(folder: &Path) -> bool {
    use crate::sys::{calendar, clock, files, flows, interfaces, listeners, netlink, notify, packet_log};
    use crate::sys::{presence, random, users};
    let file = folder.join("file");
    let names =
        interfaces::names().is_ok() && interfaces::states().is_ok() && interfaces::addresses().is_ok();
    let name = interfaces::name_of(1).and_then(|name| std::ffi::CString::new(name).ok());
    let number = name.is_some_and(|name| nix::net::if_::if_nametoindex(name.as_c_str()).is_ok());
    let _ = (users::name(0), users::name(54_321), users::operators(), users::may_operate(54_321, 54_321));
    let _ = (flows::tracked_connections(), flows::sockets(), listeners::listening());
    let _ = flows::interface_towards([127, 0, 0, 1].into());
    let _ = flows::forget_connection(6, ([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
    let _ = (notify::notify("STATUS=x"), presence::holder());
    let _ = (netlink::Netlink::open(), netlink::Events::open());
    let written = files::make_directory(&folder.join("below"), 0o700).is_ok()
        && files::replace(&file, 0o600, b"x").is_ok()
        && files::replace(&file, 0o600, b"y").is_ok()
        && files::set_mode(&file, 0o640).is_ok()
        && files::read_text(&file, 10).is_ok()
        && files::stamp(&file).is_some()
        && !files::stamps(folder).is_empty()
        && files::try_lock(&folder.join("lock")).is_ok_and(|lock| lock.is_some())
        && files::remove(&file).is_ok();
    let random = random::bytes::<16>().is_ok();
    let hostname = nix::unistd::gethostname().is_ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waited = runtime.block_on(async {
        let _ = (calendar::Calendar::watch(), packet_log::PacketLog::open(&[]));
        tokio::task::spawn_blocking(|| std::thread::sleep(std::time::Duration::from_millis(1))).await.is_ok()
    });
    let _ = (clock::now(), clock::monotonic_usec(), std::time::SystemTime::now());
    names && number && written && random && hostname && waited
}

fn raw(call: libc::c_long, [first, second, third]: [libc::c_int; 3]) -> bool {
    // SAFETY: none of these calls is given memory: pointers among the arguments are null, of which the kernel says EFAULT.
    unsafe { libc::syscall(call, first, second, third) >= 0 }
}

/// A socket that was never connected may be by sending.
fn fast_open(listener: &TcpListener) -> bool {
    let anywhere = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 9_u16.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let (socket, flags) = (listener.as_raw_fd(), libc::MSG_FASTOPEN);
    // SAFETY: the pointers are to values of the lengths given, which live until the calls are over.
    unsafe { libc::sendto(socket, b"x".as_ptr().cast(), 1, flags, (&raw const anywhere).cast(), length) >= 0 }
}

fn option(stream: &TcpStream, level: libc::c_int, name: libc::c_int) -> bool {
    let nothing = [0_u8; 16];
    // SAFETY: the kernel reads these bytes, and finds them wrong.
    unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, nothing.as_ptr().cast(), 16) == 0 }
}

fn map(protection: libc::c_int) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory of nobody's, which nobody uses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4_096, protection, flags, -1, 0) };
    at != libc::MAP_FAILED
}

#[track_caller]
fn can(role: &str, deeds: &[&str]) {
    for deed in deeds {
        let status = attempt(role, deed);
        assert_eq!(status.code(), Some(COULD), "{role} {deed}: {status}");
    }
}

#[track_caller]
fn dies_of(role: &str, deeds: &[&str]) {
    for deed in deeds {
        let status = attempt(role, deed);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{role} {deed}: {status}");
    }
}

#[test]
fn the_front_can_talk_with_whom_it_accepts_and_nothing_else() {
    can("front", &["talk", "memory", "no-delay", "end-writing"]);
    dies_of(
        "front",
        &["end-listening", "fast-open", "fast-open-message", "kernel-filter", "protocol-above-tcp"],
    );
    dies_of(
        "front",
        &["read", "write", "write-below", "remove", "list", "tcp", "connect", "udp", "local", "raw"],
    );
    dies_of("front", &["netlink", "exec", "exec-here", "fork", "thread", "kill", "ptrace", "steal"]);
    dies_of("front", &["read-memory", "run-data", "run", "namespace", "bpf", "ring", "keys", "module"]);
}

#[test]
fn the_enforcer_can_read_and_speak_netlink_but_starts_no_program_and_reaches_nobody() {
    can(
        "enforcer",
        &[
            "talk",
            "memory",
            "read",
            "write-below",
            "list",
            "local",
            "netlink",
            "thread",
            "run",
            "everything",
            "mode",
        ],
    );
    for deed in ["write", "remove", "tcp", "connect", "udp", "raw"] {
        assert_eq!(attempt("enforcer", deed).code(), Some(COULD_NOT), "{deed}");
    }
    dies_of(
        "enforcer",
        &[
            "fast-open",
            "fast-open-message",
            "mode-elsewhere",
            "owner",
            "exec",
            "exec-here",
            "fork",
            "kill",
            "ptrace",
        ],
    );
    dies_of("enforcer", &["steal", "read-memory", "run-data", "namespace", "bpf", "ring", "keys", "module"]);
}
