//! The 2FA files of access keys, in knock-port's layout: `<folder>/<access key>.json`.
//!
//! Looked up once, by what the folder has and the keys of the configuration; never by a name out of a request.

pub(super) mod keys;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use self::keys::{Keys, Whose};
use crate::config::Settings;
use crate::knock::TwoFactor;
use crate::sys::files::{self, Ownership};
use crate::sys::{random, users};
use crate::units::{Secret, TotpKind, TotpSecret};

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
    #[error("the 2FA file of {whose} in {} cannot be read: {source}", folder.display())]
    Unreadable {
        /// The key.
        whose: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Others can read it, who would have the second factor then, or change it.
    #[error("the 2FA file of {whose} in {} has mode {mode:04o}: chmod 0600, or 0640 for the daemon's group", folder.display())]
    Exposed {
        /// The key.
        whose: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is somebody else's, who has the second factor then, and can change it.
    #[error("the 2FA file of {whose} in {} belongs to the user {owner}: chown it to root, or to the daemon's user", folder.display())]
    Foreign {
        /// The key.
        whose: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// Number of the user.
        owner: u32,
    },
    /// It is not as it should be.
    #[error("the 2FA file of {whose} in {} is not usable: {reason}", folder.display())]
    Malformed {
        /// The key.
        whose: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, each with the key that it is named after; those of keys stored as argon2id may be among them.
    pub factors: Vec<TwoFactor>,
    /// The keys that need a code.
    pub whose: Vec<String>,
    /// Files that cannot be used, by the keys they are named after, which open nothing until that is mended; and why.
    pub closed: Vec<(Secret, Arc<TwoFactorError>)>,
    /// How many files may be those of keys stored as argon2id.
    pub unsure: usize,
    /// What else somebody should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Found {
    /// Everything that is wrong and keeps nothing from starting, a sentence each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let closed = self.closed.iter().map(|(_, why)| format!("{why}; until then the key opens nothing"));
        closed.chain(self.warnings.iter().cloned()).collect()
    }

    /// Reads the file of a key.
    fn add(&mut self, access_key: Secret, whose: Whose<'_>, folder: &Path) -> Result<(), TwoFactorError> {
        match secret_of(&access_key, &whose.to_string(), folder) {
            Ok(None) => Ok(()),
            Ok(Some(secret)) => {
                self.factors.push(TwoFactor { access_key, secret });
                self.whose.push(whose.to_string());
                Ok(())
            }
            Err(error) if whose.is_plain_of_app() => Err(error),
            Err(error) => self.close(access_key, error),
        }
    }

    /// Reads a file that may be that of a key stored as argon2id.
    fn add_unsure(&mut self, access_key: Secret, folder: &Path) -> Result<(), TwoFactorError> {
        let whose = "a key that cannot be told, perhaps one stored as argon2id,";
        match secret_of(&access_key, whose, folder) {
            Ok(secret) => {
                self.factors.extend(secret.map(|secret| TwoFactor { access_key, secret }));
                Ok(())
            }
            Err(error) => self.close(access_key, error),
        }
    }

    /// Has a key need codes that nobody has.
    fn close(&mut self, access_key: Secret, why: TwoFactorError) -> Result<(), TwoFactorError> {
        let Some(secret) = nobodys() else { return Err(why) };
        self.factors.push(TwoFactor { access_key: access_key.clone(), secret });
        self.closed.push((access_key, Arc::new(why)));
        Ok(())
    }
}

/// Reads the files there are; a key without a file needs no code.
///
/// A file that cannot be used is an error where its key stands as it is in an app's section. Any other key opens nothing then:
/// one bad file is no reason to keep everybody out.
///
/// # Errors
/// A folder that is not there, and every such file, because its key must not work without.
pub fn load(settings: &Settings) -> Result<Found, Vec<TwoFactorError>> {
    let mut found = Found::default();
    let Some(folder) = &settings.global.two_factor_folder else { return Ok(found) };
    let keys = Keys::of(settings);
    // A folder that is misspelt, or not there at the moment, has no files for anybody.
    let no_folder = |source| vec![TwoFactorError::NoFolder { folder: folder.clone(), source }];
    files::is_directory(folder).map_err(no_folder)?;
    let (names, mut strays) = match named(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            found.warnings.push(format!(
                "2fa_config_folder: {} cannot be listed: files of keys that are stored as hashes are not found, and these keys need no code; let the daemon's group read it (chmod g+r)",
                folder.display()
            ));
            (keys.that_name_files(), 0)
        }
        listed => listed.map_err(no_folder)?,
    };
    let mut errors = Vec::new();
    for key in names {
        match keys.whose(&key) {
            Some(whose) => errors.extend(found.add(key, whose, folder).err()),
            // Editors keep their copies there.
            None if key.expose().starts_with('.') => {}
            None => {
                strays += 1;
                if keys.slow > 0 {
                    errors.extend(found.add_unsure(key, folder).err());
                }
            }
        }
    }
    found.unsure = strays.min(keys.slow);
    found.warnings.extend(told_of_strays(strays - found.unsure, folder));
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Files whose codes nobody is asked for, although somebody seems to want that.
fn told_of_strays(count: usize, folder: &Path) -> Option<String> {
    let (files, they) = match count {
        0 => return None,
        1 => ("1 file".to_owned(), "belongs"),
        many => (format!("{many} files"), "belong"),
    };
    Some(format!(
        "2fa_config_folder: {files} in {} {they} to no key of the configuration, or to one of a user who has `totp`: nobody is asked for the codes of it; a file is named after the key itself, not after how that is stored: rename it, or remove it",
        folder.display()
    ))
}

/// The keys after which files of the folder are named, and how many of its `.json` files have a name that is none.
fn named(folder: &Path) -> io::Result<(Vec<Secret>, usize)> {
    let (mut keys, mut others) = (Vec::new(), 0);
    for name in files::names(folder)? {
        let is_json = Path::new(&name).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        match name.into_string().map(Zeroizing::new).map(|name| name.strip_suffix(".json").map(str::to_owned))
        {
            Ok(Some(key)) => keys.push(Secret::new(key)),
            Ok(None) | Err(_) => others += usize::from(is_json),
        }
    }
    Ok((keys, others))
}

/// What the file of a key has; nothing where the folder has none of that name. A link that leads nowhere is one, as to where it
/// leads may be a disk that is not there at the moment.
fn secret_of(key: &Secret, whose: &str, folder: &Path) -> Result<Option<TotpSecret>, TwoFactorError> {
    let path = folder.join(format!("{}.json", key.expose()));
    let (whose, folder) = (whose.to_owned(), folder.to_owned());
    let (Ownership { uid: owner, mode }, text) = match files::read_text_and_owner(&path, MAX_BYTES) {
        Ok((owner, text)) => (owner, Zeroizing::new(text)),
        Err(error) if error.kind() == ErrorKind::NotFound && !files::has_name(&path) => return Ok(None),
        Err(source) => return Err(TwoFactorError::Unreadable { whose, folder, source }),
    };
    if mode & FORBIDDEN != 0 {
        return Err(TwoFactorError::Exposed { whose, folder, mode });
    }
    if !users::may_own_secrets(owner) {
        return Err(TwoFactorError::Foreign { whose, folder, owner });
    }
    let malformed = |reason| TwoFactorError::Malformed { whose, folder, reason };
    TotpSecret::parse(&text).map(Some).map_err(|error| malformed(error.to_string()))
}

/// A secret whose codes nobody has.
fn nobodys() -> Option<TotpSecret> {
    let bytes = Zeroizing::new(random::bytes::<20>().ok()?);
    TotpSecret::new(bytes.as_slice(), TotpKind::default()).ok()
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

    /// Settings with a further app and a user, whose keys are stored in all ways; what is beside the user's keys.
    fn stored(folder: &Path, more: &str) -> Settings {
        let hex = |key: &str| -> String {
            let verifier = crate::units::Verifier::of(&Secret::new(key.to_owned()));
            verifier.expose().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let text = format!(
            "global:\n  http_post_path: /first-one-4711\n  https_post_path: /second-one-0815\n  interface_ext: eth0\n  2fa_config_folder: {}\n  users:\n    alice: {{access_key_http: plain-key-of-alice, access_key_https: \"$ka1$${}\"{more}}}\nssh:\n  port: 22\n  access_key_http: \"$ka1$ab3d${}\"\n  access_key_https: second-key-of-ssh\n  duration: 60\n",
            folder.display(),
            hex("other-key-of-alice"),
            hex("ab3d.abcdefghijklmnopqrst"),
        );
        config::parse("x", &text, None, &Nothing).unwrap_or_else(|error| panic!("{error}")).settings
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ka-2fa-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            files::make_directory(&path, 0o700).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, mode: u32) {
            let text = b"{\"secret\": \"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\"}";
            files::create(&self.0.join(name), mode, text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_counts_however_its_key_is_stored_and_whosever_it_is() {
        let folder = Folder::new("stored");
        for (name, whose) in [
            ("ab3d.abcdefghijklmnopqrst.json", "ssh's http key 1"),
            ("second-key-of-ssh.json", "ssh's https key 1"),
            ("plain-key-of-alice.json", "alice's http key 1 for ssh"),
            ("other-key-of-alice.json", "alice's https key 1 for ssh"),
        ] {
            folder.write(name, 0o600);
            let found = load(&stored(&folder.0, "")).unwrap();
            assert!(found.whose.contains(&whose.to_owned()), "{:?}", found.whose);
            assert!(found.troubles().is_empty() && found.factors.len() == found.whose.len(), "{found:?}");
        }
        // Whoever has a secret for all keys has other codes.
        let found = load(&stored(&folder.0, ", totp: {secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}")).unwrap();
        assert_eq!(found.whose.len(), 2);
        assert!(found.troubles()[0].contains(": 2 files in"), "{:?}", found.troubles());
    }

    #[test]
    fn a_file_that_belongs_to_no_key_is_told_without_its_name() {
        let folder = Folder::new("strays");
        folder.write(".first-key-of-nobody.json", 0o600);
        folder.write("README", 0o600);
        assert!(load(&stored(&folder.0, "")).unwrap().troubles().is_empty());
        for (count, name) in ["first-key-of-nobody.json", "Second-Key-of-ssh.json", "second-key-of-ssh.JSON"]
            .into_iter()
            .enumerate()
        {
            folder.write(name, 0o644);
            let found = load(&stored(&folder.0, "")).unwrap();
            let [told] = found.troubles().try_into().unwrap();
            assert!(found.factors.is_empty() && told.contains(&format!(": {} file", count + 1)), "{told}");
            assert!(!told.to_lowercase().contains("key-of"), "{told}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_closes_its_key_and_keeps_nobody_else_out() {
        let folder = Folder::new("closed");
        folder.write("other-key-of-alice.json", 0o644);
        let found = load(&stored(&folder.0, "")).unwrap();
        assert_eq!((found.factors.len(), found.whose.len(), found.closed.len()), (1, 0, 1));
        let known = TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", TotpKind::default()).unwrap();
        assert_ne!(found.factors[0].secret.fingerprint(), known.fingerprint());
        let [told] = found.troubles().try_into().unwrap();
        assert!(told.contains("alice's https key 1 for ssh") && told.contains("mode 0644"), "{told}");
        folder.write("second-key-of-ssh.json", 0o644);
        assert_eq!(load(&stored(&folder.0, "")).unwrap_err().len(), 1);
    }

    #[test]
    fn a_file_that_fits_none_may_be_that_of_a_key_that_takes_long_to_compare() {
        let folder = Folder::new("slow");
        let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
        let settings = stored(&folder.0, &format!(", apps: {{ssh: {{access_key_https: \"{hash}\"}}}}"));
        folder.write("correct horse.json", 0o600);
        let found = load(&settings).unwrap();
        assert_eq!((found.factors.len(), found.unsure, found.troubles().len()), (1, 1, 0));
        folder.write("battery staple.json", 0o644);
        let found = load(&settings).unwrap();
        assert_eq!((found.factors.len(), found.unsure, found.closed.len()), (2, 1, 1));
        assert!(found.warnings[0].contains(": 1 file in"), "{:?}", found.warnings);
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
