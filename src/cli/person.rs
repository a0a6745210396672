//! The person in front of the client, and the profile they named.

use std::io;

use crate::cli::{Exit, Printer};
use crate::client::{Ask, Failure, ProfileError, SecretError, load};
use crate::config::Way;
use crate::sys::{process, terminal};
use crate::units::Secret;

/// Asks at the terminal; where there is none, reads lines of standard input if that is free.
pub(super) struct Person {
    pub stdin_is_free: bool,
}

impl Ask for Person {
    fn ask(&self, question: &str) -> Result<Secret, SecretError> {
        let what = || question.trim_end_matches([':', ' ']).to_owned();
        let answer = match terminal::ask(question) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) if self.stdin_is_free => match terminal::read_line() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(SecretError::Nobody(what()));
                }
                read => read,
            },
            Ok(None) => return Err(SecretError::Nobody(what())),
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.expose().is_empty() => Err(SecretError::GivenUp),
            Ok(answer) => Ok(answer),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::Interrupted) =>
            {
                Err(SecretError::GivenUp)
            }
            Err(error) => Err(SecretError::Terminal(error)),
        }
    }
}

/// The profile of that name, after everything wrong with it has been printed.
pub(super) fn profile(name: Option<&str>, err: &mut Printer) -> Result<Way, Exit> {
    if let Err(error) = process::conceal() {
        err.line(format!("error: the process cannot be protected: {error}"));
        return Err(Exit::Bug);
    }
    match load(name) {
        Ok(found) => {
            for warning in &found.warnings {
                err.line(warning);
            }
            Ok(found.way)
        }
        Err(error) => {
            if let ProfileError::Wrong { problems, .. } = &error {
                for problem in &problems.list {
                    err.line(problem);
                }
            }
            err.line(format!("error: {error}"));
            Err(match error {
                ProfileError::Unnamed(_) | ProfileError::Homeless => Exit::Usage,
                ProfileError::Missing { .. }
                | ProfileError::Unreadable { .. }
                | ProfileError::Wrong { .. } => Exit::BadConfig,
            })
        }
    }
}

/// The exit code of a failure.
pub(super) fn exit_of(failure: &Failure) -> Exit {
    match failure {
        Failure::Unresolved { .. } | Failure::NoGateway { .. } | Failure::Broken { .. } => Exit::NoGateway,
        Failure::NoStep2 { .. } => Exit::NoStep2,
        Failure::Untrusted { .. } => Exit::Untrusted,
        Failure::NoAnswer { .. } | Failure::NotTls { .. } | Failure::NotHttp { .. } | Failure::Status(_) => {
            Exit::BadAnswer
        }
        Failure::Refused => Exit::Refused,
        Failure::NoCode(_) => Exit::NoCode,
        Failure::TooMany => Exit::TooMany,
        Failure::Random(_) => Exit::Bug,
        Failure::Name(_)
        | Failure::Stored(_)
        | Failure::Secret { .. }
        | Failure::Key { .. }
        | Failure::Rotation(_)
        | Failure::Path
        | Failure::Tls(_) => Exit::BadConfig,
    }
}

/// How near to success a failure was: where one family fails otherwise than the other, the nearer one tells more.
pub(super) fn farthest(failures: &[&Failure]) -> Exit {
    let depth = |exit: &Exit| match exit {
        Exit::NoGateway => 0,
        Exit::NoStep2 => 1,
        _ => 2,
    };
    failures.iter().map(|failure| exit_of(failure)).max_by_key(depth).unwrap_or(Exit::NoGateway)
}
