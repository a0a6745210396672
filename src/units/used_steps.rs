use std::collections::BTreeSet;

/// Time steps that are remembered: more than can be right at once, in case the clock is set back.
const REMEMBERED: usize = 64;

/// The time steps of which something was used. Where there is no room for more, the earliest is left out, and with it nothing
/// before it is good any more.
///
/// A set and not only the latest: after the clock was set back, what was not used yet must still work and what was used
/// must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedSteps {
    steps: BTreeSet<u64>,
    /// Nothing of a step up to this one is good.
    upto: Option<u64>,
}

impl UsedSteps {
    /// Whether something of this step was used, or may have been.
    #[must_use]
    pub fn contains(&self, step: u64) -> bool {
        self.upto.is_some_and(|upto| step <= upto) || self.steps.contains(&step)
    }

    /// Notes that something of this step was used; true if that is news.
    pub fn remember(&mut self, step: u64) -> bool {
        if self.contains(step) {
            return false;
        }
        self.steps.insert(step);
        if self.steps.len() > REMEMBERED {
            let earliest = self.steps.pop_first();
            self.forget_upto(earliest);
        }
        true
    }

    /// Counts everything up to a step as used.
    pub fn forget_upto(&mut self, step: Option<u64>) {
        self.upto = self.upto.max(step);
    }

    /// Up to which step everything counts as used, if there was no room for all.
    #[must_use]
    pub fn upto(&self) -> Option<u64> {
        self.upto
    }

    /// Those that are remembered.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_stays_so_and_where_there_is_no_room_all_before_it_does() {
        let mut used = UsedSteps::default();
        assert!(used.remember(1_000_000), "by a clock that was ahead");
        for step in (100..400).step_by(2) {
            assert!(used.remember(step) && !used.remember(step), "{step}");
        }
        assert_eq!((used.iter().count(), used.upto()), (64, Some(272)));
        assert!((0..=272).chain((274..400).step_by(2)).all(|step| used.contains(step)));
        assert!(!used.contains(273) && !used.contains(399) && !used.contains(400));
        assert!(!used.remember(100) && used.remember(273));
    }
}
