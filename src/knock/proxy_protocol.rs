//! The PROXY protocol, versions 1 and 2: who a client is, said in front of a connection by the proxy that made it.
//!
//! Read strictly and only as far as it goes, because what follows it is somebody else's to read: TLS, or HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::forwarded::{NoClient, client};
use crate::config::Trusted;
use crate::units::ClientAddr;

/// No header is longer than what one TCP segment carries everywhere.
pub const MAX_PROXY_HEADER: usize = 536;
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_HEAD: usize = 16;
const LINE_START: &[u8; 10] = b"PROXY TCP4";

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyLine {
    /// So many more bytes belong to it for certain, at least one.
    Needs(usize),
    /// It is complete and names this client.
    Client(ClientAddr),
    /// It names nobody.
    Bad(NoClient),
}

/// Judges the bytes of a connection so far; never asks for a byte beyond the header.
#[must_use]
pub fn read_proxy_line(bytes: &[u8], trusted: &Trusted) -> ProxyLine {
    // Both versions have at least so many bytes, those of version 1 that name nobody aside.
    let Some(head) = bytes.first_chunk::<V2_HEAD>() else {
        return ProxyLine::Needs(V2_HEAD - bytes.len());
    };
    if bytes.len() > MAX_PROXY_HEADER {
        return ProxyLine::Bad(NoClient::Malformed);
    }
    let source = if head.starts_with(SIGNATURE) { version_2(head, bytes) } else { version_1(bytes) };
    match source {
        Ok(Ok(addr)) => client(addr, trusted).map_or_else(ProxyLine::Bad, ProxyLine::Client),
        Ok(Err(more)) => ProxyLine::Needs(more),
        Err(why) => ProxyLine::Bad(why),
    }
}

/// The source address, or how many bytes are missing.
type Source = Result<Result<IpAddr, usize>, NoClient>;

/// `PROXY TCP4 203.0.113.2 198.51.100.1 40000 443` and CR LF.
fn version_1(bytes: &[u8]) -> Source {
    let (known, rest) = bytes.split_at(LINE_START.len().min(bytes.len()));
    let v4 = known == LINE_START;
    if !v4 && known != b"PROXY TCP6" {
        // `PROXY UNKNOWN` among them, which is for connections that are nobody's.
        return Err(NoClient::Malformed);
    }
    let Some((line, [])) = split_line(rest) else {
        let ended = rest.contains(&b'\n') || bytes.len() >= MAX_LINE;
        return if ended { Err(NoClient::Malformed) } else { Ok(Err(1)) };
    };
    let text = std::str::from_utf8(line).map_err(|_| NoClient::Malformed)?;
    let mut words = text.split(' ');
    let all = [words.next(), words.next(), words.next(), words.next(), words.next()];
    let ([Some(""), Some(from), Some(to), Some(from_port), Some(to_port)], None) = (all, words.next()) else {
        return Err(NoClient::Malformed);
    };
    if !(port(from_port) && port(to_port)) {
        return Err(NoClient::Malformed);
    }
    let [from, to] = [from, to].map(|word| address(word, v4));
    from.and_then(|from| to.map(|_| Ok(from))).ok_or(NoClient::Malformed)
}

/// A text up to its CR LF, and what follows.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = text.split_at_checked(end)?;
    Some((line, rest.get(2..)?))
}

fn address(word: &str, v4: bool) -> Option<IpAddr> {
    if v4 { word.parse().ok().map(IpAddr::V4) } else { word.parse().ok().map(IpAddr::V6) }
}

/// A port in the one way there is to write it.
fn port(word: &str) -> bool {
    word.parse::<u16>().is_ok_and(|number| number.to_string() == word)
}

fn version_2(head: &[u8; V2_HEAD], bytes: &[u8]) -> Source {
    let &[.., what, family, high, low] = head;
    let total = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    // 0x21 is version 2 and a connection of a client's; 0x20 one of the proxy's own, such as a check of its health.
    if what != 0x21 || total > MAX_PROXY_HEADER {
        return Err(NoClient::Malformed);
    }
    if bytes.len() < total {
        return Ok(Err(total - bytes.len()));
    }
    let body = bytes.get(V2_HEAD..).filter(|_| bytes.len() == total).ok_or(NoClient::Malformed)?;
    // Source, destination, their ports, and then what is not about addresses.
    let (source, more) = match family {
        0x11 => (body.first_chunk::<4>().map(|&octets| IpAddr::V4(Ipv4Addr::from(octets))), body.get(12..)),
        0x21 => (body.first_chunk::<16>().map(|&octets| IpAddr::V6(Ipv6Addr::from(octets))), body.get(36..)),
        _ => return Err(NoClient::Malformed),
    };
    match (source, more) {
        (Some(source), Some(more)) if well_formed(more) => Ok(Ok(source)),
        _ => Err(NoClient::Malformed),
    }
}

