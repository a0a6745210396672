//! Knocks that change with time, none of them twice.

use std::time::{Duration, SystemTime};

use crate::client::secrets::{self, Ask, SecretError};
use crate::config::TimedKnocks;
use crate::units::{
    Knock, KnockSecret, KnockSecretError, KnockShape, Lifetime, Secret, knocks, knocks_of_code, step_at,
};

/// Why there are no knocks; tells no secret.
#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    /// Those there are have been used, for the other address family.
    #[error("the knocks of a code work once, and they were used for the other address family")]
    Used,
    /// The secret or the PIN cannot be had.
    #[error("{what}: {source}")]
    Secret {
        /// Which.
        what: &'static str,
        /// Why.
        source: SecretError,
    },
    /// The secret is none.
    #[error(transparent)]
    Knock(#[from] KnockSecretError),
    /// What was typed is no code.
    #[error("a code of an authenticator app has 6 digits")]
    NotACode,
}

/// What knocks are made from, and what has been used of it.
pub struct OneTime {
    from: From,
    pin: Option<Secret>,
    shape: KnockShape,
    every: Lifetime,
    /// The last time step whose knocks were handed out.
    last: Option<u64>,
}

enum From {
    Secret(KnockSecret),
    /// Of which there is one; none once it was used.
    Code(Option<Secret>),
}

impl OneTime {
    /// Gets secret and PIN, asking for them where the profile says so.
    ///
    /// # Errors
    /// [`OneTimeError`] for what is missing.
    pub fn new(of: &TimedKnocks, ask: &dyn Ask) -> Result<Self, OneTimeError> {
        let fetch = |source, what| {
            secrets::fetch(source, what, ask).map_err(|source| OneTimeError::Secret { what, source })
        };
        let from = match &of.secret {
            Some(source) => From::Secret(KnockSecret::from_base32(fetch(source, "secret")?.expose())?),
            None => {
                let what = "code";
                let typed = ask
                    .ask("the code of the authenticator app:")
                    .map_err(|source| OneTimeError::Secret { what, source })?;
                From::Code(Some(code(&typed)?))
            }
        };
        let pin = of.pin.as_ref().map(|source| fetch(source, "PIN")).transpose()?;
        Ok(Self { from, pin, shape: of.shape, every: of.every, last: None })
    }

    /// Knocks that were not handed out yet: those of the present time step, or of the next one, which the gateway takes
    /// too as clocks may be one off; waits where that is needed.
    ///
    /// # Errors
    /// [`OneTimeError::Used`] where there was one code only.
    pub fn unused(&mut self) -> Result<Vec<Knock>, OneTimeError> {
        let pin = self.pin.as_ref();
        match &mut self.from {
            From::Code(code) => {
                let code = code.take().ok_or(OneTimeError::Used)?;
                Ok(knocks_of_code(&code, pin, self.shape.count))
            }
            From::Secret(secret) => {
                let present = || step_at(SystemTime::now(), self.every);
                let step = self.last.map_or(present(), |last| present().max(last.saturating_add(1)));
                while present().saturating_add(1) < step {
                    std::thread::sleep(Duration::from_millis(200));
                }
                self.last = Some(step);
                Ok(knocks(secret, pin, step, &self.shape))
            }
        }
    }
}

fn code(typed: &Secret) -> Result<Secret, OneTimeError> {
    let code: String = typed.expose().split_whitespace().collect();
    let digits = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
    let code = Secret::new(code);
    if digits { Ok(code) } else { Err(OneTimeError::NotACode) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;
    use crate::units::KnockKind;

    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    struct Person;

    impl Ask for Person {
        fn ask(&self, question: &str) -> Result<Secret, SecretError> {
            let answer = if question.contains("PIN") { "1234" } else { "287 082" };
            Ok(Secret::new(answer.to_owned()))
        }
    }

    #[test]
    fn the_knocks_of_a_time_step_are_handed_out_once() {
        let secret = Some(SecretSource::Inline(Secret::new(SECRET.to_owned())));
        let of = TimedKnocks::usual(KnockKind::Secret, secret, None).unwrap();
        let mut one_time = OneTime::new(&of, &Person).unwrap();
        let first = one_time.unused().unwrap();
        let step = one_time.last.unwrap();
        assert!(step_at(SystemTime::now(), of.every) - step <= 1);
        let secret = KnockSecret::from_base32(SECRET).unwrap();
        assert_eq!(first, knocks(&secret, None, step, &of.shape));
        assert_eq!(one_time.unused().unwrap(), knocks(&secret, None, step + 1, &of.shape));
    }

    #[test]
    fn a_typed_code_and_a_typed_pin_make_the_knocks_of_knock_knock_once() {
        let mut of = TimedKnocks::usual(KnockKind::KnockKnock, None, Some(SecretSource::Prompt)).unwrap();
        of.shape.count = 8;
        let mut one_time = OneTime::new(&of, &Person).unwrap();
        let text: Vec<String> = one_time.unused().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(text[..2], ["udp/39480/13", "udp/38056/1"]);
        assert!(matches!(one_time.unused(), Err(OneTimeError::Used)));
        assert!(
            code(&Secret::new("12345".to_owned())).is_err()
                && code(&Secret::new("12345x".to_owned())).is_err()
        );
    }
}
