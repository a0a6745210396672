//! `knock-agent hash-key`.

use std::io::{BufRead, IsTerminal};

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use clap::Args;

use crate::cli::{Exit, Printer};
use crate::sys::{process, random, terminal};
use crate::units::{AccessKey, KeyCheck, Secret, Verifier, id_of};

/// What OWASP recommends for argon2id: 19 MiB, two passes, one lane.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The characters of generated keys (RFC 4648 base32 in lower case): five bits each.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID: usize = 8;
/// 140 bits.
const SECRET: usize = 28;

/// The arguments of `hash-key`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The key comes from the terminal, or as one line from standard input; never from the command line, which everybody on the host can read.\nA generated key is stored as a fast hash; one that a person chose as argon2id, and its user must be named in the request (`user=alice`).\n\nExamples:\n  knock-agent hash-key --generate\n  knock-agent hash-key < key.txt"
)]
pub struct HashKeyArgs {
    /// Make a new random key
    #[arg(long)]
    pub generate: bool,
}

/// Prints what the configuration stores instead of a key.
#[must_use]
pub fn run(args: HashKeyArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = match process::harden(false) {
        Err(errno) => {
            err.line(format!("error: the process cannot be protected: {errno}"));
            Exit::Bug
        }
        Ok(()) if args.generate => generate(&mut err),
        Ok(()) => hash(&mut err),
    };
    err.finish(exit)
}

fn generate(err: &mut Printer) -> Exit {
    let key = match new_key() {
        Ok(key) => key,
        Err(error) => {
            err.line(format!("error: {error}"));
            return Exit::Io;
        }
    };
    let mut out = Printer::stdout();
    out.line(format!("key for the client:         {}", key.expose()));
    out.line(format!("stored in the configuration: \"{}\"", stored(&key)));
    out.finish(Exit::Done)
}

fn hash(err: &mut Printer) -> Exit {
    let key = match read_key() {
        Ok(key) => key,
        Err(message) => {
            err.line(format!("error: {message}"));
            return Exit::Usage;
        }
    };
    let parsed = key.expose().parse::<AccessKey>();
    if let Err(error) = &parsed {
        err.line(format!("error: {error}"));
        return Exit::Usage;
    }
    if !parsed.is_ok_and(|parsed| matches!(parsed.check, KeyCheck::Plain(_))) {
        err.line("error: this is a hash already");
        return Exit::Usage;
    }
    let mut out = Printer::stdout();
    if id_of(key.expose()).is_some() {
        out.line(stored(&key));
    } else {
        match slow(&key) {
            Ok(hash) => out.line(hash),
            Err(error) => {
                err.line(format!("error: {error}"));
                return Exit::Bug;
            }
        }
    }
    out.finish(Exit::Done)
}

/// A new key: its id, a dot, and what is secret.
pub(super) fn new_key() -> std::io::Result<Secret> {
    let random = zeroize::Zeroizing::new(random::bytes::<{ ID + SECRET }>()?);
    let mut text = String::with_capacity(ID + 1 + SECRET);
    for (at, byte) in random.iter().enumerate() {
        if at == ID {
            text.push('.');
        }
        text.push(letter(*byte));
    }
    Ok(Secret::new(text))
}

/// A new secret path of a step: 120 bits.
pub(super) fn new_path() -> std::io::Result<Secret> {
    let random = zeroize::Zeroizing::new(random::bytes::<24>()?);
    let mut text = String::with_capacity(1 + random.len());
    text.push('/');
    random.iter().for_each(|byte| text.push(letter(*byte)));
    Ok(Secret::new(text))
}

/// Of thirty-two letters: the five lowest bits are as random as the byte.
fn letter(byte: u8) -> char {
    LETTERS.get(usize::from(byte & 31)).copied().unwrap_or(b'a').into()
}

/// What the configuration stores instead of a generated key.
pub(super) fn stored(key: &Secret) -> String {
    let digits: String = Verifier::of(key).expose().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("$ka1${}${digits}", id_of(key.expose()).unwrap_or_default())
}

fn slow(key: &Secret) -> Result<String, String> {
    let salt = random::bytes::<16>().map_err(|error| error.to_string())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(key.expose().as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

fn read_key() -> Result<Secret, String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
        let key = Secret::new(line.trim_end_matches(['\r', '\n']).to_owned());
        drop(zeroize::Zeroizing::new(line));
        return Ok(key);
    }
    let ask = |question: &str| {
        let typed = terminal::ask(question).map_err(|error| format!("the terminal: {error}"))?;
        typed.ok_or_else(|| "there is no terminal to ask at".to_owned())
    };
    let (first, second) = (ask("key (not shown):")?, ask("the same again:")?);
    if first == second { Ok(first) } else { Err("the two are not the same".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_fits_its_stored_form() {
        let key = new_key().unwrap();
        assert_eq!(key.expose().len(), 37);
        let plain: AccessKey = key.expose().parse().unwrap();
        let stored: AccessKey = stored(&key).parse().unwrap();
        assert!(plain.same_as(&stored) && plain.id.is_some() && plain.id == stored.id);
        assert_ne!(new_key().unwrap(), key);
    }

    #[test]
    fn a_slow_hash_is_one_that_configurations_take() {
        let hash = slow(&Secret::new("a key by hand".to_owned())).unwrap();
        assert!(matches!(hash.parse::<AccessKey>().unwrap().check, KeyCheck::Slow(_)), "{hash}");
    }
}
