//! Files: read with a bound, made with the right mode, locked.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::statvfs::FsFlags;

/// Opens a file for reading; one that is no regular file is refused, and a named pipe does not hold anybody up.
///
/// # Errors
/// The reason.
pub fn open_regular(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a directory"));
    }
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    Ok((file, about))
}

/// Reads a regular file of at most `max` bytes of UTF-8.
///
/// # Errors
/// The reason, as [`io::ErrorKind::InvalidData`] where the file is too large or no text.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    read_text_and_owner(path, max).map(|(_, text)| text)
}

/// Whose a file is, and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user.
    pub uid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Ownership {
    /// The only user who could have written it, beside root; none where others may.
    #[must_use]
    pub fn writer(self) -> Option<u32> {
        (self.mode & 0o022 == 0).then_some(self.uid)
    }
}

/// The same, with the owner of the file that was read.
///
/// # Errors
/// As above.
pub fn read_text_and_owner(path: &Path, max: u64) -> io::Result<(Ownership, String)> {
    let (file, about) = open_regular(path)?;
    let mut bytes = Vec::new();
    // One more than allowed, to tell a full file from one that is too large.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {max} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text: {}", error.utf8_error()))
    })?;
    Ok((Ownership { uid: about.uid(), mode: about.mode() & 0o7777 }, text))
}

/// Writes a file that must not exist yet, with that mode from the first moment, and waits for the disk.
///
/// # Errors
/// The reason; [`io::ErrorKind::AlreadyExists`] where the file is there.
pub fn create(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Replaces a file as a whole, with that mode, and waits for the disk: readers see the old content or the
/// new, never a part, also after a loss of power. Where root writes into the directory of another user, the
/// file is that user's.
///
/// # Errors
/// The reason; the old file is then as it was.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    replace_with(path, mode, content, File::sync_all)
}

/// The same without waiting for the disk: after a loss of power there may be the old content, the new, or none.
///
/// # Errors
/// As for [`replace`].
pub fn replace_unhurried(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    replace_with(path, mode, content, |_| Ok(()))
}

fn replace_with(
    path: &Path,
    mode: u32,
    content: &[u8],
    settle: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    remove(new)?;
    let directory = File::open(folder_of(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    leave_to_owner(&file, &directory.metadata()?)?;
    let written = file.write_all(content).and_then(|()| settle(&file)).and_then(|()| fs::rename(new, path));
    if written.is_err() {
        // On a full disk it takes room that others need.
        let _ = remove(new);
    }
    written?;
    settle(&directory)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// The daemon, which is not root at other times, must be able to use what root's command left in its folder.
fn leave_to_owner(file: &File, folder: &fs::Metadata) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() && folder.uid() != 0 {
        fchown(file, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

/// Replaces a file as a whole, with that mode whatever the `umask`, and does not wait for the disk: what is
/// soon replaced again need not outlast a loss of power. The file belongs to whom this process runs as.
///
/// # Errors
/// The reason; the old file is then as it was.
pub fn publish(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    // A node exporter reads what ends in .prom, and nothing half written.
    name.push(".new");
    let new = Path::new(&name);
    remove(new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(new, path));
    if written.is_err() {
        let _ = remove(new);
    }
    written
}

/// Empties a file that is there, which takes no room on the disk.
///
/// # Errors
/// The reason.
pub fn empty(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)?.sync_all()
}

/// Makes a directory and its parents where they are missing.
///
/// # Errors
/// The reason.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// The user that a file or folder belongs to; none where it leads nowhere.
#[must_use]
pub fn owner(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|about| about.uid())
}

/// Whether others than its owner can make files in a folder, or take some away.
#[must_use]
pub fn is_shared(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|about| about.mode() & 0o022 != 0)
}

/// Whose a file or folder is, and who may do what with it; none where it cannot be looked at.
#[must_use]
pub fn ownership(path: &Path) -> Option<Ownership> {
    fs::metadata(path).ok().map(|about| Ownership { uid: about.uid(), mode: about.mode() & 0o7777 })
}

/// Whether nobody can write there, whatever the modes say, as in a volume of a container.
#[must_use]
pub fn is_read_only(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path).is_ok_and(|about| about.flags().contains(FsFlags::ST_RDONLY))
}

/// Whether a file or folder belongs to the user as whom this process runs.
#[must_use]
pub fn is_own(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.uid() == nix::unistd::geteuid().as_raw())
}

/// Sets the permission bits of a file.
///
/// # Errors
/// The reason.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a file; none is as good.
///
/// # Errors
/// The reason.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also when mode or owner do, which decide whether it is used.
    changed: (i64, i64),
}

/// The stamp of the file that a path leads to; none if it leads nowhere.
#[must_use]
pub fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    Some(Stamp {
        device: about.dev(),
        inode: about.ino(),
        size: about.size(),
        modified: (about.mtime(), about.mtime_nsec()),
        changed: (about.ctime(), about.ctime_nsec()),
    })
}

/// When the file that a path leads to was last written; none where it leads nowhere.
#[must_use]
pub fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The stamps of the files in a folder, sorted by name; none where it cannot be read.
#[must_use]
pub fn stamps(folder: &Path) -> Vec<(PathBuf, Stamp)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut out: Vec<_> = entries.filter_map(|entry| Some((entry.path(), stamp(&entry.path())?))).collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// The names in a folder, sorted.
///
/// # Errors
/// The reason.
pub fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut out = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    out.sort();
    Ok(out)
}

/// Whether a file is there.
#[must_use]
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Whether a folder has that name, be it of a link that leads nowhere; as if it had where that cannot be told.
#[must_use]
pub fn has_name(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}

/// Looks whether a directory is there.
///
/// # Errors
/// The reason; [`io::ErrorKind::NotADirectory`] where it is something else.
pub fn is_directory(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// A lock that is held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// A lock is a file of its own name: a link that somebody put there is not followed, nor does a named pipe hold anybody up.
const OF_LOCKS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK);

/// Takes the lock on a file, made if missing; none if somebody else has it. Where root takes it in the directory of
/// another user, the file is that user's from then on.
///
/// # Errors
/// The reason.
pub fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    let mut how = OpenOptions::new();
    how.create(true).truncate(false).write(true).mode(0o600).custom_flags(OF_LOCKS.bits());
    let file = how.open(path)?;
    let about = file.metadata()?;
    if about.is_file() && about.nlink() == 1 {
        // What has another name somewhere is perhaps not theirs. Who is root with less than all rights locks all the same.
        let _ = leave_to_owner(&file, &fs::metadata(folder_of(path))?);
    }
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Lock(lock))),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Whether somebody holds the lock on a file; makes no file.
///
/// # Errors
/// The reason why it cannot be told.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).custom_flags(OF_LOCKS.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_neither_behind_a_link_nor_waited_for_at_a_pipe() {
        let folder = std::env::temp_dir().join(format!("knock-agent-locks-{}", std::process::id()));
        make_directory(&folder, 0o700).unwrap();
        let (lock, link, target, pipe) =
            (folder.join("lock"), folder.join("link"), folder.join("target"), folder.join("pipe"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(try_lock(&link).is_err() && is_locked(&link).is_err());
        assert!(!exists(&target));
        assert!(try_lock(&pipe).is_err(), "nobody reads it");
        assert!(!is_locked(&lock).unwrap());
        assert!(!exists(&lock), "who looks makes no file");
        let held = try_lock(&lock).unwrap();
        assert!(held.is_some() && is_locked(&lock).unwrap() && try_lock(&lock).unwrap().is_none());
        drop(held);
        assert!(!is_locked(&lock).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }
}
