//! The firewall of this host, whatever programs it: what the service asks of it, in the model's terms.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::BackendError;
use super::nftables::{HostReading, Nftables, Scope};
use crate::config::Settings;
use crate::ruleset::diff::{Change, Live, SetRef, diff};
use crate::ruleset::host_chain::{HostChains, HostPlan};
use crate::ruleset::layout::Options;
use crate::ruleset::model::{Element, Ruleset};
use crate::ruleset::plan::plan;
use crate::units::Mark;

/// What a firewall is to enforce, as its kind is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plan {
    /// A table of nftables.
    Nftables(Ruleset),
}

/// A firewall this host can enforce with.
#[derive(Debug)]
pub enum Firewall {
    /// The table `inet knock_agent`.
    Nftables(Nftables),
}

impl Firewall {
    /// nftables; changes nothing.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where there is no netfilter netlink.
    pub fn nftables() -> Result<Self, BackendError> {
        Ok(Self::Nftables(Nftables::open()?))
    }

    /// The number by which notifications of changes tell ours from others'; none where there are none.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        match self {
            Self::Nftables(nft) => Some(nft.port()),
        }
    }

    /// Its name, as `status --json` has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nftables(_) => "nftables",
        }
    }

    /// What a plan depends on besides the settings: the ports, and what the kernel can do.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel cannot be asked.
    pub fn options(
        &mut self,
        http_port: NonZeroU16,
        https_port: NonZeroU16,
    ) -> Result<Options, BackendError> {
        match self {
            Self::Nftables(nft) => {
                Ok(Options { http_port, https_port, inner_header: nft.knows_inner_header()? })
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
        }
    }

    /// What is in force; none if nothing of ours is.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn read(&mut self) -> Result<Option<Live>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.read(),
        }
    }

    /// Whether anything of ours is in force.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn guards(&mut self) -> Result<bool, BackendError> {
        match self {
            Self::Nftables(nft) => nft.has_table(),
        }
    }

    /// One element of a set that has no ranges; none if it is not there.
    ///
    /// # Errors
    /// [`BackendError`] when it cannot be read.
    pub fn element(&mut self, set: &SetRef, key: &[u8]) -> Result<Option<Element>, BackendError> {
        match self {
            Self::Nftables(nft) => nft.element(set, key),
        }
    }

    /// Carries out changes of elements, all of them or none.
    ///
    /// # Errors
    /// [`BackendError`]; nothing was opened then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        match self {
            Self::Nftables(nft) => nft.apply(changes),
        }
    }

    /// Puts a plan in force, by the difference to what is, and reads it back; returns how much was changed.
    ///
    /// # Errors
    /// [`BackendError`]; what was guarded before still is.
    pub fn install(&mut self, wanted: &Plan) -> Result<usize, BackendError> {
        match (self, wanted) {
            (Self::Nftables(nft), Plan::Nftables(wanted)) => Ok(nft.install(wanted)?.len()),
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
        }
    }

    /// Removes everything of ours; false if there was nothing.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel refuses.
    pub fn teardown(&mut self) -> Result<bool, BackendError> {
        match self {
            Self::Nftables(nft) => nft.teardown(),
        }
    }
}
