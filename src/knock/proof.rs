//! A proof of a key of step 1 that does not tell the key, for one time step, one address and one use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::knock::attempt::Refusal;
use crate::units::{Secret, Verifier};

/// Seconds of a time step; that of the moment, the one before and the one after are taken.
pub const INTERVAL: u64 = 30;
/// Stands for the address where the client does not know it.
const ANYWHERE: &str = "-";
/// What every proof is made over; another version of the scheme would say another number.
const SCHEME: &str = "knock-agent proof 1";
const NONCE: std::ops::RangeInclusive<usize> = 16..=32;
const CODE: usize = 64;
/// Used proofs that are remembered; only those who have a key can make one.
const REMEMBERED: usize = 65_536;
/// Of more than so many, those of time steps that are over are forgotten: each proof that is used has all of them written.
const ENOUGH: usize = 16_384;
/// Proofs of one key in one time step: more than all who share it need, so that nobody takes the room of others.
const SHARE: u32 = 512;
/// How long they are remembered, in seconds.
const KEPT: u64 = 7_200;

/// A proof as a form carries it: `<nonce>.<code>`, both in lower-case hexadecimal digits.
#[derive(Clone, Debug)]
pub struct Proof {
    nonce: String,
    code: Secret,
}

impl Proof {
    /// Reads a proof: a nonce of 16 to 32 digits, a dot, a code of 64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (nonce, code) = text.split_once('.')?;
        let digits = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let fits = NONCE.contains(&nonce.len()) && code.len() == CODE && digits(nonce) && digits(code);
        fits.then(|| Self { nonce: nonce.to_owned(), code: Secret::new(code.to_owned()) })
    }

    /// Makes the proof of a key for a moment; without an address it is good from anywhere.
    #[must_use]
    pub fn make(
        key: &Verifier,
        claim: &Claim<'_>,
        address: Option<IpAddr>,
        nonce: &str,
        wall: SystemTime,
    ) -> Self {
        let address = address.map_or_else(|| ANYWHERE.to_owned(), |address| address.to_string());
        let code = code(key, claim, &address, step_of(wall), nonce);
        Self { nonce: nonce.to_owned(), code: Secret::new(code) }
    }

    /// The proof as a form carries it.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}.{}", self.nonce, self.code.expose()))
    }

    /// The time step for which this proves the key, from this address or, where that is enough, from anywhere.
    ///
    /// All possibilities are always compared.
    pub(crate) fn matching(
        &self,
        key: &Verifier,
        claim: &Claim<'_>,
        address: IpAddr,
        anywhere: bool,
        wall: SystemTime,
    ) -> Option<u64> {
        let here = address.to_string();
        let addresses = [Some(here.as_str()), anywhere.then_some(ANYWHERE)];
        let mut found = None;
        for counter in present(wall) {
            for address in addresses.into_iter().flatten() {
                let expected = Secret::new(code(key, claim, address, counter, &self.nonce));
                if bool::from(expected.expose().as_bytes().ct_eq(self.code.expose().as_bytes())) {
                    found = Some(counter);
                }
            }
        }
        found
    }

    /// What tells this proof from others, and nothing else.
    fn mark(&self) -> String {
        self.code.expose().chars().take(32).collect()
    }
}

/// What somebody claims with a proof.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The app as the form names it.
    pub app: &'a str,
    /// The user's name or the key's id as the form names it.
    pub user: &'a str,
}

fn code(key: &Verifier, claim: &Claim<'_>, address: &str, counter: u64, nonce: &str) -> String {
    let text = format!("{SCHEME}\n{}\n{}\n{address}\n{counter}\n{nonce}", claim.app, claim.user);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time step of a moment.
pub(crate) fn step_of(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / INTERVAL
}

fn present(wall: SystemTime) -> std::ops::RangeInclusive<u64> {
    let now = step_of(wall);
    now.saturating_sub(1)..=now.saturating_add(1)
}

/// The last time step whose proofs are taken at this moment.
pub(crate) fn latest(wall: SystemTime) -> u64 {
    *present(wall).end()
}

/// Proofs that have been used, by time step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsedProofs {
    marks: BTreeMap<u64, BTreeSet<String>>,
    /// How many of them are of each key, by time step and key; a restart counts anew.
    shares: BTreeMap<(u64, usize), u32>,
    count: usize,
    /// No proof of an earlier time step is taken.
    first: u64,
}

