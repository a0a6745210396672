use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;

use super::{HttpPath, Lifetime, Secret};

/// What every token is made over; another version of the scheme would say another number.
const SCHEME: &str = "knock-agent path 1";
/// Bytes of a token, each written as two hexadecimal digits.
const TOKEN: usize = 16;
/// The shortest secret, in characters: whoever sees a path could try shorter ones.
const LEAST: usize = 16;
const MOST: usize = 128;
/// How long a path lasts, in seconds: shorter ones cost more changes than they are worth, longer ones protect little.
const EVERY: std::ops::RangeInclusive<u64> = 10..=86_400;
/// The longest prefix that leaves room for `/` and a token in a path.
const LONGEST_PREFIX: usize = 100 - 1 - 2 * TOKEN;

/// Paths of step 1 that change with time: `<prefix>/<token>`, where the token is the first 128 bits, in lower-case hexadecimal
/// digits, of an HMAC-SHA256 over the number of the time step, by a secret that gateway and clients share.
#[derive(Clone, PartialEq, Eq)]
pub struct PathRotation {
    secret: Secret,
    every: Lifetime,
}

/// Why there can be no [`PathRotation`]; never repeats the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRotationError {
    /// Too short or too long a secret.
    #[error(
        "this has {0} characters: write {LEAST} to {MOST} random ones, as `openssl rand -hex 16` makes them"
    )]
    Secret(usize),
    /// Too quick or too slow.
    #[error("paths last 10s to 24h, not {0}")]
    Every(Lifetime),
}

impl PathRotation {
    /// Paths by this secret, a new one every so often.
    ///
    /// # Errors
    /// [`PathRotationError`].
    pub fn new(secret: Secret, every: Lifetime) -> Result<Self, PathRotationError> {
        let length = secret.expose().chars().count();
        if !(LEAST..=MOST).contains(&length) {
            return Err(PathRotationError::Secret(length));
        }
        if !EVERY.contains(&every.as_secs()) {
            return Err(PathRotationError::Every(every));
        }
        Ok(Self { secret, every })
    }

    /// Whether a path leaves room for a token behind it.
    #[must_use]
    pub fn fits(prefix: &HttpPath) -> bool {
        prefix.expose().len() <= LONGEST_PREFIX
    }

    /// The number of the time step of a moment: whole periods since 1970 began, UTC.
    #[must_use]
    pub fn step(&self, wall: SystemTime) -> u64 {
        since_1970(wall).as_secs() / self.every.as_secs().max(1)
    }

    /// How long the path of a moment is still the newest one.
    #[must_use]
    pub fn left(&self, wall: SystemTime) -> Duration {
        let end = Duration::from_secs(self.step(wall).saturating_add(1).saturating_mul(self.every.as_secs()));
        end.saturating_sub(since_1970(wall))
    }

    /// The path of a moment, which a client knocks at.
    #[must_use]
    pub fn path(&self, prefix: &HttpPath, wall: SystemTime) -> HttpPath {
        self.path_of(prefix, self.step(wall))
    }

    /// The paths that are taken at a moment: those of its time step, the one before and the one after, for clocks that differ.
    ///
    /// Each path keeps its place while it is taken, so that from one step to the next only one of the places changes.
    #[must_use]
    pub fn taken(&self, prefix: &HttpPath, wall: SystemTime) -> Vec<HttpPath> {
        let now = self.step(wall);
        let mut steps = [now.saturating_sub(1), now, now.saturating_add(1)];
        steps.sort_by_key(|step| step % 3);
        steps.into_iter().map(|step| self.path_of(prefix, step)).collect()
    }

    fn path_of(&self, prefix: &HttpPath, step: u64) -> HttpPath {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose().as_bytes());
        let tag = hmac::sign(&key, format!("{SCHEME}\n{step}").as_bytes());
        let token: String = tag.as_ref().iter().take(TOKEN).map(|byte| format!("{byte:02x}")).collect();
        prefix.joined(&token)
    }
}

impl fmt::Debug for PathRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** every {}", self.every)
    }
}

fn since_1970(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rotation(every: u64) -> PathRotation {
        let secret = Secret::new("a-secret-of-the-paths".to_owned());
        PathRotation::new(secret, Lifetime::from_secs(every).unwrap()).unwrap()
    }

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn prefix() -> HttpPath {
        "/door".parse().unwrap()
    }

    #[test]
    fn tokens_are_those_that_openssl_makes() {
        // printf 'knock-agent path 1\n6000000' | openssl dgst -sha256 -hmac a-secret-of-the-paths
        let path = rotation(300).path(&prefix(), at(1_800_000_000));
        assert_eq!(path.expose(), "/door/d98a683c2a17c5c9acdbb54f15880354");
    }

    #[test]
    fn secrets_and_times_have_bounds_and_prefixes_too() {
        let new = |secret: &str, every| {
            PathRotation::new(Secret::new(secret.to_owned()), Lifetime::from_secs(every).unwrap())
        };
        assert_eq!(new("fifteen-letters", 300), Err(PathRotationError::Secret(15)));
        assert_eq!(new(&"x".repeat(129), 300), Err(PathRotationError::Secret(129)));
        assert!(matches!(new("sixteen-letters!", 9), Err(PathRotationError::Every(_))));
        assert!(matches!(new("sixteen-letters!", 86_401), Err(PathRotationError::Every(_))));
        let path = |length: usize| format!("/{}", "x".repeat(length - 1)).parse::<HttpPath>().unwrap();
        assert!(PathRotation::fits(&path(67)) && !PathRotation::fits(&path(68)));
        assert_eq!(rotation(300).path(&path(67), at(0)).expose().len(), 100);
        assert!(!format!("{:?}", rotation(300)).contains("secret"));
    }

    proptest! {
        #[test]
        fn the_step_before_and_the_one_after_are_taken_and_no_others(secs in 86_400_u64..4_000_000_000, every in 10_u64..86_400) {
            let rotation = rotation(every);
            let taken = rotation.taken(&prefix(), at(secs));
            prop_assert_eq!(taken.len(), 3);
            let begin = rotation.step(at(secs)) * every;
            for (moment, good) in [
                (begin.saturating_sub(every + 1), begin < every + 1),
                (begin.saturating_sub(every), true),
                (begin.saturating_sub(1), true),
                (begin, true),
                (begin + every, true),
                (begin + 2 * every - 1, true),
                (begin + 2 * every, false),
            ] {
                prop_assert_eq!(taken.contains(&rotation.path(&prefix(), at(moment))), good, "{}", moment);
            }
            let left = rotation.left(at(secs));
            prop_assert!(left <= Duration::from_secs(every) && !left.is_zero());
            let next = rotation.taken(&prefix(), at(secs) + left);
            let changed = taken.iter().zip(&next).filter(|(a, b)| a != b).count();
            prop_assert_eq!(changed, 1, "one place changes from a step to the next");
        }
    }
}
