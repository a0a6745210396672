//! Who a client is, as a proxy in front says it: read strictly, because what can be read in two ways is read the
//! other way by somebody.

use std::net::IpAddr;

use super::request::MAX_HEADERS;
use crate::config::{ProxyHeader, Trusted};
use crate::units::ClientAddr;

/// Why it is not known who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoClient {
    /// The proxy did not say it where it should.
    #[error("the proxy does not say who the client is: have it set the header that proxy_header names")]
    Missing,
    /// It is said more than once.
    #[error("the header that says who the client is comes more than once: have the proxy replace it")]
    Repeated,
    /// It is no address, or no list of addresses.
    #[error("what says who the client is cannot be read as addresses")]
    Malformed,
    /// The hop that counts hides its address.
    #[error("the hop that says who the client is hides its address")]
    Hidden,
    /// There are trusted proxies only.
    #[error("the client would be a trusted proxy itself: have the proxy name the client's address")]
    OnlyProxies,
    /// No client has such an address: loopback, multicast, broadcast or unspecified.
    #[error("the client would have an address that no client has")]
    NotAClient,
}

/// Who sent a request, by the one header that says it; `request` has a complete head.
///
/// # Errors
/// [`NoClient`] unless there is exactly one reading.
pub fn forwarded_client(
    request: &[u8],
    header: ProxyHeader,
    trusted: &Trusted,
) -> Result<ClientAddr, NoClient> {
    match header {
        ProxyHeader::XRealIp => client(address(only(request, "x-real-ip")?)?, trusted),
        ProxyHeader::XForwardedFor => {
            let hops = only(request, "x-forwarded-for")?.split(|&b| b == b',');
            last_untrusted(hops.map(|hop| address(trimmed(hop)).map(Some)), trusted)
        }
        ProxyHeader::Forwarded => {
            last_untrusted(Elements::of(only(request, "forwarded")?).map(|element| element?.hop()), trusted)
        }
        // It came before the request and says nothing about headers.
        ProxyHeader::ProxyProtocol => Err(NoClient::Missing),
    }
}

/// An address that a client may have.
pub(super) fn client(addr: IpAddr, trusted: &Trusted) -> Result<ClientAddr, NoClient> {
    let client = ClientAddr::new(addr);
    if trusted.contains(client) {
        return Err(NoClient::OnlyProxies);
    }
    let nobody = match client.ip() {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets().first() == Some(&0),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if nobody || client.ip().is_loopback() || client.ip().is_multicast() {
        return Err(NoClient::NotAClient);
    }
    Ok(client)
}

/// The value of a header that must come exactly once.
fn only<'r>(request: &'r [u8], name: &str) -> Result<&'r [u8], NoClient> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    if !matches!(head.parse(request), Ok(httparse::Status::Complete(_))) {
        return Err(NoClient::Malformed);
    }
    let mut found = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = found.next().ok_or(NoClient::Missing)?.value;
    if found.next().is_some() {
        return Err(NoClient::Repeated);
    }
    Ok(trimmed(value))
}

/// Walks from the nearest hop to the farthest, past trusted proxies. Every hop must be well formed, also those
/// beyond the client, which the client may have written itself.
fn last_untrusted(
    hops: impl Iterator<Item = Result<Option<IpAddr>, NoClient>>,
    trusted: &Trusted,
) -> Result<ClientAddr, NoClient> {
    let hops = hops.collect::<Result<Vec<_>, _>>()?;
    for hop in hops.into_iter().rev() {
        match client(hop.ok_or(NoClient::Hidden)?, trusted) {
            Err(NoClient::OnlyProxies) => {}
            other => return other,
        }
    }
    Err(NoClient::OnlyProxies)
}

/// An address and nothing else: no port, no brackets, no zone.
fn address(text: &[u8]) -> Result<IpAddr, NoClient> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NoClient::Malformed)
}

