//! The 2FA files of access keys, in knock-port's layout: `<folder>/<access key>.json`.
//!
//! Looked up once, by the keys of the configuration; never by a name out of a request.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::knock::{TotpSecret, TwoFactor};
use crate::sys::files;

const MAX_BYTES: u64 = 16_384;

/// Why a 2FA file cannot be used; does not name the file, whose name is the access key.
#[derive(Debug, thiserror::Error)]
pub enum TwoFactorError {
    /// It is there and cannot be read.
    #[error("the 2FA file of {app}'s {step} key {position} in {} cannot be read: {source}", folder.display())]
    Unreadable {
        /// The app.
        app: String,
        /// `http` or `https`.
        step: &'static str,
        /// Position of the key in its list, from 1.
        position: usize,
        /// Where it was looked for.
        folder: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is not as it should be.
    #[error("the 2FA file of {app}'s {step} key {position} in {} is not usable: {reason}", folder.display())]
    Malformed {
        /// The app.
        app: String,
        /// `http` or `https`.
        step: &'static str,
        /// Position of the key in its list, from 1.
        position: usize,
        /// Where it was looked for.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the files there are for the configured keys; a key without a file needs no code.
///
/// # Errors
/// [`TwoFactorError`] for a file that is there but cannot be used, because its key must not work without.
pub fn load(settings: &Settings) -> Result<Vec<TwoFactor>, TwoFactorError> {
    let Some(folder) = &settings.global.two_factor_folder else { return Ok(Vec::new()) };
    let mut out: Vec<TwoFactor> = Vec::new();
    for app in &settings.apps {
        for (step, keys) in [("http", &app.access_key_http), ("https", &app.access_key_https)] {
            for (index, key) in keys.iter().enumerate() {
                // Such a key cannot be the name of a file.
                if key.expose().contains('/') || out.iter().any(|known| known.access_key.same_as(key)) {
                    continue;
                }
                let Some(text) = read(&folder.join(format!("{}.json", key.expose()))).map_err(|source| {
                    let (app, folder) = (app.name.to_string(), folder.clone());
                    TwoFactorError::Unreadable { app, step, position: index + 1, folder, source }
                })?
                else {
                    continue;
                };
                let secret = TotpSecret::parse(&text).map_err(|error| TwoFactorError::Malformed {
                    app: app.name.to_string(),
                    step,
                    position: index + 1,
                    folder: folder.clone(),
                    reason: error.to_string(),
                })?;
                out.push(TwoFactor { access_key: key.clone(), secret });
            }
        }
    }
    Ok(out)
}

fn read(path: &Path) -> io::Result<Option<zeroize::Zeroizing<String>>> {
    match files::read_text(path, MAX_BYTES) {
        Ok(file) => Ok(Some(zeroize::Zeroizing::new(file.text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
