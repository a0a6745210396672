//! The firewall of this host, whatever programs it: what the service asks of it, in the model's terms.

use std::num::NonZeroU16;
use std::time::Duration;

use super::iptables::{Iptables, IptablesError, Variant, legacy_guards};
use super::nftables::{HostReading, Nftables, Scope};
use super::planned::{Kind, Plan};
use super::{BackendError, Commits};
use crate::config::Settings;
use crate::ruleset::diff::{Change, Live, SetRef, diff};
use crate::ruleset::host_chain::{HostChains, HostPlan};
use crate::ruleset::iptables::elements::as_networks;
use crate::ruleset::iptables::names;
use crate::ruleset::iptables::plan::Keeping;
use crate::ruleset::iptables::recent::LIMITS;
use crate::ruleset::layout::Options;
use crate::ruleset::model::{Element, Elements};
use crate::ruleset::plan::plan;
use crate::ruleset::wire::RuleCounter;
use crate::units::Mark;

/// A firewall this host can enforce with.
#[derive(Debug)]
pub enum Firewall {
    /// The table `inet knock_agent`.
    Nftables(Nftables),
    /// Chains `KA-...` and sets `ka_...`.
    Iptables(Box<Iptables>),
}

/// What firewall is to be used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// The kind; none: nftables, or iptables where the kernel has no nf_tables or iptables guards already.
    pub kind: Option<Kind>,
    /// Which iptables; none: what the host uses.
    pub variant: Option<Variant>,
    /// Whether iptables' programs are run through sudo.
    pub use_sudo: bool,
    /// Whether iptables does without ipset even where it is there.
    pub without_ipset: bool,
}

impl Firewall {
    /// nftables; changes nothing.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where there is no netfilter netlink.
    pub fn nftables() -> Result<Self, BackendError> {
        Ok(Self::Nftables(Nftables::open()?))
    }

    /// The firewall of that choice; changes nothing.
    ///
    /// # Errors
    /// [`BackendError`] where it is not there, or another kind guards already.
    pub fn open(choice: Choice) -> Result<Self, BackendError> {
        match choice.kind {
            Some(Kind::Nftables) => alone(Nftables::open()?),
            Some(Kind::Iptables) => {
                match nftables_guards() {
                    Ok(true) => return Err(IptablesError::BesideNftables.into()),
                    // Whoever needs sudo for iptables may not look into nftables.
                    Err(BackendError::NotPermitted) if choice.use_sudo => {}
                    Ok(false) => {}
                    Err(error) => return Err(error),
                }
                iptables(choice)
            }
            None => match Nftables::open().and_then(|mut nft| {
                // nf_tables may have been loaded since iptables had to do: what guards goes on.
                let by_iptables = !nft.has_table()? && iptables_guards(&mut nft)?;
                Ok((nft, by_iptables))
            }) {
                Ok((_, true)) => iptables(choice),
                Ok((nft, false)) => alone(nft),
                Err(BackendError::Unsupported(_)) => iptables(choice),
                Err(error) => Err(error),
            },
        }
    }

    /// The firewall that guards; nftables, where it is there at all, if none does.
    ///
    /// # Errors
    /// [`BackendError`] where neither is there.
    pub fn in_place() -> Result<Self, BackendError> {
        let nft = Nftables::open().and_then(|mut nft| Ok((nft.has_table()?, nft)));
        if let Ok((true, nft)) = nft {
            return Ok(Self::Nftables(nft));
        }
        match (Iptables::open(None, false), nft) {
            (Ok(mut iptables), Ok((_, nft))) => match iptables.read() {
                Ok(Some(_)) => Ok(Self::Iptables(Box::new(iptables))),
                Ok(None) | Err(_) => Ok(Self::Nftables(nft)),
            },
            (Ok(iptables), Err(BackendError::Unsupported(_))) => Ok(Self::Iptables(Box::new(iptables))),
            (Err(_), Ok((_, nft))) => Ok(Self::Nftables(nft)),
            (_, Err(error)) => Err(error),
        }
    }

