//! The clients in `integration/clients` against the agent.

use std::process::Command;
use std::time::Duration;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::time_left;
use crate::knocker::certify;
use crate::namespace::Namespace;
use crate::process::{Finished, finish};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const ALICE: (&str, &str) = ("alice-first-key", "alice-second-key with + and &");
const SECRET: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

fn script(name: &str) -> String {
    format!("{}/integration/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A folder with keys and the settings of `knock.sh`.
fn settings(home: &Installation, host: &str, keys: (&str, &str), more: &[&str]) -> TempDir {
    let folder = TempDir::new();
    folder.write("key1", format!("{}\n", keys.0));
    folder.write("key2", keys.1);
    let at = folder.path().display();
    let more: String = more.iter().map(|line| format!("{line}\n")).collect();
    let ca = home.path("cert.pem");
    folder.write(
        "gate",
        format!(
            "# a comment\nhost={host}\nhttp_port=8080\nhttps_port=8443\nhttp_path={STEP1_PATH}\nhttps_path={STEP2_PATH}\n\
             app=ssh\nkey_http={at}/key1\nkey_https={at}/key2\nca={}\n{more}",
            ca.display()
        ),
    );
    folder
}

/// The line that pins the public key of an installation's certificate instead of its authority, as openssl tells it.
fn pin(home: &Installation) -> String {
    let told = "openssl x509 -noout -pubkey -in \"$1\" | openssl pkey -pubin -outform der |
        openssl dgst -sha256 -binary | openssl base64";
    let mut command = Command::new("sh");
    command.args(["-c", told, "sh"]).arg(home.path("cert.pem"));
    let hash = finish(command, b"", Duration::from_secs(60)).success().text();
    assert!(hash.trim_end().ends_with('='), "{hash}");
    format!("pin=sha256//{}", hash.trim_end())
}

fn knock(from: &Namespace, folder: &TempDir, more: &[&str], input: &str) -> Finished {
    let mut command = Command::new("dash");
    command.arg(script("knock.sh")).arg(folder.path().join("gate")).args(more);
    from.finish(command, input.as_bytes(), Duration::from_secs(60))
}

#[test]
fn the_script_knocks_with_keys_over_both_families() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    certify(&home, &["203.0.113.1", "2001:db8:1::1"]);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let host = family.router().to_string();
        let keys = (http_key("ssh"), https_key("ssh"));
        let folder = settings(&home, &host, (&keys.0, &keys.1), &[]);
        knock(&net.a, &folder, &[], "").success();
        assert!(time_left(&net.router, "ssh", family.client_a()).is_some(), "{family:?}");
        let wrong = settings(&home, &host, ("not-the-first-key", &keys.1), &[]);
        knock(&net.b, &wrong, &[], "").exits(11);
        knock(&net.b, &settings(&home, &host, (&keys.0, "not-the-second-key"), &[]), &[], "").exits(13);
    }
}

#[test]
fn the_script_knows_the_gateway_by_a_pin_in_every_shell() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let keys = (http_key("ssh"), https_key("ssh"));
    let pin = pin(&home);
    let with = |lines: &[&str]| settings(&home, "203.0.113.1", (&keys.0, &keys.1), lines);
    let right = with(&["ca=", "", "# pin=sha256//AAAA=", &pin]);
    // The last line without its end.
    let text = std::fs::read_to_string(right.path().join("gate")).unwrap();
    right.write("gate", text.trim_end());
    let wrong = with(&["ca=", &format!("pin=sha256//{}=", "A".repeat(43))]);
    for shell in [&["dash"][..], &["bash", "--posix"], &["bash"], &["busybox", "ash"]] {
        let run = |folder: &TempDir, action: &str| {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).arg(script("knock.sh")).arg(folder.path().join("gate")).arg(action);
            net.a.finish(command, b"", Duration::from_secs(60))
        };
        run(&wrong, "open").exits(12);
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none(), "{shell:?}");
        run(&right, "open").success();
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some(), "{shell:?}");
        run(&right, "close").success();
    }
}

#[test]
fn the_script_proves_its_key_asks_and_closes_and_shows_no_secret_to_other_processes() {
    let net = Topology::new();
    let users = format!(
        "users: {{alice: {{access_key_http: {}, access_key_https: \"{}\", totp: {{secret: {SECRET}}}}}}}",
        ALICE.0, ALICE.1
    );
    let global = [users.as_str(), "step1_proof: require_address"];
    let more = ["duration: 60", "2fa_step: https"];
    let home = Installation::new(&Config::new(&global).app("ssh", "2222", "tcp", "local", &more));
    certify(&home, &["203.0.113.1"]);
    let _agent = home.start(&net.router);
    let lines = ["user=alice", "address=203.0.113.2", "duration=30"];
    let without = settings(&home, "203.0.113.1", ALICE, &lines);
    knock(&net.a, &without, &[], "").exits(14);
    let folder = settings(&home, "203.0.113.1", ALICE, &[&lines[..], &["code=https"]].concat());
    let code = net.a.run("oathtool", &["--totp", "-b", SECRET]).success().text();

    // Everything that any process of the script was started with.
    let traced = folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "4096", "-v", "-e", "trace=execve", "-o"]).arg(&traced);
    command.arg("dash").arg(script("knock.sh")).arg(folder.path().join("gate"));
    net.a.finish(command, code.trim().as_bytes(), Duration::from_secs(120)).success();
    let seen = std::fs::read_to_string(&traced).unwrap();
    assert!(seen.contains("openssl") && seen.contains("curl"), "{seen}");
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let spaced = |text: &str| text.bytes().map(|b| format!("0x{b:02x} ")).collect::<String>();
    for secret in [ALICE.0, ALICE.1, code.trim(), STEP1_PATH, STEP2_PATH] {
        for form in [secret.to_owned(), hex(secret), spaced(secret)] {
            assert!(!seen.contains(&form), "{form} was seen:\n{seen}");
        }
    }
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("a grant");
    assert!(left <= Duration::from_secs(30), "{left:?}");
    knock(&net.a, &without, &["close"], "").success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
}

#[test]
fn the_hooks_of_tunnels_knock_before_the_tunnel_and_close_after_it() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let keys = (http_key("ssh"), https_key("ssh"));
    // As who sets up a tunnel does: the gateway is known by its public key.
    let folder = settings(&home, "203.0.113.1", (&keys.0, &keys.1), &["ca=", &pin(&home)]);
    let gate = folder.path().join("gate");
    for (hook, up, down) in [("wireguard-hook.sh", "up", "down"), ("openvpn-hook.sh", "pre-connect", "down")]
    {
        let run = |word: &str| {
            let mut command = Command::new("dash");
            command.arg(script(hook)).arg(word).arg(&gate);
            net.a.finish(command, b"", Duration::from_secs(60)).success();
        };
        run(up);
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some(), "{hook}");
        run(down);
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none(), "{hook}");
    }
}
