//! Secrets and users that a configuration keeps in other files.

use std::cell::RefCell;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::load::exposed;
use crate::config::{FileName, Outside, SecretFrom, UserFile};
use crate::sys::{files, users};
use crate::units::Secret;

/// A user's file holds some keys.
const MAX_BYTES: u64 = 65_536;

/// The files of this host.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Outside for Disk {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        let path = match from {
            SecretFrom::File(path) => path.to_owned(),
            SecretFrom::Credential(name) => credential(name)?,
        };
        let text = read(&path)?;
        // A 2FA file has several lines and is one value.
        let value = if text.trim_start().starts_with('{') {
            text.trim()
        } else {
            text.lines().next().unwrap_or_default()
        };
        if value.is_empty() {
            return Err(format!("{} is empty: write the secret into its first line", path.display()));
        }
        Ok(Secret::new(value.to_owned()))
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        let unreadable = |error: io::Error| format!("{}: {error}", folder.display());
        let mut out = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some(name), FileName::OfUser) = (name, FileName::of(&path)) {
                let (name, file) = (name.to_owned(), path.display().to_string());
                out.push(UserFile { name, file, text: read(&path)? });
            }
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn passed_over(&self, folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let misspelt = entries.filter(|path| FileName::of(path) == FileName::Misspelt);
        let mut names: Vec<String> = misspelt.map(|path| path.display().to_string()).collect();
        names.sort();
        names
    }
}

/// The same for who needs the codes, too.
#[derive(Clone, Copy, Debug)]
pub struct WithCodes;

impl Outside for WithCodes {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        Disk.secret(from)
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        Disk.users(folder)
    }

    fn passed_over(&self, folder: &Path) -> Vec<String> {
        Disk.passed_over(folder)
    }

    fn codes(&self, folder: &Path) -> Result<(), String> {
        match files::is_directory(folder) {
            // The daemon may be allowed what whoever checks is not.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                Err(format!("{}: {error}", folder.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The same, and which files were asked for.
#[derive(Debug, Default)]
pub struct Noted(RefCell<Vec<PathBuf>>);

impl Noted {
    /// The files.
    pub fn files(self) -> Vec<PathBuf> {
        self.0.into_inner()
    }
}

impl Outside for Noted {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        if let SecretFrom::File(path) = from {
            self.0.borrow_mut().push(path.to_owned());
        }
        Disk.secret(from)
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        let users = Disk.users(folder);
        let mut files = self.0.borrow_mut();
        files.push(folder.to_owned());
        files.extend(users.iter().flatten().map(|user| PathBuf::from(&user.file)));
        users
    }

    fn passed_over(&self, folder: &Path) -> Vec<String> {
        Disk.passed_over(folder)
    }

    fn codes(&self, folder: &Path) -> Result<(), String> {
        WithCodes.codes(folder)
    }
}

/// Where systemd has what it hands over to the daemon, for root to see as long as that runs (`systemd.exec(5)`).
const OF_THE_UNIT: &str = "/run/credentials/knock-agent.service";

/// The file of a credential: of this unit or, where whoever asks is in none, of the daemon's.
fn credential(name: &str) -> Result<PathBuf, String> {
    let own = std::env::var_os("CREDENTIALS_DIRECTORY");
    let path = Path::new(own.as_deref().unwrap_or(OF_THE_UNIT.as_ref())).join(name);
    // Not by its name, which may be a key that was written here by mistake.
    match (path.exists(), own) {
        (true, _) => Ok(path),
        (false, Some(_)) => Err("systemd loads none of this name (LoadCredential=NAME:/path/to/file)".to_owned()),
        (false, None) => Err("there are no credentials here: have systemd load it (LoadCredential=NAME:/path/to/file); outside the unit root sees it while knock-agent.service runs".to_owned()),
    }
}

/// The text of a file that nobody else can read or change.
fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let name = path.display();
    let failed = |error: io::Error| format!("{name}: {error}");
    let (file, about) = files::open_regular(path).map_err(failed)?;
    if let Some((message, fix)) = exposed(about.mode(), users::may_own_secrets(about.uid())).first() {
        return Err(format!("{name}: {message}: {fix} {name}"));
    }
    let too_large = || format!("{name} is larger than {MAX_BYTES} bytes");
    // Before room is made for it.
    if about.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default()));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{name} is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
