//! `knock-agent enroll`.

mod otpauth;
mod picture;
mod sequence;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use qrcodegen::{QrCode, QrCodeEcc};
use sequence::SequenceArgs;
use zeroize::Zeroizing;

use crate::cli::{Exit, Printer};
use crate::sys::{clock, files, process, random, terminal};
use crate::units::{AccessKey, Secret, TotpKind, TotpSecret, UserName};

/// What RFC 4226 recommends, in bytes.
const SECRET: usize = 20;
const TRIES: usize = 3;
const MODE: u32 = 0o600;

/// The arguments of `enroll`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Makes a new secret for one-time codes, shows it as a QR code for an authenticator app, and saves it once the app has shown a right code. The file is used as `totp: {file: ...}` of a user, or, in `2fa_config_folder`, for the access key it is named after. All files have mode 0600; the daemon reads one by its group: chgrp knock-agent FILE, chmod 0640 FILE.\n\nExamples:\n  knock-agent enroll alice --file /etc/knock-agent/alice.json\n  knock-agent enroll alice --folder /etc/knock-agent/2fa       asks for the access key, which names the file\n  knock-agent enroll alice --png alice.png --uri\n  knock-agent enroll --sequence laptop --app ssh     a client whose knocks change with time (docs/sequences.md)"
)]
pub struct EnrollArgs {
    /// Whose codes these are; shown in the authenticator app
    #[arg(value_name = "USER", required_unless_present = "sequence", conflicts_with = "sequence")]
    pub user: Option<UserName>,

    /// The client of a sequence, instead of a user.
    #[command(flatten)]
    pub sequence: SequenceArgs,

    /// Where the secret is saved [default: USER.json]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "sequence"])]
    pub file: Option<PathBuf>,

    /// The 2FA folder, where the file is named after an access key, which is asked for
    #[arg(long, value_name = "DIR", conflicts_with = "sequence")]
    pub folder: Option<PathBuf>,

    /// Also write the QR code as PNG
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,

    /// Also write the QR code as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Also print the otpauth URI, which is the secret
    #[arg(long)]
    pub uri: bool,

    /// Which gateway the codes are for; shown in the authenticator app
    #[arg(long, value_name = "NAME", default_value = "knock-agent", value_parser = otpauth::issuer)]
    pub issuer: String,

    /// Seconds that a code is shown; few apps can do other than 30
    #[arg(long, value_name = "SECONDS", default_value_t = 30, conflicts_with = "sequence", value_parser = clap::value_parser!(u64).range(15..=300))]
    pub interval: u64,

