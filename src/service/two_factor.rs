//! The 2FA files of access keys, in knock-port's layout: `<folder>/<access key>.json`.
//!
//! Looked up once, by the keys of the configuration; never by a name out of a request.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::knock::TwoFactor;
use crate::sys::files;
use crate::units::TotpSecret;

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

/// What was found for the configured keys.
#[derive(Debug, Default)]
pub struct Found {
    /// The keys that need a code, with its secret.
    pub factors: Vec<TwoFactor>,
    /// The configured folder, where it does not exist: then no key needs a code.
    pub missing_folder: Option<PathBuf>,
}

/// Reads the files there are for the configured keys; a key without a file needs no code.
///
/// # Errors
/// Every file that is there but cannot be used, because its key must not work without.
pub fn load(settings: &Settings) -> Result<Found, Vec<TwoFactorError>> {
    let mut found = Found::default();
    let Some(folder) = &settings.global.two_factor_folder else { return Ok(found) };
    if !files::exists(folder) {
        found.missing_folder = Some(folder.clone());
        return Ok(found);
    }
    let mut errors = Vec::new();
    for app in &settings.apps {
        for (step, keys) in [("http", &app.access_key_http), ("https", &app.access_key_https)] {
            let plain = keys.iter().enumerate().filter_map(|(index, key)| Some((index, key.plain()?)));
            for (index, key) in plain {
                // Such a key cannot be the name of a file.
                let nameless = key.expose().contains('/');
                if nameless || found.factors.iter().any(|known| known.access_key.same_as(key)) {
                    continue;
                }
                let (app, position) = (app.name.to_string(), index + 1);
                match read(&folder.join(format!("{}.json", key.expose()))) {
                    Ok(None) => {}
                    Ok(Some(text)) => match TotpSecret::parse(&text) {
                        Ok(secret) => found.factors.push(TwoFactor { access_key: key.clone(), secret }),
                        Err(error) => errors.push(TwoFactorError::Malformed {
                            app,
                            step,
                            position,
                            folder: folder.clone(),
                            reason: error.to_string(),
                        }),
                    },
                    Err(source) => {
                        let folder = folder.clone();
                        errors.push(TwoFactorError::Unreadable { app, step, position, folder, source });
                    }
                }
            }
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

fn read(path: &Path) -> io::Result<Option<zeroize::Zeroizing<String>>> {
    match files::read_text(path, MAX_BYTES) {
        Ok(text) => Ok(Some(zeroize::Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
