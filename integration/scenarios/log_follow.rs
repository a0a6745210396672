//! `knock-agent log --follow`: files that are rotated, readers that go away, lines that are none, the journal of a unit.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::agent::PROGRAM;
use crate::process::{Background, finish, wait};
use crate::temporary::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn event(user: &str) -> String {
    format!(
        r#"{{"time":"2027-01-31T18:00:00.000042Z","level":"info","message":"granted","event":"granted","address":"203.0.113.7","app":"ssh","by":"{user}","how":"operator","lifetime_s":60,"services":["tcp/22"]}}"#
    ) + "\n"
}

/// What it prints, line by line.
struct Followed {
    process: Background,
    lines: Receiver<String>,
}

impl Followed {
    fn begin(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child: Child = command.spawn().unwrap();
        let out: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Self { process: Background(child), lines }
    }

    #[track_caller]
    fn tells_of(&self, user: &str) {
        let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("nothing about {user}"));
        assert!(line.contains(&format!("by {user}  ")), "{user}: {line}");
    }
}

fn follow(file: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["log", "--follow", "--file"]).arg(file);
    command
}

fn append(file: &Path, text: &str) {
    File::options().append(true).create(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_file_is_followed_through_rotations_cuts_and_lines_that_are_none() {
    let folder = TempDir::new();
    let (file, old) = (folder.path().join("agent.log"), folder.path().join("agent.log.1"));
    append(&file, &event("first"));
    let mut followed = Followed::begin(follow(&file));
    followed.tells_of("first");
    // What is no event, half a line, bytes that are no text, a line without end.
    append(&file, "not json\n{\"event\": \n[]\n\n{\"time\":1}\n");
    let mut bytes = File::options().append(true).open(&file).unwrap();
    bytes.write_all(b"\xff\xfe\x00\n").unwrap();
    bytes.write_all(&vec![b'x'; (1 << 20) + 7]).unwrap();
    append(&file, "\n");
    let second = event("second");
    let (half, rest) = second.split_at(40);
    append(&file, half);
    thread::sleep(Duration::from_millis(700));
    append(&file, rest);
    followed.tells_of("second");
    for round in 0..3 {
        // What was written last to the old file is not lost, though it was renamed in the same moment.
        append(&file, &event(&format!("last{round}")));
        fs::rename(&file, &old).unwrap();
        append(&old, &event(&format!("later{round}")));
        // Also where the new one comes late.
        if round == 1 {
            thread::sleep(Duration::from_secs(1));
        }
        append(&file, &event(&format!("new{round}")));
        for user in ["last", "later", "new"] {
            followed.tells_of(&format!("{user}{round}"));
        }
    }
    // Cut, as copytruncate does.
    File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    thread::sleep(Duration::from_millis(700));
    append(&file, &event("cut"));
    followed.tells_of("cut");
    assert!(followed.process.is_alive());
}

#[test]
fn who_stops_reading_ends_it_also_while_nothing_comes() {
    let folder = TempDir::new();
    let file = folder.path().join("agent.log");
    append(&file, &event("first"));
    let mut command = follow(&file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Background(command.spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("by first"), "{line}");
    drop(out);
    assert_eq!(wait(&mut child.0, LIMIT).unwrap().code(), Some(0), "a reader that went away is no error");
}

/// An entry in the journal's export format, with trusted fields, which only the journal itself can write elsewhere.
fn entry(unit: &str, user: &str, number: u64) -> String {
    let micros = 1_801_418_400_000_000 + number * 1_000_000;
    // Only this one is followed.
    let boot = boot();
    format!(
        "__CURSOR=s=1;i={number}\n__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={number}000000\n_BOOT_ID={boot}\n\
         _MACHINE_ID={MACHINE}\n_SYSTEMD_UNIT={unit}.service\n_UID=0\n_PID=7\nPRIORITY=6\nMESSAGE=granted\n\
         KNOCK_AGENT_EVENT=granted\nKNOCK_AGENT_ADDRESS=203.0.113.7\nKNOCK_AGENT_APP=ssh\nKNOCK_AGENT_BY={user}\n\
         KNOCK_AGENT_HOW=operator\nKNOCK_AGENT_LIFETIME_S=60\nKNOCK_AGENT_SERVICES=tcp/22\n\n"
    )
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().replace('-', "")
}

const MACHINE: &str = "fedcba9876543210fedcba9876543210";

/// Writes entries to a file of the journal of a mount namespace; `archive` has it rotated first.
const WRITE: &str = "set -e; d=/var/log/journal/$1; mkdir -p $d; if [ -n \"$2\" ]; then mv $d/system.journal $d/system@$2.journal; fi; \
     /lib/systemd/systemd-journal-remote -o $d/system.journal - >&2";

#[test]
fn the_journal_of_a_unit_is_read_and_followed_through_a_rotation_and_nobody_else_s_entries_count() {
    // A file system of our own with journals of our own; the process in it keeps it there.
    let mut keeper = Command::new("unshare");
    keeper.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs none /var/log && mount -t tmpfs none /run && echo {MACHINE} > /run/machine-id && \
         mount --bind /run/machine-id /etc/machine-id && mkdir -p /var/log/journal/{MACHINE} && echo ready && exec sleep 300"
    ));
    let keeper = Followed::begin(keeper);
    assert_eq!(keeper.lines.recv_timeout(LIMIT).unwrap(), "ready");
    let inside = || {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", keeper.process.0.id()));
        command
    };
    let write = |archive: &str, entries: &str| {
        let mut command = inside();
        command.args(["sh", "-c", WRITE, "sh", MACHINE, archive]);
        finish(command, entries.as_bytes(), LIMIT).success();
    };
    let log = |words: &[&str]| {
        let mut command = inside();
        command.arg(PROGRAM).arg("log").args(words);
        command
    };
    let nobody = finish(log(&[]), b"", LIMIT).success();
    assert!(nobody.text().is_empty() && nobody.stderr.contains("no such events"), "{nobody:?}");

    let broken = format!(
        "__REALTIME_TIMESTAMP=1801418401500000\n__MONOTONIC_TIMESTAMP=1500000\n_BOOT_ID={}\n\
         _SYSTEMD_UNIT=knock-agent.service\nMESSAGE=no event\nKNOCK_AGENT_LIFETIME_S=many\n\n",
        boot()
    );
    let first = entry("knock-agent", "alice", 1) + &entry("another", "mallory", 2) + &broken;
    write("", &first);
    let shown = finish(log(&[]), b"", LIMIT).success().text();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("by alice"), "{shown}");
    let other = finish(log(&["--unit", "another"]), b"", LIMIT).success().text();
    assert!(other.contains("by mallory"), "{other}");

    // A user who may not read it is not told that there is nothing.
    let mut copy = inside();
    copy.args(["cp", PROGRAM, "/run/knock-agent"]);
    finish(copy, b"", LIMIT).success();
    for more in [&[][..], &["--follow"]] {
        let mut stranger = inside();
        stranger.args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/run/knock-agent",
            "log",
        ]);
        stranger.args(more);
        let refused = finish(stranger, b"", LIMIT).exits(77);
        assert!(refused.stderr.contains("systemd-journal"), "{}", refused.stderr);
    }

    let mut followed = Followed::begin(log(&["--follow"]));
    followed.tells_of("alice");
    write("old", &entry("knock-agent", "bob", 3));
    followed.tells_of("bob");
    write("older", &(entry("another", "mallory", 4) + &entry("knock-agent", "carol", 5)));
    followed.tells_of("carol");
    assert!(followed.process.is_alive());

    // Nobody reads any more, and nothing comes.
    let mut left = log(&["--follow"]);
    left.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut left = Background(left.spawn().unwrap());
    drop(left.0.stdout.take());
    assert_eq!(wait(&mut left.0, LIMIT).unwrap().code(), Some(0));
}
