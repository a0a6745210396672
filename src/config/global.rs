//! The `global` section.

use std::path::PathBuf;

use crate::config::knock_log;
use crate::config::outside::Outside;
use crate::config::proxy::ProxyDraft;
use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::config::sequence::{self, SequenceDraft};
use crate::config::settings::{DefaultInput, Global, LockoutRule, Step1Proof, Step1Reply, TwoFactorStep};
use crate::config::shared_keys::{Said, TWO_FACTOR_STEPS, allow, interfaces};
use crate::units::{AppName, HttpPath, HttpPathError, IfName, Lifetime, Mark, PathRotation};

/// The keys this version knows.
pub(super) const KEYS: &[&str] = &[
    "http_post_path",
    "https_post_path",
    "step1_2_rate_limit_per_minute",
    "interface_ext",
    "interface_int",
    "2fa_config_folder",
    "2fa_step",
    "healthcheck_app_name",
    "step1_reply",
    "step1_max_bytes",
    "step1_segments",
    "mark",
    "ipv6_prefix",
    "token_window",
    "state_file",
    "adopt_established",
    "default_input",
    "allow",
    "users",
    "users_folder",
    "step1_proof",
    "lockout",
    "proxy_header",
    "proxy_step2",
    "sequence",
    "steps",
    "notify",
    "metrics",
    "log_knocks",
    "log_knocks_group",
    "time_sequence",
    "http_post_path_secret",
    "http_post_path_every",
];

/// Shorter paths of step 1 are warned of: they do not last at thousands of guesses a second.
const FOUND_BY_TRYING: usize = 8;
const RATE_LIMIT: u32 = 10;
const STEP1_MAX_BYTES: u16 = 500;
const STEP1_SEGMENTS: u8 = 3;
const TOKEN_WINDOW_SECS: u64 = 60;

/// What the global section says, with the places that other checks need.
pub(super) struct GlobalDraft<'n> {
    /// The section itself, if everything in it is right.
    pub settings: Option<Global>,
    /// The name a monitor uses and where it is written.
    pub healthcheck: Option<(&'n str, Spot)>,
    /// The path of step 1 and the size of its packets.
    pub step1: Option<(HttpPath, Spot, u16)>,
    /// Interfaces apps fall back to; empty where none are given, none where they are wrong.
    pub interface_ext: Option<Vec<IfName>>,
    /// Interfaces towards LAN hosts, likewise.
    pub interface_int: Option<Vec<IfName>>,
    /// The step of 2FA apps fall back to.
    pub two_factor_step: TwoFactorStep,
    /// Whether there are users, so that an app needs no keys of its own.
    pub with_users: bool,
    /// Whether there are knocks that change with time, likewise.
    pub timed: bool,
    /// The section of the users.
    pub users: Option<Field<'n>>,
    /// The folder with a file for each user.
    pub users_folder: Option<(PathBuf, Field<'n>)>,
    /// What is said of a proxy in front.
    pub proxy: ProxyDraft<'n>,
    /// The sequences that open what is not an app's.
    pub sequences: Vec<SequenceDraft>,
    /// Where it is said that there are no steps, if it is.
    pub without_steps: Option<Spot>,
    /// Whether step 1 takes proofs only.
    pub proofs_only: bool,
}

impl GlobalDraft<'_> {
    /// Stands for a section that is not there: whatever an app takes from it is not known.
    pub fn unknown() -> Self {
        Self {
            settings: None,
            healthcheck: None,
            step1: None,
            interface_ext: None,
            interface_int: None,
            two_factor_step: TwoFactorStep::Http,
            with_users: false,
            timed: false,
            users: None,
            users_folder: None,
            proxy: ProxyDraft::unknown(),
            sequences: Vec::new(),
            without_steps: None,
            proofs_only: false,
        }
    }
}

impl GlobalDraft<'_> {
    /// Has all that concerns the path of step 1 reckon with one that changes.
    pub fn follow(&mut self, rotation: Option<&PathRotation>) {
        let Some(rotation) = rotation else { return };
        if let Some((path, ..)) = &mut self.step1 {
            // All of them are as long.
            *path = rotation.path(path, std::time::UNIX_EPOCH);
        }
        if let Some(settings) = &mut self.settings {
            settings.step1_paths.clear();
        }
    }
}

