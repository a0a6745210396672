//! What makes a request the same as one before it.

use super::Gatekeeper;
use crate::knock::attempt::{Attempt, Credential, Step};
use crate::knock::pending::Digest;
use crate::knock::proof::step_of;
use crate::units::{Now, Secret};

impl Gatekeeper {
    /// A digest of everything that makes a knock the same knock.
    pub(super) fn presented(&self, attempt: &Attempt) -> Digest {
        let proof;
        let credential = match &attempt.credential {
            Credential::Key(key) => key,
            Credential::Proof(given) => {
                proof = given.text();
                &proof
            }
        };
        let token = attempt.token.as_ref().map_or("", Secret::expose);
        let user = attempt.user.as_deref().unwrap_or_default();
        let parts = [attempt.app.as_str(), credential.expose(), user, token];
        self.keyring.digest(&parts.map(str::as_bytes))
    }
}

/// A number that a request has in common with itself only. The same code is another guess when the time has changed
/// what is right.
pub(super) fn mark(attempt: &Attempt, presented: &Digest, now: Now) -> u64 {
    let number = presented.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let time = attempt.token.as_ref().map_or(0, |_| step_of(now.wall));
    number ^ time << 1 ^ u64::from(attempt.step == Step::Two)
}
