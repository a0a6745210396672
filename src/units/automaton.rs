//! All knock sequences as one automaton (Aho and Corasick, 1975), so that a packet costs the same with one sequence
//! or thousands: what a source has knocked is one state, the longest beginning of a sequence that its last knocks
//! are.
//!
//! A wrong knock loses what was reached, unless it continues another beginning; the same knock again is a
//! retransmission and loses nothing. Clients that share an address may disturb each other, and never open wrongly.
//!
//! The time of the first knock is kept once per source, so a beginning in the middle of other knocks is recognised
//! only among sequences with the same [`Terms`]: else the time of one would count for another.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::Knock;

/// The state of a source that has not knocked: it is kept nowhere.
pub const START: u32 = 0;
/// Steps that an automaton may have; the kernel keeps each in some hundred bytes.
const MAX_STEPS: usize = 1_000_000;

/// Under what terms knocks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// The longest time from one knock to the next.
    pub knock_window: Duration,
    /// The longest time from the first knock to the last.
    pub window: Duration,
    /// What must have been opened before the first knock counts, by a number of the caller's; none: nothing.
    pub behind: Option<usize>,
}

/// A sequence of knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The knocks in order; at least one.
    pub knocks: Vec<Knock>,
    /// Under what terms they count.
    pub terms: Terms,
}

/// Why sequences cannot be told apart; numbers count the sequences from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AutomatonError {
    /// They begin alike under different terms, which one state cannot keep.
    #[error(
        "two sequences that begin with the same knock must have the same windows, and stand behind the same one"
    )]
    Terms(usize, usize),
    /// A UDP port is knocked at with and without a length.
    #[error("a UDP port is knocked at with a length in one place and without one in another")]
    Lengths(usize, usize),
    /// The same knocks twice.
    #[error("two sequences are the same")]
    Same(usize, usize),
    /// More than the kernel should keep.
    #[error("the sequences need more than a million steps, because they overlap in too many ways")]
    TooMany,
}

/// What a state means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The sequences that are complete here, by their places in the list.
    pub opens: Vec<usize>,
    /// Under what terms further knocks count.
    pub terms: Terms,
    /// Knocks until here.
    pub depth: usize,
    /// The knocks that lead here.
    pub knocks: Vec<Knock>,
    /// Whether it is the beginning of a longer sequence.
    pub leads_on: bool,
}

/// The automaton of a list of sequences. Printing it for debugging does not tell the knocks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Automaton {
    /// Every state but [`START`]; the first is number 1.
    states: Vec<State>,
    steps: BTreeMap<(u32, Knock), u32>,
}

impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton").field("states", &self.states.len()).finish_non_exhaustive()
    }
}

/// A state while the automaton is made.
struct Node {
    state: State,
    children: BTreeMap<Knock, usize>,
    fail: usize,
    first: usize,
}

impl Automaton {
    /// Makes the automaton.
    ///
    /// # Errors
    /// [`AutomatonError`] for sequences that cannot be told apart.
    pub fn new(sequences: &[Sequence]) -> Result<Self, AutomatonError> {
        one_kind_of_length(sequences)?;
        let mut nodes = trie(sequences)?;
        let order = link(&mut nodes);
        let mut steps = BTreeMap::new();
        for &at in &order {
            steps_of(&nodes, at, &mut steps);
            if steps.len() > MAX_STEPS {
                return Err(AutomatonError::TooMany);
            }
        }
        let states = nodes.into_iter().skip(1).map(|node| node.state).collect();
        Ok(Self { states, steps })
    }

    /// Where a knock leads to.
    #[must_use]
    pub fn next(&self, state: u32, knock: Knock) -> u32 {
        let step = |from| self.steps.get(&(from, knock)).copied();
        step(state).or_else(|| step(START)).unwrap_or(START)
    }

    /// What a state means; none for [`START`].
    #[must_use]
    pub fn state(&self, number: u32) -> Option<&State> {
        self.states.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Every state with its number.
    pub fn states(&self) -> impl Iterator<Item = (u32, &State)> {
        (1..).zip(&self.states)
    }

    /// Every step: from, by which knock, to. Where there is none, that from [`START`] counts.
    pub fn steps(&self) -> impl Iterator<Item = (u32, Knock, u32)> + '_ {
        self.steps.iter().map(|(&(from, knock), &to)| (from, knock, to))
    }
}

