//! Networks that may always or for a while reach an app: where they overlap, the one
//! that lasts longest wins, and each piece ends in the kernel by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::{Element, Elements, Timeout};
use crate::units::{Family, Network};

/// The first word on elements that come from the configuration.
const BY_CONFIG: &str = "config";
/// The first word on elements that an operator added.
const BY_OPERATOR: &str = "operator";

/// Who allowed what an element stands for, as the words on it tell: `operator 10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it was the configuration; else an operator.
    pub by_config: bool,
    /// The network as it was allowed, of which the element may be a part.
    pub network: Option<Network>,
}

impl Origin {
    /// Reads the words on an element; none if they are not of this program.
    #[must_use]
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        let (who, network) = comment.map(|text| text.split_once(' ').unwrap_or((text, "")))?;
        let by_config = match who {
            BY_CONFIG => true,
            BY_OPERATOR => false,
            _ => return None,
        };
        Some(Self { by_config, network: network.parse().ok() })
    }

    /// The networks that an element stands for: the one that was allowed, or what can be told from its range.
    #[must_use]
    pub fn networks(self, first: &[u8], last: &[u8]) -> Vec<Network> {
        self.network.map_or_else(|| networks(first, last), |network| vec![network])
    }
}

/// An allowed range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    network: Network,
    /// First address, as a number.
    first: u128,
    /// Last address, included.
    last: u128,
    family: Family,
    /// Milliseconds left; none: for ever.
    left_ms: Option<u64>,
    by_config: bool,
}

impl Span {
    /// A network that the configuration allows for ever.
    #[must_use]
    pub fn configured(network: Network) -> Self {
        Self::of(network, None, true)
    }

    /// A network that an operator allowed, with what is left of its time.
    #[must_use]
    pub fn by_operator(network: Network, left_ms: Option<u64>) -> Self {
        Self::of(network, left_ms, false)
    }

    fn of(network: Network, left_ms: Option<u64>, by_config: bool) -> Self {
        Self {
            network,
            first: number(network.first()),
            last: number(network.last()),
            family: network.family(),
            left_ms,
            by_config,
        }
    }

    fn words(&self) -> String {
        format!("{} {}", if self.by_config { BY_CONFIG } else { BY_OPERATOR }, self.network)
    }

    /// Longer is more; the configuration wins a draw, because it stays.
    fn rank(&self) -> (u64, bool) {
        (self.left_ms.unwrap_or(u64::MAX), self.by_config)
    }
}

/// The elements that stand for these spans of one family: disjoint, the longest-lived one at each address.
#[must_use]
pub fn elements(spans: &[Span], family: Family) -> Elements {
    let spans: Vec<&Span> =
        spans.iter().filter(|span| span.family == family && span.left_ms != Some(0)).collect();
    let mut starts: Vec<u128> = Vec::new();
    for span in &spans {
        starts.push(span.first);
        starts.extend(span.last.checked_add(1).filter(|&next| next <= limit(family)));
    }
    starts.sort_unstable();
    starts.dedup();
    let mut pieces: Vec<(u128, u128, &Span)> = Vec::new();
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or_else(|| limit(family), |next| next - 1);
        let covering = spans.iter().filter(|span| span.first <= start && start <= span.last);
        let Some(&best) = covering.max_by_key(|span| span.rank()) else {
            continue;
        };
        match pieces.last_mut() {
            Some((_, last, same)) if std::ptr::eq(*same, best) && *last + 1 == start => *last = end,
            Some(_) | None => pieces.push((start, end, best)),
        }
    }
    pieces
        .into_iter()
        .map(|(first, last, span)| {
            let element = Element {
                last: (first != last).then(|| key(last, family)),
                verdict: None,
                mark: None,
                timeout: span.left_ms.map(Timeout::fresh_ms),
                comment: Some(span.words()),
            };
            (key(first, family), element)
        })
        .collect()
}

/// The networks that make up a range of keys, largest first as they come.
#[must_use]
pub fn networks(first: &[u8], last: &[u8]) -> Vec<Network> {
    let (Some((mut at, family)), Some((last, _))) = (from_key(first), from_key(last)) else {
        return Vec::new();
    };
    let bits = u32::from(family.bits());
    let mut out = Vec::new();
    while at <= last {
        let aligned = at.trailing_zeros().min(bits);
        let fits = (0..=aligned).rev().find(|&size| {
            1_u128.checked_shl(size).map_or(last == u128::MAX && at == 0, |count| {
                at.checked_add(count - 1).is_some_and(|end| end <= last)
            })
        });
        let size = fits.unwrap_or(0);
        let length = u8::try_from(bits - size).unwrap_or(0);
        out.extend(Network::around(address(at, family), length));
        let Some(next) = 1_u128.checked_shl(size).and_then(|count| at.checked_add(count)) else {
            break;
        };
        at = next;
    }
    out
}

