use std::fmt;
use std::str::FromStr;

/// A packet mark and the bits of it that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    value: u32,
    mask: u32,
}

/// Why a text is not a [`Mark`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// Not `VALUE` or `VALUE/MASK`.
    #[error("`{0}` is not a mark: write VALUE or VALUE/MASK, decimal or 0x hexadecimal, up to 32 bits")]
    Syntax(String),
    /// The value has bits outside the mask.
    #[error("mark {value:#x} has bits outside its mask {mask:#x}")]
    OutsideMask {
        /// The value as written.
        value: u32,
        /// The mask as written.
        mask: u32,
    },
}

impl Mark {
    /// The mark used unless configured: 24107 (0x5e2b), all bits.
    pub const DEFAULT: Self = Self { value: 24_107, mask: u32::MAX };

    /// The bits that are set.
    #[must_use]
    pub fn value(self) -> u32 {
        self.value
    }

    /// The bits that are ours; all others of a packet are kept.
    #[must_use]
    pub fn mask(self) -> u32 {
        self.mask
    }

    /// Parses `VALUE[/MASK]`; `0` means that packets are not marked.
    ///
    /// # Errors
    /// [`MarkError`] when the text is no mark or the value exceeds the mask.
    pub fn parse_optional(text: &str) -> Result<Option<Self>, MarkError> {
        let mark: Self = text.parse()?;
        Ok((mark.value != 0).then_some(mark))
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |t: &str| -> Option<u32> {
            match t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
                Some(hex) if !hex.starts_with('+') => u32::from_str_radix(hex, 16).ok(),
                Some(_) => None,
                None if t.bytes().all(|b| b.is_ascii_digit()) => t.parse().ok(),
                None => None,
            }
        };
        let (value, mask) = match text.split_once('/') {
            None => (number(text), Some(u32::MAX)),
            Some((value, mask)) => (number(value), number(mask)),
        };
        let (Some(value), Some(mask)) = (value, mask) else {
            return Err(MarkError::Syntax(text.to_owned()));
        };
        if value & !mask != 0 {
            return Err(MarkError::OutsideMask { value, mask });
        }
        Ok(Self { value, mask })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mask == u32::MAX {
            write!(f, "{}", self.value)
        } else {
            write!(f, "{:#x}/{:#x}", self.value, self.mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_hexadecimal_and_masks_parse() {
        assert_eq!("24107".parse(), Ok(Mark::DEFAULT));
        assert_eq!("0x5e2b".parse(), Ok(Mark::DEFAULT));
        let masked: Mark = "0x100/0xff00".parse().unwrap();
        assert_eq!((masked.value(), masked.mask()), (0x100, 0xff00));
        assert_eq!(Mark::parse_optional("0"), Ok(None));
    }

    #[test]
    fn nonsense_and_bits_outside_the_mask_are_refused() {
        for text in ["", "-1", "0x", "1/", "0x1ff/0xff", "4294967296", "+1", "1/2/3"] {
            assert!(text.parse::<Mark>().is_err(), "{text}");
        }
    }
}