impl UsedProofs {
    /// Uses a proof of a key up, unless it was used before or cannot be remembered.
    pub(crate) fn spend(
        &mut self,
        proof: &Proof,
        counter: u64,
        key: usize,
        wall: SystemTime,
    ) -> Result<(), Refusal> {
        self.make_room(wall);
        let mark = proof.mark();
        let known = self.marks.get(&counter).is_some_and(|marks| marks.contains(&mark));
        if known || counter < self.first {
            return Err(Refusal::ReplayedProof);
        }
        let share = self.shares.entry((counter, key)).or_default();
        if self.count >= REMEMBERED || *share >= SHARE {
            return Err(Refusal::TableFull);
        }
        *share += 1;
        self.count += 1;
        self.marks.entry(counter).or_default().insert(mark);
        Ok(())
    }

    /// Forgets what is too old. A clock that is set back must not make it good again: no proof of those time steps is taken
    /// any more.
    fn make_room(&mut self, wall: SystemTime) {
        let oldest = step_of(wall).saturating_sub(KEPT / INTERVAL);
        while let Some(entry) = self.marks.first_entry() {
            let step = *entry.key();
            let is_over = step < *present(wall).start();
            if step >= oldest && !(is_over && self.count >= ENOUGH) {
                break;
            }
            self.first = self.first.max(step + 1);
            self.count -= entry.get().len();
            entry.remove();
        }
        let kept = self.marks.first_key_value().map_or(u64::MAX, |(step, _)| *step);
        self.shares.retain(|(step, _), _| *step >= kept);
    }

    /// Which key is which has changed.
    pub(crate) fn forget_whose(&mut self) {
        self.shares.clear();
    }

    /// What has been used, as `<time step>.<mark>`, and the first time step whose proofs are taken.
    pub(crate) fn list(&self) -> (Vec<String>, u64) {
        let all =
            self.marks.iter().flat_map(|(step, marks)| marks.iter().map(move |m| format!("{step}.{m}")));
        (all.collect(), self.first)
    }

