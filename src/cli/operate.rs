//! Verbs that change grants: by the daemon where one runs, else by themselves on the kernel.

use std::io::ErrorKind;
use std::num::NonZeroU16;

use crate::backend::iptables::IptablesError;
use crate::backend::{BackendError, Firewall};
use crate::cli::load::{self, Exposure};
use crate::cli::{ConfigArg, Exit, Printer, beside};
use crate::ruleset::layout::Options;
use crate::service::bare;
use crate::service::control::{self, Failure, Reply, Request};
use crate::service::operations::{OperationError, Operations};
use crate::service::state::{Resumed, StateFile};
use crate::sys::{clock, users};

/// Has a request carried out and says what came of it.
pub(super) fn operate(file: &ConfigArg, request: Request) -> Exit {
    carry_out(file, request, by_ourselves)
}

/// Has the daemon carry a request out and says what came of it; where none runs, these lines.
pub(super) fn tell_daemon(file: &ConfigArg, request: Request, nobody: &[&str]) -> Exit {
    carry_out(file, request, |_, _, err| {
        nobody.iter().for_each(|line| err.line(line));
        Err(Exit::Unavailable)
    })
}

fn carry_out(
    file: &ConfigArg,
    request: Request,
    without_daemon: impl FnOnce(&ConfigArg, Request, &mut Printer) -> Result<Reply, Exit>,
) -> Exit {
    let mut err = Printer::stderr();
    let outcome = match ask_daemon(file, &request, &mut err) {
        Ok(Heard::Reply(reply)) => Ok(reply),
        Ok(Heard::Nobody | Heard::Deaf(_)) => without_daemon(file, request, &mut err),
        Err(exit) => Err(exit),
    };
    match outcome {
        Ok(Reply::Done { message }) => {
            let mut out = Printer::stdout();
            out.line(message);
            out.finish(err.finish(Exit::Done))
        }
        Ok(Reply::Status { .. } | Reply::Health { .. } | Reply::Figures(_) | Reply::Explained { .. }) => {
            err.finish(Exit::Done)
        }
        Ok(Reply::Failed { failure, message }) => {
            err.line(format!("error: {message}"));
            err.finish(exit_of(failure))
        }
        Err(exit) => err.finish(exit),
    }
}

/// What came of asking the daemon, where it can be done without one.
pub(super) enum Heard {
    /// Its reply.
    Reply(Reply),
    /// No daemon runs.
    Nobody,
    /// One is there that does not answer: why.
    Deaf(String),
}

/// Asks the daemon; fails, after the reason was printed, where nothing can be done without one that is there.
pub(super) fn ask_daemon(file: &ConfigArg, request: &Request, err: &mut Printer) -> Result<Heard, Exit> {
    let error = match beside::ask(&file.runtime_dir, request, None) {
        Ok(Some(reply)) => return Ok(Heard::Reply(reply)),
        Ok(None) => return Ok(Heard::Nobody),
        Err(error) => error,
    };
    let socket = control::socket_path(&file.runtime_dir);
    let deaf = format!("the daemon at {} does not answer: {error}", socket.display());
    // One that hangs leaves undone what nobody waits for any more.
    let hangs = error.kind() == ErrorKind::TimedOut;
    match error.kind() {
        ErrorKind::PermissionDenied => {
            err.line(format!(
                "error: no permission to talk to the daemon at {}: it takes root or a member of group {}",
                socket.display(),
                users::GROUP
            ));
            Err(Exit::NoPermission)
        }
        // Who asks how it is finds that out in other ways.
        ErrorKind::NotConnected | ErrorKind::TimedOut
            if matches!(request, Request::Status {} | Request::Overview { .. } | Request::Explain { .. }) =>
        {
            Ok(Heard::Deaf(error.to_string()))
        }
        // It notices what is taken back in the kernel; what opens there, it may close.
        ErrorKind::NotConnected | ErrorKind::TimedOut if bare::only_closes(request) => {
            err.line(format!("warning: {deaf}"));
            Ok(Heard::Deaf(error.to_string()))
        }
        _ => {
            let undone = "; what it has not begun by now it leaves undone: look at `knock-agent status`";
            err.line(format!("error: {deaf}{}", if hangs { undone } else { "" }));
            Err(Exit::Unavailable)
        }
    }
}

