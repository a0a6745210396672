use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The two address families the gateway handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// `4` or `6`, as in the names of sets.
    #[must_use]
    pub fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    /// The family of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The number of bits in an address: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// The address of one client; IPv4-mapped IPv6 addresses are folded into IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// Folds `::ffff:a.b.c.d` into `a.b.c.d` and keeps everything else.
    #[must_use]
    pub fn new(addr: IpAddr) -> Self {
        Self(addr.to_canonical())
    }

    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The family of the address.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.0)
    }

    /// The address as packets may have it for their source: an IPv4 one also as `::ffff:a.b.c.d` in IPv6.
    pub fn sources(self) -> impl Iterator<Item = Self> {
        let mapped = match self.0 {
            IpAddr::V4(v4) => Some(Self(IpAddr::V6(v4.to_ipv6_mapped()))),
            IpAddr::V6(_) => None,
        };
        [self].into_iter().chain(mapped)
    }

    /// Whether grants for the first `v6_len` bits can be for this address: cut off, a link-local one (RFC 4291, section 2.5.6)
    /// would stand for all neighbours on all links.
    #[must_use]
    pub fn may_be_masked(self, v6_len: u8) -> bool {
        match self.0 {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => v6_len >= 128 || !v6.is_unicast_link_local(),
        }
    }

    /// The address with all but the first `v6_len` bits cleared; IPv4 stays whole.
    #[must_use]
    pub fn masked_v6(self, v6_len: u8) -> Self {
        match self.0 {
            IpAddr::V4(_) => self,
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask128(v6_len)))),
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}

/// Why no client can have an address, or any of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{network} is {what}: no packet of a client comes from there")]
pub struct NotAClient {
    /// What was named.
    network: Network,
    /// What it is.
    what: &'static str,
}

/// The networks that are nobody's on the way (RFC 1122, section 3.2.1.3; RFC 4291, section 2).
const NOBODYS: [(IpAddr, u8, &str); 8] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8, "no address of a host"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "this host itself (loopback)"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "a group of hosts (multicast)"),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32, "everybody on a network (broadcast)"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128, "no address of a host"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, "this host itself (loopback)"),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96, "an IPv4 address in the clothes of IPv6"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "a group of hosts (multicast)"),
];

/// An address or a network in CIDR notation, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    addr: IpAddr,
    len: u8,
}

/// Why a text is not a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor `ADDRESS/LENGTH`.
    #[error("`{0}` is not an address or network: write 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32")]
    Syntax(String),
    /// The prefix is longer than an address.
    #[error("/{len} is longer than the {bits} bits of `{addr}`")]
    Length {
        /// The address as written.
        addr: IpAddr,
        /// The prefix length as written.
        len: u16,
        /// What the family allows.
        bits: u8,
    },
    /// Bits after the prefix are set.
    #[error("`{given}` has bits set after the prefix: did you mean {meant}?")]
    HostBits {
        /// What was written.
        given: String,
        /// The network around it.
        meant: Network,
    },
}

impl Network {
    /// The network of `len` bits around `addr`; IPv4-mapped addresses are not folded.
    ///
    /// # Errors
    /// [`NetworkError::Length`] when `len` exceeds the family.
    pub fn around(addr: IpAddr, len: u8) -> Result<Self, NetworkError> {
        let bits = Family::of(addr).bits();
        if len > bits {
            return Err(NetworkError::Length { addr, len: u16::from(len), bits });
        }
        let addr = match addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask128(len))),
        };
        Ok(Self { addr, len })
    }

    /// The network that holds this one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: Family::of(addr).bits() }
    }

    /// The network, if clients can be in it.
    ///
    /// # Errors
    /// [`NotAClient`] where all of it is nobody's.
    pub fn of_clients(self) -> Result<Self, NotAClient> {
        let found = NOBODYS.iter().find(|&&(addr, len, _)| Self { addr, len }.holds(self));
        found.map_or(Ok(self), |&(_, _, what)| Err(NotAClient { network: self, what }))
    }

    /// The first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.addr
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) | !mask))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) | !mask128(self.len))),
        }
    }

    /// Whether all addresses of the other one are in it.
    #[must_use]
    pub fn holds(self, inner: Self) -> bool {
        self.family() == inner.family() && self.first() <= inner.first() && inner.last() <= self.last()
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// The family of the network.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.addr)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || NetworkError::Syntax(text.to_owned());
        let (addr, len) = match text.split_once('/') {
            None => (text, None),
            Some((addr, len)) => (addr, Some(len)),
        };
        let addr: IpAddr = addr.parse().map_err(|_| syntax())?;
        let Some(len) = len else {
            return Ok(Self::host(addr));
        };
        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let len: u16 = len.parse().map_err(|_| syntax())?;
        let bits = Family::of(addr).bits();
        let Some(short) = u8::try_from(len).ok().filter(|&l| l <= bits) else {
            return Err(NetworkError::Length { addr, len, bits });
        };
        let network = Self::around(addr, short)?;
        if network.addr == addr {
            Ok(network)
        } else {
            Err(NetworkError::HostBits { given: text.to_owned(), meant: network })
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == self.family().bits() {
            self.addr.fmt(f)
        } else {
            write!(f, "{}/{}", self.addr, self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped = ClientAddr::new("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(mapped.to_string(), "192.0.2.1");
        assert_eq!(mapped.family(), Family::V4);
    }

    #[test]
    fn what_no_packet_of_a_client_comes_from_is_no_client() {
        let of = |text: &str| text.parse::<Network>().unwrap().of_clients();
        for nobodys in [
            "0.0.0.0",
            "0.1.2.0/24",
            "127.0.0.1",
            "127.0.0.0/8",
            "224.0.0.1",
            "239.0.0.0/8",
            "224.0.0.0/4",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "ff00::/8",
        ] {
            assert!(of(nobodys).unwrap_err().to_string().contains(nobodys), "{nobodys}");
        }
        for theirs in ["0.0.0.0/0", "203.0.113.7", "240.0.0.1", "169.254.1.1", "255.255.255.0/24", "::/0"] {
            assert!(of(theirs).is_ok(), "{theirs}");
        }
        for theirs in ["fe80::1", "2001:db8::/32", "fd00::/8"] {
            assert!(of(theirs).is_ok(), "{theirs}");
        }
    }

    #[test]
    fn networks_know_their_ends() {
        for (text, first, last) in [
            ("10.0.0.0/8", "10.0.0.0", "10.255.255.255"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let net: Network = text.parse().unwrap();
            assert_eq!((net.first().to_string(), net.last().to_string()), (first.into(), last.into()));
            assert_eq!(net.to_string(), text);
        }
    }

    #[test]
    fn sloppy_networks_are_refused() {
        for text in
            ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1%eth0", "host", "1.2.3.4/+8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn ipv6_masks_reach_both_ends() {
        let addr = ClientAddr::new("2001:db8:1:2:3::4".parse().unwrap());
        assert_eq!(addr.masked_v6(64).to_string(), "2001:db8:1:2::");
        assert_eq!(addr.masked_v6(128), addr);
        assert_eq!(addr.masked_v6(0).to_string(), "::");
    }

    #[test]
    fn link_local_addresses_stand_for_one_host_only() {
        let may = |text: &str, len| ClientAddr::new(text.parse().unwrap()).may_be_masked(len);
        for text in ["fe80::1", "febf::1"] {
            assert!(may(text, 128) && !may(text, 127) && !may(text, 64), "{text}");
        }
        for text in ["2001:db8::1", "fec0::1", "fd00::1", "169.254.0.1"] {
            assert!(may(text, 32), "{text}");
        }
    }
}
