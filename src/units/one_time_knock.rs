//! Knocks that change with time: what gateway and client make of a secret they share.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::totp::base32;
use super::{Knock, Lifetime, PortRange, Protocol, Secret, TotpKind, TotpSecret};

/// What all knocks are made over; another version of the scheme would say another number.
const SCHEME: &[u8] = b"knock-agent knocks 1";
/// Bytes of a secret: with 128 bits nobody can try all of them.
const SECRET_BYTES: RangeInclusive<usize> = 16..=128;
/// A knock's payload has 0 to 15 bytes where its length counts.
const LENGTHS: u64 = 16;
/// The first port that clients of knock-knock knock at, and the bits of the number that is added to it.
const THEIR_FIRST: u16 = 32_768;
const THEIR_BITS: u16 = 0x3fff;
/// How long a code of knock-knock lasts, in seconds.
const THEIR_STEP: u64 = 30;

/// By what rule knocks follow from a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnockKind {
    /// Ours: they depend on the whole secret, and cannot be guessed one by one.
    Secret,
    /// That of the program knock-knock: they depend on a code of six digits and the PIN only.
    KnockKnock,
}

/// What the knocks of a client look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockShape {
    /// The rule they follow.
    pub kind: KnockKind,
    /// How many there are: 1 to 8. More are not made.
    pub count: u8,
    /// The ports they are at. The kind `KnockKnock` has its own, [`KnockKind::their_ports`].
    pub ports: PortRange,
    /// TCP or UDP. The kind `KnockKnock` has UDP always.
    pub protocol: Protocol,
    /// Whether the length of a datagram counts. With TCP it never does, with the kind `KnockKnock` always.
    pub lengths: bool,
}

/// A secret of 128 to 1024 bits that knocks are made from; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KnockSecret(Zeroizing<Vec<u8>>);

/// Why a text is not a [`KnockSecret`]; never repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnockSecretError {
    /// Not base32.
    #[error("the secret is not base32: it has letters A-Z and digits 2-7 only")]
    Base32,
    /// Too short or too long.
    #[error("the secret has {0} bytes: make one of 20 bytes (32 base32 characters)")]
    Length(usize),
}

impl KnockKind {
    /// The most knocks there can be.
    pub const MOST: u8 = 8;

    /// The ports that clients of knock-knock knock at: 32768 to 49151.
    #[must_use]
    pub fn their_ports() -> PortRange {
        let first = NonZeroU16::new(THEIR_FIRST).unwrap_or(NonZeroU16::MAX);
        PortRange::new(THEIR_FIRST, THEIR_FIRST + THEIR_BITS).unwrap_or(PortRange::from(first))
    }
}

impl KnockSecret {
    /// The secret written in base32; lower case, blanks between groups and missing padding are fine.
    ///
    /// # Errors
    /// [`KnockSecretError`] says what to write instead.
    pub fn from_base32(text: &str) -> Result<Self, KnockSecretError> {
        Self::new(base32(text).map_err(|_| KnockSecretError::Base32)?)
    }

