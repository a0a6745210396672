//! What the front serves with, and how it is told: the paths and bounds of both steps, and the certificate.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Settings;
use crate::service::front::{Step1Config, Step2Config};

/// More than paths, a proxy's networks, a certificate chain and its key ever take, in bytes.
pub const MAX_SERVING: usize = 4 << 20;

/// A certificate chain and its private key, both PEM.
pub struct Pem {
    /// The chain.
    pub chain: Vec<u8>,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
}

/// What the front serves with.
#[derive(Clone)]
pub struct Serving {
    /// Counts the changes: the front says which one it has taken over.
    pub version: u32,
    /// Of step 1.
    pub step1: Arc<Step1Config>,
    /// Of step 2.
    pub step2: Arc<Step2Config>,
    /// The certificate; none where TLS ends at a proxy.
    pub pem: Option<Arc<Pem>>,
}

/// The part that is text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    step1: Step1Config,
    step2: Step2Config,
    with_certificate: bool,
}

impl Serving {
    /// What settings say, with this certificate.
    #[must_use]
    pub fn of(settings: &Settings, pem: Option<Arc<Pem>>) -> Self {
        let step1 = Arc::new(Step1Config::of(settings));
        let step2 = Arc::new(Step2Config::of(settings));
        Self { version: 0, step1, step2, pem }
    }

    /// As bytes: the version, then three parts, each after its length in four bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let (chain, key) = self.pem.as_deref().map_or((&[][..], &[][..]), |pem| (&pem.chain, &pem.key));
        let text = Text {
            step1: (*self.step1).clone(),
            step2: (*self.step2).clone(),
            with_certificate: self.pem.is_some(),
        };
        let text = serde_json::to_vec(&text).map(Zeroizing::new).ok()?;
        let parts = [text.as_slice(), chain, key];
        // The whole length at once: a vector that grows would leave copies behind.
        let length = parts.iter().map(|part| part.len() + 4).sum::<usize>() + 4;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend_from_slice(&self.version.to_be_bytes());
        for part in parts {
            bytes.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        (length <= MAX_SERVING).then_some(bytes)
    }

    /// What bytes say, as [`Serving::to_bytes`] writes them; nothing where they are anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first_chunk::<4>()?;
        let mut part = || -> Option<&[u8]> {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            rest = after;
            Some(part)
        };
        let (text, chain, key) = (part()?, part()?, part()?);
        if !rest.is_empty() {
            return None;
        }
        let Text { step1, step2, with_certificate } = serde_json::from_slice(text).ok()?;
        let pem = with_certificate
            .then(|| Arc::new(Pem { chain: chain.to_vec(), key: Zeroizing::new(key.to_vec()) }));
        let (step1, step2) = (Arc::new(step1), Arc::new(step2));
        Some(Self { version: u32::from_be_bytes(*version), step1, step2, pem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Step1Reply;
    use crate::service::front::settings_for_tests;

    fn serving() -> Serving {
        let pem = Pem { chain: b"chain\n".to_vec(), key: Zeroizing::new(b"key\n".to_vec()) };
        let settings = settings_for_tests(Step1Reply::Silent);
        Serving { version: 7, ..Serving::of(&settings, Some(Arc::new(pem))) }
    }

    #[test]
    fn what_is_written_is_read() {
        let before = serving();
        let bytes = before.to_bytes().unwrap();
        let after = Serving::from_bytes(&bytes).unwrap();
        assert_eq!(after.to_bytes().unwrap(), bytes);
        let pem = after.pem.unwrap();
        assert_eq!(
            (after.version, pem.chain.as_slice(), pem.key.as_slice()),
            (7, &b"chain\n"[..], &b"key\n"[..])
        );
        let without = Serving { pem: None, ..before };
        assert!(Serving::from_bytes(&without.to_bytes().unwrap()).unwrap().pem.is_none());
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_not_read() {
        let bytes = serving().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(Serving::from_bytes(&bytes[..end]).is_none(), "the first {end} bytes");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Serving::from_bytes(&longer).is_none());
    }
}
