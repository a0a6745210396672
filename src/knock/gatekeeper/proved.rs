//! For which grants a one-time code was given, and of which secret: only those are renewed without another one. A grant of before
//! the secret was there, or of before it was replaced, is none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::knock::used_codes::Proved;
use crate::units::{Lifetime, Now};

/// So many are kept: beyond that, who was to end first gives a code once more.
const MOST: usize = 65_536;
/// Nobody tidies for fewer.
const FEW: usize = 64;

/// App, address and whose grant it is.
pub(super) type Whose = (String, IpAddr, String);

#[derive(Debug)]
struct Of {
    /// By the names of the secrets.
    secrets: BTreeSet<String>,
    /// When it may be forgotten: the grant is over then.
    until: Duration,
}

/// The grants that run, and as many at most that ran once: all of it is written at each code.
#[derive(Debug, Default)]
pub(super) struct ProvedGrants {
    all: BTreeMap<Whose, Of>,
    /// With so many, those that are over are forgotten.
    tidied_at: usize,
}

impl ProvedGrants {
    /// Whether a code of one of these secrets was given for it.
    pub(super) fn has(&self, whose: &Whose, secrets: &BTreeSet<&str>) -> bool {
        self.all.get(whose).is_some_and(|of| secrets.iter().any(|&secret| of.secrets.contains(secret)))
    }

    /// A code was given; `goes_on`: for a grant that runs.
    pub(super) fn prove(&mut self, whose: Whose, secret: &str, goes_on: bool, lifetime: Lifetime, now: Now) {
        if !self.all.contains_key(&whose) && self.all.len() >= self.tidied_at {
            self.make_room(now);
        }
        let of = self.all.entry(whose).or_insert_with(|| Of { secrets: BTreeSet::new(), until: now.boot });
        if !goes_on {
            of.secrets.clear();
        }
        of.secrets.insert(secret.to_owned());
        of.until = of.until.max(now.boot + lifetime.as_duration());
    }

    /// It was renewed.
    pub(super) fn prolong(&mut self, whose: &Whose, lifetime: Lifetime, now: Now) {
        if let Some(of) = self.all.get_mut(whose) {
            of.until = of.until.max(now.boot + lifetime.as_duration());
        }
    }

    /// It ended, or was made without a code; whether that was news.
    pub(super) fn forget(&mut self, whose: &Whose) -> bool {
        self.all.remove(whose).is_some()
    }

    fn make_room(&mut self, now: Now) {
        self.all.retain(|_, of| of.until > now.boot);
        if self.all.len() >= MOST {
            let first = self.all.iter().min_by_key(|(_, of)| of.until).map(|(whose, _)| whose.clone());
            first.inspect(|whose| drop(self.all.remove(whose)));
        }
        self.tidied_at = (2 * self.all.len()).clamp(FEW, MOST);
    }

    /// Those that run, for a restart.
    pub(super) fn list(&self) -> Vec<Proved> {
        let ms = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let each = self.all.iter().map(|((app, address, by), of)| Proved {
            app: app.clone(),
            address: *address,
            by: by.clone(),
            secrets: of.secrets.clone(),
            until_ms: ms(of.until),
        });
        each.collect()
    }

    /// Takes over what [`ProvedGrants::list`] told before a restart. What is over does no harm: it is asked whether the grant runs.
    pub(super) fn remember(&mut self, list: &[Proved]) {
        for proved in list.iter().take(MOST) {
            let whose = (proved.app.clone(), proved.address, proved.by.clone());
            let until = Duration::from_millis(proved.until_ms);
            self.all.insert(whose, Of { secrets: proved.secrets.clone(), until });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_those_that_end_first_are_forgotten() {
        let mut grants = ProvedGrants::default();
        let whose = |n: usize| ("ssh".to_owned(), IpAddr::from([192, 0, 2, 1]), n.to_string());
        let now = |secs| Now { boot: Duration::from_secs(secs), wall: std::time::SystemTime::UNIX_EPOCH };
        for n in 0..MOST {
            let secs = if n == 7 { 5 } else { 60 };
            grants.prove(whose(n), "a", false, Lifetime::from_secs(secs).unwrap(), now(1));
        }
        let day = Lifetime::from_secs(86_400).unwrap();
        grants.prove(whose(MOST), "a", false, day, now(2));
        let has = |grants: &ProvedGrants, n| grants.has(&whose(n), &BTreeSet::from(["a"]));
        assert!(!has(&grants, 7) && has(&grants, 8) && has(&grants, MOST));
        grants.prove(whose(MOST + 1), "a", false, day, now(100));
        assert!(!has(&grants, 8) && has(&grants, MOST) && grants.list().len() == 2);
        for n in 0..10_000 {
            grants.prove(whose(n), "a", false, Lifetime::from_secs(1).unwrap(), now(200 + 2 * n as u64));
            assert!(grants.list().len() <= FEW, "those that are over are not kept");
        }
        assert!(has(&grants, MOST) && has(&grants, MOST + 1));
        let mut again = ProvedGrants::default();
        again.remember(&grants.list());
        assert_eq!(again.list(), grants.list());
    }
}
