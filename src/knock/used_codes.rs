use std::collections::VecDeque;

/// Accepted codes remembered per secret: more than can be valid at once.
const REMEMBERED: usize = 64;

/// The time steps whose codes have been accepted, the latest 64 of one secret.
///
/// A list and not only the highest: after the clock was set back, codes not used yet
/// must still work and used ones must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsedCodes(VecDeque<u64>);

impl UsedCodes {
    pub(crate) fn contains(&self, counter: u64) -> bool {
        self.0.contains(&counter)
    }

    pub(crate) fn remember(&mut self, counter: u64) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(counter);
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_codes_are_remembered_within_bounds() {
        let mut used = UsedCodes::default();
        for counter in 0..200 {
            used.remember(counter);
        }
        assert!((136..200).all(|counter| used.contains(counter)));
        assert_eq!(used.steps().count(), 64);
    }
}
