//! The knock sequences as the kernel enforces them: every state of the automaton as a packet mark, and what each leads
//! to, in names of sets and chains.
//!
//! A state is known by what was knocked to get there, not by a place in a list. So what the kernel remembers of a
//! source means the same after a reload, or nothing any more.

mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::{App, KnockEffect, KnockSequence, OWN_LOG_GROUP, Settings};
pub use crate::units::STAY;
use crate::units::{Family, Knock, Protocol, START, State, Terms};
pub use timed::{TIMED_CHAINS, TimedRules};

/// How long a SYN is remembered, so that its repetitions are no further knocks: the last one of a `connect()` that
/// nobody answers comes after 63 s, or 67 s since Linux 6.5.
pub const SEEN_SECS: u64 = 70;
/// Knocks of one source (IPv6: of one /64) that count in a second, once the first few were made.
///
/// Each leaves an element behind that the kernel removes once a second, and it does not keep more than sixteen of one
/// source well: it reorganises the whole map, or refuses.
pub const KNOCKS_PER_SECOND: u64 = 4;
/// Knocks of one source that count at once.
pub const KNOCKS_AT_ONCE: u32 = 7;
/// The group of netfilter's log by which the agent hears of finished sequences.
pub const LOG_GROUP: u16 = OWN_LOG_GROUP;
/// Bytes of each packet that it hears: an IPv6 header, and some more.
pub const LOG_BYTES: u32 = 64;
/// How what is logged begins when something is opened; the name of a set of grants follows.
pub const LOG_OPENED: &str = "ka:opened:";
/// The same for what is closed.
pub const LOG_CLOSED: &str = "ka:closed:";
/// The same for knocks that were right, and had been used before.
pub const LOG_REPLAYED: &str = "ka:replayed";
/// The same for grants that a first connection used up; the app's slug follows.
pub const LOG_USED: &str = "ka:used:";

/// Addresses that something is open for, as long as the longest of a few durations: two sets, one a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnockGrants {
    /// What the names of the sets begin with.
    pub stem: String,
    /// How long an element lasts.
    pub secs: u64,
    /// The families in which it can be reached.
    pub families: &'static [Family],
    /// The app whose service it is, by its place in the file; none for a gate.
    pub app: Option<usize>,
    /// Whether it is a service, whose grants cover `ipv6_prefix` bits; else single addresses.
    pub service: bool,
    /// Whether a wrong knock empties it.
    pub strict: bool,
}

impl KnockGrants {
    /// By what name the ledger keeps them: that of no app, as no slug has a point in it.
    #[must_use]
    pub fn ledger_key(&self) -> String {
        format!(".{}", self.stem)
    }

    /// The set of a family.
    #[must_use]
    pub fn set(&self, family: Family) -> String {
        format!("{}_{}", self.stem, family.digit())
    }

    /// Whether what they open for a client is open for others of its network, with that `ipv6_prefix`. A link-local source
    /// opens nothing then: it would stand for every neighbour on every link.
    #[must_use]
    pub fn are_wide(&self, family: Family, ipv6_prefix: u8) -> bool {
        family == Family::V6 && self.service && ipv6_prefix < 128
    }
}

/// What a finished sequence does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Adds the source to these grants.
    Opens(KnockGrants),
    /// Removes it from these.
    Closes(Vec<KnockGrants>),
}

/// The first knock of sequences, or a later one, under some terms: how it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The chain that does it.
    pub chain: String,
    /// How long until the next knock.
    pub knock_secs: u64,
    /// For a first knock, how long until the last.
    pub window_secs: Option<u64>,
    /// For a first knock, the grants that it counts for only.
    pub behind: Vec<KnockGrants>,
}