    /// Takes over what [`UsedProofs::list`] told.
    pub(crate) fn remember(&mut self, list: &[String], first: u64) {
        self.first = self.first.max(first);
        for (step, mark) in list.iter().filter_map(|line| line.split_once('.')) {
            if let Ok(step) = step.parse()
                && self.count < REMEMBERED
                && self.marks.entry(step).or_default().insert(mark.to_owned())
            {
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const CLAIM: Claim<'static> = Claim { app: "ssh", user: "alice" };
    const NONCE: &str = "0123456789abcdef";

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn key() -> Verifier {
        Verifier::of(&Secret::new("ab3d.abcdefghijklmnopqrstuvwxyz".to_owned()))
    }

    fn here() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    /// By the first key of all.
    fn spends(used: &mut UsedProofs, proof: &Proof, counter: u64, wall: SystemTime) -> bool {
        used.spend(proof, counter, 0, wall).is_ok()
    }

    #[test]
    fn a_proof_is_the_hmac_that_openssl_makes() {
        let proof = Proof::make(&key(), &CLAIM, Some(here()), NONCE, at(3_000));
        assert_eq!(
            proof.text().expose(),
            "0123456789abcdef.79e6ef6f0e20f67b0aa2be19edfcf5d8bf259a569bb80a48ded8c98659b3b3c9"
        );
        assert!(Proof::parse(proof.text().expose()).is_some());
    }

    #[test]
    fn a_proof_is_good_for_its_address_app_user_and_time_only() {
        let proof = Proof::make(&key(), &CLAIM, Some(here()), NONCE, at(3_000));
        let matches = |claim: &Claim<'_>, address: &str, secs| {
            proof.matching(&key(), claim, address.parse().unwrap(), true, at(secs))
        };
        assert_eq!(matches(&CLAIM, "192.0.2.1", 3_000), Some(100));
        assert_eq!(matches(&CLAIM, "192.0.2.1", 3_059), Some(100));
        assert_eq!(matches(&CLAIM, "192.0.2.1", 2_970), Some(100));
        assert_eq!(matches(&CLAIM, "192.0.2.1", 3_060), None);
        assert_eq!(matches(&CLAIM, "192.0.2.1", 2_969), None);
        assert_eq!(matches(&CLAIM, "192.0.2.2", 3_000), None);
        assert_eq!(matches(&Claim { app: "vpn", ..CLAIM }, "192.0.2.1", 3_000), None);
        assert_eq!(matches(&Claim { user: "bob", ..CLAIM }, "192.0.2.1", 3_000), None);
        let other = Verifier::of(&Secret::new("another-key".to_owned()));
        assert_eq!(proof.matching(&other, &CLAIM, here(), true, at(3_000)), None);
    }

    #[test]
    fn a_proof_without_an_address_is_good_where_that_is_enough() {
        let proof = Proof::make(&key(), &CLAIM, None, NONCE, at(3_000));
        assert!(proof.matching(&key(), &CLAIM, here(), true, at(3_000)).is_some());
        assert!(proof.matching(&key(), &CLAIM, here(), false, at(3_000)).is_none());
    }

    #[test]
    fn a_proof_is_used_once_also_after_a_restart_and_a_clock_set_back() {
        let proof = Proof::make(&key(), &CLAIM, None, NONCE, at(3_000));
        let other = Proof::make(&key(), &CLAIM, None, "fedcba9876543210", at(3_000));
        let mut used = UsedProofs::default();
        assert!(spends(&mut used, &proof, 100, at(3_000)));
        assert!(!spends(&mut used, &proof, 100, at(3_010)));
        assert!(spends(&mut used, &other, 100, at(3_010)));
        let mut again = UsedProofs::default();
        let (list, first) = used.list();
        again.remember(&list, first);
        assert!(!spends(&mut again, &proof, 100, at(3_010)) && !spends(&mut again, &other, 100, at(3_010)));
        assert!(spends(&mut again, &Proof::make(&key(), &CLAIM, None, NONCE, at(9_000)), 300, at(9_000)));
        assert!(!spends(&mut again, &other, 100, at(3_010)), "the clock was set back");

        let mut unsure = UsedProofs::default();
        unsure.remember(&[], 102);
        assert!(!spends(&mut unsure, &proof, 100, at(3_000)) && !spends(&mut unsure, &proof, 101, at(3_030)));
        let (list, first) = unsure.list();
        let mut restarted = UsedProofs::default();
        restarted.remember(&list, first);
        assert!(!spends(&mut restarted, &proof, 101, at(3_030)), "the doubt outlasts a restart");
        assert!(
            spends(&mut unsure, &proof, 102, at(3_060)) && spends(&mut restarted, &proof, 102, at(3_060))
        );
    }

    #[test]
    fn used_proofs_are_bounded_and_forgotten_after_hours() {
        let mut used = UsedProofs::default();
        let proof = |n: u64| Proof::make(&key(), &CLAIM, None, &format!("{n:016x}"), at(3_000));
        for n in 0..100 {
            assert!(spends(&mut used, &proof(n), 100, at(3_000)));
        }
        assert!(spends(&mut used, &proof(0), 500, at(15_000)));
        assert_eq!((used.count, used.list().0.len()), (1, 1));
        assert!(!spends(&mut used, &proof(1), 100, at(3_000)), "the clock was set back");
    }

    #[test]
    fn whoever_makes_very_many_proofs_keeps_nobody_else_out_and_makes_none_good_again() {
        let mut used = UsedProofs::default();
        let proof = |n: u64| Proof::make(&key(), &CLAIM, None, &format!("{n:016x}"), at(3_000));
        let (mut number, mut spent) = (0, 0_u32);
        let mut outcome = Ok(());
        for step in 100..200 {
            for _ in 0..600 {
                number += 1;
                outcome = used.spend(&proof(number), step, 7, at(step * INTERVAL));
                spent += u32::from(outcome.is_ok());
            }
            let fresh = proof(u64::MAX - step);
            assert_eq!(
                used.spend(&fresh, step, 8, at(step * INTERVAL)),
                Ok(()),
                "somebody else, step {step}"
            );
            assert_eq!(used.spend(&fresh, step, 8, at(step * INTERVAL)), Err(Refusal::ReplayedProof));
        }
        assert_eq!((outcome, spent), (Err(Refusal::TableFull), 100 * SHARE));
        assert!(used.list().0.len() <= ENOUGH + 600, "{}", used.list().0.len());
        for step in [100, 150, 199] {
            let again = used.spend(&proof(1 + (step - 100) * 600), step, 8, at(step * INTERVAL));
            assert_eq!(again, Err(Refusal::ReplayedProof), "the clock was set back to step {step}");
        }
        // What one of before the bound left behind.
        let mut kept = UsedProofs::default();
        let marks: Vec<String> = (0..REMEMBERED).map(|n| format!("{}.{n:032x}", 100 + n % 200)).collect();
        kept.remember(&marks, 0);
        assert_eq!(kept.spend(&proof(1), 300, 8, at(300 * INTERVAL)), Ok(()));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let code = "0".repeat(64);
        for bad in [
            String::new(),
            code.clone(),
            format!("0123456789abcde.{code}"),
            format!("{}.{code}", "0".repeat(33)),
            format!("0123456789ABCDEF.{code}"),
            format!("0123456789abcdef.{code}0"),
            format!("0123456789abcdef.{code}.x"),
            format!("0123456789abcdef.{}", "g".repeat(64)),
        ] {
            assert!(Proof::parse(&bad).is_none(), "{bad}");
        }
    }
}
