//! From `enroll --sequence` to an open door, with a running gateway; and with a client that is plain Python.

use std::process::Command;
use std::time::{Duration, Instant};

use super::timed_knocks::{Home, filled};
use crate::knocker::{Knocker, NAME};
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(60);

/// What the client of knock-knock does: a code by RFC 6238, PIN and code hashed, datagrams of one socket in between
/// half a second.
const ORIGINAL: &str = "\
import base64, hashlib, hmac, os, socket, struct, sys, time
secret, pin, host, count = base64.b32decode(os.environ['KNOCK_SECRET']), sys.argv[1], sys.argv[2], 3
tag = hmac.new(secret, struct.pack('>Q', int(time.time()) // 30), hashlib.sha1).digest()
at = tag[-1] & 15
code = '%06d' % ((struct.unpack('>I', tag[at:at + 4])[0] & 0x7fffffff) % 1000000)
digits = hashlib.sha1(bytes(pin + code, 'utf-8')).hexdigest()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(count):
    port = (int(digits[i * 4 + count:i * 4 + count + 4], 16) & 0x3fff) + 32768
    sock.sendto(bytes(int(digits[i], 16)), (host, port))
    time.sleep(0.5)
";

#[test]
fn a_client_that_is_enrolled_while_the_gateway_runs_comes_in_by_its_profile_in_both_families() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::new(30, "lengths: true", &["duration: 3600"]);
    let _agent = home.home.start(&net.router);
    filled(&net.router);
    let knocker = Knocker::new();
    let config = home.home.path("config.yaml").display().to_string();
    let profile = knocker.home().path().join("laptop.yaml").display().to_string();
    let words =
        ["--sequence", "laptop", "--app", "ssh", "--host", NAME, "--profile", &profile, "-c", &config];
    knocker.feed(&net.router, &[&["enroll"], &words[..]].concat(), b"sesame\nsesame\n").success();
    let end = Instant::now() + LIMIT;
    while !home.home.log().contains("the files of users and clients are in force") {
        assert!(Instant::now() < end, "{}", home.home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
    }
    let told = knocker.feed(&net.a, &["knock", &profile, "--check"], b"sesame\n").success().stderr;
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    assert!(told.contains("can be reached") && !told.contains("sesame"), "{told}");
    assert!(home.home.verb(&net.router, &["status"]).success().text().contains("laptop"));
    let told = knocker.feed(&net.b, &["knock", &profile, "-4", "--check"], b"another\n").exits(1).stderr;
    assert!(told.contains("nothing answers"), "{told}");
}

#[test]
fn a_client_of_knock_knock_comes_in_as_it_is() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::new(30, "kind: knock-knock", &["duration: 3600"]);
    let secret = "ORSXG5BAONSWG4TFOQQGC3TEEBWW64TF";
    home.client("phone", secret, "pin: a-long-pin\nknocks: 3\n");
    let _agent = home.home.start(&net.router);
    filled(&net.router);
    let to = Family::V4.router();
    // Not across the end of two steps on a machine that is slow.
    home.step_with(10);
    let knock = |pin: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", ORIGINAL, pin, &to.to_string()]).env("KNOCK_SECRET", secret);
        net.a.finish(command, b"", LIMIT).success();
    };
    knock("another");
    assert_silent(&net.a, to, 2222);
    knock("a-long-pin");
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
}