    /// Removes everything of ours, whatever kind of firewall it is in; false if there was nothing.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be removed.
    pub fn remove_all() -> Result<bool, BackendError> {
        let (mut removed, may) = match Nftables::open().and_then(|mut nft| nft.teardown()) {
            Ok(removed) => (removed, true),
            Err(BackendError::Unsupported(_)) => (false, false),
            Err(error) => return Err(error),
        };
        // Once for each variant of iptables that may have some.
        for _ in 0..2 {
            match Iptables::open(None, false).and_then(|mut iptables| iptables.teardown()) {
                Ok(false) | Err(IptablesError::Missing { .. }) => break,
                Ok(true) => removed = true,
                // Whoever may use nftables only cannot have guarded with iptables.
                Err(IptablesError::NotPermitted { .. }) if may => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// How often it has to be looked at, because nobody tells of changes; none where the kernel does.
    #[must_use]
    pub fn look_every(&self) -> Option<Duration> {
        match self {
            Self::Nftables(_) => None,
            Self::Iptables(iptables) => Some(iptables.look_every()),
        }
    }

    /// Elements of ranges as this firewall holds and lists them.
    #[must_use]
    pub fn as_held(&self, elements: Elements) -> Elements {
        match self {
            Self::Nftables(_) => elements,
            Self::Iptables(_) => as_networks(&elements),
        }
    }

    /// Live and wanted times up to this many milliseconds apart are the same: one counts down while the other is
    /// worked out, and ipset counts whole seconds.
    #[must_use]
    pub fn slack_ms(&self) -> u64 {
        match self {
            Self::Nftables(_) => 250,
            Self::Iptables(_) => 2_000,
        }
    }

    /// The number by which notifications of changes tell ours from others'; none where there are none.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        match self {
            Self::Nftables(nft) => Some(nft.port()),
            Self::Iptables(_) => None,
        }
    }

    /// What is lost without ipset, where that is so.
    #[must_use]
    pub fn limits(&self) -> Option<String> {
        match self {
            Self::Nftables(_) => None,
            Self::Iptables(iptables) => {
                iptables.room().map(|room| format!("{LIMITS}; {room} addresses at most for each app"))
            }
        }
    }

    /// How many addresses of a family can be let in to one app, where that is less than sets have room for.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        match self {
            Self::Nftables(_) => None,
            Self::Iptables(iptables) => iptables.room(),
        }
    }

    /// Whether connections can live on that were open before it.
    #[must_use]
    pub fn adopts(&self) -> bool {
        match self {
            Self::Nftables(_) => true,
            Self::Iptables(iptables) => iptables.keeping() == Keeping::Ipset,
        }
    }

    /// Its name, as `status --json` has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nftables(_) => "nftables",
            Self::Iptables(_) => "iptables",
        }
    }

    /// What a plan by these settings depends on besides them: the ports, and what the kernel can do, as far as it matters
    /// to the plan.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be asked.
    pub fn options(
        &mut self,
        settings: &Settings,
        http_port: NonZeroU16,
        https_port: NonZeroU16,
    ) -> Result<Options, BackendError> {
        match self {
            Self::Nftables(nft) => {
                let with_log =
                    Options { http_port, https_port, inner_header: nft.knows_inner_header()?, log: true };
                let without = Options { log: false, ..with_log };
                // To ask takes longer than to plan.
                let matters = plan(settings, with_log) != plan(settings, without);
                Ok(if !matters || nft.knows_log()? { with_log } else { without })
            }
            Self::Iptables(iptables) => {
                Ok(Options { http_port, https_port, inner_header: true, log: iptables.knows_log()? })
            }
        }
    }

    /// What the settings want of this firewall.
    ///
    /// # Errors
    /// [`BackendError`] where it cannot do what they want.
    pub fn plan(&self, settings: &Settings, options: Options) -> Result<Plan, BackendError> {
        match self {
            Self::Nftables(_) => Ok(Plan::Nftables(plan(settings, options))),
            Self::Iptables(iptables) => Ok(Plan::Iptables(iptables.plan(settings, options)?)),
        }
    }

    /// What is in force; none if nothing of ours is.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn read(&mut self) -> Result<Option<Live>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.read(),
            Self::Iptables(iptables) => Ok(iptables.read()?),
        }
    }

    /// The number that the kernel gave our table when it was made; none where there is none, or no table.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn handle(&mut self) -> Result<Option<u64>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.handle(),
            Self::Iptables(_) => Ok(None),
        }
    }

    /// Whether it is not known of a change since this was last asked if it was carried out.
    pub fn take_unsure(&mut self) -> bool {
        match self {
            Self::Nftables(nft) => nft.take_unsure(),
            Self::Iptables(_) => false,
        }
    }

    /// The same, with the elements of those sets only whose names are wanted, where that makes a difference.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn read_sets(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Option<Live>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.read_sets(wanted),
            Self::Iptables(iptables) => Ok(iptables.read()?),
        }
    }

    /// Whether a plan is in force already, as far as was read.
    #[must_use]
    pub fn is_in_force(&self, live: &Live, wanted: &Plan) -> bool {
        match (self, wanted) {
            (Self::Nftables(_), Plan::Nftables(wanted)) => diff(Some(live), wanted).is_empty(),
            (Self::Nftables(_) | Self::Iptables(_), _) => false,
        }
    }

    /// Whether anything of ours is in force.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn guards(&mut self) -> Result<bool, BackendError> {
        match self {
            Self::Nftables(nft) => nft.has_table(),
            Self::Iptables(iptables) => Ok(iptables.guards()?),
        }
    }

    /// What was counted at our rules since they were made; none where nothing tells, or none is there.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn counters(&mut self) -> Result<Option<Vec<RuleCounter>>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.counters(),
            Self::Iptables(iptables) => Ok(iptables.counters().map(<[_]>::to_vec)),
        }
    }

    /// How long changes took.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        match self {
            Self::Nftables(nft) => nft.commits(),
            Self::Iptables(iptables) => iptables.commits(),
        }
    }

    /// Whether what it keeps does not say whose it is.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        matches!(self, Self::Iptables(iptables) if iptables.keeping() == Keeping::Recent)
    }

    /// One element of a set that has no ranges; none if it is not there.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn element(&mut self, set: &SetRef, key: &[u8]) -> Result<Option<Element>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.element(set, key),
            Self::Iptables(iptables) => Ok(iptables.element(&set.name, key)?),
        }
    }

    /// The elements of a set that has no ranges; none if there is no such set.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn elements(&mut self, set: &SetRef) -> Result<Elements, BackendError> {
        match self {
            Self::Nftables(nft) => nft.elements_of(set),
            Self::Iptables(_) => Ok(Elements::new()),
        }
    }

    /// Carries out changes of elements, all of them or none.
    ///
    /// # Errors
    /// [`BackendError`]; nothing was opened then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        match self {
            Self::Nftables(nft) => nft.apply(changes),
            Self::Iptables(iptables) => Ok(iptables.apply(changes)?),
        }
    }

    /// Puts a plan in force, by the difference to what is, and reads it back; returns how much was changed.
    ///
    /// # Errors
    /// [`BackendError`]; what was guarded before still is.
    pub fn install(&mut self, wanted: &Plan) -> Result<usize, BackendError> {
        match (self, wanted) {
            (Self::Nftables(nft), Plan::Nftables(wanted)) => Ok(nft.install(wanted)?.len()),
            (Self::Iptables(iptables), Plan::Iptables(wanted)) => iptables.install(wanted, &[]),
            _ => Err(IptablesError::OtherPlan.into()),
        }
    }

    /// The same for what was read just now, with further changes of elements in the same stroke.
    ///
    /// # Errors
    /// As [`Firewall::install`].
    pub fn install_over(
        &mut self,
        live: Option<&Live>,
        wanted: &Plan,
        more: Vec<Change>,
    ) -> Result<usize, BackendError> {
        match (self, wanted) {
            (Self::Nftables(nft), Plan::Nftables(wanted)) => Ok(nft.install_over(live, wanted, more)?.len()),
            (Self::Iptables(iptables), Plan::Iptables(wanted)) => iptables.install_over(wanted, &more),
            _ => Err(IptablesError::OtherPlan.into()),
        }
    }

    /// Puts right what somebody else did to it, with further changes of elements and of the host's chains; returns
    /// how much had to be changed, those apart.
    ///
    /// # Errors
    /// [`BackendError`]; it is then as somebody left it.
    pub fn mend(
        &mut self,
        live: Option<&Live>,
        wanted: &Plan,
        more: Vec<Change>,
        host: Option<HostReading>,
    ) -> Result<usize, BackendError> {
        match (self, wanted) {
            (Self::Nftables(nft), Plan::Nftables(wanted)) => {
                let mut changes = diff(live, wanted);
                changes.extend(more);
                let own = changes.len();
                let host = host.filter(|host| !host.plan.changes.is_empty());
                changes.extend(host.iter().flat_map(HostReading::changes));
                nft.apply_at(&changes, host.map(|host| host.generation))?;
                Ok(own)
            }
            (Self::Iptables(iptables), Plan::Iptables(wanted)) => iptables.install_over(wanted, &more),
            _ => Err(IptablesError::OtherPlan.into()),
        }
    }

    /// Plans what is to be done to chains of the host; changes nothing.
    ///
    /// # Errors
    /// [`BackendError`] when they cannot be read.
    pub fn read_host(
        &mut self,
        wanted: &HostChains,
        mark: Option<Mark>,
        scope: Scope,
    ) -> Result<HostReading, BackendError> {
        match self {
            Self::Nftables(nft) => nft.read_host(wanted, mark, scope),
            Self::Iptables(_) => Ok(HostReading { plan: HostPlan::default(), generation: 0 }),
        }
    }

    /// Makes the host's chains what is wanted.
    ///
    /// # Errors
    /// [`BackendError`]; they are then as they were.
    pub fn put_host(
        &mut self,
        wanted: &HostChains,
        mark: Option<Mark>,
        scope: Scope,
    ) -> Result<HostPlan, BackendError> {
        match self {
            Self::Nftables(nft) => nft.put_host(wanted, mark, scope),
            Self::Iptables(_) => Ok(HostPlan::default()),
        }
    }

    /// Puts rules into the host's chains that accept this mark as well.
    ///
    /// # Errors
    /// As [`Firewall::put_host`].
    pub fn add_to_host(&mut self, wanted: &HostChains, mark: Mark) -> Result<HostPlan, BackendError> {
        match self {
            Self::Nftables(nft) => nft.add_to_host(wanted, mark),
            Self::Iptables(_) => Ok(HostPlan::default()),
        }
    }

    /// Removes everything of ours; false if there was nothing.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel refuses.
    pub fn teardown(&mut self) -> Result<bool, BackendError> {
        match self {
            Self::Nftables(nft) => nft.teardown(),
            Self::Iptables(iptables) => Ok(iptables.teardown()?),
        }
    }
}

fn iptables(choice: Choice) -> Result<Firewall, BackendError> {
    let mut found = Iptables::open(choice.variant, choice.use_sudo)?;
    if choice.without_ipset {
        found = found.without_ipset()?;
    }
    found.probe_lists()?;
    Ok(Firewall::Iptables(Box::new(found)))
}

/// Whether our table of nftables is there; where the kernel has none, it is not.
fn nftables_guards() -> Result<bool, BackendError> {
    match Nftables::open().and_then(|mut nft| nft.has_table()) {
        Err(BackendError::Unsupported(_)) => Ok(false),
        other => other,
    }
}

/// nftables, unless iptables guards already.
fn alone(mut nft: Nftables) -> Result<Firewall, BackendError> {
    if iptables_guards(&mut nft)? {
        return Err(IptablesError::BesideIptables.into());
    }
    Ok(Firewall::Nftables(nft))
}

/// Whether a gate by either kind of iptables is in force.
fn iptables_guards(nft: &mut Nftables) -> Result<bool, BackendError> {
    let gate = names::chain("gate");
    Ok(nft.has_chain(2, "mangle", &gate)? || nft.has_chain(10, "mangle", &gate)? || legacy_guards())
}
