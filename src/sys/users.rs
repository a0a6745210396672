//! Users and groups of this host.

use std::ffi::CString;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

use super::{files, process};

/// The group whose members may talk to the daemon.
pub const GROUP: &str = "knock-agent";

/// The user this process runs as.
#[must_use]
pub fn own() -> u32 {
    geteuid().as_raw()
}

/// The name of a user, or `uid N`.
#[must_use]
pub fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// The user that the daemon runs as where the package set it up.
pub const ACCOUNT: &str = "knock-agent";

/// Whether secrets may be in a file of this user's: so that root, who checks a configuration, and the daemon come to the
/// same answer.
#[must_use]
pub fn may_own_secrets(owner: u32) -> bool {
    is_ours(owner)
}

/// Whether this is root, this process's own user, or [`ACCOUNT`].
#[must_use]
pub(super) fn is_ours(uid: u32) -> bool {
    // Names are looked up last: that may ask a directory on the network.
    uid == 0 || uid == own() || is_account(uid, |name| User::from_name(name).ok().flatten())
}

fn is_account(owner: u32, find: impl Fn(&str) -> Option<User>) -> bool {
    find(ACCOUNT).is_some_and(|account| account.uid.as_raw() == owner)
}

/// Whether a process of a user may take the guard down: root's, or one of the daemon's own user that could do it without
/// the daemon. What that user has started without capabilities, such as who tells others, may not, nor with those of a user
/// namespace of its own.
#[must_use]
pub fn may_rule(uid: u32, pid: Option<i32>) -> bool {
    uid == 0 || (uid == own() && pid.is_some_and(|pid| could(uid, pid)))
}

/// Whether it is a process of that user that could do it. The number of one that has ended may be another's by now, and may
/// become so at any moment.
fn could(uid: u32, pid: i32) -> bool {
    let is_theirs = || files::owner(Path::new(&format!("/proc/{pid}"))) == Some(uid);
    pid > 0
        && is_theirs()
        && process::has_net_admin(pid) == Ok(true)
        && process::is_elsewhere(pid) == Some(false)
        && is_theirs()
}

/// Whether a user may talk to the daemon: root, the daemon's own user, or a member of [`GROUP`].
#[must_use]
pub fn may_operate(uid: u32, gid: u32) -> bool {
    if uid == 0 || uid == own() {
        return true;
    }
    let Ok(Some(group)) = Group::from_name(GROUP) else {
        return false;
    };
    if gid == group.gid.as_raw() {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(user_name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&user_name, user.gid).is_ok_and(|groups| groups.contains(&group.gid))
}

/// The group that [`GROUP`] names, where it exists and this process may give files to it.
#[must_use]
pub fn operators() -> Option<u32> {
    let group = Group::from_name(GROUP).ok().flatten()?;
    (geteuid().is_root() || getegid() == group.gid).then_some(group.gid.as_raw())
}

/// Gives a file to a group; one that has it already is not touched, as a unit's filter of system calls may forbid that.
///
/// # Errors
/// The reason.
pub fn give_to_group(path: &Path, gid: u32) -> std::io::Result<()> {
    if std::os::unix::fs::MetadataExt::gid(&std::fs::symlink_metadata(path)?) == gid {
        return Ok(());
    }
    nix::unistd::chown(path, None, Some(Gid::from_raw(gid))).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_user_rules_for_nobody() {
        let pid = nix::unistd::getpid().as_raw();
        assert_eq!(could(own(), pid), process::has_net_admin(pid) == Ok(true));
        assert!(!could(own() + 1, pid), "the number of one that has ended");
        assert!(!could(own(), 0) && !could(own(), -1));
    }

    #[test]
    fn secrets_may_belong_to_root_to_us_and_to_the_daemon_s_account_only() {
        assert!(may_own_secrets(0) && may_own_secrets(own()));
        let account = User::from_uid(Uid::from_raw(0)).unwrap().map(|root| User {
            uid: Uid::from_raw(991),
            name: ACCOUNT.to_owned(),
            ..root
        });
        let find = |name: &str| account.clone().filter(|account| account.name == name);
        assert!(is_account(991, find));
        assert!(!is_account(992, find));
        assert!(!is_account(991, |_| None));
    }
}