    /// A secret of these bytes, 16 to 128.
    ///
    /// # Errors
    /// [`KnockSecretError::Length`].
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, KnockSecretError> {
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(KnockSecretError::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// A name for the secret that tells nothing of it, the same after every start: 32 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let tag = hmac::sign(&self.key(), b"knock-agent: the name of this secret");
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The code that knock-knock's clients make of it, and authenticator apps show.
    #[must_use]
    pub fn code(&self, step: u64) -> Secret {
        let wall = UNIX_EPOCH.checked_add(Duration::from_secs(step.saturating_mul(THEIR_STEP)));
        let totp = TotpSecret::new(&self.0, TotpKind::default());
        // Of the lengths that both allow.
        totp.map_or(Secret::new(String::new()), |totp| totp.code_at(wall.unwrap_or(UNIX_EPOCH)))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for KnockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The number of the time step of a moment: whole periods since 1970 began, UTC.
#[must_use]
pub fn step_at(wall: SystemTime, every: Lifetime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / every.as_secs().max(1)
}

/// The knocks of a time step, in order. No knock is the same as the one before it.
///
/// Ours are at ports that all differ. Those of knock-knock may be fewer than `count`: what follows its like is left
/// out, because a knock that arrives twice counts once.
#[must_use]
pub fn knocks(secret: &KnockSecret, pin: Option<&Secret>, step: u64, shape: &KnockShape) -> Vec<Knock> {
    match shape.kind {
        KnockKind::Secret => ours(secret, pin, step, shape),
        KnockKind::KnockKnock => knocks_of_code(&secret.code(step), pin, shape.count),
    }
}

/// The knocks of the program knock-knock for a code that somebody read from an authenticator app.
#[must_use]
pub fn knocks_of_code(code: &Secret, pin: Option<&Secret>, count: u8) -> Vec<Knock> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(pin.map_or("", Secret::expose).as_bytes());
    context.update(code.expose().as_bytes());
    let hash = context.finish();
    let digits: Vec<u16> =
        hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).map(u16::from).collect();
    let count = usize::from(count.min(KnockKind::MOST));
    let (lengths, numbers) = digits.split_at_checked(count).unwrap_or_default();
    let ports = numbers.chunks_exact(4).map(|four| four.iter().fold(0, |port, digit| port << 4 | digit));
    let mut knocks: Vec<Knock> = ports
        .zip(lengths)
        .filter_map(|(number, length)| {
            let port = NonZeroU16::new(THEIR_FIRST + (number & THEIR_BITS))?;
            Some(Knock::sized(port, *length))
        })
        .collect();
    knocks.dedup();
    knocks
}

fn ours(secret: &KnockSecret, pin: Option<&Secret>, step: u64, shape: &KnockShape) -> Vec<Knock> {
    let (first, last) = (shape.ports.first(), shape.ports.last());
    let size = u64::from(last - first) + 1;
    let mut taken: Vec<u16> = Vec::new();
    numbers(secret, pin, step)
        .take(usize::from(shape.count.min(KnockKind::MOST)))
        .filter_map(|number| {
            let mut port = first + u16::try_from(number % size).unwrap_or_default();
            // The next one that is free; in a range that is too small for all, one that is not.
            for _ in 0..taken.len() {
                if !taken.contains(&port) {
                    break;
                }
                port = if port == last { first } else { port + 1 };
            }
            taken.push(port);
            let port = NonZeroU16::new(port)?;
            let length = u16::try_from(number / size % LENGTHS).unwrap_or_default();
            Some(match shape.protocol {
                Protocol::Udp if shape.lengths => Knock::sized(port, length),
                protocol => Knock::new(protocol, port),
            })
        })
        .collect()
}

/// Numbers of 64 bits, enough for all knocks: four from each HMAC-SHA-256 over the scheme, the step, the number of
/// the block, and the PIN behind its length.
fn numbers(secret: &KnockSecret, pin: Option<&Secret>, step: u64) -> impl Iterator<Item = u64> {
    let (key, pin) = (secret.key(), pin.map_or("", Secret::expose).as_bytes());
    let length = u64::try_from(pin.len()).unwrap_or(u64::MAX);
    (0..2_u64).flat_map(move |block| {
        let mut context = hmac::Context::with_key(&key);
        context.update(SCHEME);
        for number in [step, block, length] {
            context.update(&number.to_be_bytes());
        }
        context.update(pin);
        let tag = context.sign();
        let (eights, _) = tag.as_ref().as_chunks::<8>();
        eights.iter().map(|eight| u64::from_be_bytes(*eight)).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const STEP: u64 = 60_000_000;

    fn secret() -> KnockSecret {
        KnockSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap()
    }

    fn shape(kind: KnockKind, count: u8) -> KnockShape {
        let ports = "20000-31999".parse().unwrap();
        KnockShape { kind, count, ports, protocol: Protocol::Udp, lengths: false }
    }

    fn text(knocks: &[Knock]) -> String {
        knocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn pin(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn our_knocks_are_those_that_hmac_and_struct_of_python_make() {
        let eight = shape(KnockKind::Secret, 8);
        let plain = "udp/26657 udp/21662 udp/29776 udp/25914 udp/24278 udp/22999 udp/25064 udp/31777";
        assert_eq!(text(&knocks(&secret(), None, STEP, &eight)), plain);
        assert_eq!(text(&knocks(&secret(), Some(&pin("")), STEP, &eight)), plain, "no PIN is an empty one");
        let sized = KnockShape { lengths: true, count: 4, ..eight };
        assert_eq!(
            text(&knocks(&secret(), Some(&pin("päss 1")), STEP, &sized)),
            "udp/30393/13 udp/25183/6 udp/21164/5 udp/22954/15"
        );
        let tcp = KnockShape { protocol: Protocol::Tcp, ..sized };
        assert_eq!(text(&knocks(&secret(), None, STEP + 1, &tcp)), "tcp/20890 tcp/22086 tcp/31303 tcp/28102");
        let narrow = KnockShape { ports: "20000-20007".parse().unwrap(), lengths: true, ..eight };
        assert_eq!(
            text(&knocks(&secret(), None, STEP, &narrow)),
            "udp/20001/8 udp/20006/11 udp/20000/10 udp/20002/11 udp/20007/10 udp/20003/6 udp/20004/1 udp/20005/0"
        );
    }

    #[test]
    fn those_of_knock_knock_are_those_that_its_rule_makes_in_python() {
        assert_eq!(secret().code(1).expose(), "287082", "RFC 6238, appendix B");
        let of = |count, pin| text(&knocks(&secret(), pin, 1, &shape(KnockKind::KnockKnock, count)));
        assert_eq!(of(3, None), "udp/44581/7 udp/34013/10 udp/46595/9");
        assert_eq!(
            of(8, Some(&pin("1234"))),
            "udp/39480/13 udp/38056/1 udp/44106/8 udp/35260/13 udp/36994/0 udp/38158/5 udp/49146/1 udp/48299/14"
        );
    }

    #[test]
    fn a_knock_of_knock_knock_that_follows_its_like_is_left_out() {
        let of = |code: &str, count| text(&knocks_of_code(&pin(code), None, count));
        assert_eq!(of("292202", 2), "udp/37059/12");
        assert_eq!(of("017713", 3).split(' ').count(), 3, "another count makes other knocks");
        let eight = of("017713", 8);
        assert!(eight.starts_with("udp/46512/6 udp/47379/0 udp/38517/2"), "{eight}");
        assert_eq!(eight.split(' ').count(), 7);
    }

    #[test]
    fn a_secret_has_bounds_and_tells_itself_to_nobody() {
        let of = KnockSecret::from_base32;
        assert_eq!(of("GEZDGNBVGY3TQOJQGEZDGNBV"), Err(KnockSecretError::Length(15)));
        assert_eq!(of("GEZDGNBVGY3TQOJQGEZDGNBVG1"), Err(KnockSecretError::Base32));
        assert_eq!(of("gezd gnbv gy3t qojq gezd gnbv gy3t qojq"), Ok(secret()));
        assert_eq!(format!("{:?}", secret()), "***");
        assert_eq!(secret().fingerprint().len(), 32);
    }

    #[test]
    fn a_step_begins_with_its_period() {
        let every = Lifetime::from_secs(30).unwrap();
        let at = |secs| step_at(UNIX_EPOCH + Duration::from_secs(secs), every);
        assert_eq!([at(0), at(29), at(30), at(1_800_000_000)], [0, 0, 1, STEP]);
    }

    proptest! {
        #[test]
        fn knocks_are_in_the_range_differ_and_change_with_all_they_are_made_of(
            step in 0_u64..1 << 40, count in 4_u8..=8, first in 1_u16..50_000, size in 4_000_u16..10_000,
        ) {
            let ports = PortRange::new(first, first + size).unwrap();
            let shape = KnockShape { ports, ..shape(KnockKind::Secret, count) };
            let now = knocks(&secret(), None, step, &shape);
            prop_assert_eq!(now.len(), usize::from(count));
            prop_assert!(now.iter().all(|knock| ports.contains(knock.port()) && knock.length().is_none()));
            prop_assert_eq!(now.iter().collect::<BTreeSet<_>>().len(), usize::from(count));
            let other = KnockSecret::new(Zeroizing::new(vec![7; 16])).unwrap();
            for others in [
                knocks(&secret(), None, step + 1, &shape),
                knocks(&secret(), Some(&pin("1")), step, &shape),
                knocks(&other, None, step, &shape),
            ] {
                prop_assert_ne!(&others, &now);
            }
        }

        #[test]
        fn no_knock_is_the_same_as_the_one_before_it(code in 0_u32..1_000_000, count in 1_u8..=8) {
            let found = knocks_of_code(&pin(&format!("{code:06}")), None, count);
            prop_assert!(found.windows(2).all(|pair| pair[0] != pair[1]) && !found.is_empty());
            let theirs = KnockKind::their_ports();
            prop_assert!(found.iter().all(|knock| theirs.contains(knock.port())));
        }
    }
}
