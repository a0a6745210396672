//! Asks the operator at a terminal before `run` closes anything.

use std::io::{self, BufRead, IsTerminal};
use std::net::SocketAddr;

use crate::backend::{BackendError, Firewall, Plan};
use crate::cli::operate::exit_of_backend;
use crate::cli::{DaemonArgs, Exit, Printer, Tone};
use crate::config::Settings;
use crate::ruleset::diff::{Change, Live, diff};
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::lockout::{Endangered, Flow};
use crate::ruleset::text::render;
use crate::service::check_iptables;
use crate::service::lockout::{Found, look};
use crate::sys::process;

/// What `run` was told about asking.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// `--ask`: show the rules and ask in any case.
    pub ask: bool,
    /// `--yes`: go on where connections are open.
    pub yes: bool,
}

/// Asks where there is something to ask and somebody who can answer.
///
/// # Errors
/// The exit code, where the answer is no or what was asked for is impossible.
pub fn consent(
    wishes: Wishes,
    args: &DaemonArgs,
    settings: &Settings,
    err: &mut Printer,
) -> Result<(), Exit> {
    // Who can read and answer; a service can neither, and goes on.
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if wishes.ask && !terminal {
        err.line("error: --ask needs a terminal to ask at");
        err.line("  fix: `knock-agent check-ruleset` shows the same to programs and changes nothing");
        return Err(Exit::Usage);
    }
    if !terminal {
        return Ok(());
    }
    let failed = |error: BackendError, err: &mut Printer| {
        err.line(format!("error: {error}"));
        exit_of_backend(&error)
    };
    let state = || -> Result<(Options, Option<Live>, Plan), BackendError> {
        let mut firewall = Firewall::open(args.firewall_choice())?;
        let (http_port, https_port) = args.public_ports();
        let options = firewall.options(settings, http_port, https_port)?;
        let live = firewall.read()?;
        Ok((options, live, firewall.plan(settings, options)?))
    };
    let (options, live, plan) = state().map_err(|error| failed(error, err))?;
    let layout = Layout::new(settings, options);
    let found = look(&layout, live.as_ref()).map_err(|error| {
        err.line(format!("error: open connections cannot be looked at: {error}"));
        Exit::Unavailable
    })?;
    show_connections(&found, &layout, &plan, err);
    if wishes.ask {
        show_rules(settings, options, live.as_ref(), &plan, err)?;
    }
    if !wishes.ask && (found.endangered == Endangered::default() || wishes.yes) {
        return Ok(());
    }
    if agreed(err) {
        return Ok(());
    }
    err.line("nothing was changed");
    Err(Exit::Found)
}

fn show_connections(found: &Found<'_>, layout: &Layout<'_>, plan: &Plan, err: &mut Printer) {
    if !found.tracking && !layout.lan.is_empty() {
        err.line(
            "note: connection tracking cannot be asked: connections that are only forwarded are not seen",
        );
    }
    let Endangered { flows, doubted } = &found.endangered;
    if !flows.is_empty() {
        let heading = "These connections from outside are open, to ports that will be guarded:";
        show_flows(heading, flows, err);
        err.line(if layout.settings.global.adopt_established && plan.adopts() {
            "They live on until they end, but none can be made again without a knock."
        } else if !plan.adopts() {
            "They will be cut: without ipset, what was open before cannot be told from the rest."
        } else {
            "They will be cut, because of adopt_established: false."
        });
    }
    if !doubted.is_empty() {
        let heading = "These connections are open by an interface that will be guarded, to ports that are guarded elsewhere:";
        show_flows(heading, doubted, err);
        err.line("They will be cut: they may have come by another interface, with a grant that is over.");
    }
}

fn show_flows(heading: &str, flows: &[Flow<'_>], err: &mut Printer) {
    let heading = err.paint(Tone::Doubtful, heading);
    err.line(heading);
    let own = own_session();
    let is_own = |flow: &Flow<'_>| own == Some((flow.client, flow.server.port()));
    let rows: Vec<[String; 3]> = flows
        .iter()
        .map(|flow| {
            let port = format!("{} {}", flow.protocol, flow.server.port());
            let app = flow.closed_by.to_string();
            let note = if is_own(flow) { format!("{app}   <- your own session") } else { app };
            [flow.client.to_string(), port, note]
        })
        .collect();
    err.table(&rows);
}

fn show_rules(
    settings: &Settings,
    options: Options,
    live: Option<&Live>,
    plan: &Plan,
    err: &mut Printer,
) -> Result<(), Exit> {
    let wanted = match plan {
        Plan::Nftables(wanted) => wanted,
        Plan::Iptables(tables) => {
            err.line(check_iptables::printed(tables).trim_end());
            return Ok(());
        }
    };
    if live.is_none() {
        let text = render(settings, options).map_err(|error| {
            err.line(format!("error: {error}"));
            Exit::Bug
        })?;
        err.line(text.trim_end());
        return Ok(());
    }
    let changes: Vec<String> = diff(live, wanted).iter().map(Change::to_string).collect();
    if changes.is_empty() {
        err.line("the rules in the kernel are as planned: nothing would change");
    } else {
        err.line(format!("against what is in the kernel, {} changes:", changes.len()));
        changes.iter().for_each(|change| err.line(format!("  {change}")));
    }
    Ok(())
}

/// Nothing but a yes is one.
fn agreed(err: &mut Printer) -> bool {
    err.line("Go on? [y/N]");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// The client and the port of the SSH session this runs in; `sudo` drops the variable, a parent still has it.
pub(super) fn own_session() -> Option<(SocketAddr, u16)> {
    let variable = "SSH_CONNECTION";
    let text = std::env::var(variable).ok().or_else(|| process::variable_of_parents(variable))?;
    parse_session(&text)
}

fn parse_session(text: &str) -> Option<(SocketAddr, u16)> {
    let words: Vec<&str> = text.split(' ').collect();
    let &[client, client_port, _, port] = words.as_slice() else { return None };
    let address = client.parse::<std::net::IpAddr>().ok()?.to_canonical();
    Some((SocketAddr::new(address, client_port.parse().ok()?), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_session_is_read_from_what_sshd_says() {
        let found = parse_session("203.0.113.7 50122 203.0.113.1 22").unwrap();
        assert_eq!(found, ("203.0.113.7:50122".parse().unwrap(), 22));
        let mapped = parse_session("::ffff:203.0.113.7 50122 ::ffff:203.0.113.1 22").unwrap();
        assert_eq!(mapped, found);
        for odd in ["", "1 2 3 4", "203.0.113.7 x 203.0.113.1 22", "203.0.113.7 50122 203.0.113.1 22 5"] {
            assert_eq!(parse_session(odd), None, "{odd}");
        }
    }
}
