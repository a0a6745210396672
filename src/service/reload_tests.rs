use super::*;
use crate::grant::How;
use crate::service::certificate::self_signed;
use crate::service::gone::{successions, users_gone};
use crate::sys::files;
use crate::units::{AccessKey, Lifetime};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

const ADDR: [u8; 4] = [203, 0, 113, 2];

fn keys(names: &[&str]) -> Vec<AccessKey> {
    names.iter().map(|name| format!("the-key-of-{name}").parse().unwrap()).collect()
}

fn note(by: &str) -> Note {
    Note { by: by.to_owned(), how: How::TwoStep }
}

fn element(by: &str, left_secs: u64) -> Element {
    let timeout = Timeout { total_ms: 100_000, left_ms: left_secs * 1_000 };
    Element { timeout: Some(timeout), comment: Some(note(by).to_string()), ..Element::default() }
}

fn live(element: Element) -> Live {
    let elements = Elements::from([(ADDR.to_vec(), element)]);
    Live { elements: [("app_ssh_4".to_owned(), elements)].into(), ..Live::default() }
}

fn ledger(users: &[(&str, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    for &(by, secs) in users {
        let lifetime = Lifetime::from_secs(secs).unwrap();
        ledger.grant("ssh", IpAddr::from(ADDR), &note(by), lifetime, Now::at_secs(0));
    }
    ledger
}

fn handed_over(
    before: &[&str],
    after: &[&str],
    users: &[(&str, u64)],
    have: Element,
) -> (Vec<Change>, usize) {
    let succession = Succession::between(&keys(before), &keys(after), BTreeSet::new());
    hand_over("ssh", &succession, &live(have), &ledger(users), Now::at_secs(0))
}

#[test]
fn a_grant_ends_with_its_key_and_no_other_one_is_touched() {
    let (changes, ended) = handed_over(&["a", "b"], &["b"], &[("key 1", 100)], element("key 1", 100));
    assert!(matches!(&changes[..], [Change::DeleteElements { elements, .. }] if elements.len() == 1));
    assert_eq!(ended, 1);
    for after in [&["a"][..], &["a", "b"], &["a", "c", "d"]] {
        let kept = handed_over(&["a", "b"], after, &[("key 1", 100)], element("key 1", 100));
        assert_eq!(kept, (Vec::new(), 0), "{after:?}");
    }
}

#[test]
fn a_grant_whose_key_moved_has_the_new_name_and_the_same_time() {
    let (changes, ended) = handed_over(&["a", "b"], &["b"], &[("key 2", 90)], element("key 2", 90));
    let [Change::RenewElements { elements, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((elements.get(ADDR.as_slice()), ended), (Some(&element("key 1", 90)), 0));
}

#[test]
fn of_two_behind_one_address_the_one_who_stays_keeps_what_was_granted_to_it() {
    let both = [("key 1", 90), ("key 2", 30)];
    let (changes, ended) = handed_over(&["a", "b"], &["x", "b"], &both, element("key 1", 90));
    let [Change::RenewElements { elements, .. }] = &changes[..] else { panic!("{changes:?}") };
    let timeout = Timeout { total_ms: 30_000, left_ms: 30_000 };
    let left = Element { timeout: Some(timeout), ..element("key 2", 0) };
    assert_eq!((elements.get(ADDR.as_slice()), ended), (Some(&left), 0));
    let longer = handed_over(&["a", "b"], &["a"], &both, element("key 1", 90));
    assert_eq!(longer, (Vec::new(), 0), "the longer one loses nothing");
}

#[test]
fn what_the_ledger_does_not_know_goes_by_what_stands_on_it() {
    let (changes, ended) = handed_over(&["a", "b"], &["b"], &[], element("key 1", 50));
    assert!(matches!(&changes[..], [Change::DeleteElements { .. }]), "{changes:?}");
    assert_eq!(ended, 1);
    for other in ["alice", "key 7"] {
        assert_eq!(handed_over(&["a", "b"], &["b"], &[], element(other, 50)), (Vec::new(), 0), "{other}");
    }
    let by_hand = Element { timeout: None, ..element("key 2", 0) };
    let (changes, _) = handed_over(&["a", "b"], &["b"], &[], by_hand);
    let [Change::RenewElements { elements, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(elements.get(ADDR.as_slice()).unwrap().timeout, None);
}

#[test]
fn to_hand_over_twice_is_to_hand_over_once() {
    let before = ledger(&[("key 1", 90), ("key 2", 30), ("key 3", 10)]);
    let succession = Succession::between(&keys(&["a", "b", "c"]), &keys(&["c", "b"]), BTreeSet::new());
    let once = hand_over("ssh", &succession, &live(element("key 1", 90)), &before, Now::at_secs(0)).0;
    let [Change::RenewElements { elements, .. }] = &once[..] else { panic!("{once:?}") };
    let then = live(elements.get(ADDR.as_slice()).unwrap().clone());
    let again = hand_over("ssh", &succession, &then, &before, Now::at_secs(0));
    assert_eq!(again, (Vec::new(), 0));
}

#[test]
fn a_pair_is_read_again_when_it_has_changed_and_a_bad_one_only_once() {
    let folder = std::env::temp_dir().join(format!("knock-agent-pair-{}", std::process::id()));
    files::make_directory(&folder, 0o700).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let write = || {
        let made = self_signed(&["gate.example".to_owned()], 30, SystemTime::now()).unwrap();
        files::replace(&certificate, 0o600, made.certificate_pem.as_bytes()).unwrap();
        files::replace(&key, 0o600, made.key_pem.as_bytes()).unwrap();
    };
    write();
    let mut pair = Pair::new(&certificate, &key);
    assert!(!pair.changed());
    write();
    assert!(pair.changed());
    assert!(pair.read().is_ok());
    assert!(!pair.changed());
    files::replace(&key, 0o600, b"torn").unwrap();
    assert!(pair.changed());
    assert!(pair.read().is_err());
    assert!(!pair.changed(), "not again before it has changed");
    files::remove(&key).unwrap();
    assert!(pair.changed());
    assert!(pair.read().is_err());
    write();
    assert!(pair.changed());
    assert!(pair.read().is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_has_expired_keeps_nothing() {
    let settings = |alice: &str, key: &str| {
        let text = format!(
            "global: {{interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place, \
             users: {{alice: {{access_key_http: alice-key-1, access_key_https: alice-key-2{alice}}}}}}}\n\
             ssh: {{port: 22, duration: 1h, access_key_http: first-secret, access_key_https: {{key: other-secret{key}}}}}\n"
        );
        crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings
    };
    let (before, year) =
        (settings("", ""), |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * 31_622_400));
    let over = ", expires: 1990-01-01";
    for (alice, key, wall, lost) in [
        ("", "", year(30), vec![]),
        (over, "", year(10), vec![]),
        (over, "", year(30), vec!["alice"]),
        ("", over, year(10), vec![]),
        ("", over, year(30), vec!["key 1"]),
    ] {
        let all = successions(&before, &settings(alice, key), [year(0), wall]);
        let gone: Vec<&str> =
            ["alice", "key 1"].into_iter().filter(|by| all["ssh"].note(&note(by)).is_none()).collect();
        assert_eq!(gone, lost, "{alice} {key}");
    }
    // Whoever was seen to when that moment came loses nothing any more, and nobody else loses anything for it.
    let long = settings(over, over);
    let takes = |from, wall| successions(&long, &long, [from, wall])["ssh"].takes_somebody();
    assert!(takes(year(10), year(30)));
    assert!(!takes(year(29), year(30)) && !takes(year(10), year(11)));
}

#[test]
fn users_keep_their_grants_as_long_as_one_of_their_keys_stays() {
    let settings = |users: &str| {
        let text = format!(
            "global: {{interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place, users: {{{users}}}}}\n\
             ssh: {{port: 22, duration: 1h}}\nvpn: {{port: 23, duration: 1h}}\n"
        );
        crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings
    };
    let before = settings(
        "alice: {access_key_http: alice-key-1, access_key_https: [alice-key-2, alice-key-3]}, \
         bob: {access_key_http: bobby-key-1, access_key_https: bobby-key-2, apps: [ssh]}",
    );
    let now = SystemTime::now();
    let gone = |users: &str, app: &str| {
        let gone = users_gone(&before, &settings(users), &app.parse().unwrap(), [now; 2]);
        gone.into_iter().collect::<Vec<_>>().join(" ")
    };
    let bob = "bob: {access_key_http: bobby-key-1, access_key_https: bobby-key-2, apps: [ssh]}";
    for (users, app, wanted) in [
        (bob, "ssh", "alice"),
        ("", "ssh", "alice bob"),
        ("", "vpn", "alice"),
        ("alice: {access_key_http: other-key-1, access_key_https: alice-key-3}", "ssh", "bob"),
        ("alice: {access_key_http: alice-key-1, access_key_https: other-key-3}", "ssh", "alice bob"),
        (
            "alice: {access_key_http: alice-key-1, access_key_https: alice-key-2, disabled: true}",
            "vpn",
            "alice",
        ),
        ("alice: {access_key_http: alice-key-1, access_key_https: alice-key-2, apps: [ssh]}", "vpn", "alice"),
        (
            "alice: {access_key_http: alice-key-1, access_key_https: [{key: alice-key-2, disabled: true}]}",
            "vpn",
            "alice",
        ),
    ] {
        assert_eq!(gone(users, app), wanted, "{users} {app}");
    }
}
