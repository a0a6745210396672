//! Why a firewall is not as it should be.

use nix::errno::Errno;

use crate::backend::iptables::IptablesError;
use crate::sys::netlink::NetlinkError;
use crate::sys::nftnl::BuildError;

/// Why the firewall is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// This process may not change the firewall.
    #[error(
        "no permission to change nftables: run as root or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    NotPermitted,
    /// The kernel has no nf_tables, or not enough of it.
    #[error(
        "the kernel does not support what is needed: load nf_tables (modprobe nf_tables nft_ct nft_fib_inet nft_nat nft_masq nft_limit)"
    )]
    Unsupported(#[source] NetlinkError),
    /// A message could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The kernel refused a change; nothing was changed.
    #[error("the kernel refused to {change}: {errno}")]
    Refused {
        /// The first change it refused.
        change: String,
        /// What it said.
        errno: Errno,
    },
    /// A set has all the elements it has room for; nothing was changed, nobody in it was pushed out.
    #[error("no room to {change}: the set is full; see `knock-agent status`, and revoke what is not needed")]
    Full {
        /// The first change that found no room.
        change: String,
    },
    /// The kernel could not be asked, or not understood.
    #[error("nftables cannot be reached: {0}")]
    Netlink(#[source] NetlinkError),
    /// iptables or ipset would not.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// What was read back is not what was written.
    #[error("what the kernel lists is not what was written; still to do: {}", first_of(.0))]
    NotAsWritten(Vec<String>),
}

/// How much of what is left a message names.
const NAMED: usize = 3;

fn first_of(left: &[String]) -> String {
    let named: Vec<&str> = left.iter().take(NAMED).map(String::as_str).collect();
    let more = left.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

impl From<NetlinkError> for BackendError {
    fn from(error: NetlinkError) -> Self {
        let all = |errnos: &[Errno]| match &error {
            NetlinkError::Refused(refusals) => refusals.iter().any(|r| errnos.contains(&r.errno)),
            NetlinkError::Send(errno) | NetlinkError::Receive(errno) => errnos.contains(errno),
            NetlinkError::Open(error) => {
                errnos.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
            }
            NetlinkError::Restless => false,
        };
        if all(&[Errno::EPERM, Errno::EACCES]) {
            Self::NotPermitted
        } else if matches!(error, NetlinkError::Open(_)) || all(&[Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT])
        {
            Self::Unsupported(error)
        } else {
            Self::Netlink(error)
        }
    }
}
