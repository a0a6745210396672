//! Whether the configuration on the disk says something else than the one in force.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::health::{Ailment, Part};
use super::not_reloaded::{ReloadError, one_line};
use super::source::Source;
use crate::config::{Checked, Outline, Problems, SecretsOfUsers, Severity};
use crate::ruleset::explain::{Newer, span};
use crate::sys::clock;
use crate::sys::files::{self, Stamp};
use crate::units::Secret;

/// What the files of `2fa_config_folder`, whose names are keys, are called.
const TWO_FACTOR: &str = "global.2fa_config_folder (files in it)";

/// What was read, as it was when it was put in force. Nothing that it holds tells what the configuration says.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// What the configuration says.
    pub outline: Outline,
    /// The folder of 2FA files.
    pub two_factor_folder: Option<PathBuf>,
    codes: Vec<(PathBuf, Stamp)>,
}

impl InForce {
    /// Notes what is read next: the 2FA files, before they are.
    #[must_use]
    pub fn of(checked: &Checked) -> Self {
        let folder = checked.settings.global.two_factor_folder.clone();
        Self {
            outline: checked.outline.clone(),
            codes: folder.as_deref().map(codes).unwrap_or_default(),
            two_factor_folder: folder,
        }
    }

    fn differences(&self, other: &Self) -> Vec<String> {
        let mut parts = self.outline.differences(&other.outline);
        if self.two_factor_folder == other.two_factor_folder && self.codes != other.codes {
            parts.push(TWO_FACTOR.to_owned());
        }
        parts
    }
}

/// The 2FA files as they were looked at before they were read, and the keys of those that were not taken over.
pub(super) struct CodesRead {
    pub(super) stamps: Vec<(PathBuf, Stamp)>,
    pub(super) stay: Vec<Secret>,
}

pub(super) fn codes(folder: &Path) -> Vec<(PathBuf, Stamp)> {
    let mut all = files::stamps(folder);
    all.retain(|(path, _)| path.extension().is_some_and(|end| end == "json"));
    all
}

/// Files as they were looked at, none where a path leads nowhere.
type Stamps = Vec<(PathBuf, Option<Stamp>)>;

#[derive(Debug, Default)]
struct Known {
    in_force: InForce,
    /// What a reload refused although it can be read, and why.
    refused: Option<(InForce, String)>,
    /// What was found to be the same as what is in force; whoever watches the status asks every two seconds.
    same: Option<Stamps>,
}

/// Compares the two, whenever somebody asks.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    source: Source,
    known: Arc<Mutex<Known>>,
}

