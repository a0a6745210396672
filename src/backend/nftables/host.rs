//! Reads everybody's tables, for the audit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Nftables, encode, query};
use crate::backend::BackendError;
use crate::ruleset::allow::address_key;
use crate::ruleset::audit::host::{Host, HostFamily, HostRule, HostSet, TableRef};
use crate::ruleset::wire;
use crate::sys::nftnl::{Body, Message, msg};

/// More elements than this are not read: it would take seconds, and a set of this size is a list of strangers.
const MAX_ELEMENTS: usize = 100_000;

impl Nftables {
    /// Everything that is loaded, ours included.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn host(&mut self) -> Result<Host, BackendError> {
        self.host_without(&|_, _| false)
    }

    /// The same without the elements of some sets.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn host_without(&mut self, skip: &dyn Fn(&TableRef, &str) -> bool) -> Result<Host, BackendError> {
        let mut host = Host::default();
        for family in HostFamily::ALL {
            let of_family = |kind| query(kind, Body::Empty).of_family(family.number());
            self.netlink.dump(&of_family(msg::GET_TABLE), |payload| {
                host.owned.extend(wire::owned_table(payload, family));
                host.dormant.extend(wire::dormant_table(payload, family));
            })?;
            let from = host.chains.len();
            self.netlink.dump(&of_family(msg::GET_CHAIN), |payload| {
                host.chains.extend(wire::host_chain(payload, family));
            })?;
            let mut rules: BTreeMap<(TableRef, String), Vec<HostRule>> = BTreeMap::new();
            self.netlink.dump(&of_family(msg::GET_RULE), |payload| {
                if let Some((table, chain, rule)) = wire::host_rule(payload, family) {
                    rules.entry((table, chain)).or_default().push(rule);
                }
            })?;
            for chain in host.chains.iter_mut().skip(from) {
                let key = (chain.table.clone(), chain.name.clone());
                chain.rules = rules.remove(&key).unwrap_or_default();
                chain.base = chain.base.take().filter(|_| !host.dormant.contains(&chain.table));
            }
            let mut sets = Vec::new();
            self.netlink.dump(&of_family(msg::GET_SET), |payload| {
                sets.extend(wire::host_set(payload, family));
            })?;
            for (table, name, mut set) in sets {
                if !skip(&table, &name) {
                    set.elements = self.host_elements(&table, &name, &set)?;
                }
                host.sets.insert((table, name), set);
            }
            self.flowtables(family, of_family(msg::GET_FLOWTABLE), &mut host);
        }
        Ok(host)
    }

    /// Looks certain addresses up in sets whose elements were too many to be read: afterwards those sets are known as
    /// far as these addresses go. Sets of ranges and of other keys stay unknown.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn look_up(&mut self, host: &mut Host, addresses: &[IpAddr]) -> Result<(), BackendError> {
        for ((table, name), set) in &mut host.sets {
            let one = set.fields.is_empty() && !set.interval && [4, 16].contains(&set.key_len);
            if set.elements.is_some() || !one {
                continue;
            }
            let mut found = Vec::new();
            for key in addresses.iter().map(|addr| address_key(*addr)).filter(|key| key.len() == set.key_len)
            {
                let body = encode::element_of_host(&table.table, name, &key)?;
                let request = Message::new(msg::GET_ELEMENTS, 0, body).of_family(table.family.number());
                let answer = self.netlink.get(&request)?;
                found.extend(answer.as_deref().map(wire::host_elements).unwrap_or_default());
            }
            set.elements = Some(wire::host_ranges(set, found));
        }
        Ok(())
    }

    fn host_elements(
        &mut self,
        table: &TableRef,
        name: &str,
        set: &HostSet,
    ) -> Result<Option<Vec<crate::ruleset::audit::host::HostElement>>, BackendError> {
        let body = encode::elements_of_host(&table.table, name)?;
        let request = query(msg::GET_ELEMENTS, body).of_family(table.family.number());
        let mut raw = Vec::new();
        self.netlink.dump(&request, |payload| {
            if raw.len() <= MAX_ELEMENTS {
                raw.extend(wire::host_elements(payload));
            }
        })?;
        Ok((raw.len() <= MAX_ELEMENTS).then(|| wire::host_ranges(set, raw)))
    }

    /// A kernel without flowtables refuses to list them, and has none.
    fn flowtables(&mut self, family: HostFamily, request: Message, host: &mut Host) {
        let mut found = Vec::new();
        let listed = self.netlink.dump(&request, |payload| {
            found.extend(wire::host_flowtable(payload, family));
        });
        if listed.is_ok() {
            host.flowtables.extend(found);
        }
    }
}
