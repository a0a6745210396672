//! What is known around the enforcer: the front, reloads, the certificate. Others than the enforcer find it out, and
//! who watches the daemon asks for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::expiry::expiry;
use super::link::serving::Pem;
use crate::sys::clock;

/// A front that listens answers at once: one that was asked so often, some seconds apart, does not. It is not timed, as who hears
/// it may have been busy for long.
const UNHEARD: u32 = 2;

/// What is known, shared by all who find something out.
#[derive(Debug)]
pub struct Around(Mutex<Known>);

/// The same at a moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// When the daemon was started.
    pub started: SystemTime,
    /// None where there are no steps.
    pub front: Option<Front>,
    /// Reloads that were carried out.
    pub reloaded: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// Whether the last one was carried out; also before the first one.
    pub last_reload_good: bool,
    /// Whether the files of users and clients say something that could not be put in force.
    pub users_refused: bool,
    /// When the configuration in force was taken over.
    pub configured: SystemTime,
    /// When the first certificate of those that are served ends; none where none is, or it cannot be told.
    pub certificate_ends: Option<SystemTime>,
    /// Why the certificate and key on the disk cannot be used, where those of before are served; none where they are.
    pub certificate_refused: Option<String>,
    /// Why figures cannot be fetched although they should be.
    pub no_figures: Option<String>,
    /// Why the plan in force is not kept for a start without a configuration.
    pub unkept_plan: Option<String>,
    /// What is wrong with 2FA files, a sentence each.
    pub codes: Vec<String>,
}

/// The process that hears strangers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Front {
    /// Whether one has said that it serves.
    pub serves: bool,
    /// How often another one took the place of one that ended or did not answer.
    pub restarts: u64,
    /// When one was last heard.
    heard: Option<Instant>,
    /// How often it was asked since.
    asked: u32,
}

impl Default for Around {
    fn default() -> Self {
        let started = clock::now().wall;
        Self(Mutex::new(Known {
            started,
            front: None,
            reloaded: 0,
            refused: 0,
            last_reload_good: true,
            users_refused: false,
            configured: started,
            certificate_ends: None,
            certificate_refused: None,
            no_figures: None,
            unkept_plan: None,
            codes: Vec::new(),
        }))
    }
}

impl Around {
    /// All of it.
    #[must_use]
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_front(&self, change: impl FnOnce(&mut Front)) {
        change(self.lock().front.get_or_insert_default());
    }

    /// A front is being started, the first one or another.
    pub fn front_begins(&self, another: bool) {
        self.on_front(|front| {
            front.restarts += u64::from(another);
            (front.serves, front.asked) = (false, 0);
        });
    }

    /// The front was asked whether it listens.
    pub fn front_asked(&self) {
        self.on_front(|front| front.asked += 1);
    }

    /// The front said that it serves.
    pub fn front_heard(&self) {
        self.on_front(|front| {
            (front.serves, front.heard, front.asked) = (true, Some(Instant::now()), 0);
        });
    }

    /// A reload was carried out, or refused.
    pub fn reloaded(&self, good: bool) {
        let mut known = self.lock();
        known.last_reload_good = good;
        if good {
            known.users_refused = false;
            known.reloaded += 1;
            known.configured = clock::now().wall;
        } else {
            known.refused += 1;
        }
    }

    /// The files of users and clients were reloaded by themselves; whether nothing else waits to be.
    pub fn users_reloaded(&self, all: bool) {
        let mut known = self.lock();
        known.last_reload_good |= all;
        known.users_refused = false;
        known.reloaded += 1;
        known.configured = clock::now().wall;
    }

    /// Those files are not put in force.
    pub fn users_refused(&self) {
        let mut known = self.lock();
        known.users_refused = true;
        known.refused += 1;
    }

    /// Step 2 is served with this certificate from now on.
    pub fn certified(&self, pem: &Pem) {
        let mut known = self.lock();
        (known.certificate_ends, known.certificate_refused) = (expiry(&pem.chain), None);
    }

    /// The files of the certificate say something that cannot be served, and that of before is.
    pub fn certificate_refused(&self, why: String) {
        self.lock().certificate_refused = Some(why);
    }

    /// Figures cannot be fetched.
    pub fn without_figures(&self, why: String) {
        self.lock().no_figures = Some(why);
    }

    /// What is wrong with the 2FA files of the configuration in force.
    pub fn codes_looked_at(&self, troubles: Vec<String>) {
        self.lock().codes = troubles;
    }

    /// The plan in force is kept, or why not.
    pub fn plan_kept(&self, kept: Result<(), String>) {
        self.lock().unkept_plan = kept.err();
    }
}

impl Known {
    /// What is wrong with the front, if anything.
    #[must_use]
    pub fn front_problem(&self) -> Option<String> {
        let front = self.front?;
        if !front.serves {
            return Some("no front serves: nobody can knock; it is being started".to_owned());
        }
        (front.asked >= UNHEARD)
            .then(|| "the front does not answer: it is started anew if that stays so".to_owned())
    }

    /// Whether a front was heard of within this time, or there is none to be heard.
    #[must_use]
    pub fn front_was_heard(&self, within: Duration) -> bool {
        self.front.is_none_or(|front| front.heard.is_some_and(|heard| heard.elapsed() <= within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_is_well_from_its_first_word_on_until_it_owes_an_answer() {
        let around = Around::default();
        assert_eq!(around.known().front_problem(), None, "without steps");
        assert!(around.known().front_was_heard(Duration::ZERO));
        around.front_begins(false);
        assert!(around.known().front_problem().unwrap().contains("no front serves"));
        assert!(!around.known().front_was_heard(Duration::from_secs(60)));
        around.front_heard();
        around.front_asked();
        assert_eq!(around.known().front_problem(), None, "it may take a moment");
        around.front_asked();
        assert!(around.known().front_problem().unwrap().contains("does not answer"));
        around.front_begins(true);
        let front = around.known().front.unwrap();
        assert_eq!((front.restarts, front.serves, front.asked), (1, false, 0));
    }

    #[test]
    fn the_last_reload_counts() {
        let around = Around::default();
        around.reloaded(false);
        let refused = around.known();
        assert!(!refused.last_reload_good && refused.configured == refused.started);
        around.reloaded(true);
        let known = around.known();
        assert_eq!((known.reloaded, known.refused, known.last_reload_good), (1, 1, true));
        assert!(known.configured >= known.started);
        around.reloaded(false);
        around.users_reloaded(false);
        assert!(!around.known().last_reload_good, "the configuration of before is in force");
        around.users_refused();
        around.users_reloaded(true);
        let known = around.known();
        assert!(known.last_reload_good && !known.users_refused);
    }
}
