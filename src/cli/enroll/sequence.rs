//! `knock-agent enroll --sequence`: a client whose knocks change with time.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

use super::{EnrollArgs, SECRET, are_free, ask, by_hand, check, fail, otpauth, pictures_of, show};
use crate::cli::flags::ConfigArg;
use crate::cli::load::{self, Exposure};
use crate::cli::outside::Disk;
use crate::cli::{Exit, Printer};
use crate::config::{Outside, SecretFrom, Settings, TimeSequence, UserFile, check_pin};
use crate::sys::{files, private, random};
use crate::units::{
    AppName, KnockKind, Lifetime, Protocol, Secret, Timestamp, TotpKind, TotpSecret, UserName,
};

/// A PIN with its line's end, in bytes.
const MAX_PIN: u64 = 1_024;
/// Who may look into a folder that is made: the daemon by its group.
const FOLDER_MODE: u32 = 0o750;

/// The flags about clients of sequences.
#[derive(Args, Clone, Debug)]
pub struct SequenceArgs {
    /// Make a client of this name whose knocks change with time, as `global.time_sequence` says
    #[arg(long, value_name = "NAME", requires = "app")]
    pub sequence: Option<UserName>,

    /// What the client's knocks open; may be given several times
    #[arg(long, value_name = "APP", conflicts_with = "user")]
    pub app: Vec<AppName>,

    /// How many knocks the client sends, 1 to 8 [default: 4; with knock-knock 3]
    #[arg(long, value_name = "N", conflicts_with = "user", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub knocks: Option<u8>,

    /// Take the PIN from the first line of this file, instead of asking for it
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub pin_file: Option<PathBuf>,

    /// Use no PIN
    #[arg(long, conflicts_with_all = ["user", "pin_file"])]
    pub no_pin: bool,

    /// How long it is open for the client [default: as the app says]
    #[arg(long, value_name = "DURATION", conflicts_with = "user")]
    pub duration: Option<Lifetime>,

    /// From when on the client's knocks open nothing
    #[arg(long, value_name = "DATE", conflicts_with = "user")]
    pub expires: Option<Timestamp>,

    /// The gateway as the client calls it, for the client's profile
    #[arg(long, value_name = "HOST", conflicts_with = "user")]
    pub host: Option<String>,

    /// Also write the client's profile, which goes into ~/.config/knock-agent/ there
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub profile: Option<PathBuf>,

