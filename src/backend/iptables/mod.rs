//! iptables and ipset by their programs: no transaction spans both families and the sets, so the order says
//! what holds in between (see docs/decisions/0023): sets first, then the gates, then what opens; on removal the
//! other way round; and what fails is undone.

pub mod as_root;
mod boot;
mod error;
mod figures;
mod hidden;
mod recent;
mod removing;
mod steps;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use error::IptablesError;
use hidden::{all_shown, closes};
use recent::Recent;
use steps::{inherited, is_filled_by_rules, lines, set_changes, stale_sets, steps, what};
use tools::Tools;
pub use tools::Variant;

use crate::backend::{BackendError, Commits};
use crate::config::Settings;
use crate::ruleset::diff::{Change, Live};
use crate::ruleset::iptables::counters::counters;
use crate::ruleset::iptables::elements::{Commands, commands, kept, listed};
use crate::ruleset::iptables::live::live;
use crate::ruleset::iptables::model::Tables;
use crate::ruleset::iptables::names;
use crate::ruleset::iptables::plan::{Impossible, Keeping, Matcher, plan};
use crate::ruleset::iptables::recent::{Filled, List, listed as listed_lists};
use crate::ruleset::iptables::restore::TableChange;
use crate::ruleset::iptables::save::{ListedSet, Listing, listing, sets};
use crate::ruleset::layout::Options;
use crate::ruleset::model::Element;
use crate::ruleset::wire::RuleCounter;
use crate::sys::files;
use crate::units::Family;

/// A set for the time of a change of type.
const NEW_SET: &str = "ka_new";

/// Everything of ours that was listed at one time.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The tables of both families.
    pub listings: [Listing; 2],
    /// Our sets; those that rules fill are empty here.
    pub sets: BTreeMap<String, ListedSet>,
    /// Our lists of `-m recent`.
    pub lists: Vec<Filled>,
    /// Whether somebody loaded the sets as they were in another run of the kernel; they count as empty then.
    pub loaded: bool,
}

/// The tables and sets of this network namespace.
#[derive(Debug)]
pub struct Iptables {
    tools: Tools,
    matcher: Matcher,
    keeping: Keeping,
    recent: Recent,
    /// Whether the kernel has what knock sequences need.
    knocks: OnceLock<bool>,
    /// What was put in force, and how the programs list it.
    in_force: Option<(Tables, [Listing; 2])>,
    /// Sets that are not wanted any more, and that somebody else's rules ask.
    in_use: BTreeSet<String>,
    seen: Observed,
    counted: Vec<RuleCounter>,
    commits: Commits,
}

impl Iptables {
    /// Finds the programs; changes nothing.
    ///
    /// # Errors
    /// [`IptablesError::Missing`] names what is not installed.
    pub fn open(variant: Option<Variant>, use_sudo: bool) -> Result<Self, IptablesError> {
        let mut tools = Tools::find(variant, use_sudo)?;
        let matcher = tools.matcher();
        let keeping = if tools.without_ipset()? { Keeping::Recent } else { Keeping::Ipset };
        let (recent, seen, commits) = (Recent::default(), Observed::default(), Commits::default());
        let (knocks, in_force, counted) = (OnceLock::new(), None, Vec::new());
        let in_use = BTreeSet::new();
        Ok(Self { tools, matcher, keeping, recent, knocks, in_force, in_use, seen, counted, commits })
    }

    /// Does without ipset, even where it is there.
    ///
    /// # Errors
    /// [`IptablesError::NotWithSudo`]: lists are files of root.
    pub fn without_ipset(mut self) -> Result<Self, IptablesError> {
        if self.tools.uses_sudo() {
            return Err(IptablesError::NotWithSudo);
        }
        self.keeping = Keeping::Recent;
        Ok(self)
    }

    /// Whether lists can be had where they are needed.
    ///
    /// # Errors
    /// [`IptablesError::NoSets`].
    pub fn probe_lists(&self) -> Result<(), IptablesError> {
        if self.keeping == Keeping::Ipset {
            return Ok(());
        }
        self.tools.probe_lists()
    }

    /// Whether a rule can tell a program of a packet.
    ///
    /// # Errors
    /// [`IptablesError`] when the programs cannot be asked.
    pub fn knows_log(&self) -> Result<bool, IptablesError> {
        self.tools.knows(&["-j NFLOG"])
    }

    /// Whether the kernel has what knock sequences need; asked once.
    fn knows_knocks(&self) -> Result<bool, IptablesError> {
        if let Some(known) = self.knocks.get() {
            return Ok(*known);
        }
        let known = self.tools.knows(&[
            "-m recent --rcheck --seconds 1 --name ka_probe --rsource",
            "-m hashlimit --hashlimit-above 1/sec --hashlimit-mode srcip --hashlimit-name ka_probe",
            "-p tcp -m multiport --dports 1,2",
        ])?;
        Ok(*self.knocks.get_or_init(|| known))
    }

