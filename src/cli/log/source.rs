use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::sys::pipes;

/// No line of ours is longer, in bytes.
const LONGEST: u64 = 1 << 20;
/// How often a file is looked at that is followed.
const LOOK: Duration = Duration::from_millis(300);
/// How often it is looked whether anybody reads what is printed, while nothing comes.
const LOOK_FOR_READER: Duration = Duration::from_secs(1);
/// So many lines of before are shown where what is to come is waited for.
const BEFORE: &str = "1000";
/// Where journals are kept (`systemd-journald.service(8)`).
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The program that reads it is not there.
    #[error(
        "this host keeps no journal: name the file that the log goes to with --file (the daemon writes it with --log-format json)"
    )]
    NoJournal,
    /// It is not for this user.
    #[error("the journal can be read by root and members of the group systemd-journal")]
    Forbidden,
    /// It fails.
    #[error("journalctl cannot read the journal: {0}")]
    Journal(String),
    /// The file cannot be opened.
    #[error("{path} cannot be read: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Reading fails.
    #[error("the log cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Where lines come from.
pub(super) enum Source {
    Journal(Child),
    Lines(Box<dyn BufRead>),
    Followed { path: PathBuf, file: BufReader<File> },
}

impl Source {
    /// The journal of a unit, from a moment in microseconds since 1970 on.
    pub(super) fn journal(unit: &str, since: Option<u64>, follow: bool) -> Result<Self, SourceError> {
        if !JOURNALS.iter().any(|folder| Path::new(folder).is_dir()) {
            return Err(SourceError::NoJournal);
        }
        // journalctl shows a user's own entries then, which are none of a unit's, and ends well.
        if is_closed() {
            return Err(SourceError::Forbidden);
        }
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--quiet", "--output", "json", "--unit", unit]);
        if let Some(micros) = since {
            command.arg(format!("--since=@{}", micros / 1_000_000));
        }
        if follow {
            command.args(["--follow", "--lines", if since.is_some() { "all" } else { BEFORE }]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        child.map(Self::Journal).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoJournal,
            _ => SourceError::Journal(error.to_string()),
        })
    }

    /// A file, or standard input.
    pub(super) fn file(path: &Path, follow: bool) -> Result<Self, SourceError> {
        if path == Path::new("-") {
            return Ok(Self::Lines(Box::new(BufReader::new(io::stdin()))));
        }
        let file = File::open(path).map(BufReader::new);
        let file = file.map_err(|source| SourceError::File { path: path.display().to_string(), source })?;
        let regular = file.get_ref().metadata()?.is_file();
        Ok(match follow && regular {
            true => Self::Followed { path: path.to_owned(), file },
            false => Self::Lines(Box::new(file)),
        })
    }

    /// Gives each line, until nobody wants more.
    pub(super) fn each(&mut self, mut take: impl FnMut(&str) -> ControlFlow<()>) -> Result<(), SourceError> {
        match self {
            Self::Journal(child) => {
                let Some(out) = child.stdout.take() else { return Ok(()) };
                let mut lines = BufReader::new(out);
                loop {
                    // It would only notice with its next line.
                    let wanted = !lines.buffer().is_empty() || readable_while_read(lines.get_ref().as_fd());
                    let line = if wanted { next(&mut lines)? } else { None };
                    if wanted && line.is_none() {
                        break;
                    }
                    if line.is_none_or(|line| take(&line).is_break()) {
                        let _ = child.kill();
                        let _ = child.wait();
                        return Ok(());
                    }
                }
                match child.wait()? {
                    status if status.success() => Ok(()),
                    status => Err(SourceError::Journal(status.to_string())),
                }
            }
            Self::Lines(lines) => {
                while let Some(line) = next(lines)? {
                    if take(&line).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Followed { path, file } => follow(path, file, take),
        }
    }
}

/// Whether the system's journal is there, and none of it is for this user.
fn is_closed() -> bool {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let mut closed = false;
    for folder in JOURNALS {
        let hosts = match fs::read_dir(folder) {
            Ok(hosts) => hosts,
            Err(error) => {
                closed |= denied(&error);
                continue;
            }
        };
        for host in hosts.flatten() {
            match File::open(host.path().join("system.journal")) {
                Ok(_) => return false,
                Err(error) => closed |= denied(&error),
            }
        }
    }
    closed
}

/// Reads a file to its end and goes on, also when it is cut or another one takes its name.
fn follow(
    path: &Path,
    file: &mut BufReader<File>,
    mut take: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(), SourceError> {
    let mut line = Vec::new();
    // Another file that has its name by now; first it is read to its end.
    let mut successor = None;
    loop {
        let room = LONGEST.saturating_sub(line.len() as u64).max(1);
        let read = file.by_ref().take(room).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') || line.len() as u64 >= LONGEST {
            if take(&String::from_utf8_lossy(&line)).is_break() {
                return Ok(());
            }
            line.clear();
        } else if read == 0 {
            if let Some(other) = successor.take() {
                *file = BufReader::new(other);
                line.clear();
                continue;
            }
            std::thread::sleep(LOOK);
            if !is_read() {
                return Ok(());
            }
            // Between being renamed and being made anew there is none.
            let Ok(other) = File::open(path) else { continue };
            let (named, open) = (other.metadata()?, file.get_ref().metadata()?);
            if (named.dev(), named.ino()) != (open.dev(), open.ino()) {
                successor = Some(other);
            } else if named.len() < file.stream_position()? {
                file.seek(SeekFrom::Start(0))?;
                line.clear();
            }
        }
    }
}

/// Waits until there is something to read; false once nobody reads what is printed.
fn readable_while_read(from: BorrowedFd<'_>) -> bool {
    loop {
        match pipes::wait_readable(from, LOOK_FOR_READER) {
            Ok(true) | Err(_) => return true,
            Ok(false) if !is_read() => return false,
            Ok(false) => {}
        }
    }
}

/// Whether somebody still may read what is printed.
fn is_read() -> bool {
    pipes::has_reader(io::stdout().as_fd())
}

/// The next line; none at the end.
fn next(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_last_one_needs_no_end() {
        let mut text = b"a\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', usize::try_from(LONGEST).unwrap() + 5));
        text.extend(b"\nlast");
        let mut source = Source::Lines(Box::new(io::Cursor::new(text)));
        let mut lengths = Vec::new();
        source
            .each(|line| {
                lengths.push(line.len());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(lengths, [2, 1 << 20, 6, 4]);
    }
}