    /// Digits of a code; few apps can do other than 6
    #[arg(long, value_name = "N", default_value_t = 6, conflicts_with = "sequence", value_parser = clap::value_parser!(u8).range(6..=8))]
    pub digits: u8,

    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

/// Makes a secret, has one code checked, and saves it.
#[must_use]
pub fn run(args: EnrollArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = enroll(&args, &mut err).unwrap_or_else(|exit| exit);
    err.finish(exit)
}

fn enroll(args: &EnrollArgs, err: &mut Printer) -> Result<Exit, Exit> {
    process::harden(false)
        .map_err(|errno| fail(err, Exit::Bug, format!("the process cannot be protected: {errno}")))?;
    let user = match (&args.sequence.sequence, &args.user) {
        (Some(client), _) => return sequence::enroll(client, args, err),
        (None, Some(user)) => user,
        (None, None) => return Err(fail(err, Exit::Usage, "whose codes shall these be?".to_owned())),
    };
    let (target, shown) = target(user, args, err)?;
    // The name of a file in the folder is an access key.
    let pictures = [&args.png, &args.svg].into_iter().flatten();
    let mut all: Vec<(&Path, String)> = vec![(&target, shown.clone())];
    all.extend(pictures.map(|path| (path.as_path(), path.display().to_string())));
    are_free(&all, args.force, err)?;
    let kind = TotpKind { interval: args.interval, digits: args.digits, ..TotpKind::default() };
    let bytes =
        Zeroizing::new(random::bytes::<SECRET>().map_err(|error| fail(err, Exit::Io, error.to_string()))?);
    let totp = TotpSecret::new(bytes.as_slice(), kind).map_err(|e| fail(err, Exit::Bug, e.to_string()))?;
    let base32 = otpauth::base32(bytes.as_slice());
    let uri = otpauth::uri(&args.issuer, user.as_str(), &base32, kind);
    let code = QrCode::encode_text(uri.expose(), QrCodeEcc::Medium)
        .map_err(|error| fail(err, Exit::Bug, error.to_string()))?;
    show(&code, &by_hand(&base32, kind), args.uri.then_some(&uri))?;
    let made = pictures_of(args, &code, err)?;
    check(&totp, err)?;
    save(&target, &json(&base32, kind), args.force)
        .map_err(|error| fail(err, Exit::Io, format!("{shown}: {error}")))?;
    made.keep();
    err.line(format!("saved in {shown}"));
    if args.folder.is_some() {
        err.line("`knock-agent check-config` says whose keys need codes by their files; a reload puts that in force");
    }
    Ok(Exit::Done)
}

/// A new secret for somebody's codes, shown as QR code and checked by one code: the file that keeps it.
///
/// # Errors
/// The exit code, after its reason was printed; then nothing is saved.
pub(super) fn new_codes(user: &UserName, err: &mut Printer) -> Result<Zeroizing<Vec<u8>>, Exit> {
    let kind = TotpKind::default();
    let bytes =
        Zeroizing::new(random::bytes::<SECRET>().map_err(|error| fail(err, Exit::Io, error.to_string()))?);
    let totp = TotpSecret::new(bytes.as_slice(), kind).map_err(|e| fail(err, Exit::Bug, e.to_string()))?;
    let base32 = otpauth::base32(bytes.as_slice());
    let uri = otpauth::uri("knock-agent", user.as_str(), &base32, kind);
    let code = QrCode::encode_text(uri.expose(), QrCodeEcc::Medium)
        .map_err(|error| fail(err, Exit::Bug, error.to_string()))?;
    show(&code, &by_hand(&base32, kind), None)?;
    check(&totp, err)?;
    Ok(json(&base32, kind))
}

/// Whether all files can be made.
fn are_free(all: &[(&Path, String)], force: bool, err: &mut Printer) -> Result<(), Exit> {
    for (n, (path, name)) in all.iter().enumerate() {
        if all.iter().skip(n + 1).any(|(other, _)| other == path) {
            return Err(fail(err, Exit::Usage, format!("{name} is named twice")));
        }
        if !force && std::fs::symlink_metadata(path).is_ok() {
            return Err(fail(err, Exit::Usage, format!("{name} is there already: --force overwrites it")));
        }
    }
    Ok(())
}

fn fail(err: &mut Printer, exit: Exit, message: String) -> Exit {
    err.line(format!("error: {message}"));
    exit
}

/// Where the secret goes, and what that is called in messages.
fn target(user: &UserName, args: &EnrollArgs, err: &mut Printer) -> Result<(PathBuf, String), Exit> {
    let Some(folder) = &args.folder else {
        let file = args.file.clone().unwrap_or_else(|| format!("{user}.json").into());
        let shown = file.display().to_string();
        return Ok((file, shown));
    };
    let key = ask("the access key that needs a code (not shown):")
        .map_err(|error| fail(err, Exit::Usage, format!("the access key: {error}")))?;
    let is_key = key.expose().parse::<AccessKey>().is_ok_and(|parsed| parsed.plain().is_some());
    if !is_key || key.expose().contains(['/', '\0']) || key.expose().starts_with('.') {
        return Err(fail(err, Exit::Usage, "this is not an access key that can name a file".to_owned()));
    }
    let name = Zeroizing::new(format!("{}.json", key.expose()));
    Ok((folder.join(name.as_str()), format!("{}/<access key>.json", folder.display())))
}

fn ask(question: &str) -> io::Result<Secret> {
    match terminal::ask(question)? {
        Some(answer) => Ok(answer),
        None => terminal::read_line(),
    }
}

/// What is typed where no camera is.
fn by_hand(base32: &Secret, kind: TotpKind) -> Secret {
    Secret::new(format!("by hand: {}  ({} s, {} digits)", base32.expose(), kind.interval, kind.digits))
}

fn show(code: &QrCode, by_hand: &Secret, uri: Option<&Secret>) -> Result<(), Exit> {
    let mut out = Printer::stdout();
    match (picture::width(code), terminal::size()) {
        (needs, Some((_, columns))) if columns < needs => {
            out.line(format!("The QR code takes {needs} columns and this terminal has {columns}: make it wider and begin anew, or go on without."));
        }
        _ => out.line(picture::blocks(code).trim_end_matches('\n')),
    }
    out.line(by_hand.expose());
    if let Some(uri) = uri {
        out.line(uri.expose());
    }
    match out.finish(Exit::Done) {
        Exit::Done => Ok(()),
        exit => Err(exit),
    }
}

/// Files with a secret that nobody can use until all is saved: if it is not, they go again.
#[derive(Default)]
struct Made<'a>(Vec<&'a Path>);