/// Without blanks and tabs at the ends.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of `Forwarded` (RFC 7239), nearest last.
struct Elements<'v> {
    rest: Option<&'v [u8]>,
}

/// One element, of whose parameters only `for` is kept.
#[derive(Default)]
struct Element<'v> {
    node: Option<Value<'v>>,
}

/// A value as it was written.
#[derive(Clone, Copy)]
enum Value<'v> {
    Token(&'v [u8]),
    Quoted(&'v [u8]),
}

impl<'v> Elements<'v> {
    fn of(value: &'v [u8]) -> Self {
        Self { rest: Some(value) }
    }

    /// Reads an element and what ends it.
    fn read(text: &'v [u8]) -> Option<(Element<'v>, Option<&'v [u8]>)> {
        let mut element = Element::default();
        let mut names: Vec<&[u8]> = Vec::new();
        let mut rest = trimmed(text);
        loop {
            let (name, after) = token(rest)?;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return None;
            }
            names.push(name);
            let (value, after) = value(after.strip_prefix(b"=")?)?;
            if name.eq_ignore_ascii_case(b"for") {
                element.node = Some(value);
            }
            if let Some(next) = after.strip_prefix(b";") {
                rest = next;
                continue;
            }
            // Blanks are allowed around the commas between elements, and nowhere else.
            return match trimmed(after) {
                [] => Some((element, None)),
                [b',', next @ ..] => Some((element, Some(next))),
                _ => None,
            };
        }
    }
}

impl<'v> Iterator for Elements<'v> {
    type Item = Result<Element<'v>, NoClient>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        let read = Self::read(text).map(|(element, rest)| {
            self.rest = rest;
            element
        });
        Some(read.ok_or(NoClient::Malformed))
    }
}

impl Element<'_> {
    /// The address of `for`; none where there is no such parameter, or it hides the address.
    fn hop(&self) -> Result<Option<IpAddr>, NoClient> {
        let (text, quoted) = match self.node {
            None => return Ok(None),
            Some(Value::Token(text)) => (text, false),
            Some(Value::Quoted(text)) => (text, true),
        };
        let text = std::str::from_utf8(text).map_err(|_| NoClient::Malformed)?;
        if text.eq_ignore_ascii_case("unknown") || obfuscated(text) {
            return Ok(None);
        }
        // A colon or a bracket is no part of a token, so only quotes hold them.
        let addr = match text.strip_prefix('[').filter(|_| quoted) {
            Some(inner) => {
                let (v6, after) = inner.split_once(']').ok_or(NoClient::Malformed)?;
                port(after)?;
                v6.parse().map(IpAddr::V6)
            }
            None => {
                let (v4, after) = text.split_at(text.find(':').unwrap_or(text.len()));
                port(after)?;
                v4.parse().map(IpAddr::V4)
            }
        };
        addr.map(Some).map_err(|_| NoClient::Malformed)
    }
}

/// An identifier that stands for an address: `_hidden`.
fn obfuscated(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    })
}

/// Nothing, or a colon and up to five digits; the port itself is of no use here.
fn port(text: &str) -> Result<(), NoClient> {
    let good = text.is_empty()
        || text.strip_prefix(':').is_some_and(|digits| {
            (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        });
    if good { Ok(()) } else { Err(NoClient::Malformed) }
}

/// A token (RFC 9110) at the beginning of a text, and what follows it.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let other = |b: &u8| !(b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
    let end = text.iter().position(other).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// A token or a quoted string without escapes, which no address needs.
fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let Some(inner) = text.strip_prefix(b"\"") else {
        return token(text).map(|(token, rest)| (Value::Token(token), rest));
    };
    let end = inner.iter().position(|&b| b == b'"')?;
    let (quoted, rest) = inner.split_at_checked(end)?;
    let plain = quoted.iter().all(|&b| matches!(b, b' '..=b'~') && b != b'\\');
    plain.then(|| (Value::Quoted(quoted), rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
