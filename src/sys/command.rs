//! Other programs: found where only root can have put them, run without a shell, with a clean environment and a
//! time limit, their input on standard input.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::signals;

/// Where system programs are.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// What programs see of the environment.
const SEARCH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Between looks at a program that has closed its output and not ended yet.
const PAUSE: Duration = Duration::from_millis(2);
/// More output than any listing has.
const MAX_OUTPUT: u64 = 1 << 30;

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub output: String,
    /// What it complained about.
    pub complaints: String,
}

/// The absolute path of a program, in a folder of system programs: the file and its folder belong to root and
/// nobody else can write to them.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| is_trusted(path))
}

/// The file that a path leads to through its links.
#[must_use]
pub fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

fn is_trusted(path: &Path) -> bool {
    let Some(real) = real(path) else { return false };
    let safe =
        |path: &Path| fs::metadata(path).is_ok_and(|about| about.uid() == 0 && about.mode() & 0o022 == 0);
    let runs = fs::metadata(&real).is_ok_and(|about| about.is_file() && about.mode() & 0o111 != 0);
    runs && safe(&real) && real.parent().is_some_and(safe) && path.parent().is_some_and(safe)
}

/// Runs a program to its end, at most for `limit`, with `input` on its standard input.
///
/// # Errors
/// The reason; [`io::ErrorKind::TimedOut`] where it took too long and was ended.
pub fn run(words: &[&str], input: &str, limit: Duration) -> io::Result<Finished> {
    execute(words, input, limit, MAX_OUTPUT, false)
}

/// The same, reading at most so many bytes of its output and as many of its complaints. Where it is ended, so is
/// what it has started.
///
/// # Errors
/// As for [`run`].
pub fn run_bounded(words: &[&str], input: &str, limit: Duration, most: u64) -> io::Result<Finished> {
    execute(words, input, limit, most, true)
}

/// `apart`: in a process group of its own, which a program that asks at a terminal must not be in.
fn execute(words: &[&str], input: &str, limit: Duration, most: u64, apart: bool) -> io::Result<Finished> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let end = Instant::now() + limit;
    let mut command = Command::new(program);
    if apart {
        command.process_group(0);
    }
    signals::free(&mut command);
    let mut child = command
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let outcome = converse(&mut child, input, end, most);
    if outcome.is_err() {
        if apart && let Ok(group) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn converse(child: &mut Child, input: &str, end: Instant, most: u64) -> io::Result<Finished> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_owned();
        // It may end without reading everything, which its complaints and status tell.
        thread::Builder::new().spawn(move || drop(pipe.write_all(input.as_bytes())))?;
    }
    let mut pending = 0;
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    for (index, pipe) in outputs.into_iter().enumerate() {
        let Some(pipe) = pipe else { continue };
        let sender = sender.clone();
        thread::Builder::new().spawn(move || {
            let mut text = Vec::new();
            let read = pipe.take(most).read_to_end(&mut text);
            let _ = sender.send((index, read.map(|_| String::from_utf8_lossy(&text).into_owned())));
        })?;
        pending += 1;
    }
    let (mut output, mut complaints) = (String::new(), String::new());
    for _ in 0..pending {
        let left = end.saturating_duration_since(Instant::now());
        let (index, text) = receiver.recv_timeout(left).map_err(|_| io::ErrorKind::TimedOut)?;
        if index == 0 { output = text? } else { complaints = text? }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Finished { status, output, complaints });
        }
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn input_output_complaints_and_status_are_those_of_the_program() {
        let shell = find("sh").unwrap();
        let words = [shell.to_str().unwrap(), "-c", "cat; echo oh >&2; echo $HOME$LC_ALL; exit 3"];
        let long = "x".repeat(1 << 20);
        let done = run(&words, &long, LIMIT).unwrap();
        assert_eq!(done.output, format!("{long}C\n"), "and nothing of our environment");
        assert_eq!((done.complaints.as_str(), done.status.code()), ("oh\n", Some(3)));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let sleep = find("sleep").unwrap();
        let begun = Instant::now();
        let error = run(&[sleep.to_str().unwrap(), "60"], "", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_a_program_started_is_ended_with_it() {
        let shell = find("sh").unwrap();
        let words = [shell.to_str().unwrap(), "-c", "sleep 61.5 & wait"];
        run_bounded(&words, "", Duration::from_millis(300), 1_000).unwrap_err();
        let begun = Instant::now();
        let alive = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let lines = all.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
            lines.into_iter().any(|line| line.starts_with("sleep\0") && line.contains("61.5"))
        };
        while alive() {
            assert!(begun.elapsed() < LIMIT, "what it started goes on");
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn only_what_root_put_in_system_folders_is_found() {
        assert_eq!(find("no-such-program-anywhere"), None);
        assert_eq!(find("../../tmp/x"), None);
        assert!(find("cat").is_some_and(|path| path.is_absolute()));
        assert!(!is_trusted(Path::new("/tmp")));
    }
}
