//! `knock-agent teardown`.

use clap::Args;

use crate::backend::Firewall;
use crate::cli::load::{self, Exposure};
use crate::cli::operate::{Heard, ask_daemon, exit_of, exit_of_backend};
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::control::{Reply, Request};
use crate::service::{daemon, state};
use crate::sys::files;

/// The arguments of `teardown`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "For root, or a process of the daemon's user that has CAP_NET_ADMIN: members of the group knock-agent may not.\nA running daemon removes everything itself and stops. Guarded ports are open afterwards.\nOf the chains of the host, only rules whose comment begins with ka:host- are removed."
)]
pub struct TeardownArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Removes everything of ours; a running daemon does it itself and stops.
#[must_use]
pub fn run(args: TeardownArgs) -> Exit {
    let mut err = Printer::stderr();
    let mut out = Printer::stdout();
    let exit = match ask_daemon(&args.file, &Request::Teardown {}, &mut err) {
        Ok(Heard::Reply(Reply::Failed { failure, message })) => {
            err.line(format!("error: {message}"));
            exit_of(failure)
        }
        Ok(Heard::Reply(Reply::Done { message })) => {
            wait_for_its_end(&args.file);
            out.line(message);
            Exit::Done
        }
        Ok(Heard::Reply(
            Reply::Status { .. } | Reply::Health { .. } | Reply::Figures(_) | Reply::Explained { .. },
        )) => Exit::Bug,
        // One that is there would put everything back.
        Ok(Heard::Deaf(_)) => Exit::Unavailable,
        Ok(Heard::Nobody) => match Firewall::remove_all() {
            Ok(true) => {
                forget(&args.file, &mut err);
                out.line("all rules of knock-agent are removed, those in chains of the host too; nothing is guarded any more");
                Exit::Done
            }
            Ok(false) => {
                out.line("there was nothing to remove");
                Exit::Done
            }
            Err(error) => {
                err.line(format!("error: {error}"));
                exit_of_backend(&error)
            }
        },
        Err(exit) => exit,
    };
    out.finish(err.finish(exit))
}

/// Waits, a few seconds at most, until the daemon has let go of its lock, so that the next one can start.
fn wait_for_its_end(file: &ConfigArg) {
    for _ in 0..50 {
        // Looks only: root makes no file in a folder of another user.
        match files::is_locked(&daemon::lock_path(&file.runtime_dir)) {
            Ok(true) => std::thread::sleep(std::time::Duration::from_millis(50)),
            Ok(false) | Err(_) => return,
        }
    }
}

/// Removes the grants of the state file too, else a reboot would bring them back.
fn forget(file: &ConfigArg, err: &mut Printer) {
    // Teardown needs no configuration; without one there is no telling where the file is.
    let Ok(checked) = load::read(&file.config, None, Exposure::Warn) else { return };
    if let Some(path) = checked.settings.global.state_file
        && let Err(error) = state::forget(&path)
    {
        err.line(format!("warning: {}: its grants come back after a reboot: {error}", path.display()));
    }
}