    /// Where it is kept who is let in.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// How many addresses may have access to an app at once, where that is few.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        (self.keeping == Keeping::Recent || !self.seen.lists.is_empty()).then(|| self.recent.room())
    }

    /// How often to look what others did: three programs are started each time, and sudo writes a line for each.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        if self.tools.uses_sudo() { Duration::from_secs(5) } else { Duration::from_secs(1) }
    }

    /// Whether this host has IPv6 at all.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.tools.has_ipv6()
    }

    /// Which programs are used.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.tools.variant
    }

    /// What the settings want, in iptables' words.
    ///
    /// # Errors
    /// [`IptablesError::Impossible`] where it cannot be had.
    pub fn plan(&self, settings: &Settings, options: Options) -> Result<Tables, IptablesError> {
        let mut tables = plan(settings, options, self.matcher, self.keeping)?;
        if !settings.sequences.is_empty() && !self.knows_knocks()? {
            return Err(Impossible::NoKnocks.into());
        }
        if !self.tools.has_ipv6() {
            tables.ipv6.clear();
        }
        Ok(tables)
    }

    /// What is in force, in the model's terms; none if nothing of ours is.
    ///
    /// # Errors
    /// [`IptablesError`] when it cannot be listed.
    pub fn read(&mut self) -> Result<Option<Live>, IptablesError> {
        let observed = self.observe()?;
        let [v4, v6] = &observed.listings;
        let found = live([v4, v6], &observed.sets, &observed.lists);
        Ok(found.map(|live| Live { loaded: observed.loaded, ..live }))
    }

    /// Whether the rules that close are in force, in each family that this host has.
    ///
    /// # Errors
    /// [`IptablesError`] when it cannot be told.
    pub fn guards(&mut self) -> Result<bool, IptablesError> {
        closes(&self.tools.listings()?, &Family::BOTH, self.has_ipv6())
    }

    /// The same in one family.
    ///
    /// # Errors
    /// As [`Iptables::guards`].
    pub fn guards_in(&mut self, family: Family) -> Result<bool, IptablesError> {
        closes(&self.tools.listings()?, &[family], self.has_ipv6())
    }

    /// Lists everything of ours.
    ///
    /// # Errors
    /// [`IptablesError`] when it cannot be listed.
    pub fn observe(&mut self) -> Result<&Observed, IptablesError> {
        let saved = self.tools.saved()?;
        let listings = saved.each_ref().map(|text| listing(text));
        self.counted = saved.iter().flat_map(|text| counters(text)).collect();
        let names = self.tools.set_names()?;
        let (filled, held): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .filter(|name| names::is_ours(name))
            .partition(|name| is_filled_by_rules(name));
        let mut sets = sets(&self.tools.save_sets(&held)?);
        let loaded = self.tools.boot.disown(&mut sets);
        // What the packet path put there may be much, and is nobody's business but its own.
        sets.extend(filled.iter().map(|name| ((*name).to_owned(), ListedSet::default())));
        let [v4, v6] = &listings;
        let lists = self.recent.read(&listed_lists([v4, v6]))?;
        self.seen = Observed { listings, sets, lists, loaded };
        Ok(&self.seen)
    }

    /// One element of a set of addresses; none if it is not there.
    ///
    /// # Errors
    /// [`IptablesError`] when the set cannot be listed.
    pub fn element(&mut self, set: &str, key: &[u8]) -> Result<Option<Element>, IptablesError> {
        let lists = self.lists()?;
        if !lists.is_empty() {
            let parts: Vec<List> = lists.into_iter().filter(|list| list.meaning == set).collect();
            let found = self.recent.read(&parts)?.into_iter();
            let each = found.filter_map(|mut filled| filled.elements.remove(key));
            return Ok(each.max_by_key(|element| element.timeout.map(|timeout| timeout.left_ms)));
        }
        let name = names::set(set);
        let Some(saved) = self.tools.save_set(&name)? else { return Ok(None) };
        Ok(sets(&saved).get(&name).and_then(|set| listed(set).0.remove(key)))
    }

    /// Carries out changes of elements: what closes, then what opens.
    ///
    /// # Errors
    /// [`IptablesError`].
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), IptablesError> {
        let begun = Instant::now();
        let applied = self.change_elements(changes);
        self.commits.since(begun);
        applied
    }

    fn change_elements(&mut self, changes: &[Change]) -> Result<(), IptablesError> {
        let lists = self.lists()?;
        if !lists.is_empty() {
            return self.recent.apply(&lists, changes);
        }
        let Commands { closing, opening } = commands(changes)?;
        self.tools.sets(&(closing + &opening))
    }

    /// The lists that are in force; none where ipset is used.
    fn lists(&mut self) -> Result<Vec<List>, IptablesError> {
        if self.keeping == Keeping::Ipset && self.seen.lists.is_empty() && !self.seen.sets.is_empty() {
            return Ok(Vec::new());
        }
        let listings = self.tools.listings()?;
        let [v4, v6] = &listings;
        Ok(listed_lists([v4, v6]))
    }

    /// Puts a plan in force, and these changes of elements; returns how much was changed.
    ///
    /// # Errors
    /// [`IptablesError`]; what was guarded before still is.
    pub fn install(&mut self, wanted: &Tables, more: &[Change]) -> Result<usize, BackendError> {
        self.observe().map_err(BackendError::from)?;
        self.install_over(wanted, more)
    }

    /// The same over what was read just now.
    ///
    /// # Errors
    /// As [`Iptables::install`].
    pub fn install_over(&mut self, wanted: &Tables, more: &[Change]) -> Result<usize, BackendError> {
        if !wanted.is_sound() {
            return Err(IptablesError::OtherPlan.into());
        }
        let again = self.in_force.as_ref().is_some_and(|(plan, _)| plan == wanted);
        if let Err(error) = all_shown(&self.seen.listings, Some(wanted)) {
            if again {
                self.close_over(wanted)?;
            }
            return Err(error.into());
        }
        if !again {
            self.in_use.clear();
        }
        if self.keeping == Keeping::Recent {
            return self.install_lists(wanted, more);
        }
        let Commands { closing, opening } = commands(more).map_err(IptablesError::from)?;
        let seen = self.seen.clone();
        let [v4, v6] = &seen.listings;
        let live = live([v4, v6], &seen.sets, &seen.lists).unwrap_or_default();
        let kept = commands(&kept(&live, &seen.sets, &wanted.ipsets)).map_err(IptablesError::from)?.opening;
        // What goes on elsewhere does so before its set is gone.
        let stale = self.stale_sets(wanted);
        let made = set_changes(&seen, wanted, &self.tools.boot)
            + &kept
            + &inherited(&self.tools, &seen, &stale, wanted)?;
        let steps = if self.is_in_force(wanted) { Vec::new() } else { steps(&seen, wanted) };
        let count = lines(&made) + lines(&closing) + lines(&opening) + stale.len() + what(&steps).len();
        if count == 0 {
            self.remember(wanted, &seen);
            return Ok(0);
        }
        self.tools.sets(&(made + &closing)).map_err(BackendError::from)?;
        if let Err(error) = self.carry_out(&steps) {
            return Err(self.undo(&seen, error).into());
        }
        self.tools.sets(&opening).map_err(BackendError::from)?;
        self.destroy(&stale)?;
        self.verify(wanted)?;
        Ok(count)
    }

    /// The same with lists: they come and go with the rules that name them.
    fn install_lists(&mut self, wanted: &Tables, more: &[Change]) -> Result<usize, BackendError> {
        let seen = self.seen.clone();
        let stale = self.stale_sets(wanted);
        let steps = if self.is_in_force(wanted) { Vec::new() } else { steps(&seen, wanted) };
        let count = stale.len() + what(&steps).len();
        if count > 0 {
            if let Err(error) = self.carry_out(&steps) {
                return Err(self.undo(&seen, error).into());
            }
            self.destroy(&stale)?;
            self.verify(wanted)?;
        } else {
            self.remember(wanted, &seen);
        }
        let lists = self.lists()?;
        if lists.is_empty() {
            return Ok(count);
        }
        self.recent.check(&lists)?;
        self.recent.tidy(&lists)?;
        self.recent.apply(&lists, more)?;
        Ok(count)
    }

    /// What would change, for people.
    ///
    /// # Errors
    /// [`IptablesError`] when it cannot be listed.
    pub fn differences(&mut self, wanted: &Tables) -> Result<Vec<String>, IptablesError> {
        self.observe()?;
        all_shown(&self.seen.listings, Some(wanted))?;
        let seen = &self.seen;
        let mut out: Vec<String> = wanted
            .ipsets
            .iter()
            .filter(|set| !seen.sets.contains_key(&set.name))
            .map(|set| format!("add set {} ({})", set.name, set.meaning))
            .collect();
        out.extend(what(&steps(seen, wanted)));
        out.extend(stale_sets(seen, wanted).iter().map(|name| format!("remove set {name}")));
        Ok(out)
    }

    /// Has the programs check the rules; those that ask sets that are not there yet are left out.
    ///
    /// # Errors
    /// [`IptablesError::Refused`] with the reason.
    pub fn validate(&mut self, wanted: &Tables) -> Result<(), IptablesError> {
        self.observe()?;
        let known = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let asked = words.windows(2).filter_map(|pair| match pair {
                ["--match-set" | "--add-set" | "--del-set", name] => Some(*name),
                _ => None,
            });
            asked.into_iter().all(|name| self.seen.sets.contains_key(name))
        };
        for (family, change) in steps(&self.seen, wanted) {
            let text: String =
                change.text.lines().filter(|line| known(line)).map(|line| format!("{line}\n")).collect();
            self.tools.test(family, &text)?;
        }
        Ok(())
    }

    /// What both families' tables held when they were last listed.
    #[must_use]
    pub fn seen(&self) -> &Observed {
        &self.seen
    }

    /// The sets that go, but for those that were found not to.
    fn stale_sets(&self, wanted: &Tables) -> Vec<String> {
        let mut stale = stale_sets(&self.seen, wanted);
        stale.retain(|name| !self.in_use.contains(name));
        stale
    }

    /// Whether the listing is still what it was after this plan was put in force.
    fn is_in_force(&self, wanted: &Tables) -> bool {
        self.in_force.as_ref().is_some_and(|(plan, listed)| {
            plan == wanted && listed.iter().zip(&self.seen.listings).all(|(then, now)| *then == now.ours())
        })
    }

    fn remember(&mut self, wanted: &Tables, seen: &Observed) {
        self.in_force = Some((wanted.clone(), seen.listings.each_ref().map(Listing::ours)));
    }

    /// Reads back: the programs may write rules in other words, but not fewer, and not elsewhere.
    fn verify(&mut self, wanted: &Tables) -> Result<(), BackendError> {
        let seen = self.observe().map_err(BackendError::from)?.clone();
        let mut missing = Vec::new();
        for (family, listing) in Family::BOTH.into_iter().zip(&seen.listings) {
            for table in wanted.of(family) {
                let have = listing.tables.get(&table.name);
                if !have.is_some_and(|have| have.has_hooks(&table.hooks)) {
                    missing.push(format!("place the rules of table {} that lead to ours", table.name));
                }
                let complete = |name: &str, count: usize| {
                    have.and_then(|have| have.chains.get(name)).is_some_and(|rules| rules.len() == count)
                };
                let chains = table.chains.iter().filter(|chain| !complete(&chain.name, chain.rules.len()));
                missing.extend(chains.map(|chain| format!("replace chain {}", chain.name)));
            }
        }
        let sets = wanted.ipsets.iter().filter(|set| !seen.sets.contains_key(&set.name));
        missing.extend(sets.map(|set| format!("add set {}", set.name)));
        if !missing.is_empty() {
            self.in_force = None;
            return Err(BackendError::NotAsWritten(missing));
        }
        self.remember(wanted, &seen);
        Ok(())
    }

    fn carry_out(&self, steps: &[(Family, TableChange)]) -> Result<(), IptablesError> {
        let mut rest = steps;
        while let Some((family, _)) = rest.first() {
            let same = rest.iter().take_while(|(other, _)| other == family).count();
            let (now, later) = rest.split_at(same);
            let text: String = now.iter().map(|(_, change)| change.text.as_str()).collect();
            self.tools.restore(*family, &text)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes the tables what they were; sets that were not there are removed again.
    fn undo(&mut self, before: &Observed, error: IptablesError) -> IptablesError {
        self.in_force = None;
        let outcome = self.observe().cloned().and_then(|now| {
            let [ipv4, ipv6] = before.listings.each_ref().map(Listing::as_tables);
            let old = Tables { ipv4, ipv6, ..Tables::default() };
            self.carry_out(&steps(&now, &old))?;
            let new = now.sets.keys().filter(|name| !before.sets.contains_key(*name));
            self.tools.sets(&new.map(|name| format!("destroy {name}\n")).collect::<String>())
        });
        match outcome {
            Ok(()) => error,
            Err(second) => IptablesError::HalfDone(error.to_string(), second.to_string()),
        }
    }
}

/// Whether a gate is in the old tables of the kernel; no program is run where there are none.
#[must_use]
pub fn legacy_guards() -> bool {
    let tables = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let in_use = |path: &str| {
        files::read_text(Path::new(path), 4_096).is_ok_and(|names| names.lines().any(|name| name == "mangle"))
    };
    if !tables.iter().any(|path| in_use(path)) {
        return false;
    }
    Tools::legacy()
        .and_then(|tools| tools.listings())
        .is_ok_and(|listings| listings.iter().any(Listing::guards))
}
