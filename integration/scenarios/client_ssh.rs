//! `knock-agent connect` as ProxyCommand of a real OpenSSH.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::Config;
use crate::firewall::time_left;
use crate::knocker::{Knocker, NAME, pin};
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::process::{Background, Finished, finish};
use crate::topology::{Family, Topology};

fn keygen(path: &std::path::Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    finish(command, b"", Duration::from_secs(30)).success();
}

/// An sshd of its own on port 2222, for root with a key.
fn sshd(host: &Namespace, knocker: &Knocker) -> Background {
    let folder = knocker.home().path();
    fs::create_dir_all("/run/sshd").unwrap();
    for key in ["host", "user"] {
        keygen(&folder.join(key));
    }
    knocker.home().write("authorized", fs::read(folder.join("user.pub")).unwrap());
    let config = format!(
        "Port 2222\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\nUsePAM no\n\
         StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n",
        folder.display()
    );
    let config = knocker.home().write("sshd_config", config);
    let mut command = Command::new("/usr/sbin/sshd");
    command.arg("-D").arg("-e").arg("-f").arg(config).stdin(Stdio::null()).stderr(Stdio::null());
    host.background(command)
}

fn ssh(from: &Namespace, knocker: &Knocker) -> Finished {
    let folder = knocker.home().path().display();
    let proxy = format!("ProxyCommand={PROGRAM} connect gate %h %p");
    let identity = format!("{folder}/user");
    let words = [
        "ssh",
        "-F",
        "none",
        "-i",
        &identity,
        "-o",
        &proxy,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=30",
        "-p",
        "2222",
        &format!("root@{NAME}"),
        "cat; echo through $((6 * 7))",
    ];
    from.finish(knocker.program(&words), b"hello\n", Duration::from_secs(60))
}

#[test]
fn ssh_gets_through_a_closed_port_and_knocks_only_where_it_is_closed() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let agent = home.start(&net.router);
    let knocker = Knocker::new().profile(NAME, &[&pin(&home)]);
    let _sshd = sshd(&net.router, &knocker);
    assert_silent(&net.a, Family::V4.router(), 2222);
    let first = ssh(&net.a, &knocker).success();
    assert_eq!(first.text(), "hello\nthrough 42\n", "{}", first.stderr);
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("a grant");
    // Nobody could knock now, and nobody needs to.
    agent.terminate();
    assert_eq!(ssh(&net.a, &knocker).success().text(), "hello\nthrough 42\n");
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some_and(|now| now <= left));
    let closed = ssh(&net.b, &knocker).exits(255);
    assert!(closed.stderr.contains("step 1: nothing answers"), "{}", closed.stderr);
}
