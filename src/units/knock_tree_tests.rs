use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1_000);

fn path(who: &str, knocks: &[u16], step: u64, secs: u64) -> KnockPath {
    let knocks = knocks.iter().map(|port| port.to_string().parse().unwrap()).collect();
    KnockPath { knocks, who: who.into(), deed: "opens".into(), step, until: NOW + Duration::from_secs(secs) }
}

fn knock(port: u16) -> Knock {
    port.to_string().parse().unwrap()
}

/// Whose ends are reached, knock by knock.
fn run(tree: &KnockTree, knocks: &[u16], now: Duration) -> Vec<Option<String>> {
    let mut at = START;
    let step = |&port: &u16| match tree.next(at, knock(port), now) {
        Some(STAY) => None,
        Some(to) => {
            at = to;
            tree.end(at).filter(|end| end.until > now).map(|end| end.who.to_string())
        }
        None => {
            at = START;
            None
        }
    };
    knocks.iter().map(step).collect()
}

fn opened(tree: &KnockTree, knocks: &[u16]) -> Vec<String> {
    run(tree, knocks, NOW).into_iter().flatten().collect()
}

#[test]
fn paths_that_begin_alike_share_their_beginning_and_end_apart() {
    let mut tree = KnockTree::default();
    let growth = tree.add([path("alice", &[1, 2, 3], 7, 90), path("bob", &[1, 2, 4], 7, 90)]);
    assert_eq!((growth.left_out, growth.renewed.len(), growth.new_ends.len()), (0, 0, 2));
    // Four places, each but the first with a way back to itself.
    assert_eq!(growth.new.len(), 4 + 3);
    assert_eq!(opened(&tree, &[1, 2, 3]), ["alice"]);
    assert_eq!(opened(&tree, &[1, 2, 4]), ["bob"]);
    assert_eq!(opened(&tree, &[1, 2, 2, 4]), ["bob"], "the same again is no further knock");
    assert_eq!(opened(&tree, &[1, 1, 2, 4, 4]), ["bob"]);
    assert_eq!(opened(&tree, &[1, 2, 1, 2, 3]), ["alice"], "a fresh start");
    for wrong in [&[1, 2, 5, 3][..], &[2, 3], &[1, 3], &[1, 2, 3_000, 4], &[1, 4, 2, 3]] {
        assert_eq!(opened(&tree, wrong), [""; 0], "{wrong:?}");
    }
}

#[test]
fn what_comes_later_changes_no_place_and_renews_what_it_shares() {
    let mut tree = KnockTree::default();
    let first = tree.add([path("alice", &[1, 2, 3], 7, 30)]);
    let second = tree.add([path("alice", &[1, 2, 4], 8, 60), path("bob", &[1, 9], 8, 60)]);
    assert_eq!(second.renewed.len(), 3, "two steps, and one to stay");
    for (key, step) in &second.renewed {
        assert_eq!(first.new[key].to, step.to);
        assert_eq!(step.until, NOW + Duration::from_secs(60));
    }
    let later = NOW + Duration::from_secs(30);
    assert_eq!(run(&tree, &[1, 2, 3], later).last(), Some(&None), "its time is over");
    assert_eq!(run(&tree, &[1, 2, 4], later).last(), Some(&Some("alice".to_owned())));
    tree.forget(later);
    let (mark, _) = first.new_ends.first_key_value().unwrap();
    assert_eq!(tree.end(*mark).map(|end| end.steps.clone()), Some(vec![7]), "what is told late has a name");
    tree.forget(later + MEMORY);
    assert_eq!(tree.end(*mark), None);
    tree.forget(later + Duration::from_secs(3_600));
    assert!(tree.is_empty() && tree.places.is_empty());
}

#[test]
fn places_are_the_same_whatever_else_is_there() {
    let paths = |from: u16, to: u16| (from..to).map(|n| path("x", &[n, n + 1, n + 2], u64::from(n), 90));
    let (mut one, mut other) = (KnockTree::default(), KnockTree::default());
    let all = one.add(paths(100, 200));
    let half = other.add(paths(150, 200));
    assert!(half.new.iter().all(|(key, step)| all.new.get(key) == Some(step)));
    let (_, &taken) =
        half.new.iter().map(|(key, step)| (key, &step.to)).find(|(_, to)| **to != STAY).unwrap();
    let mut wary = KnockTree::new([taken].into());
    let elsewhere = wary.add(paths(150, 200));
    assert!(elsewhere.new.values().all(|step| step.to != taken), "somebody else's mark");
}

#[test]
fn paths_that_cannot_be_told_apart_are_left_out_until_they_can() {
    let mut tree = KnockTree::default();
    tree.add([path("alice", &[1, 2, 3], 7, 90)]);
    for clash in [&[1, 2][..], &[1, 2, 3], &[1, 2, 3, 4], &[]] {
        let growth = tree.add([path("bob", clash, 7, 90)]);
        assert_eq!((growth.left_out, growth.new.len()), (1, 0), "{clash:?}");
    }
    assert_eq!(opened(&tree, &[1, 2, 3, 4]), ["alice"]);
    let again = tree.add([path("alice", &[1, 2, 3], 8, 120)]);
    assert_eq!((again.left_out, again.renewed_ends.len()), (0, 1));
    assert_eq!(again.renewed_ends.values().next().unwrap().steps, [7, 8]);
    tree.forget(NOW + Duration::from_secs(120));
    assert_eq!(tree.add([path("bob", &[1, 2], 9, 150)]).left_out, 0);
}

proptest! {
    #[test]
    fn whoever_knocks_a_path_alone_gets_in_and_nobody_does_who_did_not(
        lists in proptest::collection::vec((proptest::collection::vec(1_u16..6, 1..5), 0_u64..3), 1..10),
        input in proptest::collection::vec(1_u16..6, 1..40),
        at in 0_u64..100,
    ) {
        let now = NOW + Duration::from_secs(at);
        let mut tree = KnockTree::default();
        let mut kept: Vec<KnockPath> = Vec::new();
        for (who, (mut ports, step)) in lists.into_iter().enumerate() {
            ports.dedup();
            let path = path(&who.to_string(), &ports, step, 30 * (step + 1));
            if tree.add([path.clone()]).left_out == 0 {
                kept.push(path);
            }
        }
        let ends = run(&tree, &input, now);
        // The model: knocks that repeat the one before do not count; a path that was knocked without another knock
        // in between must open its owner's door, and whatever opens was knocked just so.
        let mut said: Vec<u16> = Vec::new();
        for (port, end) in input.iter().zip(&ends) {
            let repeated = said.last() == Some(port);
            if !repeated {
                said.push(*port);
            }
            let knocked = |path: &&KnockPath| {
                let ports: Vec<u16> = path.knocks.iter().map(|knock| knock.port()).collect();
                path.until > now && said.ends_with(&ports)
            };
            if let Some(who) = end {
                prop_assert!(kept.iter().filter(knocked).any(|path| *path.who == **who), "{said:?} {who}");
            }
        }
        for path in kept.iter().filter(|path| path.until > now) {
            let ports: Vec<u16> = path.knocks.iter().map(|knock| knock.port()).collect();
            let with_others: Vec<u16> = [&[9, 8][..], &ports].concat();
            let last = run(&tree, &with_others, now).pop().flatten();
            prop_assert_eq!(last.as_deref(), Some(&*path.who));
        }
    }
}
