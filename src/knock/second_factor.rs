//! Whose one-time code step 2 asks for.

use super::gatekeeper::Gatekeeper;
use super::keyring::Holder;

impl Gatekeeper {
    /// The 2FA secrets any of which step 2 may be completed with; none: no code is asked for.
    ///
    /// That of the key of step 2 goes first. Otherwise it is that of the key of step 1; where two people behind one address knocked
    /// with different keys of an app, the one without a secret may go on without a code, as without the other.
    ///
    /// Where codes are asked for at step 1 (`at_https` is false), that was the code of that step's key. If the key of step 2 has a
    /// secret of its own, which was not asked for yet, it is asked for now: a key that has one opens nothing without.
    pub(super) fn factors_for(&self, holder: &Holder, step1s: &[&Holder], at_https: bool) -> Vec<usize> {
        match holder.factor {
            Some(own) if at_https || !step1s.iter().all(|step1| self.is_same(step1.factor, own)) => vec![own],
            None if at_https => {
                step1s.iter().map(|step1| step1.factor).collect::<Option<Vec<usize>>>().unwrap_or_default()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether two are the same secret: a code of it is good once.
    fn is_same(&self, asked: Option<usize>, own: usize) -> bool {
        let name = |at: usize| self.factors.get(at).map(|factor| factor.name.as_str());
        asked.is_some_and(|asked| name(asked) == name(own))
    }
}