/// Everything about sequences that the ruleset says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Knocking {
    /// Where knocks may arrive.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// From a state, by a knock, to a state or [`STAY`].
    pub steps: Vec<(u32, Knock, u32)>,
    /// How it is remembered that a source is at a state, by chains.
    pub moves: Vec<(u32, String)>,
    /// The chains of that.
    pub kinds_of_moves: Vec<Move>,
    /// At every state, how many seconds the last knock and the first one are good for.
    pub terms: BTreeMap<u32, (u64, u64)>,
    /// What happens at states where sequences are complete, by chains.
    pub opens: Vec<(u32, String)>,
    /// The chains of that, each with what it does.
    pub deeds: Vec<(String, Deed)>,
    /// The chains for states where several sequences are complete, each with those it calls.
    pub several: Vec<(String, Vec<String>)>,
    /// All sets of grants.
    pub grants: Vec<KnockGrants>,
    /// Which sequences are complete at a state, by their places.
    pub complete: BTreeMap<u32, Vec<usize>>,
    /// What is said of knocks that change with time.
    pub timed: Option<TimedRules>,
}

impl fmt::Debug for Knocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knocking").field("states", &self.moves.len()).finish_non_exhaustive()
    }
}

impl Knocking {
    /// Works it out.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let grants = grants(settings);
        let timed = TimedRules::of(settings, &grants);
        let mut out = Self { grants, timed, ..Self::default() };
        let names = |door: usize| open_chain(settings, &out.grants, settings.sequences.get(door)?);
        let doors: Vec<Option<(String, Deed)>> = (0..settings.sequences.len()).map(names).collect();
        let deeds: BTreeMap<&String, &Deed> =
            doors.iter().flatten().map(|(chain, deed)| (chain, deed)).collect();
        let deeds = deeds.into_iter().map(|(chain, deed)| (chain.clone(), deed.clone()));
        let of_clients = out.timed.iter().flat_map(|timed| timed.opens(&out.grants));
        out.deeds = deeds.chain(of_clients).collect::<BTreeMap<_, _>>().into_iter().collect();
        let marks = marks(settings);
        let mark = |state: u32| marks.get(&state).copied().unwrap_or(START);
        let mut moves: BTreeMap<String, Move> = BTreeMap::new();
        for (number, state) in settings.automaton.states() {
            let kind = out.kind_of_move(settings, state);
            out.moves.push((mark(number), kind.chain.clone()));
            let Terms { knock_window, window, .. } = state.terms;
            out.terms.insert(mark(number), (knock_window.as_secs(), window.as_secs()));
            for further in kind.further() {
                moves.insert(further.chain.clone(), further);
            }
            moves.insert(kind.chain.clone(), kind);
            let chains: BTreeSet<String> =
                state.opens.iter().filter_map(|&door| Some(doors.get(door)?.as_ref()?.0.clone())).collect();
            if !state.opens.is_empty() {
                out.complete.insert(mark(number), state.opens.clone());
            }
            let several = || format!("opens_{:08x}", mark(number));
            match (chains.first(), chains.len()) {
                (None, _) => {}
                (Some(only), 1) => out.opens.push((mark(number), only.clone())),
                (Some(_), _) => {
                    out.opens.push((mark(number), several()));
                    out.several.push((several(), chains.into_iter().collect()));
                }
            }
        }
        for kind in out.timed.iter().flat_map(TimedRules::moves) {
            moves.insert(kind.chain.clone(), kind);
        }
        out.kinds_of_moves = moves.into_values().collect();
        for (from, knock, to) in settings.automaton.steps() {
            // A first knock again begins anew: who tries again later has the whole time. (A SYN that is merely
            // repeated does not get here.)
            let first = settings.automaton.state(to).is_some_and(|state| state.depth == 1);
            out.steps.push((mark(from), knock, if from == to && !first { STAY } else { mark(to) }));
        }
        out.ports = settings
            .sequences
            .iter()
            .flat_map(|sequence| &sequence.knocks)
            .map(|knock| (knock.protocol(), knock.port()))
            .collect();
        out
    }

    /// Whether a port is knocked at, so that nothing else is reached there.
    #[must_use]
    pub fn takes(&self, protocol: Protocol, port: u16) -> bool {
        let timed = self.timed.as_ref();
        self.ports.contains(&(protocol, port))
            || timed.is_some_and(|timed| timed.protocol == protocol && timed.ports.contains(port))
    }

    /// How many knocks a source at a state has made, and how many the shortest sequence has that goes on from there.
    #[must_use]
    pub fn reached(&self, settings: &Settings, state: u32) -> Option<(usize, usize)> {
        let marks = marks(settings);
        let (_, at) = settings.automaton.states().find(|(number, _)| marks.get(number) == Some(&state))?;
        let begun = |sequence: &&KnockSequence| sequence.knocks.starts_with(&at.knocks);
        let whole = settings.sequences.iter().filter(begun).map(|sequence| sequence.knocks.len()).min();
        Some((at.depth, whole?))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.timed.is_none()
    }

    /// Whether datagrams of some ports are told apart by their lengths.
    #[must_use]
    pub fn has_lengths(&self) -> bool {
        self.steps.iter().any(|(_, knock, _)| knock.length().is_some())
    }

    /// The grants of an app.
    pub fn of_app<'s>(&'s self, app: &'s App) -> impl Iterator<Item = &'s KnockGrants> + 's {
        let stem = app_stem(app);
        self.grants.iter().filter(move |grants| belongs(&grants.stem, &stem))
    }

    /// The grants that let a source knock at the port of a step; empty where everybody may.
    #[must_use]
    pub fn before_step(&self, step: u8) -> Vec<&KnockGrants> {
        let stem = format!("gate_step{step}");
        self.grants.iter().filter(|grants| belongs(&grants.stem, &stem)).collect()
    }

    fn kind_of_move(&self, settings: &Settings, state: &State) -> Move {
        let Terms { knock_window, window, behind } = state.terms;
        let gate = behind.and_then(|index| settings.sequences.get(index)?.name.as_ref());
        let first = state.depth == 1;
        let chain = match (first, gate) {
            (false, _) => next_chain(knock_window.as_secs()),
            (true, None) => first_chain(window.as_secs(), knock_window.as_secs()),
            (true, Some(gate)) => {
                format!("{}_{gate}", first_chain(window.as_secs(), knock_window.as_secs()))
            }
        };
        let gate = gate.filter(|_| first).map(|gate| format!("gate_sequence_{gate}"));
        let behind = gate
            .map(|stem| self.grants.iter().filter(|grants| belongs(&grants.stem, &stem)).cloned().collect());
        Move {
            chain,
            knock_secs: knock_window.as_secs(),
            window_secs: first.then_some(window.as_secs()),
            behind: behind.unwrap_or_default(),
        }
    }
}

