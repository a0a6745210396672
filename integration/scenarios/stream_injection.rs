//! Segments crafted so that the packet filter sees one thing and the stream holds another.

use std::net::IpAddr;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::knocking::{STEP1_PORT, form, request, step1};
use crate::topology::{Family, Topology};

/// Opens a connection by hand and sends one segment that begins `before` bytes before the stream: the kernel
/// of the receiver cuts those off, the packet filter sees them.
const CRAFT: &str = r#"
import socket, struct, sys, time

target, port, before, payload = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
family = socket.AF_INET6 if ":" in target else socket.AF_INET
finder = socket.socket(family, socket.SOCK_DGRAM)
finder.connect((target, port))
source = finder.getsockname()[0]
holder = socket.socket(family, socket.SOCK_STREAM)
holder.bind((source, 0))
own_port = holder.getsockname()[1]
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.settimeout(3)

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def send(seq, ack, flags, data=b""):
    header = struct.pack("!HHIIBBHHH", own_port, port, seq % 2**32, ack % 2**32, 5 << 4, flags, 64240, 0, 0)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    if family == socket.AF_INET:
        pseudo = ends + struct.pack("!BBH", 0, 6, len(header) + len(data))
    else:
        pseudo = ends + struct.pack("!II", len(header) + len(data), 6)
    summed = checksum(pseudo + header + data)
    raw.sendto(header[:16] + struct.pack("!H", summed) + header[18:] + data, (target, 0))

start = 1_000_000
send(start, 0, 2)
while True:
    packet = raw.recv(65535)
    if family == socket.AF_INET:
        packet = packet[(packet[0] & 15) * 4:]
    from_port, to_port, seq, ack, _, flags = struct.unpack("!HHIIBB", packet[:14])
    if (from_port, to_port, flags & 0x12) == (port, own_port, 0x12):
        break
send(start + 1 - len(before), seq + 1, 0x18, before + payload)
time.sleep(0.7)
"#;

fn craft(net: &Topology, to: IpAddr, before: &str, payload: &str) {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let (to, port) = (to.to_string(), STEP1_PORT.to_string());
    net.a.run("python3", &["-c", CRAFT, &to, &port, &hex(before), &hex(payload)]).success();
}

/// A topology whose client does not reset connections that only the script knows of.
fn topology_with_quiet_client() -> Topology {
    let net = Topology::new();
    net.a.nft("table inet quiet { chain out { type filter hook output priority 0; tcp flags rst drop; }; }");
    net
}

#[test]
fn a_segment_that_begins_before_the_stream_does_not_smuggle_another_request_in() {
    let net = topology_with_quiet_client();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let mut agent = home.start(&net.router);
    let filter_sees = format!("POST {STEP1_PATH} ");
    let right1 = form("ssh", &http_key("ssh"));
    let right2 = form("ssh", &https_key("ssh"));
    for family in Family::BOTH {
        let (to, client) = (family.router(), family.client_a());
        for start in ["POST /", "POST /wrong", &format!("GET {STEP1_PATH}"), &format!("POST {STEP2_PATH}")] {
            craft(&net, to, &filter_sees, &request(start, &right1));
            assert_eq!(admission_left(&net.router, client), None, "the stream says {start}");
        }
        step1(&net.a, to, "ssh");
        assert!(admission_left(&net.router, client).is_some(), "the ordinary step 1");
        for start in [format!("POST {STEP2_PATH}"), format!("POST {STEP1_PATH}")] {
            craft(&net, to, &filter_sees, &request(&start, &right2));
            assert_eq!(time_left(&net.router, "ssh", client), None, "the stream says {start}");
        }
        assert!(agent.is_alive());
    }
}

#[test]
fn the_same_segment_without_the_trick_is_an_ordinary_step_1() {
    let net = topology_with_quiet_client();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let right = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
        craft(&net, family.router(), "", &right);
        assert!(admission_left(&net.router, family.client_a()).is_some(), "step 1 by hand works");
    }
}

#[test]
fn a_segment_that_begins_before_the_stream_really_reaches_the_stream() {
    let net = topology_with_quiet_client();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    // What is cut off and what is left are both a right start: the process reads the second one. Were it
    // never to arrive, the refusals of the other test would prove nothing.
    let right = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    craft(&net, Family::V4.router(), &format!("POST {STEP1_PATH} "), &right);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the stream was read");
}
