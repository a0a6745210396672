//! TCP by hand: segments exactly as they are given, without the repetitions in which a kernel joins them.

use std::net::IpAddr;

use crate::knocking::STEP1_PORT;
use crate::namespace::Namespace;
use crate::topology::Topology;

/// Arguments: address, port, `before` and the segments in hexadecimal.
const SCRIPT: &str = r#"
import socket, struct, sys, time

target, port = sys.argv[1], int(sys.argv[2])
before, *segments = [bytes.fromhex(word) for word in sys.argv[3:]]
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
at = start + 1
for segment in segments:
    send(at - len(before), seq + 1, 0x18, before + segment)
    at += len(segment)
    before = b""
    time.sleep(0.2)
time.sleep(0.5)
"#;

/// A topology whose client A does not reset connections that only the script knows of.
pub fn topology() -> Topology {
    let net = Topology::new();
    net.a.nft("table inet quiet { chain out { type filter hook output priority 0; tcp flags rst drop; }; }");
    net
}

/// Opens a connection to step 1 and sends the segments, 200 ms apart. The first begins `before` bytes before
/// the stream: the kernel of the receiver cuts those off, the packet filter sees them.
pub fn send(from: &Namespace, to: IpAddr, before: &str, segments: &[&str]) {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let (to, port) = (to.to_string(), STEP1_PORT.to_string());
    let mut words = vec!["-c".to_owned(), SCRIPT.to_owned(), to, port, hex(before)];
    words.extend(segments.iter().map(|segment| hex(segment)));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    from.run("python3", &words).success();
}
