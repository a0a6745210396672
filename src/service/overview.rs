//! What stands open, in full and at a glance: with very many grants, how many there are for each app and the newest of
//! them. The kernel takes the longer to list a set the more is in it (a million: half a minute), so that it is asked only
//! for those that are shown.

use std::collections::{BTreeMap, BTreeSet};

use super::knocked::{GrantSet, slug_of};
use super::operations::{OperationError, Operations};
use super::status::{Row, Status, service_rows, services, status, with_prefix};
use crate::backend::{Firewall, Plan};
use crate::grant::How;
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Live, SetRef};
use crate::ruleset::model::Set;
use crate::units::{Family, Now};

impl Operations {
    /// Everything in the kernel, and what stands open by it.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be read.
    pub(super) fn everything(&mut self, now: Now) -> Result<(Live, Status), OperationError> {
        let live = self.live()?;
        let status = self.status_of(&live, now);
        Ok((live, status))
    }

    /// The same where at most so many are let in. Where there are more, the sets of grants are left out, the ledger says
    /// who is in them, and the kernel is asked about so many, the newest.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be read.
    pub(super) fn overview(&mut self, most: usize, now: Now) -> Result<(Live, Status), OperationError> {
        self.forget_expired(now);
        // The programs list all or nothing.
        if self.ledger().len() <= most || matches!(self.firewall, Firewall::Iptables(_)) {
            return self.everything(now);
        }
        let kinds = self.grant_sets();
        let mut left_out: BTreeSet<String> =
            kinds.iter().flat_map(|kind| Family::BOTH.map(|family| kind.set(family))).collect();
        if let Plan::Nftables(plan) = self.firewall.plan(&self.settings, self.options)? {
            // What packets put there for moments is nobody's business.
            left_out.extend(plan.sets.into_iter().filter(Set::is_fleeting).map(|set| set.name));
        }
        let read = self.firewall.read_sets(|set| !left_out.contains(set))?;
        let live = read.ok_or(OperationError::NoTable)?;
        let mut status = self.status_of(&live, now);
        let newest = self.newest(&kinds, most, &live, now)?;
        status.grants.splice(0..0, newest);
        let names = self.names();
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        for (key, count) in self.ledger().counts().filter(|(_, count)| *count > 0) {
            let slug = slug_of(key);
            let name = names.get(slug).cloned().unwrap_or_else(|| slug.to_owned());
            *open.entry(name).or_default() += u64::try_from(count).unwrap_or(u64::MAX);
        }
        status.open = Some(open);
        Ok((live, status))
    }

    fn status_of(&self, live: &Live, now: Now) -> Status {
        let prefix = self.settings().global.ipv6_prefix;
        status(self.firewall.name(), live, &self.names(), prefix, Some((self.ledger(), now)))
    }

    /// Those that were let in last, as far as the kernel still has them.
    fn newest(
        &mut self,
        kinds: &[GrantSet],
        most: usize,
        live: &Live,
        now: Now,
    ) -> Result<Vec<Row>, OperationError> {
        let (names, prefix) = (self.names(), self.settings().global.ipv6_prefix);
        let of_kind: BTreeMap<&str, &GrantSet> = kinds.iter().map(|kind| (kind.key.as_str(), kind)).collect();
        let ports: BTreeMap<&str, _> =
            kinds.iter().map(|kind| (kind.slug.as_str(), services(live, &kind.slug))).collect();
        let newest: Vec<_> =
            self.ledger().newest(most).into_iter().map(|(key, addr)| (key.to_owned(), addr)).collect();
        let mut rows = Vec::new();
        for (ledger_key, addr) in newest {
            let Some(kind) = of_kind.get(ledger_key.as_str()) else { continue };
            let (family, key) = (Family::of(addr), address_key(addr));
            let found = self.firewall.element(&SetRef::plain(kind.set(family)), &key)?;
            let Some(element) = found else { continue };
            let app = names.get(&kind.slug).unwrap_or(&kind.slug);
            let ports = ports.get(kind.slug.as_str()).map(Vec::as_slice).unwrap_or_default();
            let ledger = Some((self.ledger(), now));
            for mut row in service_rows(&ledger_key, app, ports, &key, &element, ledger) {
                if kind.how == How::Sequence {
                    row.how = How::Sequence.word().to_owned();
                }
                rows.push(with_prefix(row, family, prefix));
            }
        }
        Ok(rows)
    }
}
