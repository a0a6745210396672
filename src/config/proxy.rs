//! A proxy in front of both steps: its ports and addresses come from the command line, how it says who a client is
//! from the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::StepPorts;
use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::config::settings::Step1Reply;
use crate::config::shared_keys::Said;
use crate::units::{ClientAddr, Network, NetworkError};

/// How many networks a proxy may have: each takes part in the judgement of each hop.
const MAX_TRUSTED: usize = 64;

const HEADERS: &[(&str, ProxyHeader)] = &[
    ("x-real-ip", ProxyHeader::XRealIp),
    ("x-forwarded-for", ProxyHeader::XForwardedFor),
    ("forwarded", ProxyHeader::Forwarded),
    ("proxy-protocol", ProxyHeader::ProxyProtocol),
];
const STEP2: &[(&str, ProxyStep2)] = &[("https", ProxyStep2::Https), ("http", ProxyStep2::Http)];

/// Where a proxy says who the client is: there and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Real-IP`: one address.
    XRealIp,
    /// `X-Forwarded-For`: a list, of which the last hop counts that is no trusted proxy.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), likewise.
    Forwarded,
    /// The PROXY protocol, version 1 or 2, before anything else.
    ProxyProtocol,
}

impl ProxyHeader {
    /// Its word in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::XRealIp => "x-real-ip",
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::ProxyProtocol => "proxy-protocol",
        }
    }
}

/// What a proxy speaks to step 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyStep2 {
    /// TLS, be it the client's own or a second one.
    Https,
    /// Plain HTTP: TLS ends at the proxy.
    Http,
}

/// The addresses proxies speak from: 1 to 64 networks, none of them everybody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted(Vec<Network>);

/// Why a text is not a list of [`Trusted`] addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustedError {
    /// One of them is no address or network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An IPv4 address that is written as an IPv6 one.
    #[error("`{0}` is an IPv4 address in IPv6 clothes: write {1}")]
    Mapped(Network, IpAddr),
    /// An address that hosts on every link may have.
    #[error(
        "`{0}` is link-local, and a host on another link may have the same: name another address of the proxy"
    )]
    LinkLocal(Network),
    /// Everybody.
    #[error("`{0}` trusts everybody to say who a client is: name the addresses of the proxy")]
    Everybody(Network),
    /// None at all, or too many.
    #[error("there are {0} networks: name 1 to {MAX_TRUSTED}, with commas between them")]
    Count(usize),
}

impl Trusted {
    /// This host itself, over its loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        let [v4, v6]: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Self(vec![Network::host(v4), Network::host(v6)])
    }

    /// Whether a proxy speaks from there.
    #[must_use]
    pub fn contains(&self, addr: ClientAddr) -> bool {
        self.0.iter().any(|network| {
            network.family() == addr.family() && network.first() <= addr.ip() && addr.ip() <= network.last()
        })
    }

    /// Whether nobody on another host is trusted.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.0.iter().all(|network| network.first().is_loopback() && network.last().is_loopback())
    }

    /// The networks, in the order given.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.0
    }
}

impl FromStr for Trusted {
    type Err = TrustedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let networks = words.map(trusted).collect::<Result<Vec<_>, _>>()?;
        if (1..=MAX_TRUSTED).contains(&networks.len()) {
            Ok(Self(networks))
        } else {
            Err(TrustedError::Count(networks.len()))
        }
    }
}

fn trusted(word: &str) -> Result<Network, TrustedError> {
    let network: Network = word.parse()?;
    if let IpAddr::V6(v6) = network.first()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(TrustedError::Mapped(network, v4.into()));
    }
    if network.prefix_len() == 0 {
        return Err(TrustedError::Everybody(network));
    }
    // fe80::/10; who is trusted is asked by address, which does not say by which interface.
    let link_local = Ipv6Addr::from(0xfe80_u128 << 112);
    let within = matches!(network.first(), IpAddr::V6(v6) if v6.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80));
    if within || (network.first() <= IpAddr::V6(link_local) && IpAddr::V6(link_local) <= network.last()) {
        return Err(TrustedError::LinkLocal(network));
    }
    Ok(network)
}

/// What the command line says of a proxy in front; the ports clients use are then the proxy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The agent's own port of step 1.
    pub http: NonZeroU16,
    /// The agent's own port of step 2.
    pub https: NonZeroU16,
    /// From where it speaks.
    pub trusted: Trusted,
}

/// A proxy in front of both steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The agent's own port of step 1; the proxy's is the one that clients use.
    pub http_port: NonZeroU16,
    /// The agent's own port of step 2.
    pub https_port: NonZeroU16,
    /// From where it speaks.
    pub trusted: Trusted,
    /// Where it says who the client is.
    pub header: ProxyHeader,
    /// What it speaks to step 2.
    pub step2: ProxyStep2,
}

