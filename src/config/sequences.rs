//! All sequences together: what cannot be told apart, what guards something else, what anybody would open by chance.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::app::AppDraft;
use crate::config::report::Report;
use crate::config::sequence::{KnockEffect, KnockSequence, SequenceDraft};
use crate::units::{Automaton, AutomatonError, Knock, Protocol, Sequence, SequenceName, Terms};

/// What all sequences come to.
pub(super) struct SequencesDraft {
    /// All of them, in the order of the file.
    pub list: Vec<KnockSequence>,
    /// What tells them apart.
    pub automaton: Automaton,
}

/// Puts the sequences of the global section and of the apps together; none if something is wrong with them.
pub(super) fn read(
    global: Vec<SequenceDraft>,
    apps: &mut [AppDraft<'_>],
    taken: &[(u16, &'static str)],
    report: &mut Report,
) -> Option<SequencesDraft> {
    let mut drafts = global;
    for (index, app) in apps.iter_mut().enumerate() {
        drafts.extend(app.sequences.drain(..).map(|mut draft| {
            draft.sequence.app = Some(index);
            draft
        }));
    }
    let guarded = guarded(apps);
    let mut fine = true;
    for draft in &drafts {
        fine &= free(draft, &guarded, taken, report);
        by_chance(draft, &guarded, taken, report);
    }
    let names = names(&drafts, report)?;
    fine &= gates(&drafts, &names, report);
    let opened: BTreeSet<&SequenceName> =
        drafts.iter().filter_map(|draft| draft.sequence.effect.sequence()).collect();
    let behind = |draft: &SequenceDraft| {
        let name = draft.sequence.name.as_ref().filter(|name| opened.contains(name))?;
        names.get(name).copied()
    };
    let sequences: Vec<Sequence> = drafts
        .iter()
        .map(|draft| Sequence {
            knocks: draft.sequence.knocks.clone(),
            terms: Terms {
                knock_window: draft.sequence.knock_window.as_duration(),
                window: draft.sequence.window.as_duration(),
                behind: behind(draft),
            },
        })
        .collect();
    let automaton = match Automaton::new(&sequences) {
        Ok(automaton) => automaton,
        Err(error) => {
            alike(error, &drafts, report);
            return None;
        }
    };
    contained(&automaton, &drafts, report);
    fine.then(|| SequencesDraft { list: drafts.into_iter().map(|draft| draft.sequence).collect(), automaton })
}

type Guarded<'a> = BTreeMap<(Protocol, u16), (u16, &'a str)>;

/// The guarded ports by protocol and first port: the last port and whose they are.
fn guarded<'a>(apps: &[AppDraft<'a>]) -> Guarded<'a> {
    let mut out = Guarded::new();
    for app in apps {
        for &protocol in app.protocol.map_or(&[][..], |protocols| protocols.each()) {
            for (range, _) in &app.ports {
                let entry = out.entry((protocol, range.first())).or_insert((range.last(), app.name));
                if entry.0 < range.last() {
                    *entry = (range.last(), app.name);
                }
            }
        }
    }
    // Ranges may overlap: each then reaches as far as any before it that is still running.
    let mut reach: Option<(Protocol, u16, &str)> = None;
    for (&(protocol, _), (last, name)) in &mut out {
        match reach {
            Some((same, far, whose)) if same == protocol && far > *last => (*last, *name) = (far, whose),
            Some(_) | None => reach = Some((protocol, *last, name)),
        }
    }
    out
}

/// The last port and the app of the guarded range that a port is in.
fn range_of<'a>(at: (Protocol, u16), guarded: &Guarded<'a>) -> Option<(u16, &'a str)> {
    let (_, range) = guarded.range((at.0, 0)..=at).next_back()?;
    Some(*range).filter(|(last, _)| *last >= at.1)
}