/// Reads the global section.
pub(super) fn read<'n>(section: &Section<'n>, outside: &dyn Outside, report: &mut Report) -> GlobalDraft<'n> {
    section.refuse_unknown(KEYS, crate::config::app::KEYS, "the section of an app", report);

    let steps =
        Said::read(section.get("steps"), |f| f.choice(&[("on", true), ("off", false)], report)).or(true);
    let mut path_of = |key, unused| match section.get(key) {
        None if steps == Some(false) => section.get("steps").zip(unused).map(|(at, path)| (path, at)),
        _ => path(section, key, report),
    };
    let (http, https) = (
        path_of("http_post_path", "/no-step-1".parse().ok()),
        path_of("https_post_path", "/no-step-2".parse().ok()),
    );
    if let (Some((first, first_at)), Some((second, second_at))) = (&http, &https)
        && first == second
    {
        report.conflict(
            second_at.spot(),
            &first_at.spot(),
            "both steps have the same path",
            "give https_post_path a path of its own",
        );
    }
    if let (Some((path, at)), Some(_)) = (&http, section.get("http_post_path"))
        // One that changes with time has a secret of its own at its end.
        && section.get("http_post_path_secret").is_none()
        && path.expose().trim_start_matches('/').len() < FOUND_BY_TRYING
    {
        report.warning(
            at.spot(),
            format!("a path of less than {FOUND_BY_TRYING} characters is found by trying: the kernel takes every guess, and a wrong one can be told from a right one"),
            "make it longer, of letters and digits by chance; words are found as well",
        );
    }
    let rate = Said::read(section.get("step1_2_rate_limit_per_minute"), |f| f.number(1..=100_000, report));
    let interface_ext = interfaces(section, "interface_ext", report);
    if matches!(interface_ext, Said::Nothing) {
        section.missing("interface_ext", "eth0", report);
    }
    let interface_ext = interface_ext.or(Vec::new());
    let interface_int = interfaces(section, "interface_int", report).or(Vec::new());
    let two_factor_folder =
        Said::read(section.get("2fa_config_folder"), |f| codes(f, outside, report).map(Some));
    let two_factor_step = Said::read(section.get("2fa_step"), |f| f.choice(TWO_FACTOR_STEPS, report));
    let two_factor_step = two_factor_step.or(TwoFactorStep::Http);
    let token_window = match section.get("token_window") {
        None => Lifetime::from_secs(TOKEN_WINDOW_SECS).ok(),
        Some(field) => field.lifetime(report),
    };
    let healthcheck_field = section.get("healthcheck_app_name");
    let healthcheck = Said::read(healthcheck_field.clone(), |f| app_name_text(f, report).map(Some)).or(None);
    let replies = &[("silent", Step1Reply::Silent), ("http", Step1Reply::Http)];
    let step1_reply = Said::read(section.get("step1_reply"), |f| f.choice(replies, report));
    let step1_reply = step1_reply.or(Step1Reply::Silent);
    let proxy = ProxyDraft::read(section, step1_reply, report);
    let max_bytes = Said::read(section.get("step1_max_bytes"), |f| f.number(100..=1400, report));
    let max_bytes = max_bytes.or(STEP1_MAX_BYTES);
    let segments = Said::read(section.get("step1_segments"), |f| f.number(1..=16, report));
    let mark = Said::read(section.get("mark"), |f| f.parse_with(Mark::parse_optional, report));
    let ipv6_prefix = Said::read(section.get("ipv6_prefix"), |f| f.number(32..=128, report));
    let state_file = Said::read(section.get("state_file"), |f| absolute_file(f, report).map(Some));
    let adopt = Said::read(section.get("adopt_established"), |f| f.switch(report));
    let inputs = &[("accept", DefaultInput::Accept), ("drop", DefaultInput::Drop)];
    let default_input = Said::read(section.get("default_input"), |f| f.choice(inputs, report));
    let allow = allow(section, report).or(Vec::new());
    let proofs = &[
        ("accept", Step1Proof::Accept),
        ("require", Step1Proof::Require),
        ("require_address", Step1Proof::RequireAddress),
    ];
    let step1_proof = Said::read(section.get("step1_proof"), |f| f.choice(proofs, report));
    let step1_proof = step1_proof.or(Step1Proof::Accept);
    let proofs_only = step1_proof.is_some_and(|proof| proof != Step1Proof::Accept);
    let lockout = Said::read(section.get("lockout"), |f| crate::config::lockout::read(f, report));
    let users = section.get("users");
    let folder_field = section.get("users_folder");
    let users_folder = Said::read(folder_field.clone(), |f| absolute_file(f, report).map(Some)).or(None);

    let sequences = sequence::read(section, false, None, report);
    let knock_log = knock_log::read(section, report);

    let step1 = match (&http, max_bytes) {
        (Some((path, at)), Some(bytes)) => Some((path.clone(), at.spot(), bytes)),
        _ => None,
    };
    let healthcheck_spot = match (healthcheck, healthcheck_field) {
        (Some(Some(name)), Some(field)) => Some((name, field.spot())),
        _ => None,
    };
    let settings = (|| {
        Some(Global {
            path_rotation: None,
            step1_paths: vec![http.as_ref()?.0.clone()],
            http_post_path: http?.0,
            https_post_path: https?.0,
            step1_2_rate_limit_per_minute: rate.or(RATE_LIMIT)?,
            interface_ext: interface_ext.clone()?,
            interface_int: interface_int.clone()?,
            two_factor_folder: two_factor_folder.or(None)?,
            two_factor_step: two_factor_step?,
            token_window: token_window?,
            healthcheck_app_name: healthcheck?.map(str::to_owned),
            step1_proof: step1_proof?,
            users_folder: users_folder.clone()?,
            lockout: lockout.or(LockoutRule::usual())?,
            steps: steps?,
            knock_log: knock_log?,
            step1_reply: step1_reply?,
            step1_max_bytes: max_bytes?,
            step1_segments: segments.or(STEP1_SEGMENTS)?,
            mark: mark.or(Some(Mark::DEFAULT))?,
            ipv6_prefix: ipv6_prefix.or(128)?,
            state_file: state_file.or(None)?,
            adopt_established: adopt.or(true)?,
            default_input: default_input.or(DefaultInput::Accept)?,
            allow: allow?,
            proxy: None,
        })
    })();
    GlobalDraft {
        settings,
        healthcheck: healthcheck_spot,
        step1,
        interface_ext,
        interface_int,
        two_factor_step: two_factor_step.unwrap_or(TwoFactorStep::Http),
        with_users: users.is_some() || folder_field.is_some(),
        timed: section.get("time_sequence").is_some(),
        users,
        users_folder: users_folder.flatten().zip(folder_field),
        proxy,
        sequences: sequences.unwrap_or_default(),
        without_steps: section.get("steps").map(|field| field.spot()).filter(|_| steps == Some(false)),
        proofs_only,
    }
}