/// What the `global` section says of a proxy.
pub(super) struct ProxyDraft<'n> {
    header: (Said<ProxyHeader>, Option<Field<'n>>),
    step2: (Said<ProxyStep2>, Option<Field<'n>>),
    /// Whether step 1 answers, and where that is or would be said.
    reply: Option<(Step1Reply, Spot)>,
}

impl<'n> ProxyDraft<'n> {
    /// Stands for a section that is not there.
    pub fn unknown() -> Self {
        Self { header: (Said::Nothing, None), step2: (Said::Nothing, None), reply: None }
    }

    /// Reads what is about proxies.
    pub fn read(section: &Section<'n>, reply: Option<Step1Reply>, report: &mut Report) -> Self {
        let spot = section.get("step1_reply").map_or_else(|| section.spot_for("step1_reply"), |f| f.spot());
        let (header, step2) = (section.get("proxy_header"), section.get("proxy_step2"));
        Self {
            header: (Said::read(header.clone(), |f| f.choice(HEADERS, report)), header),
            step2: (Said::read(step2.clone(), |f| f.choice(STEP2, report)), step2),
            reply: reply.map(|reply| (reply, spot)),
        }
    }

    /// The proxy of configuration and command line together; nothing where they do not fit.
    pub fn settle(
        self,
        ports: Option<StepPorts>,
        behind: Option<&Behind>,
        report: &mut Report,
    ) -> Option<Option<Proxy>> {
        let Some(behind) = behind else {
            // Where the ports are not known, neither is the proxy.
            let said = [self.header.1, self.step2.1].into_iter().flatten();
            for field in said.filter(|_| ports.is_some()) {
                report.error_fix(
                    field.key(),
                    "this is about a proxy in front, and the command line names none",
                    "give --waf-http-port and --waf-https-port, or remove this line",
                );
            }
            return Some(None);
        };
        if let Some((Step1Reply::Silent, spot)) = self.reply {
            report.error_fix(
                spot,
                "behind a proxy step 1 must answer: the connection to the client is the proxy's, which waits",
                "write step1_reply: http",
            );
            return None;
        }
        Some(Some(Proxy {
            http_port: behind.http,
            https_port: behind.https,
            trusted: behind.trusted.clone(),
            header: self.header.0.or(ProxyHeader::XRealIp)?,
            step2: self.step2.0.or(ProxyStep2::Https)?,
        }))
    }
}

/// Every port that is not an app's to take, with the flag that says so.
pub(super) fn taken(ports: StepPorts, behind: Option<&Behind>) -> Vec<(u16, &'static str)> {
    match behind {
        None => vec![(ports.http, "--http-port"), (ports.https, "--https-port")],
        Some(behind) => vec![
            (ports.http, "--waf-http-port"),
            (ports.https, "--waf-https-port"),
            (behind.http.get(), "--http-port"),
            (behind.https.get(), "--https-port"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(text: &str) -> Result<Trusted, String> {
        text.parse::<Trusted>().map_err(|error| error.to_string())
    }

    fn addr(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    #[test]
    fn addresses_and_networks_of_both_families_are_trusted_and_their_neighbours_not() {
        let list = trusted("127.0.0.1, 10.1.0.0/16,2001:db8::/32,").unwrap();
        for text in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.0.0", "10.1.255.255", "2001:db8:ffff::1"] {
            assert!(list.contains(addr(text)), "{text}");
        }
        for text in ["127.0.0.2", "10.0.255.255", "10.2.0.0", "2001:db9::", "::1", "::7f00:1"] {
            assert!(!list.contains(addr(text)), "{text}");
        }
    }

    #[test]
    fn what_trusts_everybody_or_nobody_or_is_no_address_is_refused() {
        for (text, part) in [
            ("", "0 networks"),
            (" , ,", "0 networks"),
            ("0.0.0.0/0", "everybody"),
            ("::/0", "everybody"),
            ("127.0.0.1,proxy.example", "`proxy.example` is not an address"),
            ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
            ("::ffff:10.0.0.1", "write 10.0.0.1"),
            ("127.0.0.1 10.0.0.1", "is not an address"),
            ("fe80::1%eth0", "is not an address"),
            ("fe80::1", "is link-local"),
            ("febf:ffff::/32", "is link-local"),
            ("fe80::/10", "is link-local"),
            ("f000::/4", "is link-local"),
        ] {
            let message = trusted(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(trusted(&vec!["10.0.0.1"; 65].join(",")).unwrap_err().contains("65 networks"));
    }

    #[test]
    fn a_list_is_this_host_s_own_only_if_all_of_it_is_loopback() {
        assert!(Trusted::loopback().is_loopback() && trusted("127.0.0.0/8").unwrap().is_loopback());
        for text in ["127.0.0.1,10.0.0.1", "126.0.0.0/7", "::/127"] {
            assert!(!trusted(text).unwrap().is_loopback(), "{text}");
        }
    }
}
