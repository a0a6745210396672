//! The files that the daemon keeps for itself: what is read is no more than what was written, and nothing opens for
//! longer than it was granted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "for tests and fuzzers only: a law that is broken panics"
)]

use std::time::{Duration, SystemTime};

use super::last_good::LastGood;
use super::sealed::Kind;
use super::state::Saved;
use super::used_knocks::Kept;
use crate::knock::UsedUp;
use crate::laws::choices::Choices;
use crate::units::Now;

/// The first byte says which file it is and whether it is sealed as the rest is, or the rest is what is sealed.
pub fn kept(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let what = choices.below(5);
    let sealed = choices.flag();
    let secs = u64::from(choices.number());
    let Ok(text) = std::str::from_utf8(choices.rest()) else { return };
    match what {
        0 => {
            if let Some(saved) = open::<Saved>(super::state::KIND, text, sealed) {
                grants(saved, secs);
            }
        }
        1 => {
            if let Some(plan) = open::<LastGood>(super::last_good::KIND, text, sealed) {
                let again: LastGood =
                    super::last_good::KIND.open(&super::last_good::KIND.seal(&plan).unwrap()).unwrap();
                assert!(again == plan);
            }
        }
        2 => {
            if let Ok(kept) = serde_json::from_str::<Kept>(text) {
                let again = serde_json::to_string(&kept).unwrap();
                assert_eq!(serde_json::from_str::<Kept>(&again).unwrap(), kept);
            }
        }
        3 => {
            if let Ok(used) = serde_json::from_str::<UsedUp>(text) {
                let again = serde_json::to_string(&used).unwrap();
                assert_eq!(serde_json::from_str::<UsedUp>(&again).unwrap(), used);
            }
        }
        _ => {
            if let Ok(request) = serde_json::from_str::<super::control::Request>(text) {
                let again = serde_json::to_string(&request).unwrap();
                assert_eq!(serde_json::from_str::<super::control::Request>(&again).unwrap(), request);
            }
        }
    }
}

fn open<T: serde::Serialize + serde::de::DeserializeOwned>(
    kind: Kind,
    text: &str,
    sealed: bool,
) -> Option<T> {
    if sealed {
        // Whoever has not got the very text cannot have made it.
        return kind.open(text).ok();
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    kind.open(&kind.seal(&value).ok()?).ok()
}

/// At any moment, what is left of a grant ends when it was to end, and is no longer than it was given.
fn grants(saved: Saved, secs: u64) {
    let again: Saved = super::state::KIND.open(&super::state::KIND.seal(&saved).unwrap()).unwrap();
    assert_eq!(again, saved);
    let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(saved.written_ms));
    let Some(wall) = written.and_then(|written| written.checked_add(Duration::from_secs(secs))) else {
        return;
    };
    let now = Now { boot: Duration::from_secs(3), wall };
    let now_ms = saved.written_ms.saturating_add(secs.saturating_mul(1_000));
    if let Ok(networks) = saved.networks(now) {
        for network in networks {
            let ends =
                saved.allowed.iter().filter(|was| was.network == network.network && was.app == network.app);
            let left = network.until.map(|until| until.saturating_sub(now.boot));
            let within = ends.into_iter().any(|was| match (was.end_ms, left) {
                (None, None) => true,
                (Some(end), Some(left)) => now_ms.saturating_add(ms(left)) <= end,
                (None, Some(_)) | (Some(_), None) => false,
            });
            assert!(within, "{network:?}");
        }
    }
    let was = saved.grants.clone();
    let Ok(rest) = saved.rest(now) else { return };
    for grant in rest {
        assert!(grant.timeout.left_ms > 0 && grant.timeout.left_ms <= grant.timeout.total_ms, "{grant:?}");
        let within = was.iter().any(|was| {
            was.app == grant.app
                && was.address == grant.address
                && now_ms.saturating_add(grant.timeout.left_ms) <= was.end_ms
        });
        assert!(within, "{grant:?}");
    }
    // A clock that was set back makes nothing longer.
    let before = Now { wall: SystemTime::UNIX_EPOCH, ..now };
    if again.written_ms > 0 {
        assert!(again.rest(before).is_err());
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
