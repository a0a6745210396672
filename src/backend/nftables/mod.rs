//! nf_tables over netlink: one transaction per change of mind, read back afterwards.

pub(crate) mod encode;
mod encode_expr;
mod host;
mod host_chain;
mod type_of;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nix::errno::Errno;

use crate::backend::{BackendError, Commits};
use crate::ruleset::diff::{Change, Live, SetRef, diff};
use crate::ruleset::expr::{Base, Expr, Reg};
use crate::ruleset::keeping::heirs;
use crate::ruleset::knocking::{LOG_BYTES, LOG_GROUP, TIMED_CHAINS};
use crate::ruleset::model::{Chain, Content, Element, Elements, Rule, Ruleset, Set, TABLE};
use crate::ruleset::plan::TIMED_OPEN;
use crate::ruleset::transition::{as_planned, changing_sets, rules_only, written_out};
use crate::ruleset::wire::{self, RuleCounter};
use crate::sys::kernel;
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::nftnl::{Body, Message, msg};

use encode::{Encoded, encode};
pub use host_chain::{HostReading, Scope};

/// How often the table is written when somebody else changes it at the same time.
const INSTALL_TRIES: u32 = 3;

/// The table `inet knock_agent` of this network namespace.
#[derive(Debug)]
pub struct Nftables {
    netlink: Netlink,
    /// Whether the answer to a transaction could not be read, so that it may or may not be carried out.
    unsure: bool,
    commits: Box<Commits>,
}

impl Nftables {
    /// Opens a connection to the kernel; changes nothing.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where there is no netfilter netlink.
    pub fn open() -> Result<Self, BackendError> {
        Ok(Self { netlink: Netlink::open()?, unsure: false, commits: Box::default() })
    }

