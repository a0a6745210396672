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
