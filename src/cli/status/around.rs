//! What `health` would find in the host's own rules. The daemon does not look there: its process is kept from most of it.

use std::num::NonZeroU16;

use crate::backend::{BackendError, Firewall};
use crate::cli::load::{self, Exposure};
use crate::cli::operate::exit_of_backend;
use crate::cli::proxy_flags::Steps;
use crate::cli::{ConfigArg, Exit};
use crate::config::{Behind, Settings, Trusted};
use crate::service::health::{Ailment, of_others};
use crate::service::standing::Standing;
use crate::service::status::Status;

/// Adds it to what the daemon says is wrong; a note, where the kernel does not tell. Nothing where no daemon runs, whose
/// ports would not be known, nor with iptables, whose programs tell less.
pub(super) fn look(file: &ConfigArg, status: &mut Status) -> Option<String> {
    let nftables = status.backend == "nftables";
    let standing = status.daemon.as_mut().filter(|_| nftables)?;
    let ports = standing.ports?;
    // One that cannot be used is told by the daemon, when it is asked to read it.
    let settings = settings(file, standing, ports)?;
    match found(&settings, ports) {
        Ok(found) => {
            let new: Vec<Ailment> =
                found.into_iter().filter(|one| !standing.problems.contains(one)).collect();
            standing.problems.extend(new);
            None
        }
        Err(error) if exit_of_backend(&error) == Exit::NoPermission => {
            Some("the host's own rules were not looked at: that takes root".to_owned())
        }
        Err(error) => Some(format!("the host's own rules could not be looked at: {error}")),
    }
}

/// The configuration, as the daemon's ports have it.
fn settings(
    file: &ConfigArg,
    standing: &Standing,
    (http, https): (NonZeroU16, NonZeroU16),
) -> Option<Settings> {
    let read = |behind: Option<Behind>| {
        let steps = Steps::new((http, https), behind);
        load::read(&file.config, Some(&steps), Exposure::Warn).map(|checked| checked.settings).ok()
    };
    let settings = read(None)?;
    let own = |at: usize| standing.listens.get(at)?.strip_prefix("tcp/")?.parse::<NonZeroU16>().ok();
    match own(0).zip(own(1)) {
        // A proxy that flags of the daemon tell of.
        Some(own) if own != (http, https) && settings.global.proxy.is_none() => {
            read(Some(Behind { http: own.0, https: own.1, trusted: Trusted::loopback() }))
        }
        _ => Some(settings),
    }
}

fn found(settings: &Settings, (http, https): (NonZeroU16, NonZeroU16)) -> Result<Vec<Ailment>, BackendError> {
    let mut firewall = Firewall::in_place()?;
    let options = firewall.options(settings, http, https)?;
    of_others(&mut firewall, settings, options)
}
