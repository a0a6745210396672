use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A transport protocol that a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp` or `udp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an app's `protocol` key may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// Both of them.
    Both,
}

impl Protocols {
    /// The protocols one by one.
    #[must_use]
    pub fn each(self) -> &'static [Protocol] {
        match self {
            Self::Tcp => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::Both => &[Protocol::Tcp, Protocol::Udp],
        }
    }
}

/// One port or a range of ports, 1 to 65535, first not above last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is not a [`PortRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Not `PORT` or `FIRST-LAST`.
    #[error("`{0}` is not a port: write a number from 1 to 65535, or a range such as \"6000-6010\"")]
    Syntax(String),
    /// The range ends before it begins.
    #[error("the range {first}-{last} ends before it begins")]
    Backwards {
        /// The first port as written.
        first: u16,
        /// The last port as written.
        last: u16,
    },
}

impl PortRange {
    /// A range from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`PortRangeError`] for port 0 or a range that ends before it begins.
    pub fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first == 0 {
            return Err(PortRangeError::Syntax(first.to_string()));
        }
        if first > last {
            return Err(PortRangeError::Backwards { first, last });
        }
        Ok(Self { first, last })
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the range is one port.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether `port` is in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<NonZeroU16> for PortRange {
    fn from(port: NonZeroU16) -> Self {
        Self { first: port.get(), last: port.get() }
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || PortRangeError::Syntax(text.to_owned());
        let port = |t: &str| -> Result<u16, PortRangeError> {
            if t.bytes().all(|b| b.is_ascii_digit()) {
                t.parse().map_err(|_| syntax())
            } else {
                Err(syntax())
            }
        };
        let (first, last) = match text.split_once('-') {
            None => (port(text)?, port(text)?),
            Some((first, last)) => (port(first.trim())?, port(last.trim())?),
        };
        if first == 0 {
            return Err(syntax());
        }
        Self::new(first, last)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_parse_and_print_the_same() {
        for text in ["22", "1-65535", "6000-6010"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn impossible_ports_are_refused() {
        for text in ["", "0", "0-5", "65536", "10-5", "a", "-1", "1-", "-", "1-2-3", "+22"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
