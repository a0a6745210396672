//! Secrets from where the profile says they are.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::SecretSource;
use crate::sys::private::{self, PrivateError};
use crate::units::Secret;

const MAX_BYTES: u64 = 16_384;

/// Asks a person.
pub trait Ask: Sync {
    /// The answer, which is not shown while it is typed.
    ///
    /// # Errors
    /// [`SecretError::Nobody`] where there is nobody to ask, [`SecretError::GivenUp`] where nothing was typed.
    fn ask(&self, question: &str) -> Result<Secret, SecretError>;
}

/// Why there is no secret; never tells one.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody sits at a terminal.
    #[error(
        "there is no terminal to ask for {0}: let the profile say where it is (file, command or keyring)"
    )]
    Nobody(String),
    /// Whoever was asked gave up.
    #[error("nothing was typed")]
    GivenUp,
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(std::io::Error),
    /// A file cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: PrivateError,
    },
    /// A program cannot be started.
    #[error("`{program}` cannot be started: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{program}` gave no secret ({status})")]
    Program {
        /// Which.
        program: String,
        /// How it ended.
        status: String,
    },
    /// Nothing is where the secret should be.
    #[error("{0} is empty: the secret is its first line")]
    Empty(String),
}

/// The secret that `what` names to a person.
pub(super) fn fetch(source: &SecretSource, what: &str, ask: &dyn Ask) -> Result<Secret, SecretError> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.clone()),
        SecretSource::File(path) => first_line(&file(path)?, &path.display().to_string()),
        SecretSource::Descriptor(number) => descriptor(*number),
        SecretSource::Command(words) => command(words),
        SecretSource::Keyring(name) => command(&keyring(name)),
        SecretSource::Prompt => ask.ask(&format!("{what} (not shown):")),
    }
}

/// The first line that comes out of a file descriptor of ours.
fn descriptor(number: u32) -> Result<Secret, SecretError> {
    let path = PathBuf::from(format!("/dev/fd/{number}"));
    let failed = |source: std::io::Error| SecretError::File { path: path.clone(), source: source.into() };
    let file = std::fs::File::open(&path).map_err(failed)?;
    let mut text = zeroize::Zeroizing::new(String::with_capacity(4_096));
    file.take(4_096).read_to_string(&mut text).map_err(failed)?;
    first_line(&Secret::new(text.as_str().to_owned()), &path.display().to_string())
}

/// The text of a file that only its owner can see.
pub(super) fn file(path: &Path) -> Result<Secret, SecretError> {
    let text = private::read(path, MAX_BYTES);
    let text = text.map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    Ok(Secret::new(text.as_str().to_owned()))
}

/// The first line that a program prints; what it has to say otherwise goes to standard error.
pub(super) fn command(words: &[String]) -> Result<Secret, SecretError> {
    let program = words.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(words.iter().skip(1)).stdin(Stdio::null()).stdout(Stdio::piped());
    #[cfg(unix)]
    crate::sys::signals::free(&mut command);
    let child = command.spawn().map_err(|source| SecretError::Start { program: program.clone(), source })?;
    let done =
        child.wait_with_output().map_err(|source| SecretError::Start { program: program.clone(), source })?;
    let printed = zeroize::Zeroizing::new(done.stdout);
    let text = std::str::from_utf8(&printed).unwrap_or_default();
    if !done.status.success() {
        return Err(SecretError::Program { program, status: done.status.to_string() });
    }
    first_line(&Secret::new(text.to_owned()), &format!("the output of `{program}`"))
}

fn first_line(text: &Secret, whence: &str) -> Result<Secret, SecretError> {
    let line = text.expose().lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(SecretError::Empty(whence.to_owned()));
    }
    Ok(Secret::new(line.to_owned()))
}

/// The system's own program that asks the keyring; a library for it would bring D-Bus into the client.
fn keyring(name: &str) -> Vec<String> {
    let words: &[&str] = if cfg!(target_os = "macos") {
        &["security", "find-generic-password", "-s", "knock-agent", "-w", "-a", name]
    } else {
        &["secret-tool", "lookup", "service", "knock-agent", "name", name]
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Ask for Nobody {
        fn ask(&self, question: &str) -> Result<Secret, SecretError> {
            Err(SecretError::Nobody(question.to_owned()))
        }
    }

    fn of(words: &[&str]) -> Result<Secret, SecretError> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        fetch(&SecretSource::Command(words), "key", &Nobody)
    }

    #[test]
    fn a_program_gives_its_first_line_or_a_reason() {
        assert_eq!(of(&["printf", "first line\nsecond\n"]).unwrap().expose(), "first line");
        assert!(matches!(of(&["true"]), Err(SecretError::Empty(_))));
        let failed = of(&["sh", "-c", "echo half-a-secret; exit 3"]).unwrap_err().to_string();
        assert!(failed.contains('3') && !failed.contains("half-a-secret"), "{failed}");
        assert!(matches!(of(&["/no/such/program"]), Err(SecretError::Start { .. })));
    }

    #[test]
    fn the_keyring_is_asked_by_name() {
        assert!(keyring("home").contains(&"home".to_owned()));
        assert!(matches!(fetch(&SecretSource::Prompt, "key", &Nobody), Err(SecretError::Nobody(_))));
    }
}
