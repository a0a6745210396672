//! A client's profile: which gateway, which app, where the secrets are.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::document;
use crate::config::problem::{Place, Problem, Problems};
use crate::config::profile_knocks::{self, Way};
use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::config::settings::TwoFactorStep;
use crate::config::shared_keys::{Said, TWO_FACTOR_STEPS};
use crate::units::{AppName, HttpPath, Lifetime, Secret, UserName};

pub(super) const KEYS: &[&str] = &[
    "host",
    "http_port",
    "https_port",
    "http_post_path",
    "http_post_path_secret",
    "http_post_path_every",
    "https_post_path",
    "app",
    "user",
    "access_key_http",
    "access_key_https",
    "step1",
    "proof_address",
    "totp",
    "2fa_step",
    "pin",
    "ca",
    "family",
    "duration",
    "check",
    "then",
];
pub(super) const SOURCES: &[&str] = &["key", "file", "command", "keyring"];
pub(super) const CODE_SOURCES: &[&str] = &["secret", "file", "command"];
const MAX_WORDS: usize = 100;
/// Usual time that a path lasts, where it changes.
const EVERY_SECS: u64 = 300;
const MAX_PINS: usize = 16;

/// Everything a client must know to knock.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The gateway's name or address.
    pub host: String,
    /// The port of step 1.
    pub http_port: u16,
    /// The port of step 2.
    pub https_port: u16,
    /// The secret path of step 1.
    pub http_path: HttpPath,
    /// How the path of step 1 changes with time, if it does: where the secret is, and how often.
    pub path_rotation: Option<(SecretSource, Lifetime)>,
    /// The secret path of step 2.
    pub https_path: HttpPath,
    /// What to open.
    pub app: AppName,
    /// Who knocks: a user's name or a key's id.
    pub user: Option<UserName>,
    /// Where the key of step 1 is.
    pub key_http: SecretSource,
    /// Where the key of step 2 is.
    pub key_https: SecretSource,
    /// What step 1 is sent.
    pub step1: Step1Form,
    /// Which address a proof is made for.
    pub proof_address: ProofAddress,
    /// Where one-time codes come from.
    pub codes: CodeSource,
    /// At which step a code is given unasked; none where the gateway asks for it, at step 2.
    pub code_step: Option<TwoFactorStep>,
    /// Which certificate of step 2 is the right one.
    pub trust: Trust,
    /// Over which address families to knock.
    pub families: Families,
    /// How long the service shall stay open.
    pub duration: Option<Lifetime>,
    /// The TCP port of the service.
    pub check: Option<u16>,
    /// What to start afterwards: a program and its arguments; may be empty.
    pub then: Vec<String>,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the profile.
    Inline(Secret),
    /// In the first line of a file.
    File(PathBuf),
    /// In the first line that a program prints.
    Command(Vec<String>),
    /// In the system's keyring, by its name there.
    Keyring(String),
    /// What comes out of this file descriptor, up to the first line's end.
    Descriptor(u32),
    /// In somebody's head.
    Prompt,
}

/// Where one-time codes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeSource {
    /// Somebody types them.
    Prompt,
    /// They are made from the secret, in base32.
    Secret(Secret),
    /// They are made from a 2FA file, as `knock-agent enroll` writes it.
    File(PathBuf),
    /// A program prints them.
    Command(Vec<String>),
}

/// What step 1 is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step1Form {
    /// The key itself.
    Key,
    /// A proof of the key, which tells it to nobody.
    Proof,
}

/// Which address a proof is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofAddress {
    /// The client's own where the gateway is bound to see it.
    Auto,
    /// None: the proof is good from anywhere, once.
    None,
    /// This one, such as that of the NAT in front.
    Is(IpAddr),
}

/// Which certificate is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One that the system's authorities signed for the host.
    System,
    /// One that those in the file signed for the host.
    Ca(PathBuf),
    /// One with any of these SHA-256 hashes, of the certificate or of its public key.
    Pins(Vec<[u8; 32]>),
}

/// Over which address families to knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Over each that the host has.
    Both,
    /// Over IPv4 only.
    V4,
    /// Over IPv6 only.
    V6,
}

/// Reads a profile; `file` is only named in problems, `home` stands for `~/`.
///
/// # Errors
/// Every problem found, in the order of the file, if at least one is an error.
pub fn parse_profile(file: &str, text: &str, home: Option<&Path>) -> Result<(Way, Vec<Problem>), Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::default();
    let profile = read(text, home, &mut report);
    let warnings = report.finish(file, text)?;
    match profile {
        Some(profile) => Ok((profile, warnings)),
        // Whoever reads nothing has reported why.
        None => Err(Problems { list: warnings, more: 1 }),
    }
}

fn read(text: &str, home: Option<&Path>, report: &mut Report) -> Option<Way> {
    let root = document(text, "write `host: ...` and the other keys of a profile", report)?;
    let section = Section::open("", Spot::at("", Place::START), &root, report)?;
    if section.get("sequence").is_some() {
        return profile_knocks::read(&section, home, report).map(Way::Knocks);
    }
    of_steps(&section, home, report).map(Box::new).map(Way::Steps)
}