    /// The gateway's configuration.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// The disk, with one more client.
struct With(Option<(PathBuf, UserFile)>);

impl Outside for With {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        Disk.secret(from)
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        // It is made with the first client.
        let mut files = if files::exists(folder) { Disk.users(folder)? } else { Vec::new() };
        if let Some((_, new)) = self.0.as_ref().filter(|(place, _)| place == folder) {
            files.retain(|file| file.name != new.name);
            files.push(new.clone());
            files.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(files)
    }
}

/// Makes the secret, shows what the client needs, checks all of it, and saves it.
pub(super) fn enroll(name: &UserName, args: &EnrollArgs, err: &mut Printer) -> Result<Exit, Exit> {
    let settings = settings(&args.sequence, None, err)?;
    let Some(timed) = &settings.time_sequence else {
        let message = format!(
            "{} has no clients of sequences: add `time_sequence: {{}}` to `global`",
            args.sequence.file.config.display()
        );
        return Err(fail(err, Exit::BadConfig, message));
    };
    let target = timed.folder.join(format!("{name}.yaml"));
    let more = [&args.png, &args.svg, &args.sequence.profile].into_iter().flatten();
    let all: Vec<(&Path, String)> = std::iter::once(&target)
        .chain(more)
        .map(|path| (path.as_path(), path.display().to_string()))
        .collect();
    are_free(&all, args.force, err)?;
    let bytes =
        Zeroizing::new(random::bytes::<SECRET>().map_err(|error| fail(err, Exit::Io, error.to_string()))?);
    let base32 = otpauth::base32(bytes.as_slice());
    let pin = pin(&args.sequence, err)?;
    let file = client_file(&args.sequence, &base32, pin.as_ref());
    let new = UserFile {
        name: name.to_string(),
        file: target.display().to_string(),
        text: Zeroizing::new(file.expose().to_owned()),
    };
    // As the daemon will read it.
    let settings = self::settings(&args.sequence, Some((timed.folder.clone(), new)), err)?;
    let profile = profile(&settings, name, &args.sequence, &base32, pin.is_some()).ok_or(Exit::Bug)?;
    let knock_knock = timed.kind == KnockKind::KnockKnock;
    let usual = TotpKind::default();
    let uri = otpauth::uri(&args.issuer, name.as_str(), &base32, usual);
    let shown = if knock_knock { &uri } else { &profile };
    let code = QrCode::encode_text(shown.expose(), QrCodeEcc::Medium)
        .map_err(|error| fail(err, Exit::Bug, error.to_string()))?;
    let hand = if knock_knock { by_hand(&base32, usual) } else { Secret::new(profile_hint(name)) };
    show(&code, &hand, (args.uri && knock_knock).then_some(&uri))?;
    let mut out = Printer::stdout();
    out.line(profile.expose().trim_end_matches('\n'));
    if out.finish(Exit::Done) != Exit::Done {
        return Err(Exit::Io);
    }
    let mut made = pictures_of(args, &code, err)?;
    if knock_knock {
        let totp =
            TotpSecret::new(bytes.as_slice(), usual).map_err(|e| fail(err, Exit::Bug, e.to_string()))?;
        check(&totp, err)?;
    }
    if !files::exists(&timed.folder) {
        files::make_directory(&timed.folder, FOLDER_MODE)
            .map_err(|error| fail(err, Exit::Io, format!("{}: {error}", timed.folder.display())))?;
    }
    let profile_file = args.sequence.profile.as_deref();
    if let Some(path) = profile_file {
        made.save(path, profile.expose().as_bytes(), args.force, err)?;
    }
    // The daemon takes it over as soon as it is there.
    made.save(&target, file.expose().as_bytes(), args.force, err)?;
    made.keep();
    for path in profile_file.into_iter().chain([target.as_path()]) {
        err.line(format!("saved in {}", path.display()));
    }
    Ok(Exit::Done)
}

fn profile_hint(name: &UserName) -> String {
    format!(
        "the client's profile (the QR code holds it too), for ~/.config/knock-agent/{name}.yaml there, mode 0600:"
    )
}

/// The configuration with one more client, after what is wrong with it was told.
fn settings(
    args: &SequenceArgs,
    new: Option<(PathBuf, UserFile)>,
    err: &mut Printer,
) -> Result<Settings, Exit> {
    let last = new.is_some();
    let read = load::read_with(&args.file.config, None, Exposure::Warn, &With(new));
    let checked = read.map_err(|refused| {
        load::print_refused(&refused, err);
        refused.exit
    })?;
    if last {
        load::print_all(&checked.warnings, 0, err);
    }
    Ok(checked.settings)
}

fn pin(args: &SequenceArgs, err: &mut Printer) -> Result<Option<Secret>, Exit> {
    let pin = match &args.pin_file {
        _ if args.no_pin => return Ok(None),
        Some(path) => {
            let text = private::read(path, MAX_PIN)
                .map_err(|error| fail(err, Exit::Usage, format!("{}: {error}", path.display())))?;
            Secret::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => {
            let failed = |error: io::Error, err: &mut Printer| {
                fail(err, Exit::Usage, format!("the PIN: {error}; --no-pin, where none is wanted"))
            };
            let first =
                ask("a PIN for the client (not shown; nothing for none):").map_err(|e| failed(e, err))?;
            if first.expose().is_empty() {
                return Ok(None);
            }
            let again = ask("once more:").map_err(|error| failed(error, err))?;
            if first != again {
                return Err(fail(err, Exit::Usage, "these are two different PINs".to_owned()));
            }
            first
        }
    };
    check_pin(&pin).map_err(|message| fail(err, Exit::Usage, message.to_owned()))?;
    Ok(Some(pin))
}

/// What the daemon reads.
fn client_file(args: &SequenceArgs, base32: &Secret, pin: Option<&Secret>) -> Secret {
    let apps: Vec<String> = args.app.iter().map(|app| quoted(app.as_str())).collect();
    let mut text = format!("apps: [{}]\nsecret: {}\n", apps.join(", "), base32.expose());
    if let Some(pin) = pin {
        text.push_str(&format!("pin: {}\n", quoted(pin.expose())));
    }
    if let Some(knocks) = args.knocks {
        text.push_str(&format!("knocks: {knocks}\n"));
    }
    if let Some(duration) = args.duration {
        text.push_str(&format!("duration: {duration}\n"));
    }
    if let Some(expires) = args.expires {
        text.push_str(&format!("expires: {expires}\n"));
    }
    Secret::new(text)
}

/// YAML in single quotes, where only they mean something.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What `knock-agent knock` reads on the client's machine.
fn profile(
    settings: &Settings,
    name: &UserName,
    args: &SequenceArgs,
    base32: &Secret,
    with_pin: bool,
) -> Option<Secret> {
    let timed = settings.time_sequence.as_ref()?;
    let client = timed.clients.iter().find(|client| client.name == *name)?;
    let example = || "gate.example.com   # the gateway's name or address".to_owned();
    let host = args.host.as_deref().map_or_else(example, quoted);
    let mut text = format!("host: {host}\nsequence:\n  secret: {}\n", base32.expose());
    if with_pin {
        text.push_str("  pin: prompt\n");
    }
    text.push_str(&format!("  knocks: {}\n", client.knocks));
    text.push_str(&shape(timed));
    let app = client.apps.first().and_then(|&app| settings.apps.get(app))?;
    let tcp = app.protocol.each().contains(&Protocol::Tcp);
    if let Some(port) = app.ports.first().filter(|_| tcp) {
        text.push_str(&format!("check: {}\n", port.first()));
    }
    Some(Secret::new(text))
}

/// What is not the same with every gateway.
fn shape(timed: &TimeSequence) -> String {
    if timed.kind == KnockKind::KnockKnock {
        return "  kind: knock-knock\n".to_owned();
    }
    let lengths = if timed.lengths { "  lengths: true\n" } else { "" };
    format!("  ports: {}\n  protocol: {}\n{lengths}  every: {}\n", timed.ports, timed.protocol, timed.every)
}