/// Refuses a key whose feature is not there yet.
pub(super) fn refuse_later(section: &Section<'_>, key: &str, report: &mut Report) {
    if let Some(field) = section.get(key) {
        report.error_fix(
            field.key(),
            "this version does not do that yet",
            "remove the key; it comes with a later release",
        );
    }
}

fn path<'n>(section: &Section<'n>, key: &str, report: &mut Report) -> Option<(HttpPath, Field<'n>)> {
    let Some(field) = section.secret(key) else {
        section.missing(key, "/a-secret-path-of-your-own", report);
        return None;
    };
    let text = field.text(report)?;
    match text.parse::<HttpPath>() {
        Ok(path) => {
            if path.expose().split('/').any(|part| matches!(part, "." | "..")) {
                report.warning(
                    field.spot(),
                    "a part of it is `.` or `..`: curl and browsers send it without, and do not get in",
                    "leave such parts out, here and in what clients have",
                );
            }
            Some((path, field))
        }
        Err(error @ (HttpPathError::Syntax | HttpPathError::Length(_) | HttpPathError::Shipped)) => {
            report.error(field.spot(), error.to_string());
            None
        }
    }
}

fn file(field: &Field<'_>, report: &mut Report) -> Option<PathBuf> {
    let text = field.text(report)?;
    if text.chars().any(char::is_control) {
        report.error(field.spot(), "a file name has no control characters");
        return None;
    }
    Some(PathBuf::from(text))
}

/// The folder of 2FA files.
fn codes(field: &Field<'_>, outside: &dyn Outside, report: &mut Report) -> Option<PathBuf> {
    let folder = file(field, report)?;
    if let Err(why) = outside.codes(&folder) {
        let message = format!("{why}, and no key would need a one-time code");
        report.error_fix(field.spot(), message, "correct it, make the folder, or leave the line out");
    }
    Some(folder)
}

/// A file that the daemon and the commands of an operator, in whatever directory, must agree on.
pub(super) fn absolute_file(field: &Field<'_>, report: &mut Report) -> Option<PathBuf> {
    let path = file(field, report)?;
    if path.is_relative() || path.file_name().is_none() {
        report.error(field.spot(), "write the whole path of a file, such as /var/lib/knock-agent/grants");
        return None;
    }
    Some(path)
}

fn app_name_text<'n>(field: &Field<'n>, report: &mut Report) -> Option<&'n str> {
    let text = field.text(report)?;
    match text.parse::<AppName>() {
        Ok(_) => Some(text),
        Err(error) => {
            report.error(field.spot(), error.to_string());
            None
        }
    }
}
