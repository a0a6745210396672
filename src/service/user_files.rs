//! The folders with a file for each user or client, watched without taking half a file for a whole one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{FileName, Settings};
use crate::sys::files::{self, Stamp};

/// How often the files of users are looked at.
pub(super) const LOOK_AT_USERS: Duration = Duration::from_secs(2);
/// A change that does not come to rest for so many looks is taken over as it is: whoever keeps writing must not hold
/// up that somebody is disabled.
const MOST_LOOKS: u32 = 15;

type Stamps = Vec<(PathBuf, Stamp)>;

/// The files as they were at a look.
#[derive(Debug)]
pub(super) struct Looked(Stamps);

/// The files of users and of clients, as they were last taken over and as they were last looked at.
#[derive(Clone, Debug)]
pub struct UserFiles {
    folders: Vec<PathBuf>,
    taken: Stamps,
    last: Stamps,
    restless: u32,
    /// What was read could not be put in force.
    failed: bool,
}

impl UserFiles {
    /// The folders that these settings name, to be called as soon as they were read: what changes from here on is a
    /// change.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self::in_folders(folders(settings))
    }

    fn in_folders(folders: Vec<PathBuf>) -> Self {
        let taken = stamps(&folders);
        Self { folders, last: taken.clone(), taken, restless: 0, failed: false }
    }

    /// Whether these settings name the same folders.
    pub(super) fn are_of(&self, settings: &Settings) -> bool {
        self.folders == folders(settings)
    }

    /// How the files look, to be asked before they are read: what is written meanwhile is a change.
    pub(super) fn look(&self) -> Looked {
        Looked(stamps(&self.folders))
    }

    /// Notes that what was there at that look is in force.
    pub(super) fn taken(&mut self, looked: Looked) {
        self.last.clone_from(&looked.0);
        self.taken = looked.0;
        self.restless = 0;
        self.failed = false;
    }

    /// Whether what was there at that look was refused before.
    pub(super) fn was_refused(&self, looked: &Looked) -> bool {
        self.failed && looked.0 == self.taken
    }

    /// Notes that it is not in force: it is tried again when a file is another one, and after a while in any case, as the
    /// reason may be somewhere else.
    pub(super) fn failed(&mut self, looked: Looked) {
        self.taken(looked);
        self.failed = !self.folders.is_empty();
    }

    /// Whether a file is another one than was taken over and has come to rest: it was the same at two looks.
    ///
    /// A file that an editor or a slow connection writes in place may be valid half-way, and would end the grants of
    /// those whom its second half names.
    pub(super) fn changed(&mut self) -> bool {
        let now = stamps(&self.folders);
        let rests = now == self.last;
        self.last = now;
        let same = self.last == self.taken;
        if same && !self.failed {
            self.restless = 0;
            return false;
        }
        self.restless += 1;
        (rests && !same) || self.restless >= MOST_LOOKS
    }
}

fn folders(settings: &Settings) -> Vec<PathBuf> {
    let clients = settings.time_sequence.iter().map(|timed| timed.folder.clone());
    settings.global.users_folder.iter().cloned().chain(clients).collect()
}

/// Of the files that are read as users or clients, of those that are warned of, and of no others.
fn stamps(folders: &[PathBuf]) -> Stamps {
    let counts = |path: &Path| FileName::of(path) != FileName::Other;
    folders.iter().flat_map(|folder| files::stamps(folder)).filter(|(path, _)| counts(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ka-users-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_taken_over_when_it_is_the_same_at_two_looks() {
        let folder = Folder::new("rest");
        folder.write("alice.yaml", "one");
        let mut files = UserFiles::in_folders(vec![folder.0.clone()]);
        assert!(!files.changed());
        for half in ["two", "two and", "two and a half"] {
            folder.write("alice.yaml", half);
            assert!(!files.changed(), "{half}");
        }
        assert!(files.changed(), "it rests");
        let looked = files.look();
        files.taken(looked);
        assert!(!files.changed());
        std::fs::remove_file(folder.0.join("alice.yaml")).unwrap();
        assert!(!files.changed());
        assert!(files.changed(), "it is gone");
        let looked = files.look();
        files.taken(looked);
        for n in 1.. {
            folder.write("bob.yaml", &"x".repeat(n));
            if files.changed() {
                assert_eq!(n, 15, "whoever keeps writing holds nothing up for ever");
                break;
            }
        }
    }

    #[test]
    fn what_could_not_be_put_in_force_is_tried_again_after_a_while() {
        let folder = Folder::new("again");
        let mut files = UserFiles::in_folders(vec![folder.0.clone()]);
        let looked = files.look();
        files.failed(looked);
        assert_eq!((1..).find(|_| files.changed()), Some(15));
        let looked = files.look();
        files.failed(looked);
        let looked = files.look();
        files.taken(looked);
        assert!((0..40).all(|_| !files.changed()));
    }

    #[test]
    fn other_files_and_a_change_that_is_taken_back_are_no_change() {
        let folder = Folder::new("others");
        folder.write("alice.yaml", "one");
        let mut files = UserFiles::in_folders(vec![folder.0.clone()]);
        folder.write("alice.yaml~", "copy");
        folder.write(".alice.yaml.swp", "copy");
        folder.write(".alice.yaml", "copy");
        assert_eq!([0; 3].map(|_| files.changed()), [false; 3]);
        // So that the log says at once that it is not read.
        folder.write("bob.yml", "one");
        assert_eq!([0; 2].map(|_| files.changed()), [false, true]);
        assert!(!UserFiles::in_folders(Vec::new()).changed());
    }

    #[test]
    fn a_file_whose_mode_was_put_right_is_looked_at_again() {
        let folder = Folder::new("mode");
        folder.write("alice.yaml", "one");
        files::set_mode(&folder.0.join("alice.yaml"), 0o644).unwrap();
        let mut files = UserFiles::in_folders(vec![folder.0.clone()]);
        std::thread::sleep(Duration::from_millis(20));
        files::set_mode(&folder.0.join("alice.yaml"), 0o600).unwrap();
        assert!(!files.changed());
        assert!(files.changed());
    }
}
