//! What was presented and what came of it, and what must never be in it: nothing is opened without a step 1 that was right
//! and is not over, no proof opens anything twice, nobody is let in for longer than anybody may be.

use super::model::{Shown, Try};
use super::world::World;
use crate::knock::{Step, Verdict};
use crate::units::{ClientAddr, Now};

#[derive(Debug)]
struct Step1 {
    client: ClientAddr,
    app: String,
    /// Whose key it was, as far as it can be told from outside: the user, or none for a key of the app.
    user: Option<&'static str>,
    /// The latest moment at which it can still be good.
    until: u64,
}

#[derive(Debug, Default)]
pub struct History {
    step1s: Vec<Step1>,
    /// Proofs that were taken.
    proofs: Vec<super::model::Proof>,
    grants: Vec<(ClientAddr, String, String, u64)>,
}

impl History {
    /// The apps and users for whom something is open at an address.
    pub fn sessions(&self, client: ClientAddr, now: u64) -> Vec<(String, String)> {
        let live = self.grants.iter().filter(|(at, .., until)| *at == client && *until > now);
        live.map(|(_, app, user, _)| (app.clone(), user.clone())).collect()
    }

    /// What was used is not known any more.
    pub fn forget_proofs(&mut self) {
        self.proofs.clear();
    }

    /// Step 1s are forgotten, and nothing else.
    pub fn forget_everybody(&mut self) {
        self.step1s.clear();
    }

    pub fn learn(&mut self, world: &World, attempt: &Try, verdict: &Verdict, now: Now) {
        let boot = u64::try_from(now.boot.as_millis()).unwrap();
        let client = attempt.client.masked_v6(world.prefix);
        match verdict {
            Verdict::AdmitToStep2 { app, lifetime } => {
                assert_eq!((attempt.step, app.as_str()), (Step::One, attempt.app.as_str()));
                self.admitted(world, attempt, client, boot, lifetime.as_secs());
            }
            Verdict::Grant { app, lifetime, user } => {
                assert_eq!((attempt.step, app.as_str()), (Step::Two, attempt.app.as_str()));
                let app = world.apps.iter().find(|known| known.name == app.as_str()).expect("an app");
                assert!(lifetime.as_secs() <= app.max_duration, "for longer than anybody may be let in");
                self.is_due(attempt, client, user, boot);
                let until = boot + lifetime.as_secs() * 1_000;
                self.grants.push((client, app.name.to_owned(), user.clone(), until));
            }
            Verdict::Close { app, user } => {
                assert_eq!((attempt.step, app.as_str()), (Step::Two, attempt.app.as_str()));
                self.is_due(attempt, client, user, boot);
                self.grants.retain(|(at, a, u, _)| (*at, a.as_str(), u) != (client, app.as_str(), user));
            }
            Verdict::NeedToken { readmit } => {
                assert_eq!(attempt.step, Step::Two);
                if let Some(window) = readmit {
                    let until = boot + window.as_secs() * 1_000;
                    let theirs = |step1: &&mut Step1| step1.client == client && step1.app == attempt.app;
                    self.step1s
                        .iter_mut()
                        .filter(theirs)
                        .for_each(|step1| step1.until = step1.until.max(until));
                }
            }
            Verdict::Refuse(_) | Verdict::Hash { .. } | Verdict::Alive => {}
        }
    }

    fn admitted(&mut self, world: &World, attempt: &Try, client: ClientAddr, boot: u64, secs: u64) {
        if let Shown::Proof(proof) = &attempt.shown {
            let again = self.proofs.contains(proof);
            // The client's kernel repeats what nobody answers, and is answered as before.
            let pending = self.step1s.iter().any(|step1| step1.client == client && step1.until > boot);
            assert!(!again || pending, "a proof works twice: {attempt:?}");
            self.proofs.push(proof.clone());
        }
        let until = boot + secs * 1_000;
        let of_app = |keys: &[super::world::Key]| {
            let text = match &attempt.shown {
                Shown::Key(key) => key,
                Shown::Proof(proof) => &proof.key,
            };
            keys.iter().any(|key| key.text == *text)
        };
        let app = world.apps.iter().find(|app| app.name == attempt.app).expect("an app");
        let index = world.apps.iter().position(|app| app.name == attempt.app);
        let user = world
            .users
            .iter()
            .find(|user| user.apps.iter().any(|theirs| Some(theirs.app) == index && of_app(&theirs.keys[0])));
        assert!(of_app(&app.keys[0]) || user.is_some(), "nobody's key: {attempt:?}");
        let user = user.map(|user| user.name);
        self.step1s.push(Step1 { client, app: attempt.app.clone(), user, until });
    }

    /// That there was a step 1 by the same one, for this app, from this address, that is not over.
    fn is_due(&self, attempt: &Try, client: ClientAddr, user: &str, boot: u64) {
        let of = |step1: &Step1| match step1.user {
            Some(name) => name == user,
            None => user.starts_with("key "),
        };
        let due = self.step1s.iter().any(|step1| {
            step1.client == client && step1.app == attempt.app && step1.until > boot && of(step1)
        });
        assert!(due, "{user} did no step 1: {attempt:?} {:?}", self.step1s);
    }
}