fn by_ourselves(file: &ConfigArg, request: Request, err: &mut Printer) -> Result<Reply, Exit> {
    let settings = match load::load(&file.config, None, Exposure::Warn, err) {
        Ok(checked) => checked.settings,
        // Closing must not wait for a good configuration.
        Err(_) if bare::only_closes(&request) => return close(&request, err),
        Err(exit) => return Err(exit),
    };
    let user = users::name(users::own());
    let mut failed = |error: &OperationError| {
        err.line(format!("error: {error}"));
        exit_of(error.failure())
    };
    let firewall = Firewall::in_place().map_err(|error| failed(&error.into()))?;
    // Nothing is planned here, so that the ports do not matter.
    let port = NonZeroU16::MIN;
    let options = Options { http_port: port, https_port: port, inner_header: true, log: true };
    let now = clock::now();
    let mut operations =
        Operations::adopt(firewall, settings, options, now).map_err(|error| failed(&error))?;
    let state = StateFile::resume_beside(&mut operations, now);
    let message = operations.operate(request, &user, now).map_err(|error| failed(&error))?;
    if let Some(Resumed { file, restored }) = state {
        if let Err(error) = restored {
            err.line(format!("warning: state_file is refused, nothing of it was restored: {error}"));
        }
        let kept = file.map(|mut file| file.keep(&operations, now)).transpose();
        if let Err(error) = kept {
            err.line(format!("warning: state_file cannot be written: {error}"));
        }
    }
    Ok(Reply::Done { message })
}

fn close(request: &Request, err: &mut Printer) -> Result<Reply, Exit> {
    let closed = Firewall::in_place()
        .map_err(OperationError::from)
        .and_then(|mut firewall| bare::close(&mut firewall, request));
    match closed {
        Ok(message) => {
            err.line("warning: this was done without the configuration: a state_file still has what was taken back,");
            err.line(
                "  and a reboot brings it back, unless knock-agent has run before, or the file is removed",
            );
            Ok(Reply::Done { message })
        }
        Err(error) => {
            err.line(format!("error: {error}"));
            Err(exit_of(error.failure()))
        }
    }
}

/// The exit code of a failure.
pub(super) fn exit_of(failure: Failure) -> Exit {
    match failure {
        Failure::Request => Exit::Usage,
        Failure::Permission => Exit::NoPermission,
        Failure::Unavailable => Exit::Unavailable,
    }
}

/// The exit code of a firewall that would not.
pub(super) fn exit_of_backend(error: &BackendError) -> Exit {
    match error {
        BackendError::NotPermitted | BackendError::Iptables(IptablesError::NotPermitted { .. }) => {
            Exit::NoPermission
        }
        BackendError::Iptables(
            IptablesError::Impossible(_)
            | IptablesError::OtherPlan
            | IptablesError::HostChains
            | IptablesError::Confirm
            | IptablesError::NotWithSudo
            | IptablesError::BesideIptables
            | IptablesError::BesideNftables
            | IptablesError::BesideVariant(_),
        ) => Exit::BadConfig,
        BackendError::Iptables(IptablesError::Element(_)) => Exit::Usage,
        BackendError::Iptables(_) => Exit::Unavailable,
        BackendError::Unsupported(_)
        | BackendError::Refused { .. }
        | BackendError::Full { .. }
        | BackendError::Netlink(_) => Exit::Unavailable,
        BackendError::Build(_) | BackendError::NotAsWritten(_) => Exit::Bug,
    }
}
