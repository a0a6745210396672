//! The process that hears strangers, and somebody who has taken it over.

use std::fs;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Namespace;

const LIMIT: Duration = Duration::from_secs(30);

/// Takes the front's end of the link out of its hands (`pidfd_getfd(2)`), stops it, says what it is told, and prints
/// what comes back within the time given, in hexadecimal digits; `closed` at the end if the link was.
const TAKE_OVER: &str = r#"
import ctypes, os, signal, socket, sys, time
pid, seconds, messages = int(sys.argv[1]), float(sys.argv[2]), sys.stdin.read().split()
libc = ctypes.CDLL(None, use_errno=True)
process = os.pidfd_open(pid)
link = libc.syscall(438, process, 0, 0)
if link < 0:
    sys.exit("pidfd_getfd: " + os.strerror(ctypes.get_errno()))
os.kill(pid, signal.SIGSTOP)
link = socket.socket(fileno=link)
link.setblocking(True)
try:
    for message in messages:
        link.sendall(bytes.fromhex(message))
except (BrokenPipeError, ConnectionResetError):
    pass
end, closed = time.monotonic() + seconds, False
while not closed and time.monotonic() < end:
    link.settimeout(max(0.01, end - time.monotonic()))
    try:
        heard = link.recv(65536)
    except TimeoutError:
        continue
    except ConnectionResetError:
        heard = b""
    closed = not heard
    sys.stdout.write(heard.hex())
print(" closed" if closed else " open")
"#;

/// The same, who asks the same thing again and again for so long and takes an answer now and then only; prints whether the
/// link was closed.
const ASK_WITHOUT_LISTENING: &str = r#"
import ctypes, os, signal, socket, sys, time
pid, seconds, message = int(sys.argv[1]), float(sys.argv[2]), bytes.fromhex(sys.stdin.read())
libc = ctypes.CDLL(None, use_errno=True)
link = libc.syscall(438, os.pidfd_open(pid), 0, 0)
if link < 0:
    sys.exit("pidfd_getfd: " + os.strerror(ctypes.get_errno()))
os.kill(pid, signal.SIGSTOP)
link = socket.socket(fileno=link)
end, closed = time.monotonic() + seconds, False
while not closed and time.monotonic() < end:
    link.settimeout(1)
    try:
        link.sendall(message * 100)
        closed = not link.recv(18)
    except TimeoutError:
        pass
    except (BrokenPipeError, ConnectionResetError):
        closed = True
print("closed" if closed else "open")
"#;

/// The front of an agent; none while there is none.
pub fn pid_of(agent: &Agent) -> Option<u32> {
    child_of(child_of(agent.pid(), "start-others")?, "hear-strangers")
}

/// The child of a process that was started with this first argument.
pub fn child_of(pid: u32, role: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &u32| {
        fs::read_to_string(format!("/proc/{child}/cmdline"))
            .is_ok_and(|line| line.split('\0').nth(1) == Some(role))
    })
}

/// Waits until another front than this one is there and has sealed itself.
#[track_caller]
pub fn successor(agent: &Agent, before: u32) -> u32 {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(pid) = pid_of(agent).filter(|&pid| pid != before)
            && status_line(pid, "Seccomp").as_deref() == Some("2")
        {
            return pid;
        }
        assert!(Instant::now() < end, "no other front is started");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A line of `/proc/<pid>/status`.
pub fn status_line(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// What somebody says who has taken over a front, and what he hears: the bytes, and whether the link was closed.
#[track_caller]
pub fn say(host: &Namespace, front: u32, messages: &[Vec<u8>], seconds: f32) -> (Vec<u8>, bool) {
    let digits = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let input = messages.iter().map(digits).collect::<Vec<_>>().join("\n");
    let done =
        host.feed("python3", &["-c", TAKE_OVER, &front.to_string(), &seconds.to_string()], input.as_bytes());
    let text = done.success().text();
    let (heard, how) = text.trim_end().split_once(' ').unwrap();
    let bytes = (0..heard.len()).step_by(2).map(|at| u8::from_str_radix(&heard[at..at + 2], 16).unwrap());
    (bytes.collect(), how == "closed")
}

/// A message with its length in front.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The message that asks at a step for somebody, with these fields: their numbers and texts.
pub fn ask(id: u32, step: u8, client: std::net::IpAddr, fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(id.to_be_bytes());
    body.push(step);
    match client {
        std::net::IpAddr::V4(v4) => {
            body.push(4);
            body.extend(v4.octets());
        }
        std::net::IpAddr::V6(v6) => {
            body.push(6);
            body.extend(v6.octets());
        }
    }
    for (number, text) in fields {
        body.push(*number);
        body.push(u8::try_from(text.len()).unwrap());
        body.extend(text.as_bytes());
    }
    framed(&body)
}

/// Has somebody who has taken over a front ask this for so many seconds, and hardly listen; true if that ended the link.
#[track_caller]
pub fn ask_without_listening(host: &Namespace, front: u32, message: &[u8], seconds: u32) -> bool {
    let input: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = ["-c", ASK_WITHOUT_LISTENING, &front.to_string(), &seconds.to_string()];
    host.feed("python3", &words, input.as_bytes()).success().text().trim() == "closed"
}
