//! What stands open, in full and at a glance: with very many grants, how many there are for each app and the newest of
//! them. The kernel takes the longer to list a set the more is in it (a million: half a minute), so that it is asked only
//! for those that are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::knocked::{GrantSet, slug_of};
use super::operations::{OperationError, Operations};
use super::status::{Row, Status, service_rows, services, status, with_prefix};
use crate::backend::{Firewall, Plan};
use crate::grant::How;
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Live, SetRef};
use crate::ruleset::model::{Element, Set, Timeout};
use crate::units::{Family, Now};

/// Grants that the kernel lists in some hundredths of a second: the time grows with their square.
const LISTED_BY_KERNEL: usize = 20_000;

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
        let live = self.live_without(&kinds)?;
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

    /// The same with all who are let in; where these are more than the kernel lists in a moment, as the ledger has them.
    /// Meanwhile nobody else is heard, those who knock among them.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be read.
    pub(super) fn listing(&mut self, now: Now) -> Result<(Live, Status), OperationError> {
        self.forget_expired(now);
        if self.ledger().len() <= LISTED_BY_KERNEL || matches!(self.firewall, Firewall::Iptables(_)) {
            return self.everything(now);
        }
        let kinds = self.grant_sets();
        let live = self.live_without(&kinds)?;
        let mut status = self.status_of(&live, now);
        status.grants.splice(0..0, self.written_down(&kinds, &live, now));
        Ok((live, status))
    }

    /// What the kernel has, without the grants in these sets.
    fn live_without(&mut self, kinds: &[GrantSet]) -> Result<Live, OperationError> {
        let mut left_out: BTreeSet<String> =
            kinds.iter().flat_map(|kind| Family::BOTH.map(|family| kind.set(family))).collect();
        if let Plan::Nftables(plan) = self.firewall.plan(&self.settings, self.options)? {
            // What packets put there for moments is nobody's business.
            left_out.extend(plan.sets.into_iter().filter(Set::is_fleeting).map(|set| set.name));
        }
        let read = self.firewall.read_sets(|set| !left_out.contains(set))?;
        read.ok_or(OperationError::NoTable)
    }

    /// All grants of the ledger.
    fn written_down(&self, kinds: &[GrantSet], live: &Live, now: Now) -> Vec<Row> {
        let (names, prefix, ledger) = (self.names(), self.settings().global.ipv6_prefix, self.ledger());
        let mut rows = Vec::with_capacity(ledger.len());
        for kind in kinds {
            let app = names.get(&kind.slug).unwrap_or(&kind.slug);
            let ports = services(live, &kind.slug);
            for (_, addr, _, left, lifetime) in ledger.longest_of(&kind.key, now) {
                let timeout = Timeout { total_ms: millis(lifetime), left_ms: millis(left) };
                let element = Element { timeout: Some(timeout), ..Element::default() };
                let found =
                    service_rows(&kind.key, app, &ports, &address_key(addr), &element, Some((ledger, now)));
                rows.extend(found.into_iter().map(|row| told(row, kind, addr, prefix)));
            }
        }
        rows
    }

    fn status_of(&self, live: &Live, now: Now) -> Status {
        let prefix = self.settings().global.ipv6_prefix;
        let mut status =
            status(self.firewall.name(), live, &self.names(), prefix, Some((self.ledger(), now)));
        let covered = self.covered(&status.grants, live, now);
        status.grants.extend(covered);
        status
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
            let found = service_rows(&ledger_key, app, ports, &key, &element, ledger);
            rows.extend(found.into_iter().map(|row| told(row, kind, addr, prefix)));
        }
        Ok(rows)
    }
}

fn told(mut row: Row, kind: &GrantSet, addr: IpAddr, prefix: u8) -> Row {
    if kind.how == How::Sequence {
        row.how = How::Sequence.word().to_owned();
    }
    with_prefix(row, Family::of(addr), prefix)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
