//! The files that `init` leaves: all of them, or none.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::InitArgs;
use super::answers::{self, Answers, Chance};
use super::ask::own_tls;
use crate::cli::{Exit, Printer, load};
use crate::config::{Outside, SecretFrom, StepPorts, UserFile, parse};
use crate::service::certificate::{self, self_signed};
use crate::sys::{clock, files, signals, users};
use crate::units::Secret;

const DAYS: u32 = 3_650;
/// As much as all files together have, and more.
const ROOM: usize = 16 << 10;

/// A file to write.
struct Planned {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
    /// Whether the daemon has to read it, which may be a user of its own.
    for_daemon: bool,
    mode: u32,
}

/// Refuses, before anybody has answered in vain, where something is there already, where nothing can be written, and where
/// certificate and key of before cannot be used.
///
/// # Errors
/// The exit code, after it was said.
pub fn is_possible(args: &InitArgs, err: &mut Printer) -> Result<(), Exit> {
    let named = [Some(&args.file.config), args.profile.as_ref()];
    for path in named.into_iter().flatten() {
        refuse(path, args.force, err)?;
        let folder = nearest(path);
        try_folder(&folder).map_err(|error| unwritable(&folder, &error, err))?;
    }
    let (cert, key) = args.cert.clone().zip(args.key.clone()).unwrap_or_else(|| own_tls(args));
    let given = args.cert.is_some();
    match (files::exists(&cert), files::exists(&key)) {
        _ if args.force && !given => Ok(()),
        (false, false) if !given => Ok(()),
        (true, false) if !given => refuse(&cert, false, err),
        (false, true) if !given => refuse(&key, false, err),
        _ => usable(&cert, &key).map(drop).map_err(|error| {
            err.line(format!("error: {error}; nothing was written"));
            if !given {
                err.line(
                    "  fix: --cert and --key name others, --force makes new ones in the place of these two",
                );
            }
            Exit::BadConfig
        }),
    }
}

/// The folder of a file, or the nearest above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = |folder: &&Path| std::fs::symlink_metadata(folder).is_ok();
    path.ancestors().skip(1).find(there).unwrap_or(Path::new("/")).to_owned()
}

/// Makes a file there as large as those that will come, and removes it.
fn try_folder(folder: &Path) -> io::Result<()> {
    let trial = folder.join(format!(".knock-agent-init-{}", std::process::id()));
    let made = files::create(&trial, 0o600, &[b' '; ROOM]);
    let removed = files::remove(&trial);
    made.and(removed)
}

fn unwritable(path: &Path, error: &io::Error, err: &mut Printer) -> Exit {
    err.line(format!("error: {}: {error}; nothing was written", path.display()));
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    if denied {
        err.line("  fix: run it as root");
    }
    if denied { Exit::NoPermission } else { Exit::Io }
}

/// The chain of certificates in a file, where a server can use it with that key.
///
/// # Errors
/// The reason, with the file's name.
pub fn usable(cert: &Path, key: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let read = |path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (chain, secret) = (read(cert)?, read(key)?);
    certificate::server_config(&chain, &secret).map_err(|error| format!("{}: {error}", cert.display()))?;
    Ok(chain)
}

/// Whether there is a certificate in a file.
///
/// # Errors
/// The reason, with the file's name.
pub fn has_certificate(cert: &Path) -> Result<(), String> {
    let chain = std::fs::read(cert).map_err(|error| format!("{}: {error}", cert.display()))?;
    certificate::pin(&chain).map(drop).map_err(|error| format!("{}: {error}", cert.display()))
}

/// Refuses where this file is there already.
///
/// # Errors
/// As above.
pub fn refuse(path: &Path, force: bool, err: &mut Printer) -> Result<(), Exit> {
    if force || std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    err.line(format!("error: {} is there already; nothing was written", path.display()));
    err.line("  fix: --force overwrites it, or name another file");
    Err(Exit::Io)
}