/// Whether a scan comes from one port to a higher one without a wrong knock: guarded ports are none, nor are those of the steps.
fn nothing_between(
    (low, high): (&Knock, &Knock),
    guarded: &Guarded<'_>,
    taken: &[(u16, &'static str)],
) -> bool {
    let protocol = low.protocol();
    let mut last = low.port();
    while let Some(port) = last.checked_add(1).filter(|port| *port < high.port()) {
        let is_taken = protocol == Protocol::Tcp && taken.iter().any(|(taken, _)| *taken == port);
        last = match range_of((protocol, port), guarded) {
            Some((end, _)) => end,
            None if is_taken => port,
            None => return false,
        };
    }
    protocol == high.protocol() && low.port() < high.port()
}

/// Whether no knock is at a port that is something else.
fn free(
    draft: &SequenceDraft,
    guarded: &Guarded<'_>,
    taken: &[(u16, &'static str)],
    report: &mut Report,
) -> bool {
    let mut free = true;
    for (knock, spot) in draft.sequence.knocks.iter().zip(&draft.knocks) {
        let at = (knock.protocol(), knock.port());
        if let Some((_, app)) = range_of(at, guarded) {
            let message = format!("this port is guarded for `{app}`: it cannot be knocked at");
            report.error_fix(spot.clone(), message, "knock at another port");
            free = false;
        }
        if let Some((_, flag)) = taken.iter().find(|(port, _)| at == (Protocol::Tcp, *port)) {
            let message = format!("this port belongs to knock-agent itself ({flag})");
            report.error_fix(spot.clone(), message, "knock at another port");
            free = false;
        }
    }
    free
}

/// Warns of what a scan of ports, in order, would knock.
fn by_chance(
    draft: &SequenceDraft,
    guarded: &Guarded<'_>,
    taken: &[(u16, &'static str)],
    report: &mut Report,
) {
    let knocks = &draft.sequence.knocks;
    if knocks.len() == 1 {
        report.warning(draft.spot.clone(), "one knock is no secret: every scan finds it", "knock more often");
        return;
    }
    if knocks.windows(2).all(|pair| matches!(pair, [a, b] if a == b)) {
        report.warning(
            draft.spot.clone(),
            "all knocks are at one port: who scans it and repeats what is not answered knocks this",
            "knock at several ports",
        );
        return;
    }
    let next =
        |a: &Knock, b: &Knock, up: bool| nothing_between(if up { (a, b) } else { (b, a) }, guarded, taken);
    let run = |up| knocks.windows(2).all(|pair| matches!(pair, [a, b] if next(a, b, up)));
    if run(true) || run(false) {
        report.warning(
            draft.spot.clone(),
            "these ports follow each other, but for guarded ones and those of the steps: a scan knocks them in this order",
            "choose ports that are apart, or not in order",
        );
    }
}

/// The named sequences, by their places; none where a name is taken twice.
fn names(drafts: &[SequenceDraft], report: &mut Report) -> Option<HashMap<SequenceName, usize>> {
    let mut names: HashMap<SequenceName, usize> = HashMap::new();
    let mut fine = true;
    for (index, draft) in drafts.iter().enumerate() {
        let Some(name) = &draft.sequence.name else { continue };
        match names.get(name).and_then(|&first| drafts.get(first)) {
            Some(first) => {
                let message = format!("there is another sequence `{name}`");
                report.conflict(draft.spot.clone(), &first.spot, message, "rename one of them");
                fine = false;
            }
            None => drop(names.insert(name.clone(), index)),
        }
    }
    fine.then_some(names)
}

/// Whether every sequence that another one opens exists, and can be reached at all.
fn gates(drafts: &[SequenceDraft], names: &HashMap<SequenceName, usize>, report: &mut Report) -> bool {
    let mut fine = true;
    let mut openers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let KnockEffect::Sequence(name) = &draft.sequence.effect else { continue };
        match (names.get(name), &draft.opens) {
            (Some(&opened), _) => openers.entry(opened).or_default().push(index),
            (None, Some(spot)) => {
                report.error_fix(
                    spot.clone(),
                    format!("there is no sequence `{name}`"),
                    "write service, step-1, step-2, or the `name` of another sequence",
                );
                fine = false;
            }
            (None, None) => fine = false,
        }
    }
    let mut closed: BTreeSet<usize> = openers.keys().copied().collect();
    loop {
        let before = closed.len();
        let shut = |index: &usize| {
            openers.get(index).is_some_and(|gates| gates.iter().all(|gate| closed.contains(gate)))
        };
        closed = closed.iter().copied().filter(shut).collect();
        if closed.len() == before {
            break;
        }
    }
    for draft in closed.iter().filter_map(|&index| drafts.get(index)) {
        report.error(draft.spot.clone(), "nothing opens this sequence but itself or what stands behind it");
        fine = false;
    }
    fine
}

/// Reports sequences that cannot be told apart.
fn alike(error: AutomatonError, drafts: &[SequenceDraft], report: &mut Report) {
    let (first, second, fix) = match error {
        AutomatonError::Terms(first, second) => {
            (first, second, "give them the same window and knock_window, or another first knock")
        }
        AutomatonError::Lengths(first, second) => (first, second, "write a length in both, or in neither"),
        AutomatonError::Same(first, second) => (first, second, "change one of them"),
        AutomatonError::TooMany => (0, 0, "use fewer sequences, or such that have less in common"),
    };
    let (Some(first), Some(second)) = (drafts.get(first), drafts.get(second)) else { return };
    report.conflict(second.spot.clone(), &first.spot, error.to_string(), fix);
}

/// Warns of sequences that are knocked on the way to another one.
fn contained(automaton: &Automaton, drafts: &[SequenceDraft], report: &mut Report) {
    let mut warned = vec![false; drafts.len()];
    for (_, state) in automaton.states() {
        for &short in &state.opens {
            let Some(draft) = drafts.get(short) else { continue };
            let longer = state.depth > draft.sequence.knocks.len() || state.leads_on;
            if longer && let Some(slot) = warned.get_mut(short).filter(|slot| !**slot) {
                *slot = true;
                report.warning(
                    draft.spot.clone(),
                    "another sequence contains this one: who knocks that one knocks this one as well",
                    "use ports of their own, unless that is meant",
                );
            }
        }
    }
}
