use super::*;

const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

fn note(by: &str) -> Note {
    Note { by: by.into(), how: How::TwoStep }
}

fn secs(secs: u64) -> Lifetime {
    Lifetime::from_secs(secs).unwrap()
}

fn left(ledger: &Ledger, at: u64) -> Vec<(String, u64)> {
    ledger
        .users("ssh", ADDR, Now::at_secs(at))
        .into_iter()
        .map(|(note, left, _)| (note.by, left.as_secs()))
        .collect()
}

#[test]
fn renewing_extends_and_never_shortens() {
    let mut ledger = Ledger::default();
    ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(0));
    ledger.grant("ssh", ADDR, &note("alice"), secs(10), Now::at_secs(5));
    assert_eq!(left(&ledger, 5), [("alice".into(), 95)]);
    ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(50));
    assert_eq!(left(&ledger, 50), [("alice".into(), 100)]);
}

#[test]
fn users_behind_one_address_keep_apart() {
    let mut ledger = Ledger::default();
    ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(0));
    ledger.grant("ssh", ADDR, &note("bob"), secs(200), Now::at_secs(0));
    assert_eq!(left(&ledger, 0), [("bob".into(), 200), ("alice".into(), 100)]);
    assert_eq!(left(&ledger, 150), [("bob".into(), 50)]);
}

#[test]
fn grants_follow_the_keys_they_were_made_with() {
    let keys = |names: &[&str]| -> Vec<crate::units::AccessKey> {
        names.iter().map(|name| format!("the-key-of-{name}").parse().unwrap()).collect()
    };
    let mut ledger = Ledger::default();
    for (by, secs_left) in [("key 1", 100), ("key 2", 200), ("key 3", 300)] {
        ledger.grant("ssh", ADDR, &note(by), secs(secs_left), Now::at_secs(0));
    }
    ledger.grant("web", ADDR, &note("key 1"), secs(100), Now::at_secs(0));
    let before = ledger.changes();
    ledger.succeed(
        "ssh",
        None,
        &Succession::between(&keys(&["a", "b", "c"]), &keys(&["c", "b"]), BTreeSet::new()),
    );
    assert_eq!(left(&ledger, 0), [("key 1".into(), 300), ("key 2".into(), 200)]);
    assert!(ledger.changes() > before, "the state file has to follow");
    ledger.succeed("ssh", None, &Succession::between(&keys(&["c", "b"]), &[], BTreeSet::new()));
    assert_eq!(left(&ledger, 0), []);
    assert_eq!(ledger.len(), 1, "the other app's grant is nobody's business");
}

#[test]
fn the_journal_tells_each_opening_renewal_and_end_once() {
    let mut ledger = Ledger::default();
    let (alice, bob) = (note("alice"), note("bob"));
    ledger.grant("ssh", ADDR, &note("before"), secs(500), Now::at_secs(0));
    ledger.journal().begin();
    ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(0));
    ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(0));
    ledger.grant("ssh", ADDR, &alice, secs(10), Now::at_secs(20));
    ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(20));
    ledger.grant("web", ADDR, &bob, secs(60), Now::at_secs(20));
    assert_eq!(ledger.next_end(), Some(Duration::from_secs(80)));
    ledger.expire(Now::at_secs(90));
    assert_eq!(ledger.next_end(), Some(Duration::from_secs(120)));
    ledger.revoke("ssh", ADDR);
    ledger.expire(Now::at_secs(1_000));
    let told: Vec<String> = ledger
        .journal()
        .take()
        .iter()
        .map(|turn| format!("{} {} {:?}", turn.app, turn.note.by, turn.what))
        .collect();
    assert_eq!(
        told,
        [
            "ssh alice Opened",
            "ssh alice Renewed",
            "web bob Opened",
            "web bob Closed(Expired)",
            "ssh alice Closed(Revoked)",
            "ssh before Closed(Revoked)",
        ]
    );
    assert!(ledger.journal().take().is_empty());
}

#[test]
fn each_end_is_told_when_it_comes_however_often_it_moved() {
    let mut ledger = Ledger::default();
    ledger.journal().begin();
    let other = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 3));
    for at in 0..10_000 {
        ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(at));
    }
    ledger.grant("ssh", ADDR, &note("bob"), secs(50), Now::at_secs(9_999));
    ledger.grant("ssh", other, &note("alice"), secs(60), Now::at_secs(9_999));
    ledger.journal().take();
    let mut told = Vec::new();
    for at in 10_000..10_200 {
        ledger.expire(Now::at_secs(at));
        told.extend(ledger.journal().take().into_iter().map(|turn| (at, turn.addr, turn.note.by)));
    }
    let expected = [(10_049, ADDR, "bob"), (10_059, other, "alice"), (10_099, ADDR, "alice")];
    assert_eq!(told, expected.map(|(at, addr, by)| (at, addr, by.to_owned())));
    assert_eq!((ledger.len(), ledger.next_end()), (0, None));
}

#[test]
fn who_is_named_late_takes_the_place_of_nobody() {
    let mut ledger = Ledger::default();
    ledger.grant("ssh", ADDR, &note(""), secs(100), Now::at_secs(0));
    ledger.grant("ssh", ADDR, &note("bob"), secs(50), Now::at_secs(0));
    ledger.name("ssh", ADDR, "alice");
    assert_eq!(left(&ledger, 0), [("alice".into(), 100), ("bob".into(), 50)]);
    ledger.name("ssh", ADDR, "carol");
    assert_eq!(left(&ledger, 0).len(), 2, "nobody is without a name");
    ledger.grant("ssh", ADDR, &note(""), secs(200), Now::at_secs(0));
    ledger.name("ssh", ADDR, "bob");
    assert_eq!(left(&ledger, 0), [("alice".into(), 100), ("bob".into(), 50)], "bob has his own");
    assert_eq!(ledger.len(), 1);
}

#[test]
fn what_ended_is_forgotten() {
    let mut ledger = Ledger::default();
    ledger.grant("ssh", ADDR, &note("alice"), secs(10), Now::at_secs(0));
    ledger.expire(Now::at_secs(9));
    assert_eq!(ledger.len(), 1);
    ledger.expire(Now::at_secs(10));
    assert!(ledger.is_empty());
}