/// Writes everything, the configuration last; comes back with the pin of the certificate where clients need one.
///
/// # Errors
/// The exit code, after its reason was printed; then nothing new is left.
pub fn all(
    args: &InitArgs,
    answers: &Answers,
    chance: &Chance,
    codes: Option<Zeroizing<Vec<u8>>>,
    err: &mut Printer,
) -> Result<Option<String>, Exit> {
    let config = args.file.config.clone();
    let mut planned = Vec::new();
    let pin = tls(args, answers, &mut planned, err)?;
    if let Some((codes, (_, path))) = codes.zip(answers.codes.as_ref()) {
        planned.push(Planned { path: path.clone(), content: codes, for_daemon: true, mode: 0o600 });
    }
    if let Some(path) = &args.profile {
        let host = answers.hosts.first().map_or("", String::as_str);
        let text = answers::profile(answers, chance, host, pin.as_deref());
        planned.push(Planned {
            path: path.clone(),
            content: bytes(text.expose()),
            for_daemon: false,
            mode: 0o600,
        });
    }
    let text = answers::configuration(answers, chance, &args.state_dir);
    planned.push(Planned { path: config, content: bytes(text.expose()), for_daemon: true, mode: 0o600 });
    for file in &planned {
        refuse(&file.path, args.force, err)?;
    }
    agrees(text.expose(), answers, &planned, err)?;
    // From here on a signal waits until all is there, or nothing.
    let held = signals::hold_endings();
    let outcome =
        held.map_err(io::Error::from).map_err(|error| (PathBuf::new(), error)).and_then(|()| write(&planned));
    if let Err((path, error)) = outcome {
        return Err(unwritable(&path, &error, err));
    }
    if let Err(error) = signals::let_endings_pass() {
        err.line(format!("error: {error}"));
        return Err(Exit::Bug);
    }
    // A key of before may be as `knock-agent cert` left it: root's alone, who is not the daemon's user.
    let key = &answers.tls.1;
    if own_tls(args) == answers.tls
        && planned.iter().all(|file| file.path != *key)
        && let Err(error) = for_group(key)
    {
        err.line(format!("warning: {}: {error}: the daemon may not be able to read it", key.display()));
    }
    let mut out = Printer::stdout();
    for file in &planned {
        out.line(format!("written: {}", file.path.display()));
    }
    match out.finish(Exit::Done) {
        Exit::Done => Ok(pin),
        exit => Err(exit),
    }
}

/// The files that are about to be written.
struct Fresh<'p>(&'p [Planned]);

impl Outside for Fresh<'_> {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        let planned = match from {
            SecretFrom::File(path) => self.0.iter().find(|file| file.path == path),
            SecretFrom::Credential(_) => None,
        };
        let text = planned.and_then(|file| std::str::from_utf8(&file.content).ok());
        text.map(|text| Secret::new(text.trim().to_owned())).ok_or_else(|| "there is no such file".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        Ok(Vec::new())
    }
}

/// Whether the answers go together, as the reader of configurations sees it: ports that are in each other's way do not.
fn agrees(text: &str, answers: &Answers, planned: &[Planned], err: &mut Printer) -> Result<(), Exit> {
    let ports = StepPorts { http: answers.ports.0.get(), https: answers.ports.1.get() };
    match parse("the configuration", text, Some(ports), &Fresh(planned)) {
        Ok(_) => Ok(()),
        Err(problems) => {
            load::print_all(&problems.list, problems.more, err);
            err.line("error: these answers do not go together; nothing was written");
            Err(Exit::BadConfig)
        }
    }
}

fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

/// Certificate and key: those that are there, or new ones.
fn tls(
    args: &InitArgs,
    answers: &Answers,
    planned: &mut Vec<Planned>,
    err: &mut Printer,
) -> Result<Option<String>, Exit> {
    let (cert, key) = &answers.tls;
    let failed = |error: String, err: &mut Printer| {
        err.line(format!("error: {error}; nothing was written"));
        Exit::BadConfig
    };
    let own = own_tls(args) == answers.tls;
    if !own || (!args.force && files::exists(cert) && files::exists(key)) {
        let chain = usable(cert, key).map_err(|error| failed(error, err))?;
        if !own {
            return Ok(None);
        }
        // Ours, of another time.
        return certificate::pin(&chain).map(Some).map_err(|error| failed(error.to_string(), err));
    }
    let made =
        self_signed(&answers.hosts, DAYS, clock::now().wall).map_err(|e| failed(e.to_string(), err))?;
    let pin = certificate::pin(made.certificate_pem.as_bytes()).map_err(|e| failed(e.to_string(), err))?;
    let file = |path: &Path, text: &str, mode| Planned {
        path: path.to_owned(),
        content: bytes(text),
        for_daemon: true,
        mode,
    };
    planned.push(file(key, &made.key_pem, 0o600));
    planned.push(file(cert, &made.certificate_pem, 0o644));
    Ok(Some(pin))
}

/// All, or none of those that were not there before.
fn write(planned: &[Planned]) -> Result<(), (PathBuf, io::Error)> {
    let mut new: Vec<&Path> = Vec::new();
    for file in planned {
        let there = files::exists(&file.path);
        let written = one(file);
        if !there {
            new.push(&file.path);
        }
        if let Err(error) = written {
            for path in new {
                let _ = files::remove(path);
            }
            return Err((file.path.clone(), error));
        }
    }
    Ok(())
}

fn one(file: &Planned) -> io::Result<()> {
    if let Some(folder) = file.path.parent().filter(|folder| *folder != Path::new("")) {
        files::make_directory(folder, if file.for_daemon { 0o755 } else { 0o700 })?;
    }
    files::replace(&file.path, file.mode, &file.content)?;
    if file.for_daemon && file.mode == 0o600 { for_group(&file.path) } else { Ok(()) }
}

/// Where a package made a group for the daemon, that reads by it.
fn for_group(path: &Path) -> io::Result<()> {
    let Some(group) = users::operators() else { return Ok(()) };
    users::give_to_group(path, group)?;
    files::set_mode(path, 0o640)
}
