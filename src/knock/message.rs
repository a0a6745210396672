//! An attempt as bytes: what passes between the process that hears strangers and the one that judges them.
//!
//! The step (1 or 2), the family (4 or 6), the address, then the fields of the form in the order below, each as its number, the
//! length of its text (one byte) and the text. There is one way only to write an attempt, and no other is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroizing;

use super::attempt::{Action, Attempt, Credential, Step};
use super::form::{Form, Raw, plain_text};
use crate::units::{ClientAddr, Secret};

/// No attempt is longer: bytes.
pub const MAX_ATTEMPT: usize = 1_024;

const APP: u8 = 1;
const ACCESS_KEY: u8 = 2;
const PROOF: u8 = 3;
const USER: u8 = 4;
const TOKEN: u8 = 5;
const DURATION: u8 = 6;
const CLOSE: u8 = 7;

impl Attempt {
    /// The attempt that a form is, from this client at this step.
    #[must_use]
    pub fn of(client: ClientAddr, step: Step, form: Form) -> Self {
        let Form { app, credential, user, token, duration, action } = form;
        Self { client, step, app, credential, user, token, duration, action }
    }

    /// The attempt as bytes, at most [`MAX_ATTEMPT`]; nothing for one that no form can be.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        // The whole length at once: a vector that grows would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ATTEMPT));
        bytes.push(match self.step {
            Step::One => 1,
            Step::Two => 2,
        });
        match self.client.ip() {
            IpAddr::V4(v4) => {
                bytes.push(4);
                bytes.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                bytes.push(6);
                bytes.extend_from_slice(&v6.octets());
            }
        }
        let mut field = |number: u8, text: &str| -> Option<()> {
            bytes.push(number);
            bytes.push(u8::try_from(text.len()).ok()?);
            bytes.extend_from_slice(text.as_bytes());
            Some(())
        };
        field(APP, &self.app)?;
        match &self.credential {
            Credential::Key(key) => field(ACCESS_KEY, key.expose())?,
            Credential::Proof(proof) => field(PROOF, proof.text().expose())?,
        }
        if let Some(user) = &self.user {
            field(USER, user)?;
        }
        if let Some(token) = &self.token {
            field(TOKEN, token.expose())?;
        }
        if let Some(duration) = self.duration {
            field(DURATION, &duration.as_secs().to_string())?;
        }
        if self.action == Action::Close {
            field(CLOSE, "")?;
        }
        (bytes.len() <= MAX_ATTEMPT).then_some(bytes)
    }

    /// The attempt that bytes are, checked as strictly as a form; nothing where they are not exactly one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_ATTEMPT {
            return None;
        }
        let (step, rest) = match bytes.split_first()? {
            (1, rest) => (Step::One, rest),
            (2, rest) => (Step::Two, rest),
            _ => return None,
        };
        let (ip, mut rest) = address(rest)?;
        if !has_peers(ip) {
            return None;
        }
        let client = ClientAddr::new(ip);
        let mut raw = Raw::default();
        let mut last = 0;
        while let Some((&number, after)) = rest.split_first() {
            let (&length, after) = after.split_first()?;
            let (text, after) = after.split_at_checked(usize::from(length))?;
            if number <= last {
                return None;
            }
            let text = plain_text(text.to_vec())?;
            *slot(&mut raw, number)? = Some(if number == CLOSE { close(&text)? } else { text });
            (last, rest) = (number, after);
        }
        let attempt = Self::of(client, step, Form::of(raw)?);
        // What can be read but is not what this program writes is not from it.
        let written = attempt.to_bytes()?;
        (written.as_slice() == bytes).then_some(attempt)
    }
}

fn address(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match bytes.split_first()? {
        (4, rest) => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            Some((Ipv4Addr::from(*octets).into(), rest))
        }
        (6, rest) => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            Some((Ipv6Addr::from(*octets).into(), rest))
        }
        _ => None,
    }
}

/// Whether the other end of a TCP connection can have such an address at all.
fn has_peers(ip: IpAddr) -> bool {
    let everybody = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(everybody || ip.is_unspecified() || ip.is_multicast())
}

fn slot(raw: &mut Raw, number: u8) -> Option<&mut Option<Secret>> {
    Some(match number {
        APP => &mut raw.app,
        ACCESS_KEY => &mut raw.access_key,
        PROOF => &mut raw.proof,
        USER => &mut raw.user,
        TOKEN => &mut raw.token,
        DURATION => &mut raw.duration,
        CLOSE => &mut raw.action,
        _ => return None,
    })
}

