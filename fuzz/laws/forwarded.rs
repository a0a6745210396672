//! Who a client is behind a proxy: headers, and the PROXY protocol.

use std::net::IpAddr;

use crate::config::{ProxyHeader, Trusted};
use crate::knock::{MAX_PROXY_HEADER, NoClient, ProxyLine, forwarded_client, read_proxy_line};
use crate::units::ClientAddr;

use super::choices::Choices;

fn trusted() -> Trusted {
    "10.0.0.0/24,fd00::/64".parse().unwrap()
}

fn is_a_client(client: ClientAddr) {
    let ip = client.ip();
    assert!(!trusted().contains(client), "{ip} is a proxy");
    assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified(), "{ip} is nobody's");
    assert_eq!(ip, ip.to_canonical(), "IPv4 in IPv6 clothes");
}

/// The first byte says which header counts and whether the rest is a whole request or that header's value.
///
/// What a client writes in front of what its proxy adds changes nothing; what a proxy adds decides. Two headers of the
/// name are none.
pub fn forwarded(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let all = [ProxyHeader::XRealIp, ProxyHeader::XForwardedFor, ProxyHeader::Forwarded];
    let kind = all[choices.below(3)];
    let name = ["X-Real-IP", "X-Forwarded-For", "Forwarded"][all.iter().position(|&k| k == kind).unwrap()];
    let whole = choices.flag();
    let rest = choices.rest();
    let read = |request: &[u8]| {
        let found = forwarded_client(request, kind, &trusted());
        if let Ok(client) = found {
            is_a_client(client);
        }
        found
    };
    if whole {
        let _ = read(rest);
        return;
    }
    if rest.iter().any(|&b| b != b'\t' && !(b' '..=b'~').contains(&b) && b < 0x80) {
        return;
    }
    let with = |values: &[&[u8]]| {
        let mut request = b"POST /step-one HTTP/1.1\r\nHost: h\r\n".to_vec();
        for value in values {
            request.extend_from_slice(name.as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        read(&request)
    };
    let found = with(&[rest]);
    assert!(with(&[rest, rest]).is_err(), "said twice");
    assert!(with(&[rest, b"192.0.2.1"]).is_err(), "said twice");
    let (claimed, proxy, client) = match kind {
        ProxyHeader::XForwardedFor => ("192.0.2.55", "10.0.0.9", "198.51.100.7"),
        ProxyHeader::Forwarded => ("for=192.0.2.55", "for=10.0.0.9;proto=https", "for=198.51.100.7"),
        ProxyHeader::XRealIp | ProxyHeader::ProxyProtocol => return,
    };
    let joined = |parts: &[&[u8]]| with(&[&parts.join(&b", "[..])]);
    let addr = |text: &str| Ok(ClientAddr::new(text.parse().unwrap()));
    match found {
        Ok(_) => {
            assert_eq!(joined(&[claimed.as_bytes(), rest]), found, "a client says who it is");
            assert_eq!(joined(&[rest, proxy.as_bytes()]), found, "one proxy more");
            assert_eq!(joined(&[rest, client.as_bytes()]), addr("198.51.100.7"));
        }
        Err(NoClient::OnlyProxies) => {
            assert_eq!(joined(&[claimed.as_bytes(), rest]), addr("192.0.2.55"));
        }
        Err(NoClient::Hidden) => {
            assert_eq!(joined(&[claimed.as_bytes(), rest]), Err(NoClient::Hidden));
        }
        Err(_) => {}
    }
}

/// Feeds a stream as a connection does, so many bytes as are asked for.
fn feed(stream: &[u8]) -> (ProxyLine, usize) {
    let mut taken = 0;
    loop {
        match read_proxy_line(&stream[..taken], &trusted()) {
            ProxyLine::Needs(more) => {
                assert!(more > 0);
                if taken + more > stream.len() {
                    return (ProxyLine::Needs(more), taken);
                }
                taken += more;
            }
            end => return (end, taken),
        }
    }
}

/// The first byte says whether the rest is what a proxy sends, or what a header is made of that is as it should be.
///
/// Nothing beyond the header is ever asked for, what was judged is judged so whatever follows, and what a proxy writes
/// is what is read.
pub fn proxy_line(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let stream = match choices.below(3) {
        0 => choices.rest().to_vec(),
        1 => {
            let (from, line) = version_1(&mut choices);
            judged_as(&line, from);
            [&line, choices.rest()].concat()
        }
        _ => {
            let (from, header) = version_2(&mut choices);
            judged_as(&header, from);
            [&header, choices.rest()].concat()
        }
    };
    let (end, taken) = feed(&stream);
    assert!(taken <= MAX_PROXY_HEADER.min(stream.len()));
    match end {
        ProxyLine::Client(client) => is_a_client(client),
        ProxyLine::Bad(_) | ProxyLine::Needs(_) => {}
    }
    // However the bytes come in, nobody is named before the header is whole, and no byte after it is asked for.
    if let ProxyLine::Client(_) = end {
        for have in 0..taken {
            match read_proxy_line(&stream[..have], &trusted()) {
                ProxyLine::Needs(more) => {
                    assert!(have + more <= taken, "{more} more after {have} of {taken}")
                }
                other => panic!("{other:?} after {have} of {taken}"),
            }
        }
    }
    if !matches!(end, ProxyLine::Needs(_)) {
        assert_eq!(feed(&[&stream[..taken], b"POST /"].concat()), (end, taken));
    }
}

fn judged_as(header: &[u8], from: IpAddr) {
    let (end, taken) = feed(header);
    assert_eq!(taken, header.len(), "{end:?}");
    match end {
        ProxyLine::Client(client) => assert_eq!(client, ClientAddr::new(from)),
        ProxyLine::Bad(NoClient::OnlyProxies) => assert!(trusted().contains(ClientAddr::new(from))),
        ProxyLine::Bad(NoClient::NotAClient) => {}
        other => panic!("{other:?}: a good header of {from}"),
    }
}

fn addresses(choices: &mut Choices<'_>) -> (IpAddr, IpAddr) {
    if choices.flag() {
        (IpAddr::from(choices.bytes::<16>()), IpAddr::from(choices.bytes::<16>()))
    } else {
        (IpAddr::from(choices.bytes::<4>()), IpAddr::from(choices.bytes::<4>()))
    }
}

fn version_1(choices: &mut Choices<'_>) -> (IpAddr, Vec<u8>) {
    let (from, to) = addresses(choices);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", choices.number(), choices.number());
    (from, line.into_bytes())
}

fn version_2(choices: &mut Choices<'_>) -> (IpAddr, Vec<u8>) {
    let (from, to) = addresses(choices);
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut body = [octets(from), octets(to), choices.bytes::<4>().to_vec()].concat();
    for _ in 0..choices.below(4) {
        let (kind, length) = (choices.byte(), choices.below(32));
        body.push(kind);
        body.extend(u16::try_from(length).unwrap().to_be_bytes());
        body.extend((0..length).map(|_| choices.byte()));
    }
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend([0x21, if from.is_ipv4() { 0x11 } else { 0x21 }]);
    out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    (from, out)
}