/// What is left of a network without a range of keys.
#[must_use]
pub fn without(network: Network, first: &[u8], last: &[u8]) -> Vec<Network> {
    let whole = || vec![network];
    let (Some((from, family)), Some((to, _))) = (from_key(first), from_key(last)) else { return whole() };
    let (start, end) = (number(network.first()), number(network.last()));
    if family != network.family() || to < start || end < from {
        return whole();
    }
    let mut out = Vec::new();
    if let Some(before) = from.checked_sub(1).filter(|_| start < from) {
        out.extend(networks(&key(start, family), &key(before, family)));
    }
    if let Some(after) = to.checked_add(1).filter(|_| to < end) {
        out.extend(networks(&key(after, family), &key(end, family)));
    }
    out
}

/// What these elements are without what operators took back since: of what operators allowed, the parts where an element
/// stands now.
#[must_use]
pub fn still_allowed(before: &Elements, now: &Elements) -> Elements {
    let mut out = Elements::new();
    for (first, element) in before {
        let origin = Origin::parse(element.comment.as_deref());
        let range = range_of(first, element).filter(|_| origin.is_some_and(|origin| !origin.by_config));
        let Some((from, to, family)) = range else {
            out.insert(first.clone(), element.clone());
            continue;
        };
        let mut parts: Vec<(u128, u128)> = Vec::new();
        for (start, end, _) in now.iter().filter_map(|(key, have)| range_of(key, have)) {
            let (start, end) = (start.max(from), end.min(to));
            match parts.last_mut() {
                _ if start > end => {}
                Some((_, last)) if last.checked_add(1) == Some(start) => *last = end,
                Some(_) | None => parts.push((start, end)),
            }
        }
        out.extend(parts.into_iter().map(|(start, end)| {
            let last = (start != end).then(|| key(end, family));
            (key(start, family), Element { last, ..element.clone() })
        }));
    }
    out
}

fn range_of(first: &[u8], element: &Element) -> Option<(u128, u128, Family)> {
    let (from, family) = from_key(first)?;
    let to = element.last.as_deref().map_or(Some(from), |last| from_key(last).map(|(to, _)| to))?;
    Some((from, to, family))
}

/// An address as the key of an element.
#[must_use]
pub fn address_key(addr: IpAddr) -> Vec<u8> {
    key(number(addr), Family::of(addr))
}

/// The address that is the key of an element.
#[must_use]
pub fn key_address(key: &[u8]) -> Option<IpAddr> {
    from_key(key).map(|(number, family)| address(number, family))
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn limit(family: Family) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    }
}

