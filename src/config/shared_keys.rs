//! Values that the global section and the apps have alike.

use std::net::IpAddr;

use crate::config::report::Report;
use crate::config::section::{Field, Section, refuse_repeats};
use crate::config::settings::TwoFactorStep;
use crate::units::{IfName, Network};

/// How many items a list of names or keys may have.
pub(super) const MAX_ITEMS: usize = 1_000;
/// How many networks an `allow` list may have.
const MAX_NETWORKS: usize = 10_000;

/// The words of `2fa_step`.
pub(super) const TWO_FACTOR_STEPS: &[(&str, TwoFactorStep)] =
    &[("http", TwoFactorStep::Http), ("https", TwoFactorStep::Https), ("both", TwoFactorStep::Both)];

/// What a section says about a key: nothing, something wrong (reported), or a value.
pub(super) enum Said<T> {
    Nothing,
    Wrong,
    Value(T),
}

impl<T> Said<T> {
    /// Reads the key if it is there.
    pub fn read<'n>(field: Option<Field<'n>>, read: impl FnOnce(&Field<'n>) -> Option<T>) -> Self {
        match field.map(|field| read(&field)) {
            None => Self::Nothing,
            Some(None) => Self::Wrong,
            Some(Some(value)) => Self::Value(value),
        }
    }

    /// The value, or this one where nothing was said; none where it was wrong.
    pub fn or(self, default: T) -> Option<T> {
        match self {
            Self::Nothing => Some(default),
            Self::Wrong => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// The interfaces of a key, if it is there.
pub(super) fn interfaces(section: &Section<'_>, key: &str, report: &mut Report) -> Said<Vec<IfName>> {
    Said::read(section.get(key), |field| {
        let found = field.each(MAX_ITEMS, report, |item, report| item.parse_text::<IfName>(report))?;
        refuse_repeats(&found, |a, b| a == b, "interface", report);
        Some(found.into_iter().map(|(name, _)| name).collect())
    })
}

/// The networks of `allow`, if it is there; an empty list is one too.
pub(super) fn allow(section: &Section<'_>, report: &mut Report) -> Said<Vec<Network>> {
    Said::read(section.get("allow").filter(|field| !field.is_empty_list()), |field| {
        let found = field.each(MAX_NETWORKS, report, network)?;
        Some(found.into_iter().map(|(network, _)| network).collect())
    })
}

fn network(field: &Field<'_>, report: &mut Report) -> Option<Network> {
    let network: Network = field.parse_text(report)?;
    if let IpAddr::V6(v6) = network.first()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        report.error_fix(field.spot(), "this is an IPv4 address in IPv6 clothes", format!("write {v4}"));
        return None;
    }
    if network.prefix_len() == 0 {
        report.warning(
            field.spot(),
            "this lets everybody in without a knock",
            "name the networks that may always come in",
        );
    }
    Some(network)
}