impl Move {
    /// A first knock that counts for everybody, or a later one.
    pub(super) fn plain(knock_secs: u64, window_secs: Option<u64>) -> Self {
        let chain = match window_secs {
            Some(window_secs) => first_chain(window_secs, knock_secs),
            None => next_chain(knock_secs),
        };
        Self { chain, knock_secs, window_secs, behind: Vec::new() }
    }

    /// The moves whose chains this one goes on to.
    fn further(&self) -> Vec<Self> {
        let Some(window_secs) = self.window_secs else { return Vec::new() };
        let next = Self::plain(self.knock_secs, None);
        let first = Self::plain(self.knock_secs, Some(window_secs));
        vec![next, first]
    }

    /// Whether it goes on only for those to whom something is open.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.window_secs.is_some_and(|window_secs| self.chain != first_chain(window_secs, self.knock_secs))
    }
}

/// The chain of a first knock that counts for everybody.
#[must_use]
pub fn first_chain(window_secs: u64, knock_secs: u64) -> String {
    format!("knock_first_{window_secs}_{knock_secs}")
}

/// The chain of every knock but the first.
#[must_use]
pub fn next_chain(knock_secs: u64) -> String {
    format!("knock_next_{knock_secs}")
}

fn app_stem(app: &App) -> String {
    format!("seq_{}", app.slug)
}

