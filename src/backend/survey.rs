//! What else on this host filters packets: everybody's tables and base chains, by rustables.

use rustables::{ChainPolicy, ProtocolFamily, list_chains_for_table, list_tables};

use crate::ruleset::audit::{HostChain, HostHook};
use crate::ruleset::model::TABLE;

/// Why the host's rules could not be surveyed.
#[derive(Debug, thiserror::Error)]
#[error("the host's tables cannot be listed: {0}")]
pub struct SurveyError(String);

/// The base chains of everybody else, on the hooks that matter here.
///
/// # Errors
/// [`SurveyError`] when the kernel cannot be asked.
pub fn host_chains() -> Result<Vec<HostChain>, SurveyError> {
    let failed = |error: rustables::error::QueryError| SurveyError(error.to_string());
    let mut out = Vec::new();
    for table in list_tables().map_err(failed)? {
        let name = table.get_name().cloned().unwrap_or_default();
        let family = match table.get_family() {
            ProtocolFamily::Inet => "inet",
            ProtocolFamily::Ipv4 => "ip",
            ProtocolFamily::Ipv6 => "ip6",
            _ => continue,
        };
        if name == TABLE && family == "inet" {
            continue;
        }
        for chain in list_chains_for_table(&table).map_err(failed)? {
            let Some(hook) = chain.get_hook() else { continue };
            let hook_number = hook.get_class().copied();
            let Some(hook) = hook_number.and_then(host_hook) else { continue };
            let priority = chain.get_hook().and_then(|hook| hook.get_priority()).copied().unwrap_or(0);
            out.push(HostChain {
                family: family.to_owned(),
                table: name.clone(),
                chain: chain.get_name().cloned().unwrap_or_default(),
                hook,
                // The crate reads it as unsigned, so that negative ones wrap.
                priority: priority.cast_signed(),
                drops: matches!(chain.get_policy(), Some(ChainPolicy::Drop)),
            });
        }
    }
    Ok(out)
}

/// `NF_INET_*` numbers (`linux/netfilter.h`).
fn host_hook(number: u32) -> Option<HostHook> {
    match number {
        1 => Some(HostHook::Input),
        2 => Some(HostHook::Forward),
        3 => Some(HostHook::Output),
        _ => None,
    }
}
