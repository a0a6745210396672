use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use super::Protocol;

/// One packet of a knock sequence: to a TCP port (its SYN), or to a UDP port, there optionally with a payload of
/// exactly so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Knock {
    protocol: Protocol,
    port: NonZeroU16,
    length: Option<u16>,
}

/// Why a text is not a [`Knock`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a knock: write tcp/1234, udp/7000, or udp/7000/20 for a datagram of 20 bytes (t:1234, u:7000, 1234, 1234:udp are understood too)"
)]
pub struct KnockError(String);

impl Knock {
    /// A knock at a port, of any length.
    #[must_use]
    pub fn new(protocol: Protocol, port: NonZeroU16) -> Self {
        Self { protocol, port, length: None }
    }

    /// A datagram with a payload of exactly so many bytes, 1400 at most.
    #[must_use]
    pub fn sized(port: NonZeroU16, length: u16) -> Self {
        Self { protocol: Protocol::Udp, port, length: Some(length.min(MAX_LENGTH)) }
    }

    /// TCP or UDP.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The port.
    #[must_use]
    pub fn port(self) -> u16 {
        self.port.get()
    }

    /// Bytes of payload, 0 to 1400, where they count.
    #[must_use]
    pub fn length(self) -> Option<u16> {
        self.length
    }
}

impl Knock {
    /// The knocks of a text, with commas or blanks between them.
    ///
    /// # Errors
    /// The first that is none.
    pub fn list(text: &str) -> Result<Vec<Self>, KnockError> {
        let parts = text.split(',').map(str::trim).flat_map(|part| {
            // Nothing between two commas is no knock, blanks beside one are nothing.
            if part.is_empty() { vec![part] } else { part.split_whitespace().collect() }
        });
        parts.map(str::parse).collect()
    }
}

impl FromStr for Knock {
    type Err = KnockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or_else(|| KnockError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Knock> {
    if let Some((word, rest)) = text.split_once('/') {
        let (port, length) = match rest.split_once('/') {
            Some((port, length)) => (port, Some(number(length).filter(|&length| length <= MAX_LENGTH)?)),
            None => (rest, None),
        };
        let protocol = protocol(word)?;
        return match (protocol, length) {
            (Protocol::Tcp, Some(_)) => None,
            (_, length) => Some(Knock { protocol, port: NonZeroU16::new(number(port)?)?, length }),
        };
    }
    let (protocol, port) = match text.split_once(':') {
        Some(("t" | "T", port)) => (Protocol::Tcp, port),
        Some(("u" | "U", port)) => (Protocol::Udp, port),
        Some((port, word)) => (protocol(word)?, port),
        None => (Protocol::Tcp, text),
    };
    Some(Knock::new(protocol, NonZeroU16::new(number(port)?)?))
}

/// What passes every path unfragmented.
const MAX_LENGTH: u16 = 1_400;

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn number(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

impl fmt::Display for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)?;
        self.length.map_or(Ok(()), |length| write!(f, "/{length}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knocks_are_written_as_every_knocker_writes_them() {
        for (text, canonical) in [
            ("tcp/1234", "tcp/1234"),
            ("udp/7000", "udp/7000"),
            ("udp/7000/20", "udp/7000/20"),
            ("udp/7000/0", "udp/7000/0"),
            ("t:1234", "tcp/1234"),
            ("u:7000", "udp/7000"),
            ("T:1234", "tcp/1234"),
            ("U:7000", "udp/7000"),
            ("1234:udp", "udp/1234"),
            ("1234:tcp", "tcp/1234"),
            ("65535", "tcp/65535"),
        ] {
            let knock: Knock = text.parse().unwrap();
            assert_eq!(knock.to_string(), canonical, "{text}");
            assert_eq!(knock.to_string().parse(), Ok(knock));
        }
    }

    #[test]
    fn lists_have_commas_or_blanks_between_knocks() {
        let shown = |text: &str| -> Vec<String> {
            Knock::list(text).unwrap().iter().map(ToString::to_string).collect()
        };
        for text in ["10000,u:10001,10002", " 10000 U:10001  10002 ", "10000, U:10001 10002"] {
            assert_eq!(shown(text), ["tcp/10000", "udp/10001", "tcp/10002"], "{text}");
        }
        for bad in ["", " ", "1,", ",1", "1,,2", "1;2"] {
            assert!(Knock::list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_knock_is_refused() {
        for bad in [
            "",
            "0",
            "65536",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/x",
            "tcp/+1",
            "tcp/1/2",
            "udp/1/1401",
            "udp/1/",
            "icmp/1",
            "x:1",
            "1:icmp",
            "t:",
            ":tcp",
            " 1",
            "1 ",
            "-1",
            "1-2",
            "udp/1/2/3",
        ] {
            assert!(bad.parse::<Knock>().is_err(), "{bad}");
        }
    }
}
