use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::process::{Background, wait};
use crate::temporary::TempDir;

/// One captured TCP, UDP or ICMP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// 0 where there are no ports.
    pub source_port: u16,
    pub destination_port: u16,
    /// The TCP flags byte; 0 for other protocols.
    pub flags: u8,
    /// Bytes of TCP or UDP payload.
    pub payload: usize,
}

impl Packet {
    pub fn is_syn_ack(&self) -> bool {
        self.protocol == 6 && self.flags & 0x3f == 0x12 && self.payload == 0
    }
}

/// A running tcpdump.
pub struct Capture {
    folder: TempDir,
    process: Background,
}

impl Capture {
    /// Starts to capture what matches the filter and returns when it does.
    pub fn start(host: &Namespace, interface: &str, filter: &str) -> Self {
        let folder = TempDir::new();
        let mut command = Command::new("tcpdump");
        command.args(["-Z", "root", "-U", "--immediate-mode", "-i", interface, "-w"]);
        command.arg(folder.path().join("pcap")).arg(filter);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = host.background(command);
        let mut messages = BufReader::new(process.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(messages.read_line(&mut line).unwrap(), 0, "tcpdump ended early");
        }
        // tcpdump must not end on a broken pipe when it writes its summary.
        std::thread::spawn(move || messages.lines().for_each(drop));
        Self { folder, process }
    }

    /// Stops and returns every packet.
    pub fn stop(mut self) -> Vec<Packet> {
        std::thread::sleep(Duration::from_millis(200));
        self.process.signal(Signal::SIGINT);
        wait(&mut self.process.0, Duration::from_secs(5)).expect("tcpdump ends on SIGINT");
        parse(&fs::read(self.folder.path().join("pcap")).unwrap())
    }
}

fn parse(file: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        packets.extend(parse_frame(&rest[16..16 + length]));
        rest = &rest[16 + length..];
    }
    packets
}

fn parse_frame(frame: &[u8]) -> Option<Packet> {
    let number = |at: &[u8]| u16::from_be_bytes([at[0], at[1]]);
    let ip = &frame[14..];
    let (source, destination, protocol, end, rest): (IpAddr, IpAddr, u8, usize, &[u8]) =
        match number(&frame[12..]) {
            0x0800 => {
                let header = usize::from(ip[0] & 15) * 4;
                let address =
                    |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap()).into();
                (address(12), address(16), ip[9], usize::from(number(&ip[2..])) - header, &ip[header..])
            }
            0x86dd => {
                let address =
                    |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap()).into();
                (address(8), address(24), ip[6], usize::from(number(&ip[4..])), &ip[40..])
            }
            _ => return None,
        };
    let ports = matches!(protocol, 6 | 17);
    let tcp = protocol == 6;
    Some(Packet {
        source,
        destination,
        protocol,
        source_port: if ports { number(rest) } else { 0 },
        destination_port: if ports { number(&rest[2..]) } else { 0 },
        flags: if tcp { rest[13] } else { 0 },
        payload: match protocol {
            6 => end - usize::from(rest[12] >> 4) * 4,
            17 => usize::from(number(&rest[4..])) - 8,
            _ => 0,
        },
    })
}
