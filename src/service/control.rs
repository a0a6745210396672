//! The control socket: one JSON request and one JSON reply a connection, a line each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::health::Ailment;
use super::status::Status;
use super::tally::Figures;
use crate::config::Behind;
use crate::ruleset::explain::Recalled;
use crate::sys::{files, local, pipes, users};
use crate::units::{Family, Network};

/// Longest request, in bytes.
pub(super) const REQUEST: u64 = 4_096;
/// How long a client waits for the daemon.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long for all that stands open, which may be a million grants.
const CLIENT_PATIENCE_FOR_ALL: Duration = Duration::from_secs(300);

/// What an operator may ask of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// All that stands open.
    Status {},
    /// How many are let in, and the newest of them.
    Overview {
        /// At most so many of them.
        most: u32,
    },
    /// What is known of an address.
    Explain {
        /// The address.
        address: IpAddr,
    },
    /// Let an address reach an app.
    Grant {
        /// The app.
        app: String,
        /// The address.
        address: IpAddr,
        /// For how many seconds; none: the app's duration.
        seconds: Option<u64>,
    },
    /// End an address's grant.
    Revoke {
        /// The app.
        app: String,
        /// The address, or the first one of a network.
        address: IpAddr,
        /// Bits of that network, which has to be as wide as a grant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<u8>,
    },
    /// End all grants.
    RevokeAll {
        /// Of this app only.
        app: Option<String>,
    },
    /// Allow a network.
    Allow {
        /// The network, in CIDR notation.
        network: String,
        /// To reach this app only.
        app: Option<String>,
        /// For how many seconds; none: until it is flushed.
        seconds: Option<u64>,
    },
    /// Forget the networks that operators allowed.
    AllowFlush {
        /// For this app only; none: all of them.
        app: Option<String>,
    },
    /// Lift lock-outs.
    Unblock {
        /// Of this address only; none: all of them.
        address: Option<IpAddr>,
    },
    /// Keep what `run --confirm` put in force.
    Confirm {},
    /// Remove everything and stop.
    Teardown {},
    /// What is wrong, if anything.
    Health {},
    /// Figures; asked by the daemon itself only.
    #[serde(skip)]
    Figures {},
}

/// A network as wide as this, or wider, is nearly everybody.
const VAST_V4: u8 = 7;
const VAST_V6: u8 = 15;

impl Request {
    /// Whether it takes down the guard as a whole, or keeps what only root can put in force: that is not for operators.
    pub(super) fn is_for_root(&self) -> bool {
        match self {
            Self::Teardown {} | Self::Confirm {} => true,
            Self::Allow { network, .. } => network.parse().is_ok_and(|network: Network| {
                network.prefix_len() <= if network.family() == Family::V4 { VAST_V4 } else { VAST_V6 }
            }),
            Self::Status {}
            | Self::Overview { .. }
            | Self::Explain { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::RevokeAll { .. }
            | Self::AllowFlush { .. }
            | Self::Unblock { .. }
            | Self::Health {}
            | Self::Figures {} => false,
        }
    }
}

/// What the daemon replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It is done; the message says what.
    Done {
        /// A sentence for the operator.
        message: String,
    },
    /// The status.
    Status {
        /// What stands open.
        status: Status,
    },
    /// How the daemon is.
    Health {
        /// What is wrong.
        problems: Vec<Ailment>,
        /// The ports of both steps that clients use; none where there are no steps, and from a daemon of before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ports: Option<(NonZeroU16, NonZeroU16)>,
        /// What its flags say of a proxy in front.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind: Option<Behind>,
        /// Whether flags stand for its configuration, so that it goes by no file.
        #[serde(default)]
        by_flags: bool,
    },
    /// The figures.
    #[serde(skip)]
    Figures(Box<Figures>),
    /// What is known of an address.
    Explained {
        /// That.
        recalled: Recalled,
    },
    /// It was not done.
    Failed {
        /// What kind of failure it is.
        failure: Failure,
        /// A sentence for the operator.
        message: String,
    },
}

/// Kinds of failures, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The request makes no sense here.
    Request,
    /// Who asks may not, or the process may not.
    Permission,
    /// The kernel or the daemon cannot do it now.
    Unavailable,
}

/// A request, who made it and where the reply goes.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// The user that made it.
    pub user: String,
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
    /// The connection it came on; none where it is of this process.
    pub caller: Option<OwnedFd>,
}

impl Call {
    /// Whether whoever made it waits for its reply: who was told that it failed is not to find it done later.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.reply.is_closed() && self.caller.as_ref().is_none_or(|caller| pipes::has_reader(caller.as_fd()))
    }
}

/// Where the control socket is in a runtime directory.
#[must_use]
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// Binds the socket; whoever left one behind is dead, because the caller holds the lock.
///
/// # Errors
/// The reason.
pub fn bind(runtime_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(runtime_dir);
    files::remove(&path)?;
    let listener = UnixListener::bind(&path)?;
    match users::operators() {
        Some(group) => {
            users::give_to_group(&path, group)?;
            files::set_mode(&path, 0o660)?;
        }
        None => files::set_mode(&path, 0o600)?,
    }
    Ok(listener)
}

/// Asks the daemon; `None` where no daemon answers.
///
/// # Errors
/// When there is a daemon but it cannot be asked: [`io::ErrorKind::PermissionDenied`] among others.
pub fn call(runtime_dir: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let patience = if *request == (Request::Status {}) { CLIENT_PATIENCE_FOR_ALL } else { CLIENT_PATIENCE };
    call_within(runtime_dir, request, patience)
}

/// The same, and waits for so long.
///
/// # Errors
/// As for [`call`].
pub fn call_within(runtime_dir: &Path, request: &Request, patience: Duration) -> io::Result<Option<Reply>> {
    let end = Instant::now() + patience;
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("no reply within {} s", patience.as_secs()));
    let of_time = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => error,
    };
    let mut stream = match local::call(&socket_path(runtime_dir), patience) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(of_time(error)),
    };
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    let mut text = serde_json::to_string(request).map_err(io::Error::other)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).map_err(of_time)?;
    let mut line = String::new();
    // A status with very many grants is long, but not endless.
    BufReader::new(stream.take(1 << 30)).read_line(&mut line).map_err(of_time)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the daemon closed the connection without a reply",
        ));
    }
    serde_json::from_str(&line).map(Some).map_err(|error| {
        let text = format!("its reply cannot be read, it may be of another version: {error}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_asked_for_nothing_that_is_about_the_guard_as_a_whole() {
        let allow = |network: &str| Request::Allow { network: network.to_owned(), app: None, seconds: None };
        for request in [
            Request::Teardown {},
            Request::Confirm {},
            allow("0.0.0.0/0"),
            allow("128.0.0.0/1"),
            allow("::/0"),
        ] {
            assert!(request.is_for_root(), "{request:?}");
        }
        for request in [
            Request::Status {},
            Request::Health {},
            Request::RevokeAll { app: None },
            Request::AllowFlush { app: None },
            Request::Unblock { address: None },
            allow("10.0.0.0/8"),
            allow("192.0.2.7"),
            allow("2001::/16"),
            allow("no network"),
        ] {
            assert!(!request.is_for_root(), "{request:?}");
        }
    }
}
