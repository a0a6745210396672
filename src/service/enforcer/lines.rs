//! How many lines the log gets of grants: each one its own, unless very many come at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::grant::What;

/// Lines of single grants in a second; the rest is told as numbers. The journal takes 10,000 in half a minute
/// (`RateLimitBurst=`, `journald.conf(5)`) before it drops what comes.
const LINES: usize = 300;
const SECOND: Duration = Duration::from_secs(1);

/// What was logged within a second, and what was not.
#[derive(Debug, Default)]
pub(super) struct Lines {
    since: Duration,
    written: usize,
    folded: BTreeMap<(What, String), u64>,
    /// What apps were called before the last reload, by slug: the ends of grants of those that it took away are told after it.
    former: BTreeMap<String, String>,
}

impl Lines {
    /// Takes note of what apps were called until now.
    pub(super) fn remember_names(&mut self, names: BTreeMap<String, String>) {
        self.former = names;
    }

    /// What an app that there is no more was called.
    pub(super) fn former_name(&self, slug: &str) -> Option<String> {
        self.former.get(slug).cloned()
    }

    /// How many single grants may be told of now.
    pub(super) fn room(&mut self, now: Duration) -> usize {
        // What was folded is told first.
        if now >= self.since + SECOND && self.folded.is_empty() {
            (self.since, self.written) = (now, 0);
        }
        LINES.saturating_sub(self.written)
    }

    /// Notes that one was told of.
    pub(super) fn wrote(&mut self) {
        self.written += 1;
    }

    /// Counts those that are not told of one by one, by what happened and the app.
    pub(super) fn fold(&mut self, what: What, app: &str, count: u64) {
        *self.folded.entry((what, app.to_owned())).or_default() += count;
    }

    /// When [`Lines::take_due`] has something to give.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.folded.is_empty()).then(|| self.since + SECOND)
    }

    /// What was folded until now, once the second is over.
    pub(super) fn take_due(&mut self, now: Duration) -> BTreeMap<(What, String), u64> {
        match self.due() {
            Some(due) if due <= now => std::mem::take(&mut self.folded),
            Some(_) | None => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_grants_makes_few_lines_and_loses_no_number() {
        let mut lines = Lines::default();
        let mut told = 0;
        let count =
            |lines: &mut Lines, ms: u64| lines.take_due(Duration::from_millis(ms)).values().sum::<u64>();
        let mut folded = 0;
        for ms in 5_000..7_500_u64 {
            if lines.room(Duration::from_millis(ms)) > 0 {
                lines.wrote();
                told += 1;
            } else {
                lines.fold(What::Opened, "ssh", 1);
            }
            // Asked for room first, as by the enforcer.
            folded += count(&mut lines, ms);
        }
        assert_eq!(told, 3 * LINES);
        let due = lines.due().unwrap();
        // A second begins with the first line in it.
        assert!((8_000..8_010).contains(&due.as_millis()), "{due:?}");
        folded += lines.take_due(due).values().sum::<u64>();
        assert_eq!(told as u64 + folded, 2_500);
        assert_eq!(lines.due(), None);
    }
}
