//! What else on this host filters packets: everybody's tables and base chains.
//!
//! Two readings that must agree: rustables lists tables and chains, and our own decoder
//! reads what rustables 0.9 gets wrong (it takes every policy for accept) or does not
//! tell (the family of a table).

use std::collections::BTreeSet;

use super::BackendError;
use super::nftables::Nftables;
use crate::ruleset::audit::HostChain;
use crate::ruleset::model::TABLE;

/// The base chains of everybody else on the input, forward and output hooks, and whether
/// both readings found the same ones.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The chains, as our own decoder reads them.
    pub chains: Vec<HostChain>,
    /// What the other reading has against it.
    pub doubt: Option<String>,
}

/// Surveys the host.
///
/// # Errors
/// [`BackendError`] when the kernel cannot be read.
pub fn survey(nft: &mut Nftables) -> Result<Survey, BackendError> {
    let mut chains = Vec::new();
    for (number, family) in [(1, "inet"), (2, "ip"), (10, "ip6")] {
        chains.extend(nft.base_chains(number, family)?);
    }
    chains.retain(|chain| !(chain.table == TABLE && chain.family == "inet"));
    let doubt = match by_rustables() {
        Err(error) => Some(format!("the host's tables cannot be listed by rustables: {error}")),
        Ok(theirs) => {
            let known = |(table, chain): &(String, String)| {
                chains.iter().any(|have| have.table == *table && have.chain == *chain)
            };
            theirs
                .iter()
                .find(|name| !known(name))
                .map(|(table, chain)| format!("base chain {chain} of table {table} cannot be read"))
        }
    };
    Ok(Survey { chains, doubt })
}

/// Table and name of every base chain on the input, forward and output hooks but ours.
fn by_rustables() -> Result<BTreeSet<(String, String)>, rustables::error::QueryError> {
    let mut out = BTreeSet::new();
    for table in rustables::list_tables()? {
        let Some(name) = table.get_name().filter(|name| *name != TABLE) else { continue };
        for chain in rustables::list_chains_for_table(&table)? {
            let hook = chain.get_hook().and_then(|hook| hook.get_class());
            // NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT (`linux/netfilter.h`); families
            // that number their hooks otherwise (arp, bridge, netdev) filter no routed packets.
            let filters = matches!(hook, Some(1..=3)) && ip_family(&table);
            if let (true, Some(chain)) = (filters, chain.get_name()) {
                out.insert((name.clone(), chain.clone()));
            }
        }
    }
    Ok(out)
}

/// rustables keeps a table's family to itself, but compares it.
fn ip_family(table: &rustables::Table) -> bool {
    use rustables::ProtocolFamily::{Inet, Ipv4, Ipv6};
    [Inet, Ipv4, Ipv6].into_iter().any(|family| {
        let mut same = rustables::Table::new(family);
        if let Some(name) = table.get_name() {
            same.set_name(name.clone());
        }
        if let Some(flags) = table.get_flags() {
            same.set_flags(*flags);
        }
        if let Some(userdata) = table.get_userdata() {
            same.set_userdata(userdata.clone());
        }
        same == *table
    })
}
