//! Files that only their owner may see.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Why a private file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others can get at it.
    #[error("{message}: {fix}")]
    Exposed {
        /// How.
        message: &'static str,
        /// The command against it, without the file.
        fix: &'static str,
    },
    /// It is too large.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
}

/// Reads a regular file of at most `max` bytes that nobody but its owner can read or change.
///
/// # Errors
/// [`PrivateError`] says why not.
pub fn read(path: &Path, max: u64) -> Result<Zeroizing<String>, PrivateError> {
    let file = open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file").into());
    }
    if let Some((message, fix)) = exposed(&about) {
        return Err(PrivateError::Exposed { message, fix });
    }
    // The whole size at once: a buffer that grows leaves copies behind.
    let size = usize::try_from(about.len().min(max)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(PrivateError::TooLarge(max));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| PrivateError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A named pipe would hold us up.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn exposed(about: &std::fs::Metadata) -> Option<(&'static str, &'static str)> {
    use std::os::unix::fs::MetadataExt;
    let owner = about.uid();
    if about.mode() & 0o077 != 0 {
        return Some(("others than its owner can read or change this file", "chmod 600"));
    }
    let foreign = owner != 0 && owner != nix::unistd::geteuid().as_raw();
    foreign.then_some(("this file belongs to another user, who can change it", "chown it to yourself"))
}

/// There are no modes; the home folder's access list keeps others out.
#[cfg(not(unix))]
fn exposed(_: &std::fs::Metadata) -> Option<(&'static str, &'static str)> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let path = std::env::temp_dir().join(format!("ka-private-{}", std::process::id()));
        std::fs::write(&path, "secret\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 100).is_ok(), good, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, 6), Err(PrivateError::TooLarge(6))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&std::env::temp_dir(), 6), Err(PrivateError::Io(_))));
    }
}
