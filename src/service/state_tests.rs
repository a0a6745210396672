use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::grant::{How, Note};

fn ledger(grants: &[(u8, u64, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    for &(host, from, secs) in grants {
        let note = Note { by: format!("user {host}"), how: How::TwoStep };
        let address = IpAddr::from([203, 0, 113, host]);
        ledger.grant("ssh", address, &note, Lifetime::from_secs(secs).unwrap(), Now::at_secs(from));
    }
    ledger
}

/// After a restart the clock of the kernel begins anew.
fn after_reboot(wall_secs: u64) -> Now {
    Now { boot: Duration::from_secs(3), ..Now::at_secs(wall_secs) }
}

fn saved(grant: Grant) -> Saved {
    Saved {
        boot_id: "a".into(),
        written_ms: 1_700_000_000_000,
        grants: vec![grant],
        allowed: Vec::new(),
        ports: BTreeMap::new(),
    }
}

fn grant() -> Grant {
    Grant {
        app: "ssh".into(),
        address: IpAddr::from([203, 0, 113, 2]),
        note: "alice two-step".into(),
        end_ms: 1_700_000_060_000,
        lifetime_ms: 60_000,
    }
}

fn file_at(path: &Path) -> StateFile {
    let path = path.to_owned();
    StateFile {
        path,
        boot_id: "a".into(),
        written: None,
        apps: Vec::new(),
        again: Duration::ZERO,
        failed: false,
        due: None,
        before_trial: None,
    }
}

#[test]
fn what_is_left_is_what_the_calendar_leaves() {
    let kept = Saved::of(&ledger(&[(1, 0, 100), (2, 0, 30)]), &[], "a", Now::at_secs(10));
    let rest = kept.rest(after_reboot(50)).unwrap();
    assert_eq!(rest.len(), 1, "the other one has ended meanwhile");
    assert_eq!(rest[0].note, "user 1 two-step");
    assert_eq!(rest[0].timeout, Timeout { total_ms: 100_000, left_ms: 50_000 });
}

#[test]
fn a_file_from_the_future_is_refused_as_a_whole() {
    let kept = Saved::of(&ledger(&[(1, 0, 100)]), &[], "a", Now::at_secs(10));
    assert!(matches!(kept.clone().rest(Now::at_secs(9)), Err(StateError::Future)));
    assert!(kept.rest(Now { wall: SystemTime::UNIX_EPOCH, ..Now::at_secs(0) }).is_err());
}

#[test]
fn one_grant_that_cannot_be_makes_all_doubtful() {
    let now = Now::at_secs(0);
    assert_eq!(saved(grant()).rest(now).unwrap().len(), 1);
    for bad in [
        Grant { end_ms: 1_700_000_060_001, ..grant() },
        Grant { end_ms: u64::MAX, ..grant() },
        Grant { lifetime_ms: 0, ..grant() },
        Grant { lifetime_ms: u64::MAX, ..grant() },
        Grant { end_ms: u64::MAX, lifetime_ms: u64::MAX, ..grant() },
        Grant { note: "a".repeat(200), ..grant() },
    ] {
        let mut all = saved(grant());
        all.grants.push(bad.clone());
        assert!(matches!(all.rest(now), Err(StateError::Impossible(_))), "{bad:?}");
    }
}

#[test]
fn it_is_written_at_changes_and_when_the_calendar_is_set() {
    let folder = std::env::temp_dir().join(format!("knock-agent-state-{}", std::process::id()));
    files::make_directory(&folder, 0o700).unwrap();
    let path = folder.join("grants");
    let mut file = file_at(&path);
    let mut grants = ledger(&[(1, 0, 100)]);
    let mut written = |grants: &Ledger, now: Now| {
        files::remove(&path).unwrap();
        file.keep_what(grants, &[], now).unwrap();
        files::exists(&path)
    };
    assert!(written(&grants, Now::at_secs(1)));
    assert!(!written(&grants, Now::at_secs(60)), "nothing has changed");
    grants.revoke("ssh", IpAddr::from([203, 0, 113, 9]));
    assert!(!written(&grants, Now::at_secs(61)), "nobody was there to be revoked");
    grants.revoke("ssh", IpAddr::from([203, 0, 113, 1]));
    assert!(written(&grants, Now::at_secs(61)));
    let set_back = Now { wall: Now::at_secs(0).wall, ..Now::at_secs(62) };
    assert!(written(&grants, set_back));
    let text = KIND.read(&path);
    assert!(text.is_ok_and(|text| KIND.open::<Saved>(&text).unwrap().grants.is_empty()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_given_is_written_once_a_second_and_what_is_taken_back_at_once() {
    let folder = std::env::temp_dir().join(format!("knock-agent-pace-{}", std::process::id()));
    files::make_directory(&folder, 0o700).unwrap();
    let path = folder.join("grants");
    let mut file = file_at(&path);
    let at = |ms: u64| Now { boot: Duration::from_millis(ms), ..Now::at_secs(ms / 1_000) };
    let mut grants = ledger(&[(1, 0, 100)]);
    let give = |grants: &mut Ledger, host: u8| {
        let note = Note { by: "alice".into(), how: How::Sequence };
        let address = IpAddr::from([203, 0, 113, host]);
        grants.grant("ssh", address, &note, Lifetime::from_secs(500).unwrap(), Now::at_secs(10));
    };
    let held = || KIND.open::<Saved>(&KIND.read(&path).unwrap()).unwrap().grants.len();
    file.keep_what(&grants, &[], at(10_000)).unwrap();
    let mut writes = 0;
    for host in 2..=200_u8 {
        give(&mut grants, host);
        let before = held();
        file.keep_what(&grants, &[], at(10_000 + u64::from(host) * 5)).unwrap();
        writes += u32::from(held() != before);
        assert!(file.due().is_none_or(|due| due > Duration::from_secs(11)), "{:?}", file.due());
    }
    assert_eq!((writes, held()), (0, 1), "all of it within a second");
    // Whoever waits for it comes back when it is due.
    let due = file.due().expect("something waits");
    file.keep_what(&grants, &[], Now { boot: due, ..Now::at_secs(11) }).unwrap();
    assert_eq!((held(), file.due()), (200, None));
    give(&mut grants, 201);
    grants.revoke("ssh", IpAddr::from([203, 0, 113, 7]));
    file.keep_what(&grants, &[], Now { boot: due, ..Now::at_secs(11) }).unwrap();
    assert_eq!((held(), file.due()), (200, None), "what was taken back waits for nothing");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_with_any_bit_flipped_or_cut_off_anywhere_is_refused() {
    let allowed = AllowedNetwork { app: None, network: "10.0.0.0/8".parse().unwrap(), end_ms: None };
    let whole = KIND.seal(&Saved { allowed: vec![allowed], ..saved(grant()) }).unwrap().into_bytes();
    let opens = |bytes: Vec<u8>| String::from_utf8(bytes).is_ok_and(|text| KIND.open::<Saved>(&text).is_ok());
    assert!(opens(whole.clone()));
    for at in 0..whole.len() {
        assert!(!opens(whole[..at].to_vec()), "cut off at {at}");
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            assert!(!opens(flipped), "bit {bit} of byte {at}");
        }
        let mut twice = whole.clone();
        twice.insert(at, whole[at]);
        assert!(!opens(twice), "byte {at} twice");
    }
}

#[test]
fn networks_have_what_the_calendar_leaves_and_impossible_ones_make_all_doubtful() {
    let written = 1_700_000_000_000;
    let network = |end_ms| AllowedNetwork { app: None, network: "10.0.0.0/8".parse().unwrap(), end_ms };
    let with = |ends: &[Option<u64>]| Saved {
        allowed: ends.iter().map(|&end| network(end)).collect(),
        ..saved(grant())
    };
    let kept = with(&[None, Some(written + 5_000), Some(written + 90_000)]);
    let now = after_reboot(10);
    let left: Vec<_> = kept.networks(now).unwrap().into_iter().map(|have| have.until).collect();
    assert_eq!(left, [None, Some(now.boot + Duration::from_secs(80))]);
    for end in [u64::MAX, written + ms(Lifetime::MAX.as_duration()) + 1] {
        assert!(matches!(with(&[None, Some(end)]).networks(now), Err(StateError::Impossible(_))), "{end}");
    }
}

#[test]
fn a_file_of_before_there_were_networks_in_it_is_read() {
    let old = serde_json::json!({"boot_id": "a", "written_ms": 1, "grants": []});
    let text = KIND.seal(&old).unwrap();
    assert_eq!(KIND.open::<Saved>(&text).unwrap().allowed, []);
}

#[test]
fn what_cannot_be_written_is_removed_or_known_to_be_stale() {
    let folder = std::env::temp_dir().join(format!("knock-agent-stale-{}", std::process::id()));
    files::make_directory(&folder, 0o700).unwrap();
    let path = folder.join("grants");
    let mut file = file_at(&path);
    file.keep_what(&ledger(&[(1, 0, 100)]), &[], Now::at_secs(1)).unwrap();
    assert!(files::exists(&path) && !file.is_stale());
    // A directory in the way of the new file: nothing can be written beside.
    files::make_directory(&folder.join("grants.new"), 0o700).unwrap();
    assert!(file.keep_what(&ledger(&[(1, 0, 100), (2, 0, 100)]), &[], Now::at_secs(9)).is_err());
    assert!(!files::exists(&path) && !file.is_stale(), "it said what is no longer so");
    std::fs::remove_dir(folder.join("grants.new")).unwrap();
    file.keep_what(&ledger(&[(1, 0, 100), (2, 0, 100)]), &[], Now::at_secs(100)).unwrap();
    assert!(files::exists(&path), "it is tried again after a minute");
    std::fs::remove_dir_all(folder).unwrap();
}

proptest! {
    /// A life of grants, a calendar that is set to and fro, a crash, and what comes back: nobody is let in for longer
    /// in all than the longest grant he had.
    #[test]
    fn nobody_is_in_for_longer_than_granted_however_the_calendar_is_set(
        lifetime in 1_u64..5_000,
        steps in vec((1_u64..600, -4_000_i64..4_000), 1..12),
        off in -10_000_i64..10_000,
    ) {
        let mut wall = 1_700_000_000_i64;
        let mut boot = 0;
        let at = |boot: u64, wall: i64| Now {
            boot: Duration::from_secs(boot),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(wall).unwrap()),
        };
        let mut ledger = Ledger::default();
        let note = Note { by: "alice".into(), how: How::TwoStep };
        let address = IpAddr::from([203, 0, 113, 1]);
        ledger.grant("ssh", address, &note, Lifetime::from_secs(lifetime).unwrap(), at(boot, wall));
        let mut text = KIND.seal(&Saved::of(&ledger, &[], "a", at(boot, wall))).unwrap();
        for (passed, jump) in steps {
            boot += passed;
            wall += i64::try_from(passed).unwrap() + jump;
            // As the daemon does when the calendar was set.
            text = KIND.seal(&Saved::of(&ledger, &[], "a", at(boot, wall))).unwrap();
        }
        let kept: Saved = KIND.open(&text).unwrap();
        if let Ok(rest) = kept.rest(Now { boot: Duration::from_secs(3), ..at(0, wall + off) }) {
            let left: u64 = rest.iter().map(|rest| rest.timeout.left_ms).max().unwrap_or(0);
            prop_assert!(boot.min(lifetime) * 1_000 + left <= lifetime * 1_000);
        }
    }

    #[test]
    fn nothing_lasts_longer_than_it_was_granted_whatever_the_clock_says(
        grants in vec((0_u8..20, 0_u64..1000, 1_u64..100_000), 0..10),
        written in 1000_u64..2000,
        read in 0_u64..200_000,
    ) {
        let ledger = ledger(&grants);
        let then = Now::at_secs(written);
        let text = KIND.seal(&Saved::of(&ledger, &[], "a", then)).unwrap();
        let kept: Saved = KIND.open(&text).unwrap();
        match kept.rest(after_reboot(read)) {
            Err(_) => prop_assert!(read < written),
            Ok(rest) => {
                let passed = Duration::from_secs(read.checked_sub(written).expect("not in the future"));
                let due: Vec<_> = ledger
                    .longest(then)
                    .filter_map(|(_, address, _, left, _)| {
                        let left = left.checked_sub(passed).filter(|left| !left.is_zero())?;
                        Some((address, ms(left)))
                    })
                    .collect();
                let got: Vec<_> = rest.iter().map(|rest| (rest.address, rest.timeout.left_ms)).collect();
                prop_assert_eq!(got, due);
            }
        }
    }

    #[test]
    fn made_up_times_never_grant_more_than_they_say(
        end_ms in any::<u64>(),
        lifetime_ms in any::<u64>(),
        written_ms in any::<u64>(),
        read in 0_u64..1 << 33,
    ) {
        let made_up = Saved { written_ms, ..saved(Grant { end_ms, lifetime_ms, ..grant() }) };
        let now = after_reboot(read);
        if let Ok(rest) = made_up.rest(now) {
            prop_assert!(written_ms <= since_1970(now.wall));
            for rest in rest {
                prop_assert!(rest.timeout.left_ms <= lifetime_ms);
                prop_assert!(rest.timeout.left_ms <= end_ms - since_1970(now.wall));
            }
        }
    }

    #[test]
    fn a_damaged_file_restores_nothing(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let whole = KIND.seal(&saved(grant())).unwrap().into_bytes();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(text) = String::from_utf8(bytes.clone()) {
            prop_assert_eq!(KIND.open::<Saved>(&text).is_ok(), bytes == whole);
        }
    }
}

#[test]
fn what_came_since_a_trial_began_is_not_in_what_is_kept_and_what_went_is_neither() {
    let before = Saved::of(&ledger(&[(1, 0, 100), (2, 0, 100), (3, 0, 50)]), &[], "a", Now::at_secs(0));
    // The first was renewed, the second revoked, the fourth let in.
    let after = Saved::of(&ledger(&[(1, 10, 500), (3, 0, 50), (4, 10, 100)]), &[], "a", Now::at_secs(20));
    let kept = after.within(&before);
    let ends: Vec<_> = kept.grants.iter().map(|grant| (grant.address, grant.end_ms)).collect();
    let expected: Vec<_> = before
        .grants
        .iter()
        .filter(|g| g.address != IpAddr::from([203, 0, 113, 2]))
        .map(|g| (g.address, g.end_ms))
        .collect();
    assert_eq!(ends, expected);
    assert!(kept.rest(Now::at_secs(20)).is_ok());
}
