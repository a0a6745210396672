//! Why a reload did not happen, in the words of a log.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::daemon::DaemonError;
use super::operations::OperationError;
use super::outside::OutsideError;
use crate::config::Problems;

/// Why a reload did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(Problems),
    /// A file it names is wrong.
    #[error(transparent)]
    Files(DaemonError),
    /// What is guarded now would not be.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// No random numbers.
    #[error("there are no random numbers: {0}")]
    Random(#[source] io::Error),
    /// The kernel would not.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// The kernel was told at the start which folders are written to.
    #[error(
        "global.state_file: {} is in a folder that this process gave up the right to write to: restart knock-agent for it, the guard and all grants stay",
        .0.display()
    )]
    StateFolder(PathBuf),
    /// The daemon ends.
    #[error("the daemon is ending")]
    Ending,
}

/// A line for each reason.
pub(super) fn reasons(error: &ReloadError) -> Vec<String> {
    match error {
        ReloadError::Configuration(problems) => {
            let more = (problems.more > 0).then(|| format!("... and {} more problems", problems.more));
            problems.list.iter().map(one_line).chain(more).collect()
        }
        ReloadError::Files(DaemonError::TwoFactor(errors)) => {
            errors.iter().map(ToString::to_string).collect()
        }
        other => vec![other.to_string()],
    }
}

/// A log has one line per event.
pub(super) fn one_line(text: &impl fmt::Display) -> String {
    text.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
