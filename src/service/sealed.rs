//! Files that this program keeps for itself: a line that says what they are and vouches for the rest, then
//! JSON. Whatever is not exactly as it was written is refused as a whole.

use std::io::{self, ErrorKind};
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::{files, users};

/// Why a kept file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It does not begin as such a file does.
    #[error("this program did not write it")]
    Foreign,
    /// Its content may be anybody's.
    #[error("it belongs to another user, or others may write it, so that anybody could have written it")]
    Others,
    /// Another release wrote it, in a way this one does not know.
    #[error("it is of version {0}, which this release does not read")]
    Version(String),
    /// It was cut off, damaged or changed by hand.
    #[error("it is not as it was written: cut off, damaged or changed by hand")]
    Damaged,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// One word that no other kind has.
    pub name: &'static str,
    /// Goes up when the content changes its meaning.
    pub version: u32,
    /// The longest such file, in bytes.
    pub max_bytes: u64,
}

impl Kind {
    /// A value as the text of such a file.
    pub(super) fn seal<T: Serialize>(self, value: &T) -> Result<String, serde_json::Error> {
        let body = serde_json::to_string(value)?;
        Ok(format!("knock-agent {} {} {}\n{body}\n", self.name, self.version, fingerprint(&body)))
    }

    /// The value in the text of such a file.
    pub(super) fn open<T: DeserializeOwned>(self, text: &str) -> Result<T, SealError> {
        if text.is_empty() {
            return Err(SealError::Damaged);
        }
        let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
        let Some(rest_of_head) = head.strip_prefix("knock-agent ") else {
            return Err(SealError::Foreign);
        };
        let mut words = rest_of_head.split(' ');
        if words.next() != Some(self.name) {
            return Err(SealError::Foreign);
        }
        match words.next() {
            Some(version) if version == self.version.to_string() => {}
            Some(other) if other.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(SealError::Version(other.to_owned()));
            }
            Some(_) | None => return Err(SealError::Damaged),
        }
        let body = rest.strip_suffix('\n').ok_or(SealError::Damaged)?;
        if words.next() != Some(&fingerprint(body)) || words.next().is_some() {
            return Err(SealError::Damaged);
        }
        serde_json::from_str(body).map_err(|_| SealError::Damaged)
    }

    /// The text of such a file on the disk. Its seal says nothing of who made it, so nobody may have been able to write it
    /// but root, this process's own user, or that of the service.
    pub(super) fn read(self, path: &Path) -> Result<String, SealError> {
        self.read_of(path, None)
    }

    /// The same for a verb, which may run as root beside a daemon that does not: a file may belong to the owner of its
    /// folder, too, as this program makes them there.
    pub(super) fn read_beside(self, path: &Path) -> Result<String, SealError> {
        self.read_of(path, path.parent().and_then(files::owner))
    }

    fn read_of(self, path: &Path, also: Option<u32>) -> Result<String, SealError> {
        let read = files::read_text_and_owner(path, self.max_bytes);
        let (owner, text) = read.map_err(|error| match error.kind() {
            ErrorKind::NotFound => SealError::Missing,
            // Too large or not text: nothing of ours.
            ErrorKind::InvalidData => SealError::Foreign,
            _ => SealError::Read(error),
        })?;
        match owner.writer().is_some_and(|writer| Some(writer) == also || users::may_own_secrets(writer)) {
            true => Ok(text),
            false => Err(SealError::Others),
        }
    }
}

fn fingerprint(body: &str) -> String {
    digest(&SHA256, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: Kind = Kind { name: "test", version: 3, max_bytes: 1000 };

    #[test]
    fn what_was_sealed_opens() {
        let text = KIND.seal(&vec!["a", "b\n"]).unwrap();
        assert_eq!(KIND.open::<Vec<String>>(&text).unwrap(), ["a", "b\n"]);
    }

    #[test]
    fn files_of_others_and_of_other_releases_are_told_apart_from_damaged_ones() {
        let text = KIND.seal(&1).unwrap();
        let open = |text: &str| KIND.open::<u32>(text).unwrap_err();
        assert!(matches!(open("root:x:0:0"), SealError::Foreign));
        assert!(matches!(open(&text.replace("test", "grants")), SealError::Foreign));
        assert!(matches!(open(&text.replace("test 3", "test 4")), SealError::Version(v) if v == "4"));
        assert!(matches!(open(&text.replace("\n1\n", "\n2\n")), SealError::Damaged));
        assert!(matches!(open(""), SealError::Damaged));
        let foreign = Kind { name: "test", ..KIND }.seal(&"text").unwrap();
        assert!(matches!(open(&foreign), SealError::Damaged), "well sealed, but something else inside");
    }

    proptest! {
        #[test]
        fn no_other_text_opens(cut in 0_usize..100, put in "\\PC{0,3}", skip in 0_usize..3) {
            let text = KIND.seal(&vec![1_u32, 22, 333]).unwrap();
            let at = cut.min(text.len());
            let end = (at + skip).min(text.len());
            let changed = format!("{}{put}{}", &text[..at], &text[end..]);
            prop_assert_eq!(KIND.open::<Vec<u32>>(&changed).is_ok(), changed == text);
        }
    }
}
