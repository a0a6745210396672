//! `knock-agent confirm`.

use clap::Args;

use crate::cli::operate::{ask_daemon, exit_of};
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::control::{Reply, Request};

/// The arguments of `confirm`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Say it from a connection that you made after the start: then you know that you still get in."
)]
pub struct ConfirmArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Tells the daemon that all is well.
#[must_use]
pub fn run(args: ConfirmArgs) -> Exit {
    let mut err = Printer::stderr();
    let mut out = Printer::stdout();
    let exit = match ask_daemon(&args.file, &Request::Confirm {}, &mut err) {
        Ok(Some(Reply::Done { message })) => {
            out.line(message);
            Exit::Done
        }
        Ok(Some(Reply::Failed { failure, message })) => {
            err.line(format!("error: {message}"));
            exit_of(failure)
        }
        Ok(Some(Reply::Status { .. })) => Exit::Bug,
        Ok(None) => {
            err.line("error: no daemon runs here: there is nothing to confirm");
            err.line(
                "  note: if one was started with --confirm, its time is over and all is as it was before",
            );
            Exit::Unavailable
        }
        Err(exit) => exit,
    };
    out.finish(err.finish(exit))
}
