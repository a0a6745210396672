//! What a configuration takes from other files, read by whoever may.

use std::path::Path;

use crate::units::Secret;

/// Where a secret is kept that the configuration does not hold itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFrom<'a> {
    /// In the first line of this file.
    File(&'a Path),
    /// In the first line of this systemd credential (`systemd.exec(5)`, `LoadCredential=`).
    Credential(&'a str),
}

/// A file with one user.
#[derive(Clone, Debug)]
pub struct UserFile {
    /// The file's name without `.yaml`, which is the user's name.
    pub name: String,
    /// The file, for messages.
    pub file: String,
    /// What is in it.
    pub text: zeroize::Zeroizing<String>,
}

/// What a file in a folder of users or clients is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// `NAME.yaml`: it is read.
    OfUser,
    /// It looks like one of them, and is not read.
    Misspelt,
    /// Something else, such as the copies that editors keep beside a file.
    Other,
}

impl FileName {
    /// What the file at this path is.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.extension().and_then(|end| end.to_str()) {
            Some(_) | None if hidden => Self::Other,
            Some("yaml") => Self::OfUser,
            Some(end) if ["yaml", "yml"].iter().any(|usual| end.eq_ignore_ascii_case(usual)) => {
                Self::Misspelt
            }
            Some(_) | None => Self::Other,
        }
    }
}

/// Reads what is outside the text of a configuration.
pub trait Outside {
    /// A secret.
    ///
    /// # Errors
    /// Why it cannot be had, for the operator, without the secret.
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String>;

    /// The files of users in a folder, sorted by name.
    ///
    /// # Errors
    /// Why they cannot be had, for the operator.
    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String>;

    /// The names of files in such a folder that somebody may take for those of users, and that are not read.
    fn passed_over(&self, _folder: &Path) -> Vec<String> {
        Vec::new()
    }

    /// Whether the folder of 2FA files is there; who does without codes need not look.
    ///
    /// # Errors
    /// Why it cannot be looked into, for the operator.
    fn codes(&self, _folder: &Path) -> Result<(), String> {
        Ok(())
    }
}

/// Nothing is outside: a configuration that names another file is refused.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Outside for Alone {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Err("other files are not read here".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        Err("other files are not read here".to_owned())
    }
}