/// A port takes lengths or does not: a datagram must not be two knocks at once.
fn one_kind_of_length(sequences: &[Sequence]) -> Result<(), AutomatonError> {
    let mut kinds: BTreeMap<_, (usize, bool)> = BTreeMap::new();
    for (at, sequence) in sequences.iter().enumerate() {
        for knock in &sequence.knocks {
            let sized = knock.length().is_some();
            let (first, kind) = *kinds.entry((knock.protocol(), knock.port())).or_insert((at, sized));
            if kind != sized {
                return Err(AutomatonError::Lengths(first, at));
            }
        }
    }
    Ok(())
}

fn trie(sequences: &[Sequence]) -> Result<Vec<Node>, AutomatonError> {
    let node = |terms: Terms, first: usize, knocks: &[Knock]| Node {
        state: State {
            opens: Vec::new(),
            terms,
            depth: knocks.len(),
            knocks: knocks.to_vec(),
            leads_on: false,
        },
        children: BTreeMap::new(),
        fail: 0,
        first,
    };
    let mut nodes = vec![node(Terms::default(), 0, &[])];
    for (number, sequence) in sequences.iter().enumerate() {
        let mut at = 0;
        for (depth, &knock) in (1..).zip(&sequence.knocks) {
            let known = nodes.get(at).and_then(|node| node.children.get(&knock).copied());
            at = match known {
                Some(child) => {
                    let known = nodes.get(child);
                    if known.is_none_or(|known| known.state.terms != sequence.terms) {
                        return Err(AutomatonError::Terms(known.map_or(0, |known| known.first), number));
                    }
                    child
                }
                None => {
                    let child = nodes.len();
                    let knocks = sequence.knocks.get(..depth).unwrap_or_default();
                    nodes.push(node(sequence.terms, number, knocks));
                    if let Some(parent) = nodes.get_mut(at) {
                        parent.children.insert(knock, child);
                        parent.state.leads_on = true;
                    }
                    child
                }
            };
        }
        if let Some(end) = nodes.get_mut(at) {
            if let Some(&other) = end.state.opens.first() {
                return Err(AutomatonError::Same(other, number));
            }
            end.state.opens.push(number);
        }
    }
    Ok(nodes)
}

/// Links every state to the longest other one under the same terms that its last knocks are, which is complete where
/// that one is; returns all states, shorter ones first.
fn link(nodes: &mut [Node]) -> Vec<usize> {
    let mut order = Vec::with_capacity(nodes.len());
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        order.push(at);
        let Some(node) = nodes.get(at) else { continue };
        let (fail, children) = (node.fail, node.children.clone());
        for (knock, child) in children {
            queue.push_back(child);
            let shorter = if at == 0 { 0 } else { shorter(nodes, child, fail, knock) };
            let inherited = nodes.get(shorter).map(|node| node.state.opens.clone()).unwrap_or_default();
            if let Some(node) = nodes.get_mut(child) {
                node.fail = shorter;
                node.state.opens.extend(inherited);
            }
        }
    }
    order
}

/// The state that `knock` leads to from the longest of the states linked from `from` on, under the terms of `child`.
/// All states linked with each other have the same terms, and what begins with one knock has the terms of that one,
/// so that nothing is missed by following links only.
fn shorter(nodes: &[Node], child: usize, mut from: usize, knock: Knock) -> usize {
    let terms = |at: usize| nodes.get(at).map(|node| node.state.terms);
    loop {
        let Some(node) = nodes.get(from) else { return 0 };
        if let Some(&found) = node.children.get(&knock) {
            return if terms(found) == terms(child) { found } else { 0 };
        }
        if from == 0 {
            return 0;
        }
        from = node.fail;
    }
}

