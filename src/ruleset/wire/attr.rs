//! Netlink attributes (`linux/netlink.h`, `struct nlattr`): length, type, payload, padded to 4 bytes.

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are flags of the type.
const TYPE_MASK: u16 = 0x3fff;

/// Walks the attributes in some bytes; stops at the first one that cannot be.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of that type.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|&(k, _)| k == kind).map(|(_, payload)| payload)
    }

    /// The attributes nested in the first one of that type; none if it is not there.
    #[must_use]
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A 32-bit number in network byte order.
    #[must_use]
    pub fn be32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A 64-bit number in network byte order.
    #[must_use]
    pub fn be64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A text that ends with a zero byte.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let payload = self.get(kind)?;
        std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[l0, l1, k0, k1, ..] = self.0 else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, payload))
    }
}

/// An attribute as the kernel writes it.
#[cfg(test)]
pub(super) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(payload.len() + 4).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_walked_and_nested_flags_ignored() {
        let bytes =
            [attribute(1, b"gate\0"), attribute(0x8002, &attribute(3, &7_u32.to_be_bytes()))].concat();
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.text(1), Some("gate"));
        assert_eq!(attributes.nested(2).be32(3), Some(7));
        assert_eq!(attributes.be64(1), None);
        assert_eq!(attributes.get(9), None);
    }

    #[test]
    fn impossible_lengths_end_the_walk() {
        for bytes in [&[][..], &[3, 0, 1, 0], &[0; 12], &[255, 255, 1, 0, 9], &[9, 0, 1]] {
            assert_eq!(Attributes(bytes).count(), 0);
        }
    }
}