fn key(number: u128, family: Family) -> Vec<u8> {
    match address(number, family) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn from_key(key: &[u8]) -> Option<(u128, Family)> {
    if let Ok(octets) = <[u8; 4]>::try_from(key) {
        return Some((u128::from(u32::from_be_bytes(octets)), Family::V4));
    }
    <[u8; 16]>::try_from(key).ok().map(|octets| (u128::from_be_bytes(octets), Family::V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(network: &str, left_ms: Option<u64>) -> Span {
        Span::by_operator(network.parse().unwrap(), left_ms)
    }

    fn listed(spans: &[Span]) -> Vec<(String, String, Option<u64>)> {
        elements(spans, Family::V4)
            .into_iter()
            .map(|(first, element)| {
                let last = element.last.unwrap_or_else(|| first.clone());
                let text = |key: &[u8]| key_address(key).unwrap().to_string();
                (text(&first), text(&last), element.timeout.map(|timeout| timeout.left_ms))
            })
            .collect()
    }

    #[test]
    fn the_longest_lived_of_overlapping_networks_wins_at_each_address() {
        assert_eq!(
            listed(&[span("10.0.0.0/8", Some(1_000)), span("10.1.0.0/16", Some(2_000))]),
            [
                ("10.0.0.0".into(), "10.0.255.255".into(), Some(1_000)),
                ("10.1.0.0".into(), "10.1.255.255".into(), Some(2_000)),
                ("10.2.0.0".into(), "10.255.255.255".into(), Some(1_000)),
            ]
        );
    }

    #[test]
    fn a_shorter_network_inside_a_longer_one_disappears() {
        assert_eq!(
            listed(&[span("10.1.0.0/16", Some(1)), span("10.0.0.0/8", None)]),
            [("10.0.0.0".into(), "10.255.255.255".into(), None)]
        );
    }

    #[test]
    fn the_whole_address_space_and_single_addresses_work() {
        assert_eq!(listed(&[span("0.0.0.0/0", None)]), [("0.0.0.0".into(), "255.255.255.255".into(), None)]);
        assert_eq!(
            listed(&[span("255.255.255.255", Some(5))]),
            [("255.255.255.255".into(), "255.255.255.255".into(), Some(5))]
        );
        assert_eq!(listed(&[span("192.0.2.1", Some(0))]), []);
        assert!(elements(&[span("2001:db8::/32", None)], Family::V4).is_empty());
        assert_eq!(elements(&[span("::/0", None)], Family::V6).len(), 1);
    }

    #[test]
    fn the_configuration_wins_a_draw() {
        let both = [span("10.0.0.0/8", None), Span::configured("10.0.0.0/8".parse().unwrap())];
        let got = elements(&both, Family::V4);
        assert_eq!(got.values().next().unwrap().comment.as_deref(), Some("config 10.0.0.0/8"));
    }

    #[test]
    fn each_piece_says_which_network_it_is_of() {
        let wide: Network = "10.0.0.0/8".parse().unwrap();
        let pieces = elements(&[span("10.0.0.0/8", Some(1_000)), span("10.1.0.0/16", None)], Family::V4);
        let origins: Vec<Origin> =
            pieces.values().map(|piece| Origin::parse(piece.comment.as_deref()).unwrap()).collect();
        assert_eq!(origins.len(), 3);
        assert_eq!(origins[0], Origin { by_config: false, network: Some(wide) });
        assert_eq!(origins[2], origins[0]);
        assert_eq!(Origin::parse(Some("config")), Some(Origin { by_config: true, network: None }));
        assert_eq!(Origin::parse(Some("operators 10.0.0.0/8")), None);
        assert_eq!(Origin::parse(None), None);
    }

    #[test]
    fn a_range_is_taken_out_of_a_network() {
        let left = |network: &str, first: &str, last: &str| -> Vec<String> {
            let keys = [first, last].map(|text| address_key(text.parse().unwrap()));
            without(network.parse().unwrap(), &keys[0], &keys[1]).iter().map(Network::to_string).collect()
        };
        assert_eq!(left("10.0.0.0/30", "10.0.0.1", "10.0.0.1"), ["10.0.0.0", "10.0.0.2/31"]);
        assert_eq!(left("10.0.0.0/30", "10.0.0.0", "10.255.0.0"), [""; 0]);
        assert_eq!(left("10.0.0.0/30", "10.0.0.4", "10.0.0.9"), ["10.0.0.0/30"]);
        assert_eq!(left("0.0.0.0/0", "0.0.0.0", "127.255.255.255"), ["128.0.0.0/1"]);
        assert_eq!(left("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), [""; 0]);
        assert_eq!(left("::/0", "10.0.0.1", "10.0.0.1"), ["::/0"]);
    }

    #[test]
    fn what_operators_took_back_is_not_allowed_again() {
        let configured = Span::configured("192.0.2.0/24".parse().unwrap());
        let all = [span("10.0.0.0/30", None), span("10.0.9.9", Some(9)), configured];
        let before = elements(&all, Family::V4);
        let still = |now: &[Span]| still_allowed(&before, &elements(now, Family::V4));
        assert_eq!(still(&all), before);
        assert_eq!(still(&[configured]), elements(&[configured], Family::V4));
        assert_eq!(still(&[]), elements(&[configured], Family::V4), "that is the old plan's to say");
        // In parts, with another's network between them, and one half of what there was.
        let others = [span("10.0.0.0/31", None), span("10.0.0.2/31", Some(5)), span("10.0.9.0/24", None)];
        let whole = elements(&all[..2], Family::V4);
        assert_eq!(still_allowed(&whole, &elements(&others, Family::V4)), whole);
        let half = still_allowed(&whole, &elements(&[span("10.0.0.2", None)], Family::V4));
        let (key, element) = half.first_key_value().unwrap();
        assert_eq!((half.len(), key_address(key), &element.last), (1, Some([10, 0, 0, 2].into()), &None));
    }

    #[test]
    fn ranges_are_listed_as_networks() {
        let of = |first: &str, last: &str| -> Vec<String> {
            networks(&address_key(first.parse().unwrap()), &address_key(last.parse().unwrap()))
                .iter()
                .map(Network::to_string)
                .collect()
        };
        assert_eq!(of("10.0.0.0", "10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(of("10.0.0.1", "10.0.0.4"), ["10.0.0.1", "10.0.0.2/31", "10.0.0.4"]);
        assert_eq!(of("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(of("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(of("::1", "::1"), ["::1"]);
    }
}
