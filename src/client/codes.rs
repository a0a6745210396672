//! One-time codes, none of them twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::secrets::{self, Ask, SecretError};
use crate::config::CodeSource;
use crate::units::{Secret, TotpError, TotpKind, TotpSecret};

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The one there is has been used, for the other address family.
    #[error("a one-time code works once, and it was used for the other address family")]
    Used,
    /// There is none.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The secret that codes are made from is none.
    #[error("the secret of the one-time codes: {0}")]
    Totp(#[from] TotpError),
    /// What was given is no code.
    #[error("a one-time code has 6 to 8 digits")]
    NotACode,
}

/// Where codes come from, and what has been used of them.
pub struct Codes {
    source: CodeSource,
    /// The last time step of which a code was made.
    last: Option<u64>,
    /// The last code that somebody else made.
    given: Option<Secret>,
    /// How many codes a knock takes.
    wanted: u8,
    /// How often somebody may still be asked in this knock.
    questions: u8,
}

impl Codes {
    /// Codes from this source.
    #[must_use]
    pub fn new(source: CodeSource) -> Self {
        Self { source, last: None, given: None, wanted: 1, questions: 1 }
    }

    /// Whether the profile says where codes come from, so that one may be needed.
    #[must_use]
    pub fn are_expected(&self) -> bool {
        self.source != CodeSource::Prompt
    }

    /// A new knock begins, for which somebody may be asked so often again.
    pub fn begin(&mut self, questions: u8) {
        (self.wanted, self.questions) = (questions, questions);
    }

    /// A code that was not used yet; waits up to two time steps for one that it can make itself.
    ///
    /// # Errors
    /// [`CodeError`] says why there is none.
    pub fn next(&mut self, ask: &dyn Ask) -> Result<Secret, CodeError> {
        let code = match &self.source {
            CodeSource::Prompt if self.questions == 0 => return Err(CodeError::Used),
            CodeSource::Prompt => {
                self.questions -= 1;
                // Where each step wants one, nobody is to type the same twice.
                let question = match (self.wanted, self.questions) {
                    (2, 1) => "one-time code of step 1:",
                    (2, 0) => "the next one-time code, of step 2:",
                    _ => "one-time code:",
                };
                let typed = ask.ask(question)?;
                Secret::new(typed.expose().split_whitespace().collect())
            }
            CodeSource::Command(words) => {
                let code = secrets::command(words)?;
                if self.given.as_ref() == Some(&code) {
                    return Err(CodeError::Used);
                }
                self.given = Some(code.clone());
                code
            }
            CodeSource::Secret(text) => {
                let made = TotpSecret::from_base32(text.expose(), TotpKind::default())?;
                return Ok(self.made(&made));
            }
            CodeSource::File(path) => {
                let made = TotpSecret::parse(secrets::file(path)?.expose())?;
                return Ok(self.made(&made));
            }
        };
        let digits = code.expose().bytes().all(|b| b.is_ascii_digit());
        if digits && (6..=8).contains(&code.expose().len()) { Ok(code) } else { Err(CodeError::NotACode) }
    }

    fn made(&mut self, secret: &TotpSecret) -> Secret {
        let interval = secret.interval();
        let present = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()) / interval;
        let step = wanted(self.last, present());
        // The gateway takes the code of the next time step as well, as clocks may be one off.
        while present().saturating_add(1) < step {
            std::thread::sleep(Duration::from_millis(200));
        }
        self.last = Some(step);
        secret.code_at(UNIX_EPOCH + Duration::from_secs(step.saturating_mul(interval)))
    }
}

/// The time step whose code is due now and was not used.
fn wanted(last: Option<u64>, present: u64) -> u64 {
    last.map_or(present, |last| present.max(last.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Person;

    impl Ask for Person {
        fn ask(&self, _: &str) -> Result<Secret, SecretError> {
            Ok(Secret::new("123 456".to_owned()))
        }
    }

    #[test]
    fn a_person_is_asked_once_for_each_knock() {
        let mut codes = Codes::new(CodeSource::Prompt);
        assert_eq!(codes.next(&Person).unwrap().expose(), "123456");
        assert!(matches!(codes.next(&Person), Err(CodeError::Used)));
        codes.begin(1);
        assert!(codes.next(&Person).is_ok());
    }

    #[test]
    fn a_code_is_never_made_twice() {
        assert_eq!(wanted(None, 100), 100);
        assert_eq!(wanted(Some(100), 100), 101);
        assert_eq!(wanted(Some(90), 100), 100);
        let mut codes =
            Codes::new(CodeSource::Secret(Secret::new("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP".into())));
        let (one, two) = (codes.next(&Person).unwrap(), codes.next(&Person).unwrap());
        assert_ne!(one, two);
    }

    #[test]
    fn what_a_program_prints_must_be_a_new_code() {
        let words = |text: &str| CodeSource::Command(vec!["echo".to_owned(), text.to_owned()]);
        let mut codes = Codes::new(words("123456"));
        assert!(codes.next(&Person).is_ok());
        assert!(matches!(codes.next(&Person), Err(CodeError::Used)));
        assert!(matches!(Codes::new(words("12345a")).next(&Person), Err(CodeError::NotACode)));
    }
}