/// Whether a set's stem is this one, or this one for another duration. No slug has a point in it.
fn belongs(stem: &str, base: &str) -> bool {
    stem.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What a sequence opens, as the name of a set begins; none for one that closes.
fn base(settings: &Settings, sequence: &KnockSequence) -> Option<String> {
    match &sequence.effect {
        KnockEffect::Service => Some(app_stem(settings.apps.get(sequence.app?)?)),
        KnockEffect::Step1 => Some("gate_step1".to_owned()),
        KnockEffect::Step2 => Some("gate_step2".to_owned()),
        KnockEffect::Sequence(name) => Some(format!("gate_sequence_{name}")),
        KnockEffect::Closes => None,
    }
}

/// What fills a set of grants.
struct Filled {
    /// Whether a wrong knock empties it.
    strict: bool,
    /// The app whose service it is; none for a gate.
    app: Option<usize>,
}

/// A set for each thing that is opened and each duration, so that none shortens another; the longest has the plain
/// name.
fn grants(settings: &Settings) -> Vec<KnockGrants> {
    let mut durations: BTreeMap<String, BTreeMap<u64, Filled>> = BTreeMap::new();
    for sequence in &settings.sequences {
        let Some(base) = base(settings, sequence) else { continue };
        let service = sequence.effect == KnockEffect::Service;
        let new = Filled { strict: false, app: sequence.app.filter(|_| service) };
        let entry = durations.entry(base).or_default().entry(sequence.duration.as_secs()).or_insert(new);
        entry.strict |= sequence.strict;
    }
    for (app, index, secs) in timed::openings(settings) {
        let new = Filled { strict: false, app: Some(index) };
        durations.entry(app_stem(app)).or_default().entry(secs).or_insert(new);
    }
    let mut out = Vec::new();
    for (base, of_base) in durations {
        let longest = of_base.last_key_value().map_or(0, |(secs, _)| *secs);
        for (secs, Filled { strict, app }) in of_base.into_iter().rev() {
            let stem = if secs == longest { base.clone() } else { format!("{base}.{secs}") };
            let of_app = app.and_then(|index| settings.apps.get(index));
            let families = of_app.map_or(&Family::BOTH[..], App::families);
            out.push(KnockGrants { stem, secs, families, app, service: app.is_some(), strict });
        }
    }
    out
}

/// The chain of a finished sequence, and what it does.
fn open_chain(
    settings: &Settings,
    grants: &[KnockGrants],
    sequence: &KnockSequence,
) -> Option<(String, Deed)> {
    let Some(base) = base(settings, sequence) else {
        let app = settings.apps.get(sequence.app?)?;
        let stem = app_stem(app);
        let all = grants.iter().filter(|grants| belongs(&grants.stem, &stem)).cloned().collect();
        return Some((format!("close_{}", app.slug), Deed::Closes(all)));
    };
    let found = find(grants, &base, sequence.duration.as_secs())?;
    Some((opening(found), Deed::Opens(found.clone())))
}

fn find<'g>(grants: &'g [KnockGrants], base: &str, secs: u64) -> Option<&'g KnockGrants> {
    grants.iter().find(|grants| grants.secs == secs && belongs(&grants.stem, base))
}

/// The chain that adds to these grants.
fn opening(grants: &KnockGrants) -> String {
    match grants.stem.split_once('_') {
        Some(("gate", what)) => format!("pass_{what}"),
        Some((_, slug)) => format!("open_{slug}"),
        None => format!("open_{}", grants.stem),
    }
}

/// A mark for each state.
fn marks(settings: &Settings) -> BTreeMap<u32, u32> {
    let mut taken = BTreeSet::from([START, STAY]);
    let mut out = BTreeMap::new();
    for (number, state) in settings.automaton.states() {
        let behind = state.terms.behind.and_then(|index| settings.sequences.get(index)?.name.as_ref());
        let mut text = format!("{:?} {:?}", state.terms.window, state.terms.knock_window);
        text.extend(behind.map(|name| format!(" {name}")));
        text.extend(state.knocks.iter().map(|knock| format!(" {knock}")));
        let mut mark = fnv(&text);
        while !taken.insert(mark) {
            text.push('+');
            mark = fnv(&text);
        }
        out.insert(number, mark);
    }
    out
}

/// The hash of Fowler, Noll and Vo (FNV-1a), 64 bits folded to 32; nobody chooses his input but the operator.
fn fnv(text: &str) -> u32 {
    let whole = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    u32::try_from((whole >> 32) ^ (whole & 0xffff_ffff)).unwrap_or(STAY)
}
