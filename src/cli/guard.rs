//! `knock-agent guard`.

use clap::Args;

use crate::backend::iptables::IptablesError;
use crate::backend::{BackendError, Firewall, Scope};
use crate::cli::load::{self, Exposure};
use crate::cli::operate::{exit_of, exit_of_backend};
use crate::cli::{DaemonArgs, Exit, Printer, Tone, beside};
use crate::config::Settings;
use crate::service::daemon::guard_alone;
use crate::service::last_good::LastGood;
use crate::service::operations::OperationError;
use crate::sys::signals;
use crate::units::Mark;

/// The arguments of `guard`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "For early boot, before the network is up; `knock-agent run` takes over what is there, with the same flags. Where the configuration cannot be used, the last good plan of `run` or `guard` is put in place and the reason printed; exit code 78 only if there is none either.\n\nExample:\n  sudo knock-agent guard -c config.yaml --http-port 80 --https-port 443"
)]
pub struct GuardArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Where the plan comes from.
enum Source {
    Configuration(Box<Settings>),
    LastGood(Box<LastGood>),
}

/// Puts the guard in place and exits.
#[must_use]
pub fn run(args: GuardArgs) -> Exit {
    let mut err = Printer::stderr();
    let mut out = Printer::stdout();
    if let Err(errno) = signals::begin_afresh() {
        err.line(format!("error: signals cannot be set: {errno}"));
        return err.finish(Exit::Bug);
    }
    let exit = match guard(&args.daemon, &mut out, &mut err) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    };
    out.finish(err.finish(exit))
}

fn guard(args: &DaemonArgs, out: &mut Printer, err: &mut Printer) -> Result<(), Exit> {
    args.log_style().begin();
    args.vet(err);
    let source = match source(args, out, err)? {
        Some(source) => source,
        None => return Ok(()),
    };
    let failed = |error: &BackendError, err: &mut Printer| {
        err.line(format!("error: {error}"));
        exit_of_backend(error)
    };
    let mut choice = args.firewall_choice();
    if let Source::LastGood(plan) = &source {
        choice.kind = choice.kind.or(Some(plan.kind()));
    }
    let mut firewall = Firewall::open(choice).map_err(|error| failed(&error, err))?;
    if let Some(limits) = firewall.limits() {
        err.line(format!("warning: {limits}"));
    }
    if daemon_guards(args, &mut firewall).map_err(|error| failed(&error, err))? {
        out.line(BESIDE);
        return Ok(());
    }
    // Without the configuration, what stands in the host's chains stays: nobody is let in before `run`.
    let mut mark = None;
    let (plan, mut fresh) = match source {
        Source::Configuration(settings) => {
            mark = Some(settings.global.mark);
            let (http_port, https_port) = args.public_ports();
            let planned = firewall
                .options(&settings, http_port, https_port)
                .and_then(|options| Ok((firewall.plan(&settings, options)?, options)));
            match planned {
                Ok((planned, options)) => (LastGood::of(&settings, planned), Some((settings, options))),
                // What this firewall cannot do is no reason to leave the ports open.
                Err(error) => {
                    let exit = failed(&error, err);
                    (last_good(args, exit, err)?, None)
                }
            }
        }
        Source::LastGood(plan) => (*plan, None),
    };
    if firewall.read_sets(|_| false).is_ok_and(|live| live.is_some_and(|live| live.loaded)) {
        err.line(LOADED);
    }
    let mut outcome = match &fresh {
        Some((settings, options)) => {
            let (back, outcome) = guard_alone(firewall, settings, *options, &plan, &args.file.runtime_dir);
            firewall = back;
            outcome
        }
        None => install_or_close(&plan, &mut firewall).map_err(OperationError::from),
    };
    // Another kernel than yesterday's may lack what today's configuration asks for the first time.
    if let (Err(error), true) = (&outcome, fresh.is_some()) {
        fresh = None;
        let exit = failed_operation(error, err);
        let fallback = last_good(args, exit, err)?;
        outcome = install_or_close(&fallback, &mut firewall).map_err(OperationError::from);
    }
    let changes = outcome.map_err(|error| failed_operation(&error, err))?;
    let plural = if changes == 1 { "" } else { "s" };
    let by = if fresh.is_some() { "the configuration" } else { "the last good plan" };
    out.line(format!("the guard is in place as {by} has it ({changes} change{plural})"));
    if fresh.is_some()
        && let Err(error) = plan.keep(&args.state_dir)
    {
        let path = LastGood::path(&args.state_dir);
        err.line(format!("warning: {}: this plan is not kept for worse times: {error}", path.display()));
    }
    mark.map_or(Ok(()), |mark| host_chains(args, mark, &mut firewall, err))
}