/// The word of a form for a field that says everything by being there.
fn close(text: &Secret) -> Option<Secret> {
    text.expose().is_empty().then(|| Secret::new("close".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: [u8; 6] = [1, 4, 192, 0, 2, 7];

    fn attempt(body: &str, client: IpAddr, step: Step) -> Attempt {
        Attempt::of(ClientAddr::new(client), step, Form::parse(body.as_bytes()).unwrap())
    }

    fn bytes(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = CLIENT.to_vec();
        for (number, text) in fields {
            bytes.extend([*number, u8::try_from(text.len()).unwrap()]);
            bytes.extend_from_slice(text);
        }
        bytes
    }

    #[test]
    fn every_field_comes_back() {
        let proof = format!("{}.{}", "a".repeat(16), "b".repeat(64));
        for body in [
            "app=ssh&access_key=0123456789".to_owned(),
            "app=ssh&access_key=0123456789&user=alice&token=123456&duration=15m&action=close".to_owned(),
            format!("app=my+app&proof={proof}&user=alice&action=open"),
        ] {
            for (client, step) in [("192.0.2.7", Step::One), ("2001:db8::7", Step::Two)] {
                let before = attempt(&body, client.parse().unwrap(), step);
                let written = before.to_bytes().unwrap();
                let after = Attempt::from_bytes(&written).unwrap();
                assert_eq!(*after.to_bytes().unwrap(), *written);
                assert_eq!((after.client, after.step, &after.app), (before.client, step, &before.app));
                assert_eq!((after.user, after.duration), (before.user, before.duration));
                assert_eq!((after.token, after.action), (before.token, before.action));
            }
        }
    }

    #[test]
    fn the_longest_fields_fit() {
        let text = "%F0%9F%94%91";
        let body = format!(
            "app={}&access_key={}&user={}&token=12345678&duration=315360000&action=close",
            text.repeat(50),
            text.repeat(50),
            text.repeat(8)
        );
        let written = attempt(&body, "2001:db8::7".parse().unwrap(), Step::Two).to_bytes().unwrap();
        assert!(written.len() <= MAX_ATTEMPT && Attempt::from_bytes(&written).is_some());
    }

    #[test]
    fn what_is_not_exactly_an_attempt_is_not_read() {
        let app: (u8, &[u8]) = (APP, b"ssh");
        let key: (u8, &[u8]) = (ACCESS_KEY, b"0123456789");
        assert!(Attempt::from_bytes(&bytes(&[app, key])).is_some());
        let proof = format!("{}.{}", "a".repeat(16), "b".repeat(64));
        for fields in [
            vec![],
            vec![app],
            vec![key],
            vec![key, app],
            vec![app, app, key],
            vec![app, key, key],
            vec![app, key, (PROOF, proof.as_bytes())],
            vec![app, (PROOF, proof.as_bytes())],
            vec![(APP, b""), key],
            vec![app, (ACCESS_KEY, b"012345678")],
            vec![app, (ACCESS_KEY, b"012345678\n")],
            vec![app, (ACCESS_KEY, b"012345678\xff")],
            vec![app, key, (USER, b"a b")],
            vec![app, key, (TOKEN, b"12345")],
            vec![app, key, (DURATION, b"15m")],
            vec![app, key, (DURATION, b"090")],
            vec![app, key, (DURATION, b"0")],
            vec![app, key, (CLOSE, b"close")],
            vec![app, key, (8, b"")],
            vec![app, key, (0, b"")],
        ] {
            assert!(Attempt::from_bytes(&bytes(&fields)).is_none(), "{fields:?}");
        }
        let whole = bytes(&[app, key]);
        for end in 0..whole.len() {
            assert!(Attempt::from_bytes(&whole[..end]).is_none(), "the first {end} bytes");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(Attempt::from_bytes(&longer).is_none());
        for (at, value) in [(0, 0), (0, 3), (1, 5), (1, 6)] {
            let mut other = whole.clone();
            other[at] = value;
            assert!(Attempt::from_bytes(&other).is_none(), "byte {at} is {value}");
        }
        // An IPv4 address in IPv6 clothes is another way to write it.
        let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let mut clothed = vec![1, 6];
        clothed.extend(mapped.octets());
        clothed.extend(&whole[CLIENT.len()..]);
        assert!(Attempt::from_bytes(&clothed).is_none());
        for nobody in
            ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.2.3", "::", "ff02::1", "127.0.0.1", "::1"]
        {
            let nobody: IpAddr = nobody.parse().unwrap();
            let written = attempt("app=ssh&access_key=0123456789", nobody, Step::One).to_bytes().unwrap();
            assert_eq!(Attempt::from_bytes(&written).is_some(), nobody.is_loopback(), "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(attempt) = Attempt::from_bytes(&bytes) {
                prop_assert_eq!(attempt.to_bytes().unwrap().to_vec(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_is_another_attempt_or_none(at in 0_usize..60, value in any::<u8>()) {
            let body = "app=ssh&access_key=0123456789&user=alice&token=123456&duration=90&action=close";
            let mut bytes = attempt(body, "192.0.2.7".parse().unwrap(), Step::Two).to_bytes().unwrap().to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Some(attempt) = Attempt::from_bytes(&bytes) {
                prop_assert_eq!(attempt.to_bytes().unwrap().to_vec(), bytes);
            }
        }
    }
}
