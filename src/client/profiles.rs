//! Where profiles are.

use std::path::{Path, PathBuf};

use crate::config::{Problem, Problems, Way, parse_profile};
use crate::sys::private::{self, PrivateError};

const MAX_BYTES: u64 = 65_536;
/// What is used where none is named.
const USUAL: &str = "default";

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The home folder is not known.
    #[error("the home folder is not known: set HOME, or name a profile by its path")]
    Homeless,
    /// There is no such profile.
    #[error("there is no profile {}{known}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What there is instead, in words.
        known: String,
    },
    /// None was named.
    #[error("name a profile{0}")]
    Unnamed(String),
    /// The file cannot be used.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: PrivateError,
    },
    /// What is in it cannot be used.
    #[error("the profile {} has problems", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What.
        problems: Problems,
    },
}

/// A profile that can be used.
#[derive(Debug)]
pub struct Found {
    /// What it says.
    pub way: Way,
    /// What somebody should look at.
    pub warnings: Vec<Problem>,
}

/// The folder of profiles: `knock-agent` in `$XDG_CONFIG_HOME`, `~/.config` or, on Windows, `%APPDATA%`.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        variable("APPDATA")?
    } else {
        match variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()) {
            Some(path) => path,
            None => variable("HOME")?.join(".config"),
        }
    };
    Some(base.join("knock-agent"))
}

/// Reads a profile: by its name, by a path with a separator in it, or the usual one.
///
/// # Errors
/// [`ProfileError`] says what to do.
pub fn load(name: Option<&str>) -> Result<Found, ProfileError> {
    let path = path_of(name)?;
    let text = match private::read(&path, MAX_BYTES) {
        Ok(text) => text,
        Err(PrivateError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let known = listed(path.parent());
            return Err(ProfileError::Missing { path, known });
        }
        Err(source) => return Err(ProfileError::Unreadable { path, source }),
    };
    let home = std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from);
    match parse_profile(&path.display().to_string(), &text, home.as_deref()) {
        Ok((way, warnings)) => Ok(Found { way, warnings }),
        Err(problems) => Err(ProfileError::Wrong { path, problems }),
    }
}

fn path_of(name: Option<&str>) -> Result<PathBuf, ProfileError> {
    if let Some(path) = name.filter(|name| name.contains(['/', std::path::MAIN_SEPARATOR])) {
        return Ok(path.into());
    }
    let folder = folder().ok_or(ProfileError::Homeless)?;
    let file = |name: &str| folder.join(format!("{name}.yaml"));
    if let Some(name) = name {
        return Ok(file(name));
    }
    let all = names(&folder);
    match all.as_slice() {
        [only] => Ok(file(only)),
        all if all.iter().any(|name| name == USUAL) => Ok(file(USUAL)),
        _ => Err(ProfileError::Unnamed(listed(Some(&folder)))),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let is_profile = path.extension().is_some_and(|end| end == "yaml");
            let name = path.file_stem()?.to_str()?.to_owned();
            (is_profile && !name.starts_with('.')).then_some(name)
        })
        .collect();
    all.sort();
    all
}

fn listed(folder: Option<&Path>) -> String {
    let Some(folder) = folder else { return String::new() };
    let all = names(folder);
    if all.is_empty() {
        format!(": there are none in {} yet (docs/client.md shows one)", folder.display())
    } else {
        format!(": in {} there are {}", folder.display(), all.join(", "))
    }
}
