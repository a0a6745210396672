//! Why something could not be done to grants.

use std::net::IpAddr;

use super::control::Failure;
use crate::backend::BackendError;
use crate::backend::iptables::IptablesError;
use crate::config::App;
use crate::units::{ClientAddr, Family, Lifetime, Network};

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// No such app in the configuration.
    #[error("there is no app `{0}`; the apps are: {1}")]
    NoApp(String, String),
    /// The service cannot be reached over that family.
    #[error("{app} forwards to {host}, which {addr} cannot reach: they are of different address families")]
    WrongFamily {
        /// The app.
        app: String,
        /// Where it forwards to.
        host: String,
        /// The address that was to be let in.
        addr: Network,
    },
    /// A grant for the address would be for all neighbours.
    #[error(
        "{0} is link-local: with ipv6_prefix: {1} a grant would be for every neighbour; let another address of the client in"
    )]
    LinkLocal(IpAddr, u8),
    /// Grants are not for networks like that.
    #[error("{0} is not what grants are for here (IPv4 addresses, IPv6 /{1}): name one as `status` shows it")]
    OtherWidth(Network, u8),
    /// Each change looks at all of them.
    #[error(
        "{0} networks are allowed already, and more would hold up knocks: allow larger ones, or flush those that are not needed"
    )]
    TooManyNetworks(usize),
    /// Longer than the app allows.
    #[error("{app} grants at most {max} (max_duration)")]
    TooLong {
        /// The app.
        app: String,
        /// Its limit.
        max: Lifetime,
    },
    /// There is no guard to make a hole in.
    #[error("nothing is guarded here: no rules of knock-agent are in force; start knock-agent first")]
    NoTable,
    /// The same where a daemon puts it back.
    #[error(
        "somebody removed the rules of knock-agent a moment ago: they are being put back, nothing else was done; say it again in a second"
    )]
    Removed,
    /// Not a time that a grant can last.
    #[error(transparent)]
    Lifetime(#[from] crate::units::LifetimeError),
    /// Not a network.
    #[error(transparent)]
    Network(#[from] crate::units::NetworkError),
    /// Not where clients are.
    #[error(transparent)]
    NotAClient(#[from] crate::units::NotAClient),
    /// The kernel would not.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Whether a network of `prefix` bits that begins with that address is what one grant is for, of `ipv6_prefix` bits; none:
/// it is an address.
///
/// # Errors
/// Otherwise.
pub(super) fn is_of_one_grant(
    client: ClientAddr,
    prefix: Option<u8>,
    ipv6_prefix: u8,
) -> Result<(), OperationError> {
    let Some(len) = prefix else { return Ok(()) };
    match Network::around(client.ip(), len)? {
        network if network.family() == Family::V6 && len == ipv6_prefix => Ok(()),
        network => Err(OperationError::OtherWidth(network, ipv6_prefix)),
    }
}

/// Whether an app is reached over the family of that network.
///
/// # Errors
/// [`OperationError::WrongFamily`]
pub(super) fn is_reached_from(app: &App, addr: Network) -> Result<(), OperationError> {
    if app.families().contains(&addr.family()) {
        return Ok(());
    }
    let host = app.destination.host().map(|host| host.to_string()).unwrap_or_default();
    Err(OperationError::WrongFamily { app: app.name.to_string(), host, addr })
}

impl OperationError {
    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::NoApp(..)
            | Self::WrongFamily { .. }
            | Self::LinkLocal(..)
            | Self::OtherWidth(..)
            | Self::TooManyNetworks(_)
            | Self::TooLong { .. }
            | Self::Lifetime(_)
            | Self::Network(_)
            | Self::NotAClient(_) => Failure::Request,
            Self::Backend(BackendError::Iptables(IptablesError::Element(_))) => Failure::Request,
            Self::Backend(
                BackendError::NotPermitted | BackendError::Iptables(IptablesError::NotPermitted { .. }),
            ) => Failure::Permission,
            Self::NoTable | Self::Removed | Self::Backend(_) => Failure::Unavailable,
        }
    }
}
