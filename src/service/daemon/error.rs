//! Why the daemon does not run, or ended.

use std::io;
use std::path::PathBuf;

use crate::backend::BackendError;
use crate::service::certificate::CertificateError;
use crate::service::front::ListenError;
use crate::service::keeper::FrontError;
use crate::service::operations::OperationError;
use crate::service::outside::OutsideError;
use crate::service::trial::TrialError;
use crate::service::two_factor::TwoFactorError;
use crate::sys::seal::SealError;

/// Why the daemon does not run. Whatever guard was in place by then stays.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs.
    #[error("another knock-agent runs already: {} is locked", .0.display())]
    AlreadyRuns(PathBuf),
    /// Another one, with other files, guards this network namespace.
    #[error("another knock-agent (pid {0}) guards this network namespace already: stop it first")]
    AlreadyGuards(i32),
    /// A file of the certificate cannot be read.
    #[error("{}: {source}", path.display())]
    CertificateFile {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The certificate of step 2 cannot be used.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Certificate {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// 2FA files cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))]
    TwoFactor(Vec<TwoFactorError>),
    /// An outside interface is named by what rules do not know.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// The firewall would not.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What was in the kernel could not be taken over.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// Nothing can be started beside it.
    #[error("the process that starts others cannot be started: {0}")]
    Launcher(#[source] io::Error),
    /// The process that listens does not.
    #[error("the front, which listens for both steps: {0}")]
    Front(#[from] FrontError),
    /// It could still do what it will never need.
    #[error("the process cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// A port cannot be listened on.
    #[error("{error}: {}", error.source)]
    Listen {
        /// Which, and the reason.
        error: ListenError,
    },
    /// A file or socket of the runtime directory.
    #[error("{}: {source}", path.display())]
    Runtime {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The process could not be set up.
    #[error("the process cannot be set up: {0}")]
    Process(#[source] io::Error),
    /// There would be no going back.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// Nobody confirmed it in time.
    #[error("nobody said `knock-agent confirm` within {0} s: everything was put back as it was before")]
    NotConfirmed(u64),
    /// It ended before anybody confirmed it.
    #[error("ended before `knock-agent confirm`: everything was put back as it was before")]
    EndedUnconfirmed,
    /// Somebody removed or changed the guard just before the end, whatever that is for.
    #[error(
        "{}THE GUARD DOES NOT STAY: somebody removed or changed it, and it could not be put right before the end; ports may stand open",
        .0.as_ref().map(|error| format!("{error}; and ")).unwrap_or_default()
    )]
    Unguarded(Option<Box<DaemonError>>),
    /// A part of the daemon ended by itself.
    #[error("{0} ended unexpectedly: this is a bug; the guard and running grants stay")]
    Died(&'static str),
}