fn of_steps(section: &Section<'_>, home: Option<&Path>, report: &mut Report) -> Option<Profile> {
    section.refuse_unknown(KEYS, &["sequence"], "a profile of its own", report);
    let host = host(section, report);
    let mut port = |key: &str, usual: u16| {
        Said::read(section.get(key), |f| f.number::<u16>(1..=65_535, report)).or(usual)
    };
    let (http_port, https_port) = (port("http_port", 80), port("https_port", 443));
    let mut path = |key: &str| {
        let field = needed_secret(section, key, "/...", report)?;
        field.parse_text::<HttpPath>(report)
    };
    let (http_path, https_path) = (path("http_post_path"), path("https_post_path"));
    let app = needed(section, "app", "ssh", report).and_then(|f| f.parse_text::<AppName>(report));
    let user = Said::read(section.get("user"), |f| f.parse_text::<UserName>(report).map(Some)).or(None);
    let mut key =
        |key: &str| Said::read(section.secret(key), |f| source(f, home, report)).or(SecretSource::Prompt);
    let (key_http, key_https) = (key("access_key_http"), key("access_key_https"));
    let path_secret =
        Said::read(section.secret("http_post_path_secret"), |f| source(f, home, report).map(Some));
    let path_every = Said::read(section.get("http_post_path_every"), |f| f.lifetime(report).map(Some));
    let path_rotation = match (path_secret.or(None)?, path_every.or(None)?) {
        (None, None) => None,
        (Some(secret), every) => Some((secret, every.or_else(|| Lifetime::from_secs(EVERY_SECS).ok())?)),
        (None, Some(_)) => {
            section.missing("http_post_path_secret", "{file: ~/.config/knock-agent/path}", report);
            return None;
        }
    };
    let forms = [("key", Step1Form::Key), ("proof", Step1Form::Proof)];
    let step1 = Said::read(section.get("step1"), |f| {
        let form = f.choice(&forms, report)?;
        if form == Step1Form::Proof && section.get("user").is_none() {
            report.error_fix(
                f.spot(),
                "a proof says whose it is",
                "add `user: <name>`, or the id of your key",
            );
        }
        Some(Some(form))
    })
    .or(None);
    let proof_address = Said::read(section.get("proof_address"), |f| proof_address(f, report));
    let codes = Said::read(section.get("totp"), |f| codes(f, home, report)).or(CodeSource::Prompt);
    let code_step =
        Said::read(section.get("2fa_step"), |f| f.choice(TWO_FACTOR_STEPS, report).map(Some)).or(None);
    let trust = trust(section, home, report);
    let families = families(section, report);
    let duration = Said::read(section.get("duration"), |f| f.lifetime(report).map(Some)).or(None);
    let check = Said::read(section.get("check"), |f| f.number::<u16>(1..=65_535, report).map(Some)).or(None);
    let then = then(section, report);
    let user = user?;
    let usual = if user.is_some() { Step1Form::Proof } else { Step1Form::Key };
    Some(Profile {
        host: host?,
        http_port: http_port?,
        https_port: https_port?,
        http_path: http_path?,
        path_rotation,
        https_path: https_path?,
        app: app?,
        user,
        key_http: key_http?,
        key_https: key_https?,
        step1: step1?.unwrap_or(usual),
        proof_address: proof_address.or(ProofAddress::Auto)?,
        codes: codes?,
        code_step: code_step?,
        trust: trust?,
        families: families?,
        duration: duration?,
        check: check?,
        then: then?,
    })
}

fn needed<'n>(section: &Section<'n>, key: &str, example: &str, report: &mut Report) -> Option<Field<'n>> {
    let field = section.get(key);
    if field.is_none() {
        section.missing(key, example, report);
    }
    field
}

fn needed_secret<'n>(
    section: &Section<'n>,
    key: &str,
    example: &str,
    report: &mut Report,
) -> Option<Field<'n>> {
    needed(section, key, example, report)?;
    section.secret(key)
}

/// The address families of a profile.
pub(super) fn families(section: &Section<'_>, report: &mut Report) -> Option<Families> {
    let words = [("both", Families::Both), ("4", Families::V4), ("6", Families::V6)];
    Said::read(section.get("family"), |f| {
        f.parse_with(
            |text| {
                let found = words.iter().find(|(word, _)| *word == text).map(|(_, family)| *family);
                found.ok_or("write both, 4 or 6")
            },
            report,
        )
    })
    .or(Families::Both)
}

/// The program that a profile starts afterwards.
pub(super) fn then(section: &Section<'_>, report: &mut Report) -> Option<Vec<String>> {
    Said::read(section.get("then"), |f| words_of(f, report)).or(Vec::new())
}

/// The gateway of a profile.
pub(super) fn host(section: &Section<'_>, report: &mut Report) -> Option<String> {
    let field = needed(section, "host", "gate.example.com", report)?;
    let text = field.text(report)?;
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:%_".contains(&b)) && text.len() <= 253;
    if !legal {
        let fix = "write it without brackets, port or path; an international name in its xn-- form";
        report.error_fix(field.spot(), "this is not a host name or address", fix);
        return None;
    }
    Some(text.to_owned())
}