    /// The number by which the kernel's notifications tell our changes from others'.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Everything in the table; none if there is no table.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn read(&mut self) -> Result<Option<Live>, BackendError> {
        // What the packet path put there may be much, and is nobody's business but its own.
        self.read_with(|set| !set.is_fleeting())
    }

    /// The same, with the elements of those sets only that a plan says something about.
    fn read_planned(&mut self, wanted: &Ruleset) -> Result<Option<Live>, BackendError> {
        self.read_with(|set| {
            wanted.set(&set.name).is_some_and(|planned| matches!(planned.content, Content::Planned(_)))
        })
    }

    /// The same, with the elements of those sets only whose names are wanted.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn read_sets(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Option<Live>, BackendError> {
        self.read_with(|set| wanted(&set.name))
    }

    fn read_with(&mut self, asked: impl Fn(&Set) -> bool) -> Result<Option<Live>, BackendError> {
        let Some((flags, handle)) = self.table()? else { return Ok(None) };
        let mut live = Live { flagged: flags != 0, handle, ..Live::default() };
        self.netlink.dump(&query(msg::GET_CHAIN, Body::Empty), |payload| {
            live.ruleset.chains.extend(wire::chain(payload, TABLE));
        })?;
        let mut by_chain: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        self.netlink.dump(&query(msg::GET_RULE, encode::rules_of_table()?), |payload| {
            if let Some(found) = wire::rule(payload, TABLE) {
                by_chain.entry(found.chain).or_default().push(found.rule);
            }
        })?;
        for chain in &mut live.ruleset.chains {
            chain.rules = by_chain.remove(&chain.name).unwrap_or_default();
        }
        let (mut foreign, mut made) = (Vec::new(), None);
        self.netlink.dump(&query(msg::GET_SET, encode::sets_of_table()?), |payload| {
            made = made.max(wire::made_by_us(payload, TABLE));
            match wire::set(payload, TABLE) {
                Some(set) => live.ruleset.sets.push(set),
                None => foreign.extend(wire::set_name(payload, TABLE).map(str::to_owned)),
            }
        })?;
        live.foreign_sets = foreign;
        live.loaded = made == Some(false) || live.ruleset.is_there_twice();
        for set in &live.ruleset.sets {
            if asked(set) {
                live.elements.insert(set.name.clone(), self.elements(set)?);
            }
        }
        Ok(Some(live))
    }

    /// The elements of a set; none if there is no such set.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn elements(&mut self, set: &Set) -> Result<Elements, BackendError> {
        let mut raw = Vec::new();
        self.netlink.dump(&query(msg::GET_ELEMENTS, encode::elements_of(&set.name)?), |payload| {
            raw.extend(wire::elements(payload));
        })?;
        Ok(wire::pair_ranges(set, raw))
    }

    /// The elements of a set that has no ranges; none if there is no such set.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn elements_of(&mut self, set: &SetRef) -> Result<Elements, BackendError> {
        let mut out = Elements::new();
        self.netlink.dump(&query(msg::GET_ELEMENTS, encode::elements_of(&set.name)?), |payload| {
            out.extend(wire::elements(payload).into_iter().map(|raw| (raw.key, raw.element)));
        })?;
        Ok(out)
    }

    /// One element of a set that has no ranges; none if it is not there.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn element(&mut self, set: &SetRef, key: &[u8]) -> Result<Option<Element>, BackendError> {
        let request = Message::new(msg::GET_ELEMENTS, 0, encode::one_element(set, key)?);
        let found = self.netlink.get(&request)?;
        let raw = found.as_deref().map(wire::elements).unwrap_or_default();
        Ok(raw.into_iter().find(|raw| raw.key == key).map(|raw| raw.element))
    }

    /// What was counted at our rules; none if there is no table. No set is read, however many are let in.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn counters(&mut self) -> Result<Option<Vec<RuleCounter>>, BackendError> {
        if !self.has_table()? {
            return Ok(None);
        }
        let mut out = Vec::new();
        self.netlink.dump(&query(msg::GET_RULE, encode::rules_of_table()?), |payload| {
            out.extend(wire::counter(payload, TABLE));
        })?;
        Ok(Some(out))
    }

    /// How long transactions took.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn has_table(&mut self) -> Result<bool, BackendError> {
        Ok(self.table()?.is_some())
    }

    /// Whether somebody's table of a family (`NFPROTO_*`) has a chain of that name.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn has_chain(&mut self, number: u16, table: &str, chain: &str) -> Result<bool, BackendError> {
        let mut found = false;
        self.netlink.dump(&query(msg::GET_CHAIN, Body::Empty).of_family(number), |payload| {
            found |= wire::chain(payload, table).is_some_and(|have| have.name == chain);
        })?;
        Ok(found)
    }

    /// The number that the kernel gave the table when it was made; none where there is no table.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be read.
    pub fn handle(&mut self) -> Result<Option<u64>, BackendError> {
        Ok(self.table()?.map(|(_, handle)| handle))
    }

    /// Whether it is not known of a transaction since this was last asked if it was carried out.
    pub fn take_unsure(&mut self) -> bool {
        std::mem::take(&mut self.unsure)
    }

    /// Flags and number of the table.
    fn table(&mut self) -> Result<Option<(u32, u64)>, BackendError> {
        let mut found = None;
        let listed = self.netlink.dump(&query(msg::GET_TABLE, Body::Empty), |payload| {
            if let Some((TABLE, flags)) = wire::table(payload) {
                found = Some((flags, wire::table_handle(payload).unwrap_or_default()));
            }
        });
        listed.map_err(
            |error| if is_unknown(&error) { BackendError::Unsupported(error) } else { error.into() },
        )?;
        Ok(found)
    }

    /// Carries out all changes in one transaction, or none of them.
    ///
    /// # Errors
    /// [`BackendError::Refused`] names the first change that the kernel refused.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        self.apply_at(changes, None)
    }

    /// The same, but not if anybody has changed any table since that generation.
    ///
    /// # Errors
    /// As [`Nftables::apply`].
    pub fn apply_at(&mut self, changes: &[Change], generation: Option<u32>) -> Result<(), BackendError> {
        let encoded = encode(changes)?;
        let begun = Instant::now();
        let committed = self.netlink.commit_at(&encoded.messages, generation);
        self.commits.since(begun);
        self.unsure |= matches!(committed, Err(NetlinkError::Receive(_)));
        committed.map_err(|error| refused(changes, &encoded, error))
    }

    /// Has the kernel check all changes and carry out none.
    ///
    /// # Errors
    /// [`BackendError::Refused`] names the first change that the kernel would refuse.
    pub fn validate(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        let encoded = encode(changes)?;
        let refusals = self.netlink.validate(&encoded.messages)?;
        if refusals.is_empty() {
            return Ok(());
        }
        Err(refused(changes, &encoded, NetlinkError::Refused(refusals)))
    }

    /// Makes the table what is wanted, by the difference only, and reads it back.
    ///
    /// # Errors
    /// [`BackendError`]; the table is then as it was, or, for [`BackendError::NotAsWritten`], somebody
    /// else changed it at the same time.
    pub fn install(&mut self, wanted: &Ruleset) -> Result<Vec<Change>, BackendError> {
        let mut tries = INSTALL_TRIES;
        loop {
            let live = self.read()?.map(Live::believed);
            tries -= 1;
            match self.install_over(live.as_ref(), wanted, Vec::new()) {
                // Somebody else may have been at the table between two of our steps.
                Err(BackendError::Refused { .. } | BackendError::NotAsWritten(_)) if tries > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// The same for what was read just now, with these further changes in the same transaction.
    ///
    /// # Errors
    /// As [`Nftables::install`].
    pub fn install_over(
        &mut self,
        live: Option<&Live>,
        wanted: &Ruleset,
        mut more: Vec<Change>,
    ) -> Result<Vec<Change>, BackendError> {
        let mut changes = diff(live, wanted);
        more.extend(live.map(|live| self.inherited(live, wanted)).transpose()?.unwrap_or_default());
        // Of a daemon before: the kernel removes no chain that knocks of its time still lead to.
        let led_to =
            |change: &Change| matches!(change, Change::DeleteChain(name) if name.starts_with(TIMED_CHAINS));
        if live.is_some_and(|live| live.ruleset.set(TIMED_OPEN).is_some()) && changes.iter().any(led_to) {
            self.apply(&[Change::FlushSet(TIMED_OPEN.to_owned())])?;
        }
        // What was read just now is as wanted.
        if changes.is_empty() && more.is_empty() {
            return Ok(changes);
        }
        let old = live.and_then(as_planned).unwrap_or_default();
        let sets = changing_sets(&changes, &old, wanted);
        match live {
            Some(live) if !sets.is_empty() => self.change_over(live, &old, wanted, &sets, &more)?,
            Some(_) | None => self.apply(&[changes.as_slice(), more.as_slice()].concat())?,
        }
        changes.extend(more);
        // Grants are not read again: there may be a million of them, and no plan says which there should be.
        let mut live = self.read_planned(wanted)?;
        // What is put back after a trial may have its rules twice, if it had before.
        live.iter_mut().for_each(|live| live.loaded &= !wanted.is_there_twice());
        let left = diff(live.as_ref(), wanted);
        if left.is_empty() {
            Ok(changes)
        } else {
            Err(BackendError::NotAsWritten(left.iter().map(Change::to_string).collect()))
        }
    }

    /// What sets hold that go, for those that take their place.
    fn inherited(&mut self, live: &Live, wanted: &Ruleset) -> Result<Vec<Change>, BackendError> {
        // What somebody saved is not believed.
        if live.loaded {
            return Ok(Vec::new());
        }
        let new: Vec<&Set> = wanted.sets.iter().filter(|set| live.ruleset.set(&set.name).is_none()).collect();
        let mut found: BTreeMap<&str, Elements> = BTreeMap::new();
        for old in live.ruleset.sets.iter().filter(|old| wanted.set(&old.name).is_none()) {
            let alike = new.iter().filter(|set| set.key == old.key).map(|set| set.name.as_str());
            let heirs: Vec<&str> = heirs(&old.name, alike).collect();
            let held = if heirs.is_empty() { Elements::new() } else { self.elements(old)? };
            for heir in heirs {
                found.entry(heir).or_default().extend(held.clone());
            }
        }
        let add = |set: &&Set| {
            // The kernel refuses everything where one set gets more than it has room for.
            let room = set.size.map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX));
            let elements: Elements = found.remove(set.name.as_str())?.into_iter().take(room).collect();
            Some(Change::AddElements { set: SetRef::from(*set), elements })
        };
        Ok(new.iter().filter_map(add).collect())
    }

    /// The change itself is one transaction; what goes before and after it is only the same rules in other words.
    fn change_over(
        &mut self,
        live: &Live,
        old: &Ruleset,
        wanted: &Ruleset,
        sets: &BTreeSet<String>,
        more: &[Change],
    ) -> Result<(), BackendError> {
        let (from, to) = (written_out(old, sets), written_out(wanted, sets));
        let before = rules_only(old, &from);
        self.apply(&before)?;
        // Where somebody else's rules are among ours, the old ones are unknown and stay as they are.
        let known = if old.chains.is_empty() { live.ruleset.clone() } else { from.clone() };
        let mut change = diff(Some(&Live { ruleset: known, ..live.clone() }), &to);
        change.extend_from_slice(more);
        if let Err(error) = self.apply(&change) {
            // The words of before; if even that fails, those that are there mean the same.
            let _ = self.apply(&rules_only(&from, old));
            return Err(error);
        }
        self.apply(&rules_only(&to, wanted))
    }

    /// Whether the kernel can match what TCP carries by itself (Linux 5.16); of an older one, which may have it all the
    /// same, found out by a dry run, for whose end the kernel takes some milliseconds.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be asked.
    pub fn knows_inner_header(&mut self) -> Result<bool, BackendError> {
        if kernel::is_at_least(5, 16) {
            return Ok(true);
        }
        self.knows(Expr::Payload { base: Base::Inner, offset: 0, len: 1, reg: Reg(0) })
    }

    /// Whether the kernel can tell a program of a packet (nfnetlink_log), found out by a dry run.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be asked.
    pub fn knows_log(&mut self) -> Result<bool, BackendError> {
        self.knows(Expr::Log { group: LOG_GROUP, prefix: "ka:probe".to_owned(), snaplen: LOG_BYTES })
    }

    fn knows(&mut self, expr: Expr) -> Result<bool, BackendError> {
        let probe = "ka_probe".to_owned();
        let rule = Rule { comment: None, exprs: vec![expr] };
        let chain = Chain { name: probe.clone(), base: None, rules: Vec::new() };
        let changes = [Change::AddTable, Change::AddChain(chain), Change::AddRule { chain: probe, rule }];
        match self.validate(&changes) {
            Ok(()) => Ok(true),
            Err(BackendError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The number of the last change to any table of this network namespace.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel does not answer.
    pub fn generation(&mut self) -> Result<u32, BackendError> {
        Ok(self.netlink.generation()?)
    }
}

/// What netfilter's netlink says to questions for a part that the kernel does not have.
fn is_unknown(error: &NetlinkError) -> bool {
    let all = [Errno::EINVAL, Errno::EOPNOTSUPP];
    match error {
        NetlinkError::Refused(refusals) => refusals.iter().any(|refusal| all.contains(&refusal.errno)),
        NetlinkError::Send(errno) | NetlinkError::Receive(errno) => all.contains(errno),
        NetlinkError::Open(_) | NetlinkError::Restless => false,
    }
}

fn query(kind: u16, body: Body) -> Message {
    Message::new(kind, 0, body)
}

fn refused(changes: &[Change], encoded: &Encoded, error: NetlinkError) -> BackendError {
    let NetlinkError::Refused(refusals) = &error else {
        return error.into();
    };
    let not_permitted = [Errno::EPERM, Errno::EACCES];
    match refusals.iter().find(|refusal| refusal.position.is_some()).or(refusals.first()) {
        Some(first) if !not_permitted.contains(&first.errno) => {
            let change = first
                .position
                .and_then(|at| encoded.origins.get(at))
                .and_then(|&origin| changes.get(origin))
                .map_or_else(|| "carry out the transaction".to_owned(), Change::to_string);
            match first.errno {
                // What a set says that has its `size` in elements.
                Errno::ENFILE => BackendError::Full { change },
                errno => BackendError::Refused { change, errno },
            }
        }
        Some(_) | None => error.into(),
    }
}

#[cfg(test)]
mod tests;