/// The steps out of a state: to the next knock of each sequence; to states of two knocks and more that other
/// beginnings lead to; to itself for the same knock again. States of one knock are reached from [`START`].
fn steps_of(nodes: &[Node], at: usize, steps: &mut BTreeMap<(u32, Knock), u32>) {
    let number = |at: usize| u32::try_from(at).unwrap_or(START);
    let mut from = Some(at);
    while let Some(shorter) = from {
        let Some(node) = nodes.get(shorter) else { return };
        if shorter != 0 || at == 0 {
            for (&knock, &to) in &node.children {
                steps.entry((number(at), knock)).or_insert_with(|| number(to));
            }
        }
        from = if shorter == 0 { None } else { Some(node.fail) };
    }
    if let Some(&last) = nodes.get(at).and_then(|node| node.state.knocks.last()) {
        steps.entry((number(at), last)).or_insert_with(|| number(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sequence(knocks: &str) -> Sequence {
        let window = Duration::from_secs(10);
        let knocks = knocks.split(',').map(|knock| knock.parse().unwrap()).collect();
        Sequence { knocks, terms: Terms { knock_window: window, window, behind: None } }
    }

    fn automaton(sequences: &[&str]) -> Automaton {
        Automaton::new(&sequences.iter().map(|knocks| sequence(knocks)).collect::<Vec<_>>()).unwrap()
    }

    /// What is opened, knock by knock.
    fn run(automaton: &Automaton, knocks: &[Knock]) -> Vec<BTreeSet<usize>> {
        let mut state = START;
        let step = |&knock: &Knock| {
            let before = state;
            state = automaton.next(state, knock);
            // The same knock again opens nothing a second time.
            let opens = automaton.state(state).filter(|_| state != before);
            opens.map(|state| state.opens.iter().copied().collect()).unwrap_or_default()
        };
        knocks.iter().map(step).collect()
    }

    fn opened(sequences: &[&str], knocks: &str) -> Vec<usize> {
        let knocks: Vec<Knock> = knocks.split(',').map(|knock| knock.parse().unwrap()).collect();
        run(&automaton(sequences), &knocks).into_iter().flatten().collect()
    }

    #[test]
    fn the_right_order_opens_and_a_wrong_or_foreign_knock_begins_anew() {
        let seed = ["1234,5678,9012"];
        for (knocks, opens) in [
            ("1234,5678,9012", true),
            ("1234,9012,5678", false),
            ("1234,5678,5676,9012", false),
            ("1234,1234,5678,5678,9012", true),
            ("1234,5678,1234,5678,9012", true),
            ("5678,9012,1234", false),
            ("1234,5678,u:9012", false),
            ("9012,5678,1234,5678,9012", true),
        ] {
            assert_eq!(opened(&seed, knocks) == [0], opens, "{knocks}");
        }
    }

    #[test]
    fn a_beginning_within_another_sequence_is_recognised() {
        assert_eq!(opened(&["1,2,1,3"], "1,2,1,2,1,3"), [0]);
        assert_eq!(opened(&["1,2,3", "2,3"], "1,2,3"), [0, 1]);
        assert_eq!(opened(&["1,2,3,4", "2,3,5"], "1,2,3,5"), [1]);
        assert_eq!(opened(&["1,2", "1,2,3"], "1,2,3"), [0, 1]);
        assert_eq!(opened(&["1,1,2"], "1,1,2"), [0]);
        assert_eq!(opened(&["1,1,2"], "1,2"), [0; 0]);
        assert_eq!(opened(&["1"], "1,1"), [0]);
    }

    fn terms(sequence: Sequence, window: u64, behind: Option<usize>) -> Sequence {
        let window = Duration::from_secs(window);
        Sequence { terms: Terms { window, behind, ..sequence.terms }, ..sequence }
    }

    #[test]
    fn the_time_and_the_gate_of_one_sequence_never_count_for_another() {
        for other in [terms(sequence("2,4"), 5, None), terms(sequence("2,4"), 10, Some(0))] {
            let automaton = Automaton::new(&[sequence("1,2,3"), other]).unwrap();
            let opens = |knocks: &str| {
                let knocks: Vec<Knock> = knocks.split(',').map(|knock| knock.parse().unwrap()).collect();
                run(&automaton, &knocks).into_iter().flatten().collect::<Vec<_>>()
            };
            assert_eq!(opens("1,2,4"), [0; 0]);
            assert_eq!(opens("1,2,2,4"), [0; 0], "the second is the same knock again");
            assert_eq!(opens("1,4,2,4"), [1]);
            assert_eq!(opens("2,4"), [1]);
            assert_eq!(opens("1,2,3"), [0]);
        }
        let suffix = Automaton::new(&[sequence("1,2,3"), terms(sequence("2,3"), 5, None)]).unwrap();
        let last = suffix.states().find(|(_, state)| state.depth == 3).unwrap().1;
        assert_eq!(last.opens, [0]);
    }

    #[test]
    fn lengths_make_other_knocks() {
        assert_eq!(opened(&["udp/7/10,udp/7/20"], "udp/7/10,udp/7/20"), [0]);
        assert_eq!(opened(&["udp/7/10,udp/7/20"], "udp/7/20,udp/7/10"), [0; 0]);
        let mixed = [sequence("udp/7/10,1"), sequence("2,udp/7")];
        assert_eq!(Automaton::new(&mixed), Err(AutomatonError::Lengths(0, 1)));
    }

    #[test]
    fn sequences_that_cannot_be_told_apart_are_refused() {
        let slow = terms(sequence("1,3"), 20, None);
        assert_eq!(Automaton::new(&[sequence("1,2"), slow.clone()]), Err(AutomatonError::Terms(0, 1)));
        let behind = terms(sequence("1,3"), 10, Some(7));
        assert_eq!(Automaton::new(&[sequence("1,2"), behind]), Err(AutomatonError::Terms(0, 1)));
        assert!(Automaton::new(&[sequence("2,1"), slow]).is_ok());
        assert_eq!(Automaton::new(&[sequence("1,2"), sequence("1,2")]), Err(AutomatonError::Same(0, 1)));
    }

    #[test]
    fn ten_thousand_sequences_take_little_more_steps_than_knocks() {
        let knock = |n: usize| format!("{}", 1 + n % 60_000);
        let sequences: Vec<Sequence> = (0..10_000)
            .map(|n| sequence(&[n * 7_919, n * 104_729 + 1, n * 1_299_709 + 2].map(knock).join(",")))
            .collect();
        let automaton = Automaton::new(&sequences).unwrap();
        let steps = automaton.steps().count();
        assert!((30_000..80_000).contains(&steps), "{steps}");
    }

    /// Every way to read knocks as a sequence, with repeated ones: what may open at all.
    fn may_open(sequences: &[Sequence], knocks: &[Knock]) -> Vec<BTreeSet<usize>> {
        let mut reached: Vec<BTreeSet<usize>> = sequences.iter().map(|_| BTreeSet::from([0])).collect();
        let mut out = Vec::new();
        for knock in knocks {
            let mut opens = BTreeSet::new();
            for (number, (sequence, places)) in sequences.iter().zip(&mut reached).enumerate() {
                let ahead =
                    places.iter().filter(|&&at| sequence.knocks.get(at) == Some(knock)).map(|at| at + 1);
                let again = places.iter().filter(|&&at| at > 0 && sequence.knocks[at - 1] == *knock).copied();
                let now: BTreeSet<usize> = ahead.chain(again).chain([0]).collect();
                if now.contains(&sequence.knocks.len()) {
                    opens.insert(number);
                }
                *places = now;
            }
            out.push(opens);
        }
        out
    }

    fn knocks(most: usize) -> impl Strategy<Value = Vec<Knock>> {
        let knock = (1_u16..5).prop_map(|port| port.to_string().parse().unwrap());
        proptest::collection::vec(knock, 1..=most)
    }

    proptest! {
        #[test]
        fn whoever_knocks_a_sequence_gets_in_whatever_came_before_and_nobody_else(
            lists in proptest::collection::btree_set(knocks(6), 1..8),
            input in knocks(40),
        ) {
            let window = Duration::from_secs(10);
            let sequences: Vec<Sequence> = lists
                .into_iter()
                .map(|knocks| Sequence {
                    knocks,
                    terms: Terms { knock_window: window, window, behind: None },
                })
                .collect();
            let automaton = Automaton::new(&sequences).unwrap();
            let opens = run(&automaton, &input);
            for (at, (opened, may)) in opens.iter().zip(may_open(&sequences, &input)).enumerate() {
                prop_assert!(opened.is_subset(&may), "{input:?} {at}");
            }
            let mut state = START;
            for (at, &knock) in input.iter().enumerate() {
                state = automaton.next(state, knock);
                let done = input.get(..=at).unwrap();
                for (number, sequence) in sequences.iter().enumerate() {
                    if done.ends_with(&sequence.knocks) {
                        let here = automaton.state(state).unwrap();
                        prop_assert!(here.opens.contains(&number), "{done:?} {:?}", sequence.knocks);
                    }
                }
            }
        }
    }
}
