//! What the enforcer counts for those who watch it: how often what happened, never to whom.

use std::collections::BTreeMap;

use super::host_chains::Repaired;
use super::link::Answer;
use crate::backend::Commits;
use crate::grant::{How, What};
use crate::knock::Step;
use crate::ruleset::wire::RuleCounter;

/// A number for each word of a small set.
pub type ByWord = BTreeMap<&'static str, u64>;

/// What happened since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    apps: BTreeMap<String, Turns>,
    knocks: BTreeMap<(u8, &'static str), u64>,
    lockouts: u64,
    repairs: ByWord,
}

/// What became of the grants for one app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// New ones, by how they came about.
    pub opened: ByWord,
    /// Those that last longer than before, likewise.
    pub renewed: ByWord,
    /// Those that are no more, by why.
    pub closed: ByWord,
}

/// What is known at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// What enforces: `nftables` or `iptables`.
    pub backend: &'static str,
    /// What was counted at the rules; none where nothing is guarded, or nothing tells.
    pub rules: Option<Vec<RuleCounter>>,
    /// Whether rules of ours are in the kernel; none where that was not asked.
    pub guarded: Option<bool>,
    /// The apps, by name.
    pub apps: BTreeMap<String, OfApp>,
    /// How many addresses of a family fit into the set of an app.
    pub room: u64,
    /// What was answered, by step and result.
    pub knocks: BTreeMap<(u8, &'static str), u64>,
    /// What was refused, by reason.
    pub denials: BTreeMap<String, u64>,
    /// How many lock-outs began.
    pub lockouts: u64,
    /// How many addresses are locked out now.
    pub locked_out: u64,
    /// Repairs, of our table and of chains of the host.
    pub repairs: ByWord,
    /// How long changes took.
    pub commits: Commits,
}

/// One app at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfApp {
    /// How many addresses have a grant, as far as the ledger knows.
    pub grants: u64,
    /// What became of grants since the start.
    pub turns: Turns,
}

/// What a step comes to, in the words of the figures: an answer and `closed`.
pub const RESULTS: [(u8, &[&str]); 2] = [
    (1, &["opened", "code-needed", "refused", "too-many", "unavailable", "monitor"]),
    (2, &["granted", "closed", "code-needed", "refused", "too-many", "unavailable", "monitor"]),
];
/// How grants come about that are counted, beside rarer ways.
pub const WAYS: [How; 3] = [How::TwoStep, How::Sequence, How::Operator];
/// Where something was put right.
pub const REPAIRS: [&str; 2] = ["table", "host"];

impl Tally {
    /// So many grants for an app (slug) opened, went on or ended.
    pub fn on_turns(&mut self, app: &str, what: What, how: How, count: u64) {
        if !self.apps.contains_key(app) {
            self.apps.insert(app.to_owned(), Turns::default());
        }
        let Some(turns) = self.apps.get_mut(app) else { return };
        let (of, word) = match what {
            What::Opened => (&mut turns.opened, how.word()),
            What::Renewed => (&mut turns.renewed, how.word()),
            What::Closed(end) => (&mut turns.closed, end.word()),
        };
        *of.entry(word).or_default() += count;
    }

    /// A request was answered.
    pub fn on_answer(&mut self, step: Step, answer: Answer) {
        let (step, right) = match step {
            Step::One => (1, "opened"),
            Step::Two => (2, "closed"),
        };
        let result = match answer {
            Answer::Opened => right,
            Answer::Granted(_) => "granted",
            Answer::NeedToken => "code-needed",
            Answer::Refused => "refused",
            Answer::TooMany => "too-many",
            Answer::Unavailable => "unavailable",
        };
        *self.knocks.entry((step, result)).or_default() += 1;
    }

    /// A monitor was answered.
    pub fn on_monitor(&mut self, step: Step) {
        let step = if step == Step::One { 1 } else { 2 };
        *self.knocks.entry((step, "monitor")).or_default() += 1;
    }

    /// A lock-out began.
    pub fn on_lockout(&mut self) {
        self.lockouts += 1;
    }

    /// Something was put right.
    pub fn on_repair(&mut self, repaired: Repaired) {
        for (word, changes) in REPAIRS.into_iter().zip([repaired.own, repaired.host]) {
            *self.repairs.entry(word).or_default() += u64::from(changes > 0);
        }
    }

    /// Writes down what was counted, of those apps (slug and name) only that there are, and forgets the others.
    pub fn tell(&mut self, apps: &BTreeMap<String, String>, figures: &mut Figures) {
        self.apps.retain(|slug, _| apps.contains_key(slug));
        for (slug, name) in apps {
            let turns = self.apps.get(slug).cloned().unwrap_or_default();
            figures.apps.entry(name.clone()).or_default().turns = turns;
        }
        figures.knocks = self.knocks.clone();
        figures.lockouts = self.lockouts;
        figures.repairs = self.repairs.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::End;
    use crate::units::Lifetime;

    #[test]
    fn turns_are_counted_by_app_and_forgotten_with_it() {
        let mut tally = Tally::default();
        for what in [What::Opened, What::Renewed, What::Renewed, What::Closed(End::Expired)] {
            tally.on_turns("my_app", what, How::TwoStep, 1);
        }
        tally.on_turns("gone", What::Opened, How::Operator, 1);
        let names = BTreeMap::from([("my_app".to_owned(), "My-App".to_owned())]);
        let mut figures = Figures::default();
        tally.tell(&names, &mut figures);
        assert_eq!(figures.apps.keys().collect::<Vec<_>>(), ["My-App"]);
        let turns = &figures.apps["My-App"].turns;
        assert_eq!(turns.opened, ByWord::from([("two-step", 1)]));
        assert_eq!(turns.renewed, ByWord::from([("two-step", 2)]));
        assert_eq!(turns.closed, ByWord::from([("expired", 1)]));
        assert_eq!(tally.apps.len(), 1, "apps that come and go do not add up");
    }

    #[test]
    fn every_answer_has_a_word_of_its_step() {
        let mut tally = Tally::default();
        let granted = Answer::Granted(Lifetime::from_secs(60).unwrap());
        let answers = [Answer::NeedToken, Answer::Refused, Answer::TooMany, Answer::Unavailable];
        for answer in answers.into_iter().chain([Answer::Opened]) {
            tally.on_answer(Step::One, answer);
        }
        for answer in answers.into_iter().chain([Answer::Opened, granted]) {
            tally.on_answer(Step::Two, answer);
        }
        for (step, results) in RESULTS {
            for result in results.iter().filter(|result| **result != "monitor") {
                assert_eq!(tally.knocks.remove(&(step, result)), Some(1), "{step} {result}");
            }
        }
        assert!(tally.knocks.is_empty());
    }

    #[test]
    fn a_repair_counts_once_however_much_it_changed() {
        let mut tally = Tally::default();
        tally.on_repair(Repaired { own: 90, host: 0 });
        tally.on_repair(Repaired { own: 1, host: 2 });
        tally.on_repair(Repaired::default());
        assert_eq!(tally.repairs, ByWord::from([("table", 2), ("host", 1)]));
    }
}