/// The words of a command: a list, or one word.
fn words_of(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let words = field.each(MAX_WORDS, report, |item, report| {
        item.parse_with(|text| Ok::<_, &str>(text.to_owned()), report)
    })?;
    let words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    if let [only] = words.as_slice()
        && only.contains(' ')
    {
        let fix = "write a list, such as [pass, show, knock/home]; there is no shell";
        report.error_fix(field.spot(), "a command is a list of words", fix);
        return None;
    }
    Some(words)
}

/// A path as a profile writes it.
fn path_of(field: &Field<'_>, home: Option<&Path>, report: &mut Report) -> Option<PathBuf> {
    let text = field.text(report)?;
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) | (None, _) => PathBuf::from(text),
    };
    if !path.is_absolute() {
        report.error_fix(
            field.shown_spot(),
            "this path depends on where you are",
            "write the whole path, or one that begins with ~/",
        );
        return None;
    }
    Some(path)
}

/// The one key of a section, which says where a secret is.
fn place<'n>(
    field: &Field<'n>,
    known: &[&'static str],
    report: &mut Report,
) -> Option<(&'static str, Field<'n>)> {
    let section = field.section(report)?;
    let said: Vec<_> = known.iter().filter_map(|key| Some((*key, section.secret(key)?))).collect();
    match said.as_slice() {
        [(key, field)] if section.entries().count() == 1 => Some((*key, field.clone())),
        _ => {
            // Not by name: it may be a secret that got into the wrong place.
            let fix = format!("write exactly one of {} below it", known.join(", "));
            report.error_fix(section.spot(), "this does not say in one way where the secret is", fix);
            None
        }
    }
}

/// Where a secret is, as a profile says it.
pub(super) fn source(field: &Field<'_>, home: Option<&Path>, report: &mut Report) -> Option<SecretSource> {
    if !field.is_section() {
        let text = field.text(report)?;
        return Some(if text == "prompt" { SecretSource::Prompt } else { inline(text) });
    }
    let (key, field) = place(field, SOURCES, report)?;
    match key {
        "file" => path_of(&field, home, report).map(SecretSource::File),
        "command" => words_of(&field, report).map(SecretSource::Command),
        "keyring" => Some(SecretSource::Keyring(field.text(report)?.to_owned())),
        _ => field.text(report).map(inline),
    }
}

fn inline(text: &str) -> SecretSource {
    SecretSource::Inline(Secret::new(text.to_owned()))
}

fn codes(field: &Field<'_>, home: Option<&Path>, report: &mut Report) -> Option<CodeSource> {
    if !field.is_section() {
        return field.choice(&[("prompt", ())], report).map(|()| CodeSource::Prompt);
    }
    let (key, at) = place(field, CODE_SOURCES, report)?;
    if key != "command" {
        report.warning(
            field.key(),
            "who gets hold of this computer has both factors",
            "write `totp: prompt` to type codes that another device shows",
        );
    }
    match key {
        "file" => path_of(&at, home, report).map(CodeSource::File),
        "command" => words_of(&at, report).map(CodeSource::Command),
        _ => Some(CodeSource::Secret(Secret::new(at.text(report)?.to_owned()))),
    }
}

fn proof_address(field: &Field<'_>, report: &mut Report) -> Option<ProofAddress> {
    field.parse_with(
        |text| match text {
            "auto" => Ok(ProofAddress::Auto),
            "none" => Ok(ProofAddress::None),
            _ => text.parse().map(ProofAddress::Is).map_err(|_| "write auto, none, or an address"),
        },
        report,
    )
}

fn trust(section: &Section<'_>, home: Option<&Path>, report: &mut Report) -> Option<Trust> {
    match (section.get("pin"), section.get("ca")) {
        (None, None) => Some(Trust::System),
        (None, Some(field)) => path_of(&field, home, report).map(Trust::Ca),
        (Some(field), None) => {
            let pins = field.each(MAX_PINS, report, |item, report| item.parse_with(pin, report))?;
            Some(Trust::Pins(pins.into_iter().map(|(pin, _)| pin).collect()))
        }
        (Some(_), Some(ca)) => {
            report.error_fix(
                ca.key(),
                "a certificate is known by its pin or by its issuer",
                "keep one of them",
            );
            None
        }
    }
}

/// A SHA-256 hash as `openssl x509 -fingerprint -sha256` or curl's `--pinnedpubkey` write it.
fn pin(text: &str) -> Result<[u8; 32], &'static str> {
    let wrong = "write a SHA-256 hash: 64 hexadecimal digits, with or without colons, or sha256//<base64>";
    let text = text.trim();
    if let Some(base64) = text.strip_prefix("sha256//") {
        return base64_32(base64).ok_or(wrong);
    }
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if digits.len() != 64 {
        return Err(wrong);
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong)?;
        let plain = pair.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| plain).ok_or(wrong)?;
    }
    Ok(out)
}

fn base64_32(text: &str) -> Option<[u8; 32]> {
    let (mut held, mut bits, mut out) = (0_u32, 0_u32, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 0xff).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    out.try_into().ok()
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