/// Whether bytes are a row of type, length and value.
fn well_formed(mut more: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = more {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(next) => more = next,
            None => return false,
        }
    }
    more.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> Trusted {
        "10.0.0.0/24".parse().unwrap()
    }

    /// Feeds a stream as a connection does, byte by byte as they are asked for.
    fn feed(stream: &[u8]) -> (ProxyLine, usize) {
        let mut taken = 0;
        loop {
            match read_proxy_line(&stream[..taken], &trusted()) {
                ProxyLine::Needs(more) if taken + more <= stream.len() => {
                    assert!(more > 0);
                    taken += more;
                }
                end => return (end, taken),
            }
        }
    }

    fn v2(what: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([what, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn body4(source: [u8; 4]) -> Vec<u8> {
        [&source[..], &[192, 0, 2, 1, 0x9c, 0x40, 1, 187]].concat()
    }

    fn client_of(text: &str) -> ProxyLine {
        ProxyLine::Client(ClientAddr::new(text.parse().unwrap()))
    }

    const LINES: [(&str, &str); 4] = [
        ("PROXY TCP4 203.0.113.2 192.0.2.1 40000 443\r\n", "203.0.113.2"),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", "1.1.1.1"),
        ("PROXY TCP6 2001:db8::2 2001:db8::1 65535 80\r\n", "2001:db8::2"),
        ("PROXY TCP6 ::ffff:203.0.113.2 ::ffff:192.0.2.1 1 80\r\n", "203.0.113.2"),
    ];

    #[test]
    fn lines_of_version_1_are_read_to_their_last_byte_and_no_further() {
        for (line, client) in LINES {
            for tail in ["", "POST / HTTP/1.1\r\n", "\x16\x03\x01", line] {
                let (end, taken) = feed(format!("{line}{tail}").as_bytes());
                assert_eq!((end, taken), (client_of(client), line.len()), "{line}");
            }
        }
        let longest = format!("2001:{}", ["ffff"; 7].join(":"));
        let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
        assert_eq!(feed(line.as_bytes()).0, client_of(&longest));
    }

    #[test]
    fn headers_of_version_2_are_read_to_their_last_byte_and_no_further() {
        let six: Vec<u8> = ["2001:db8::2", "2001:db8::1"]
            .iter()
            .flat_map(|a| a.parse::<Ipv6Addr>().unwrap().octets())
            .collect();
        let six = [&six[..], &[0, 1, 0, 2]].concat();
        let tlv = [body4([203, 0, 113, 2]), vec![1, 0, 2, b'h', b'2', 4, 0, 0]].concat();
        for (header, client) in [
            (v2(0x21, 0x11, &body4([203, 0, 113, 2])), "203.0.113.2"),
            (v2(0x21, 0x11, &tlv), "203.0.113.2"),
            (v2(0x21, 0x21, &six), "2001:db8::2"),
        ] {
            let stream = [&header[..], b"PROXY TCP4 9.9.9.9 9.9.9.9 1 1\r\n"].concat();
            assert_eq!(feed(&stream), (client_of(client), header.len()));
        }
    }

    #[test]
    fn a_header_that_is_not_complete_needs_more() {
        let header = v2(0x21, 0x11, &body4([203, 0, 113, 2]));
        for stream in [LINES[0].0.as_bytes(), &header[..]] {
            for end in 0..stream.len() {
                assert!(
                    matches!(read_proxy_line(&stream[..end], &trusted()), ProxyLine::Needs(more) if more <= stream.len() - end)
                );
            }
        }
    }

    #[test]
    fn lines_that_are_not_exactly_right_are_refused() {
        for bad in [
            "PROXY UNKNOWN\r\n                    ",
            "PROXY UNKNOWN 203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY UDP4 203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY TCP5 203.0.113.2 192.0.2.1 1 2\r\n",
            "proxy TCP4 203.0.113.2 192.0.2.1 1 2\r\n",
            " PROXY TCP4 203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY  TCP4 203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY TCP4  203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1 2 \r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1 2\n   \r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 01 2\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 -1 2\r\n",
            "PROXY TCP4 203.0.113.2 host 1 2\r\n",
            "PROXY TCP4 203.0.113.02 192.0.2.1 1 2\r\n",
            "PROXY TCP4 2001:db8::2 2001:db8::1 1 2\r\n",
            "PROXY TCP6 203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY TCP6 2001:db8::2%eth0 2001:db8::1 1 2\r\n",
            "PROXY TCP4\t203.0.113.2 192.0.2.1 1 2\r\n",
            "PROXY TCP4 203.0.113.2 192.0.2.1 1 2\r \r\n",
            "POST /one HTTP/1.1\r\nHost: h\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\x00\x00\x00\x00\x00",
        ] {
            assert_eq!(feed(bad.as_bytes()).0, ProxyLine::Bad(NoClient::Malformed), "{bad:?}");
        }
        let endless = format!("PROXY TCP4 {}", "1".repeat(200));
        assert_eq!(feed(endless.as_bytes()), (ProxyLine::Bad(NoClient::Malformed), MAX_LINE));
    }

    #[test]
    fn headers_of_version_2_that_are_not_exactly_right_are_refused() {
        let good = body4([203, 0, 113, 2]);
        let long = [good.clone(), vec![4, 2, 10], vec![0; 522]].concat();
        for header in [
            v2(0x20, 0x11, &good),
            v2(0x20, 0x00, &[]),
            v2(0x22, 0x11, &good),
            v2(0x11, 0x11, &good),
            v2(0x31, 0x11, &good),
            v2(0x21, 0x00, &good),
            v2(0x21, 0x12, &good),
            v2(0x21, 0x22, &[1; 36]),
            v2(0x21, 0x31, &[1; 216]),
            v2(0x21, 0x11, &good[..11]),
            v2(0x21, 0x11, &[]),
            v2(0x21, 0x21, &[1; 35]),
            v2(0x21, 0x11, &[&good[..], &[4]].concat()),
            v2(0x21, 0x11, &[&good[..], &[4, 0, 1]].concat()),
            v2(0x21, 0x11, &[&good[..], &[4, 0, 9, 0]].concat()),
            v2(0x21, 0x11, &long),
        ] {
            assert_eq!(feed(&header).0, ProxyLine::Bad(NoClient::Malformed), "{header:?}");
        }
    }

    #[test]
    fn proxies_and_addresses_that_nobody_has_are_no_clients() {
        for (source, why) in [
            ([10, 0, 0, 9], NoClient::OnlyProxies),
            ([127, 0, 0, 1], NoClient::NotAClient),
            ([0, 0, 0, 0], NoClient::NotAClient),
            ([255, 255, 255, 255], NoClient::NotAClient),
            ([239, 1, 1, 1], NoClient::NotAClient),
        ] {
            assert_eq!(feed(&v2(0x21, 0x11, &body4(source))).0, ProxyLine::Bad(why));
            let line = format!("PROXY TCP4 {} 192.0.2.1 1 2\r\n", Ipv4Addr::from(source));
            assert_eq!(feed(line.as_bytes()).0, ProxyLine::Bad(why));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700), start in 0..3_usize) {
            let starts: [&[u8]; 3] = [b"", b"PROXY TCP4 ", &[&SIGNATURE[..], &[0x21, 0x11, 0]].concat()];
            let stream = [starts[start], &bytes].concat();
            let (end, taken) = feed(&stream);
            prop_assert!(taken <= MAX_PROXY_HEADER);
            prop_assert!(matches!(end, ProxyLine::Needs(1..)) || taken <= stream.len());
        }

        #[test]
        fn what_was_read_once_is_never_read_otherwise(source: [u8; 4], port: u16, more in proptest::collection::vec(any::<u8>(), 1..40)) {
            let line = format!("PROXY TCP4 {} 192.0.2.1 {port} 443\r\n", Ipv4Addr::from(source)).into_bytes();
            for header in [line, v2(0x21, 0x11, &body4(source))] {
                let alone = feed(&header);
                let followed = feed(&[&header[..], &more].concat());
                prop_assert_eq!(alone, followed);
                prop_assert_eq!(alone.1, header.len());
            }
        }
    }
}