impl OnDisk {
    pub(super) fn new(source: Source, in_force: InForce) -> Self {
        Self { source, known: Arc::new(Mutex::new(Known { in_force, ..Known::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is in force from now on.
    pub(super) fn taken(&self, in_force: InForce) {
        *self.lock() = Known { in_force, ..Known::default() };
    }

    /// Notes what files of users and clients name from now on, and the 2FA files that were read with them, but for those of
    /// keys whose codes stay as they were.
    pub(super) fn users_taken(&self, secrets: SecretsOfUsers, read: Option<CodesRead>) {
        let mut known = self.lock();
        if let Some(CodesRead { stamps, stay }) = read {
            let names: BTreeSet<&str> = stay.iter().map(Secret::expose).collect();
            let stays = |path: &Path| {
                path.file_stem().and_then(OsStr::to_str).is_some_and(|name| names.contains(name))
            };
            let codes = &mut known.in_force.codes;
            codes.retain(|(path, _)| stays(path));
            codes.extend(stamps.into_iter().filter(|(path, _)| !stays(path)));
            codes.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        known.in_force.outline.take_users(secrets);
        known.same = None;
    }

    /// Notes why a reload could not put in force what it had read.
    pub(super) fn refused(&self, read: InForce, why: ReloadError) -> ReloadError {
        self.lock().refused = Some((read, why.to_string()));
        why
    }

    /// Whether there is no file that could be another.
    pub(super) fn is_of_flags(&self) -> bool {
        self.source.path().is_none()
    }

    /// What on the disk is not in force; none where all of it is. Files may be slow, and others are served meanwhile.
    pub(super) async fn newer(&self) -> Option<Newer> {
        let this = self.clone();
        spawn_blocking(move || this.look()).await.ok().flatten()
    }

    fn look(&self) -> Option<Newer> {
        // Before reading, so that what is written meanwhile is looked at the next time.
        let stamps = self.stamps();
        if self.lock().same.as_ref() == Some(&stamps) {
            return None;
        }
        let (parts, refused) = match self.source.read() {
            Ok(checked) => {
                let (read, known) = (InForce::of(&checked), self.lock());
                let tried = known.refused.as_ref().filter(|(tried, _)| tried.differences(&read).is_empty());
                (known.in_force.differences(&read), tried.map(|(_, why)| why.clone()))
            }
            Err(problems) => (Vec::new(), Some(first_error(&problems))),
        };
        if parts.is_empty() && refused.is_none() {
            self.lock().same = Some(stamps);
            return None;
        }
        let changed = self.source.path().and_then(files::modified);
        let ago = changed.and_then(|at| clock::now().wall.duration_since(at).ok());
        Some(Newer { changed_s: ago.map(|ago| ago.as_secs()), parts, refused })
    }

    /// Of all that is read, but for the files of users, which are followed by themselves.
    fn stamps(&self) -> Stamps {
        let known = self.lock();
        let InForce { outline, two_factor_folder, .. } = &known.in_force;
        let files = self.source.path().into_iter().chain(outline.files()).map(Path::to_owned);
        let codes = two_factor_folder.as_deref().map(codes).unwrap_or_default();
        let codes = codes.into_iter().map(|(path, stamp)| (path, Some(stamp)));
        files.map(|path| (path.clone(), files::stamp(&path))).chain(codes).collect()
    }
}

/// What every sentence about it begins with.
pub const ON_DISK: &str = "the file on the disk";

/// What there is to say of it, in a sentence for an operator.
#[must_use]
pub fn told(newer: &Newer) -> String {
    let ago = newer.changed_s.map_or_else(String::new, |seconds| format!(" (written {} ago)", span(seconds)));
    match &newer.refused {
        Some(why) => format!("{ON_DISK}{ago} cannot be put in force: {why}"),
        None => {
            format!("{ON_DISK}{ago} says something else than what is in force ({}): reload", newer.named())
        }
    }
}

/// The same where somebody asks what is wrong.
pub(super) fn ailment(newer: &Newer) -> Ailment {
    Ailment { part: Part::Configuration, message: told(newer) }
}

fn first_error(problems: &Problems) -> String {
    let error = problems.list.iter().find(|problem| problem.severity == Severity::Error);
    error.map(one_line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;
    use crate::config::{Alone, parse, users_anew};

    #[test]
    fn what_is_on_the_disk_is_compared_until_it_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("ka-on-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yaml");
        let text = |duration: &str| {
            format!(
                "global:\n  http_post_path: /first-path\n  https_post_path: /second-path\n  interface_ext: eth0\n  2fa_config_folder: {}\n\
                 ssh:\n  port: 22\n  duration: {duration}\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n",
                folder.display()
            )
        };
        let written: Arc<RwLock<String>> = Arc::default();
        let write = |text: String| {
            std::fs::write(&file, &text).unwrap();
            *written.write().unwrap() = text;
        };
        write(text("1h"));
        let from = Arc::clone(&written);
        let source = Source::new(
            Some(file.clone()),
            move || parse("config.yaml", &from.read().unwrap(), None, &Alone),
            |settings| users_anew("config.yaml", settings, &Alone),
        );
        let read = || InForce::of(&source.read().unwrap());
        let on_disk = OnDisk::new(source.clone(), read());
        assert_eq!(on_disk.look(), None);
        assert_eq!(on_disk.look(), None);

        write(text("2h"));
        let newer = on_disk.look().unwrap();
        assert_eq!((newer.parts.as_slice(), &newer.refused), (["ssh.duration".to_owned()].as_slice(), &None));
        assert!(told(&newer).contains("(ssh.duration): reload"), "{}", told(&newer));
        on_disk.taken(read());
        assert_eq!(on_disk.look(), None);

        // What takes a restart is not told to be reloaded, until something else is written.
        write(text("3h"));
        let refused = on_disk.refused(read(), ReloadError::StateFolder("/srv/grants".into()));
        let newer = on_disk.look().unwrap();
        assert_eq!(newer.parts, ["ssh.duration"]);
        assert_eq!(newer.refused, Some(refused.to_string()));
        assert!(told(&newer).contains("restart knock-agent for it"), "{}", told(&newer));
        write(text("4h"));
        assert!(told(&on_disk.look().unwrap()).ends_with(": reload"));
        write(text("2h"));
        assert_eq!(on_disk.look(), None);

        std::fs::write(folder.join("first-secret.json"), "{}").unwrap();
        let newer = on_disk.look().unwrap();
        assert!(newer.parts == [TWO_FACTOR] && !told(&newer).contains("first-secret"), "{newer:?}");
        // A key that a user has got since has its file in force, and another one the file of before.
        std::fs::write(folder.join("other-secret.json"), "{}").unwrap();
        let read_now = |stay: &[&str]| CodesRead {
            stamps: codes(&folder),
            stay: stay.iter().map(|key| Secret::new((*key).to_owned())).collect(),
        };
        on_disk.users_taken(SecretsOfUsers::default(), Some(read_now(&["first-secret"])));
        assert_eq!(on_disk.look().unwrap().parts, [TWO_FACTOR]);
        on_disk.users_taken(SecretsOfUsers::default(), Some(read_now(&[])));
        assert_eq!(on_disk.look(), None);
        write(text("soon"));
        let newer = on_disk.look().unwrap();
        assert!(newer.parts.is_empty() && newer.refused.is_some(), "{newer:?}");
        assert!(told(&newer).contains("cannot be put in force"), "{}", told(&newer));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