fn failed_operation(error: &OperationError, err: &mut Printer) -> Exit {
    err.line(format!("error: {error}"));
    match error {
        OperationError::Backend(error) => exit_of_backend(error),
        other => exit_of(other.failure()),
    }
}

/// Puts in force what guarded here before; where the whole of it cannot be, what closes.
fn install_or_close(plan: &LastGood, firewall: &mut Firewall) -> Result<usize, BackendError> {
    plan.install(firewall).inspect_err(|error| {
        if matches!(error, BackendError::Iptables(IptablesError::Hidden { .. })) {
            // The first error says why.
            let _ = plan.close(firewall);
        }
    })
}

/// After the guard, which must not depend on the host's chains.
fn host_chains(
    args: &DaemonArgs,
    mark: Option<Mark>,
    firewall: &mut Firewall,
    err: &mut Printer,
) -> Result<(), Exit> {
    let chains = args.host_chains(mark, err)?;
    match firewall.put_host(&chains, mark, Scope::Everywhere) {
        Ok(done) => {
            for trouble in done.troubles {
                err.line(format!("warning: {trouble}"));
            }
            Ok(())
        }
        Err(error) => {
            err.line(format!(
                "error: the guard is in place, but the host's chains could not be changed: {error}"
            ));
            Err(exit_of_backend(&error))
        }
    }
}

/// What is said where a daemon guards.
const BESIDE: &str = "a daemon runs and guards here: nothing was changed";

/// What is said where the rules come from somebody's file.
const LOADED: &str = "warning: the rules of knock-agent that are in force were loaded from a file: nobody is let in by what was saved there (`knock-agent check-ruleset` names files that have them)";

/// The plan of the configuration, or what there is instead; none where a daemon guards, whatever the file says now.
fn source(args: &DaemonArgs, out: &mut Printer, err: &mut Printer) -> Result<Option<Source>, Exit> {
    let exposure = Exposure::of_strict(args.strict);
    let exit = match load::load(&args.file.config, Some(&args.steps()), exposure, err) {
        Ok(checked) => return Ok(Some(Source::Configuration(Box::new(checked.settings)))),
        Err(exit) => exit,
    };
    if Firewall::in_place().is_ok_and(|mut firewall| daemon_guards(args, &mut firewall).unwrap_or(false)) {
        out.line(BESIDE);
        return Ok(None);
    }
    last_good(args, exit, err).map(|plan| Some(Source::LastGood(Box::new(plan))))
}

/// The last good plan; without one, the exit code for what made it needed.
fn last_good(args: &DaemonArgs, exit: Exit, err: &mut Printer) -> Result<LastGood, Exit> {
    let path = LastGood::path(&args.state_dir);
    match LastGood::read(&args.state_dir) {
        Ok(plan) => {
            let loud = "THE CONFIGURATION IS NOT IN FORCE: the last good plan guards instead";
            let loud = err.paint(Tone::Bad, loud);
            err.line(format!("{loud} ({})", path.display()));
            err.line("  fix: `knock-agent check-config` until it is quiet, then `knock-agent guard` again");
            Ok(plan)
        }
        Err(error) => {
            err.line(format!("error: {}: {error}", path.display()));
            let loud = "there is no last good plan either: nothing was changed, nothing new is guarded";
            let loud = err.paint(Tone::Bad, loud);
            err.line(loud);
            Err(exit)
        }
    }
}

/// Whether a daemon is there with its table: its own configuration is in force then, and it would put back
/// whatever is changed beside it.
fn daemon_guards(args: &DaemonArgs, firewall: &mut Firewall) -> Result<bool, BackendError> {
    Ok(beside::present(&args.file.runtime_dir).is_some() && firewall.guards()?)
}
