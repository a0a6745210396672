//! Which kernel this is.

use std::path::Path;
use std::{fs, io};

/// What tells one run of the kernel from all others.
///
/// # Errors
/// When it cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned())
}

/// Whether this is Linux of that version or a later one; false where it does not say.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let release = nix::sys::utsname::uname();
    let release = release.as_ref().ok().and_then(|name| name.release().to_str());
    release.and_then(version).is_some_and(|version| version >= (major, minor))
}

/// The first two numbers of a release, such as `6.1.0-38-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_numbers() {
        assert_eq!(version("6.1.0-38-amd64"), Some((6, 1)));
        assert_eq!(version("5.16-rc3"), Some((5, 16)));
        assert!(version("5.4.0") < version("5.16.0"));
        assert_eq!(version(""), None);
        assert_eq!(version("next"), None);
        assert!(is_at_least(2, 6) && !is_at_least(999, 0));
    }
}