impl<'a> Made<'a> {
    fn save(&mut self, path: &'a Path, content: &[u8], force: bool, err: &mut Printer) -> Result<(), Exit> {
        save(path, content, force)
            .map_err(|error| fail(err, Exit::Io, format!("{}: {error}", path.display())))?;
        self.0.push(path);
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = files::remove(path);
        }
    }
}

fn pictures_of<'a>(args: &'a EnrollArgs, code: &QrCode, err: &mut Printer) -> Result<Made<'a>, Exit> {
    let mut made = Made::default();
    let png = args.png.as_deref().map(|path| (path, picture::png(code)));
    let svg = args.svg.as_deref().map(|path| (path, picture::svg(code).into_bytes()));
    for (path, content) in png.into_iter().chain(svg) {
        made.save(path, &Zeroizing::new(content), args.force, err)?;
    }
    Ok(made)
}

fn save(path: &Path, content: &[u8], force: bool) -> io::Result<()> {
    if force { files::replace(path, MODE, content) } else { files::create(path, MODE, content) }
}

/// The layout of knock-port's 2FA files.
fn json(base32: &Secret, kind: TotpKind) -> Zeroizing<Vec<u8>> {
    let digits = if kind.digits == 6 { String::new() } else { format!(", \"digits\": {}", kind.digits) };
    let text = format!("{{\"secret\": \"{}\", \"interval\": {}{digits}}}\n", base32.expose(), kind.interval);
    Zeroizing::new(text.into_bytes())
}

/// Whether the device shows the codes of this secret; if not, it is told that nothing is saved.
fn check(totp: &TotpSecret, err: &mut Printer) -> Result<(), Exit> {
    let outcome = right_code(totp, err);
    if outcome.is_err() {
        err.line("error: nothing is saved");
    }
    outcome
}

fn right_code(totp: &TotpSecret, err: &mut Printer) -> Result<(), Exit> {
    for left in (0..TRIES).rev() {
        let typed = ask("the code that the app shows:")
            .map_err(|error| fail(err, Exit::Found, format!("no code was typed: {error}")))?;
        let code = Secret::new(typed.expose().split_whitespace().collect());
        if totp.is_current(&code, clock::now().wall) {
            return Ok(());
        }
        let again = if left > 0 { ": try the next one" } else { ": are both clocks right?" };
        err.line(format!("this is not the code of the moment{again}"));
    }
    Err(Exit::Found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_what_the_daemon_reads() {
        let kind = TotpKind::default();
        let secret = otpauth::base32(b"12345678901234567890");
        let text = String::from_utf8(json(&secret, kind).to_vec()).unwrap();
        assert_eq!(text, "{\"secret\": \"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\", \"interval\": 30}\n");
        let read = TotpSecret::parse(&text).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(59);
        assert_eq!(read.code_at(at).expose(), "287082");
        let eight = TotpKind { digits: 8, interval: 60, ..kind };
        let text = String::from_utf8(json(&secret, eight).to_vec()).unwrap();
        assert_eq!(TotpSecret::parse(&text).unwrap().interval(), 60);
    }
}
