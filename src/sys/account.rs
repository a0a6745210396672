//! What a user of this host may read, asked of the kernel in that user's name.

#![expect(unsafe_code, reason = "changes who one thread is, for which there is no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::libc;
use nix::unistd::{AccessFlags, Group, User, access, getgrouplist};

/// A user with all groups, as systemd starts a service.
#[derive(Clone, Debug)]
pub struct Account {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    group: String,
}

impl Account {
    /// The user of that name, in these further groups; `None` where one of them does not exist.
    #[must_use]
    pub fn named(name: &str, more: &[String]) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        let of_user = getgrouplist(&CString::new(name).ok()?, user.gid).ok()?;
        let mut groups: Vec<libc::gid_t> = of_user.iter().map(|gid| gid.as_raw()).collect();
        for name in more {
            groups.push(Group::from_name(name).ok().flatten()?.gid.as_raw());
        }
        let group =
            Group::from_gid(user.gid).ok().flatten().map_or_else(|| user.gid.to_string(), |group| group.name);
        Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups, group })
    }

    /// The name of its group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Those of the files that it cannot read, each with what is in the way: the file itself, or a folder above it. What
    /// does not exist is in nobody's way. Takes root.
    ///
    /// # Errors
    /// When this process cannot ask.
    pub fn cannot_read(&self, files: &[PathBuf]) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        // Of the thread, which ends with it; the libraries' own calls would change the whole process.
        thread::scope(|scope| {
            let asked = scope.spawn(|| {
                self.become_it()?;
                Ok(files.iter().filter_map(|file| Some((file.clone(), in_the_way(file)?))).collect())
            });
            asked.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asks ended early")))
        })
    }

    fn become_it(&self) -> io::Result<()> {
        let (count, uid, gid) = (self.groups.len(), self.uid, self.gid);
        // SAFETY: the pointer is to so many numbers that outlive the call; the other two have no pointers.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, count, self.groups.as_ptr()) == 0
                && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// What keeps this thread's user from reading the file.
fn in_the_way(file: &Path) -> Option<PathBuf> {
    let denied = |path: &Path, what| access(path, what) == Err(nix::Error::EACCES);
    if !denied(file, AccessFlags::R_OK) {
        return None;
    }
    let folders: Vec<&Path> = file.ancestors().skip(1).collect();
    let closed = folders.into_iter().rev().find(|folder| denied(folder, AccessFlags::X_OK));
    Some(closed.unwrap_or(file).to_owned())
}
