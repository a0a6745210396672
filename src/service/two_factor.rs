//! The 2FA files of access keys, in knock-port's layout: `<folder>/<access key>.json`.
//!
//! Looked up once, by the keys of the configuration; never by a name out of a request.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::Settings;
use crate::knock::TwoFactor;
use crate::sys::files::{self, Ownership};
use crate::sys::users;
use crate::units::TotpSecret;

const MAX_BYTES: u64 = 16_384;
/// Readable or writable to everybody, or writable to the group, through which the daemon may read it.
const FORBIDDEN: u32 = 0o027;

/// Why a 2FA file cannot be used; does not name the file, whose name is the access key.
#[derive(Debug, thiserror::Error)]
pub enum TwoFactorError {
    /// The folder cannot be looked into: no code would be asked for.
    #[error(
        "2fa_config_folder: {} cannot be read, and no key would need a one-time code: {source}; correct it, make the folder, or leave the line out",
        folder.display()
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: io::Error,
    },
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
    /// Others can read it, who would have the second factor then, or change it.
    #[error(
        "the 2FA file of {app}'s {step} key {position} in {} has mode {mode:04o}: chmod 0600, or 0640 for the daemon's group", folder.display()
    )]
    Exposed {
        /// The app.
        app: String,
        /// `http` or `https`.
        step: &'static str,
        /// Position of the key in its list, from 1.
        position: usize,
        /// Where it was looked for.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is somebody else's, who has the second factor then, and can change it.
    #[error(
        "the 2FA file of {app}'s {step} key {position} in {} belongs to the user {owner}: chown it to root, or to the daemon's user", folder.display()
    )]
    Foreign {
        /// The app.
        app: String,
        /// `http` or `https`.
        step: &'static str,
        /// Position of the key in its list, from 1.
        position: usize,
        /// Where it was looked for.
        folder: PathBuf,
        /// Number of the user.
        owner: u32,
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
}

/// Reads the files there are for the configured keys; a key without a file needs no code.
///
/// # Errors
/// A folder that is not there, and every file that is there but cannot be used, because its key must not work without.
pub fn load(settings: &Settings) -> Result<Found, Vec<TwoFactorError>> {
    let mut found = Found::default();
    let Some(folder) = &settings.global.two_factor_folder else { return Ok(found) };
    // A folder that is misspelt, or not there at the moment, has no files for anybody.
    if let Err(source) = files::is_directory(folder) {
        return Err(vec![TwoFactorError::NoFolder { folder: folder.clone(), source }]);
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
                    Ok(Some((Ownership { mode, .. }, _))) if mode & FORBIDDEN != 0 => {
                        let folder = folder.clone();
                        errors.push(TwoFactorError::Exposed { app, step, position, folder, mode });
                    }
                    Ok(Some((Ownership { uid: owner, .. }, _))) if !users::may_own_secrets(owner) => {
                        let folder = folder.clone();
                        errors.push(TwoFactorError::Foreign { app, step, position, folder, owner });
                    }
                    Ok(Some((_, text))) => match TotpSecret::parse(&text) {
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

/// Whose a file is and what is in it; nothing where the folder has none of that name. A link that leads nowhere is one,
/// as to where it leads may be a disk that is not there at the moment.
fn read(path: &Path) -> io::Result<Option<(Ownership, Zeroizing<String>)>> {
    match files::read_text_and_owner(path, MAX_BYTES) {
        Ok((owner, text)) => Ok(Some((owner, Zeroizing::new(text)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !files::has_name(path) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    struct Nothing;

    impl config::Outside for Nothing {
        fn secret(&self, _: config::SecretFrom<'_>) -> Result<crate::units::Secret, String> {
            Err("nothing".to_owned())
        }

        fn users(&self, _: &Path) -> Result<Vec<config::UserFile>, String> {
            Err("nothing".to_owned())
        }
    }

    fn settings(folder: &Path) -> Settings {
        let text = format!(
            "global:\n  http_post_path: /first-one-4711\n  https_post_path: /second-one-0815\n  interface_ext: eth0\n  2fa_config_folder: {}\nssh:\n  port: 22\n  destination: local\n  access_key_http: first-key-of-ssh\n  access_key_https: second-key-of-ssh\n  duration: 60\n",
            folder.display()
        );
        config::parse("x", &text, None, &Nothing).unwrap().settings
    }

    #[test]
    fn without_its_folder_no_key_works_and_with_an_empty_one_no_key_needs_a_code() {
        let folder = std::env::temp_dir().join(format!("ka-2fa-none-{}", std::process::id()));
        let told = load(&settings(&folder)).unwrap_err();
        assert!(matches!(told.as_slice(), [TwoFactorError::NoFolder { .. }]), "{told:?}");
        files::make_directory(&folder, 0o700).unwrap();
        assert!(load(&settings(&folder)).unwrap().factors.is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "a file").unwrap();
        assert!(load(&settings(&folder)).is_err());
        std::fs::remove_file(&folder).unwrap();
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let folder = std::env::temp_dir().join(format!("ka-2fa-{}", std::process::id()));
        files::make_directory(&folder, 0o700).unwrap();
        let path = folder.join("first-key-of-ssh.json");
        let settings = settings(&folder);
        files::create(&path, 0o600, b"{\"secret\": \"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\", \"interval\": 30}")
            .unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o602, false),
            (0o601, false),
            (0o610, true),
        ] {
            files::set_mode(&path, mode).unwrap();
            let found = load(&settings);
            assert_eq!(found.as_ref().is_ok_and(|found| found.factors.len() == 1), good, "{mode:o}");
            if let Err(errors) = found {
                let text = errors[0].to_string();
                assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
                assert!(!text.contains("first-key"), "{text}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_file_that_cannot_be_read() {
        let folder = std::env::temp_dir().join(format!("ka-2fa-link-{}", std::process::id()));
        files::make_directory(&folder, 0o700).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", folder.join("first-key-of-ssh.json")).unwrap();
        let told = load(&settings(&folder)).unwrap_err();
        assert!(matches!(told.as_slice(), [TwoFactorError::Unreadable { .. }]), "{told:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
