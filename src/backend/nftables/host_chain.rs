//! Chains of the host: read with their rules' handles, and changed by single rules.

use nftnl_sys as nft;

use super::encode::{comment, rules_of_chain};
use super::encode_expr::expression;
use super::{Nftables, query};
use crate::backend::BackendError;
use crate::ruleset::diff::Change;
use crate::ruleset::host_chain::{
    ChainName, HostChains, HostChange, HostFamily, HostPlan, HostTable, plan_host,
};
use crate::ruleset::model::TABLE;
use crate::ruleset::wire;
use crate::sys::nftnl::{self as sys, Body, BuildError, Message, flag, msg};
use crate::units::Mark;

/// How often it is tried again when somebody else changes the ruleset at the same time.
const TRIES: u32 = 10;

/// A plan for the host's chains and the generation of the ruleset that it was made for.
#[derive(Clone, Debug)]
pub struct HostReading {
    /// The plan.
    pub plan: HostPlan,
    /// What it was made for: handles mean other rules where a table was made anew since.
    pub generation: u32,
}

impl HostReading {
    /// Its changes, to go with others.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.plan.changes.iter().cloned().map(Change::Host).collect()
    }
}

/// Which of the host's tables are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that the operator named.
    Named,
    /// All, for rules of ours that an earlier run left elsewhere.
    Everywhere,
}

impl Nftables {
    /// Reads the host's chains and plans what is to be done to them; changes nothing.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn read_host(
        &mut self,
        wanted: &HostChains,
        mark: Option<Mark>,
        scope: Scope,
    ) -> Result<HostReading, BackendError> {
        let named = wanted.tables();
        let mut generation = self.generation()?;
        for _ in 0..TRIES {
            let tables =
                self.host_tables(|name| scope == Scope::Everywhere || named.iter().any(|n| n == name))?;
            let after = self.generation()?;
            if after == generation {
                return Ok(HostReading { plan: plan_host(wanted, mark, &tables), generation });
            }
            generation = after;
        }
        Err(crate::sys::netlink::NetlinkError::Restless.into())
    }

    /// Makes the host's chains what is wanted, in one transaction of its own.
    ///
    /// # Errors
    /// [`BackendError`]; the host's chains are then as they were.
    pub fn put_host(
        &mut self,
        wanted: &HostChains,
        mark: Option<Mark>,
        scope: Scope,
    ) -> Result<HostPlan, BackendError> {
        self.put_host_if(wanted, mark, scope, |_| true)
    }

    /// Puts rules into the host's chains that accept this mark as well, and removes none: for the time in which
    /// another mark takes its place.
    ///
    /// # Errors
    /// As [`Nftables::put_host`].
    pub fn add_to_host(&mut self, wanted: &HostChains, mark: Mark) -> Result<HostPlan, BackendError> {
        let adds = |change: &HostChange| matches!(change, HostChange::Insert { .. });
        self.put_host_if(wanted, Some(mark), Scope::Named, adds)
    }

    fn put_host_if(
        &mut self,
        wanted: &HostChains,
        mark: Option<Mark>,
        scope: Scope,
        concerned: impl Fn(&HostChange) -> bool,
    ) -> Result<HostPlan, BackendError> {
        let mut result = Ok(HostPlan::default());
        for _ in 0..TRIES {
            let mut reading = self.read_host(wanted, mark, scope)?;
            reading.plan.changes.retain(&concerned);
            match self.apply_at(&reading.changes(), Some(reading.generation)) {
                Ok(()) => return Ok(reading.plan),
                // Somebody else was at it at the same time.
                Err(error @ BackendError::Refused { .. }) => result = Err(error),
                Err(error) => return Err(error),
            }
        }
        result
    }

    /// Removes our table and our rules in the host's chains; false if there was nothing.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel refuses. The table is gone even where only a rule of the host's chains
    /// could not be removed.
    pub fn teardown(&mut self) -> Result<bool, BackendError> {
        let table = self.has_table()?;
        if table {
            self.apply(&[Change::DeleteTable])?;
        }
        let plan = self.put_host(&HostChains::default(), None, Scope::Everywhere)?;
        Ok(table || !plan.changes.is_empty())
    }

    /// The tables that VyOS keeps its firewall in, as far as they are there.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn vyos_tables(&mut self) -> Result<Vec<HostTable>, BackendError> {
        self.host_tables(|name| name == "vyos_filter" || name == "filter")
    }

    /// The host's tables of those names.
    fn host_tables(&mut self, concerns: impl Fn(&str) -> bool) -> Result<Vec<HostTable>, BackendError> {
        let mut out = Vec::new();
        for family in HostFamily::ALL {
            let number = family.number();
            let mut tables = Vec::new();
            self.netlink.dump(&query(msg::GET_TABLE, Body::Empty).of_family(number), |payload| {
                tables.extend(wire::table(payload).map(|(name, flags)| (name.to_owned(), flags)));
            })?;
            tables.retain(|(name, _)| concerns(name) && !(family == HostFamily::Inet && name == TABLE));
            for (name, flags) in tables {
                let owned = flags & wire::OWNED != 0;
                let mut table = HostTable { family, name, owned, chains: Vec::new(), handles: Vec::new() };
                self.fill(&mut table, number)?;
                out.push(table);
            }
        }
        Ok(out)
    }

    fn fill(&mut self, table: &mut HostTable, number: u16) -> Result<(), BackendError> {
        let HostTable { name, chains, handles, .. } = table;
        self.netlink.dump(&query(msg::GET_CHAIN, Body::Empty).of_family(number), |payload| {
            chains.extend(wire::chain(payload, name));
        })?;
        handles.resize(chains.len(), Vec::new());
        let mut request = sys::Rule::new()?;
        request.set_text(nft::NFTNL_RULE_TABLE, name)?;
        self.netlink.dump(&query(msg::GET_RULE, Body::Rule(request)).of_family(number), |payload| {
            let Some(found) = wire::rule(payload, name) else { return };
            let at = chains.iter().position(|chain| chain.name == found.chain);
            if let Some(at) = at
                && let (Some(chain), Some(handles)) = (chains.get_mut(at), handles.get_mut(at))
            {
                chain.rules.push(found.rule);
                handles.push(found.handle);
            }
        })?;
        Ok(())
    }
}

/// The message for one change.
pub(super) fn message(change: &HostChange) -> Result<Message, BuildError> {
    let at = |chain: &ChainName| -> Result<sys::Rule, BuildError> {
        match rules_of_chain(&chain.table, &chain.chain)? {
            Body::Rule(rule) => Ok(rule),
            _ => Err(BuildError::Alloc),
        }
    };
    match change {
        HostChange::Insert { chain, before, rule } => {
            let mut out = at(chain)?;
            if let Some(text) = &rule.comment {
                out.set_data(nft::NFTNL_RULE_USERDATA, &comment(text));
            }
            for expr in &rule.exprs {
                out.add(expression(expr)?);
            }
            // Without the flag, a rule goes before the one at that position; with it and none, to the end.
            let flags = match before {
                Some(handle) => {
                    out.set_u64(nft::NFTNL_RULE_POSITION, *handle);
                    flag::CREATE
                }
                None => flag::CREATE | flag::APPEND,
            };
            Ok(Message::new(msg::NEW_RULE, flags, Body::Rule(out)).of_family(chain.family.number()))
        }
        HostChange::Delete { chain, handle, .. } => {
            let mut out = at(chain)?;
            out.set_u64(nft::NFTNL_RULE_HANDLE, *handle);
            Ok(Message::new(msg::DEL_RULE, 0, Body::Rule(out)).of_family(chain.family.number()))
        }
    }
}
