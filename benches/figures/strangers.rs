//! What knocks start, and what strangers leave behind.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::gateway::{FORM1, FORM2, Home, STEP1, STEP2, family};
use crate::knocker::{dial_soon, step1, step2, tls};
use crate::namespace::Namespace;
use crate::net::{Net, ROUTER, source};
use crate::reference::{MISSING, Reference};
use crate::report::{Report, Section, Verdict};
use crate::requirements::find;
use crate::stats::{significant, thousands};
use crate::temporary::TempDir;

const KNOCKS: u32 = 5;
const ENOUGH: Duration = Duration::from_millis(300);

pub fn measure(report: &mut Report, connections: u32, reference: Option<&Reference>) {
    let home = Home::new("  lockout: off\n");
    let mut section = Section::new(
        "Knocks and strangers",
        "Processes are counted by strace, which sees each that is started. A bogus connection is a SYN, an ACK and a request to a path that \
         is not the right one, each from another address, which answers nothing.",
        &["", "knock-agent", "knock-port"],
    );
    let net = Net::new();
    let (gateway, _) = home.start(&net.router);
    let ours = (spawned(&net, &gateway.processes()), tracked(&net, connections));
    let theirs = reference.map(|reference| {
        let net = Net::new();
        let (running, _) = reference.start(&net, &home);
        (spawned(&net, &family(running.process.0.id())), tracked(&net, connections))
    });
    let show = |count: &Option<f64>| count.map_or("strace is not installed".to_owned(), significant);
    let missing = || MISSING.to_owned();
    section.row(&[
        "processes started for a knock",
        &show(&ours.0),
        &theirs.as_ref().map_or_else(missing, |(spawned, _)| show(spawned)),
    ]);
    section.row(&[
        &format!("connections tracked after {} bogus ones to step 1", thousands(connections.into())),
        &thousands(ours.1),
        &theirs.as_ref().map_or_else(missing, |(_, tracked)| thousands(*tracked)),
    ]);
    report.sections.push(section);
    if let Some(count) = ours.0 {
        report.verdicts.push(Verdict {
            what: "Processes started for a knock",
            target: "0".to_owned(),
            reached: significant(count),
            met: count < 0.001,
            why: "",
        });
    }
    report.verdicts.push(Verdict {
        what: "Connections tracked after bogus ones",
        target: "0".to_owned(),
        reached: thousands(ours.1),
        met: ours.1 == 0,
        why: "",
    });
    gateway.stop();
}

/// Processes that are started for a knock, on average.
fn spawned(net: &Net, processes: &[u32]) -> Option<f64> {
    find("strace")?;
    let folder = TempDir::new();
    let log = folder.path().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=fork,vfork,clone,clone3,execve", "-o"]).arg(&log);
    command.args(processes.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut strace = net.router.background(command);
    std::thread::sleep(Duration::from_secs(1));
    let tls = tls();
    net.client.enter(|| {
        for number in 0..KNOCKS {
            let from = source(100 + number);
            let first = step1(from, STEP1, FORM1);
            let begin = std::time::Instant::now();
            let mut stream = dial_soon(from, STEP2.0);
            let done = step2(&mut stream, begin, &tls, STEP2.1, FORM2).expect("an answer of step 2");
            assert_eq!(done.status, 200);
            drop(first);
        }
    });
    std::thread::sleep(Duration::from_secs(1));
    strace.signal(nix::sys::signal::Signal::SIGINT);
    let _ = strace.0.wait();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let programs = text.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0")).count();
    let forks = text.lines().filter(|line| is_fork(line)).count();
    Some(programs.max(forks) as f64 / f64::from(KNOCKS))
}

/// A new process, and no thread.
fn is_fork(line: &str) -> bool {
    let starts = ["fork(", "clone(", "clone3("].iter().any(|call| line.contains(call));
    starts && !line.contains("CLONE_THREAD") && !line.contains("= -1")
}

/// How many connections are tracked after so many that nobody wants.
fn tracked(net: &Net, connections: u32) -> u64 {
    let before = count(&net.router);
    net.client.enter(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(ROUTER, 0));
        for number in 0..connections {
            let from = source(1_000 + number);
            let port = 1_024 + u16::try_from(number % 60_000).unwrap_or(0);
            for (flags, payload) in
                [(SYN, &b""[..]), (ACK, b""), (ACK | PUSH, b"GET /robots.txt HTTP/1.1\r\n\r\n")]
            {
                let packet = segment(from, port, flags, payload);
                let _ = sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty());
            }
        }
    });
    std::thread::sleep(ENOUGH);
    // Those of the knocks before are no strangers'.
    count(&net.router).saturating_sub(before)
}

fn count(host: &Namespace) -> u64 {
    let file = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = host.enter(|| std::fs::read_to_string(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// A TCP segment to step 1, with its IP header; the kernel fills in that one's checksum.
fn segment(from: Ipv4Addr, port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(40 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(from.octets());
    packet.extend(ROUTER.octets());
    let start = packet.len();
    packet.extend(port.to_be_bytes());
    packet.extend(STEP1.0.to_be_bytes());
    let sequence: u32 = if flags & SYN != 0 { 1 } else { 2 };
    packet.extend(sequence.to_be_bytes());
    packet.extend(u32::from(flags & ACK != 0).to_be_bytes());
    packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(payload);
    let mut sum: u32 = 6 + u32::from(length - 20);
    for address in [from, ROUTER] {
        sum +=
            address.octets().chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    }
    for pair in packet[start..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    packet[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}
