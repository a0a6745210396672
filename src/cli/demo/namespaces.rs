//! Network namespaces of our own, and the cable between them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

/// Where `ip` is on systems whose users have no sbin in their PATH.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Why there are no namespaces to show anything in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamespaceError {
    /// The system forbids it.
    #[error(
        "this system does not let you make user namespaces ({errno}): allow them with {remedy}, or run this with sudo"
    )]
    Forbidden {
        /// What the kernel said.
        errno: Errno,
        /// The settings that allow it.
        remedy: String,
    },
    /// The kernel said no for another reason.
    #[error("could not {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// iproute2 is not there.
    #[error("the program `{0}` is not installed: install the package iproute2")]
    Missing(&'static str),
    /// `ip` did not like what it was told.
    #[error("`ip {arguments}` failed: {output}")]
    Ip {
        /// What it was told.
        arguments: String,
        /// What it said.
        output: String,
    },
}

impl NamespaceError {
    fn system(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { what, source: errno.into() }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// A network namespace, which lasts as long as this.
#[derive(Debug)]
pub(super) struct Namespace(OwnedFd);

impl Namespace {
    /// Moves this process into a network namespace of its own, where it has the rights to change things.
    ///
    /// Must be called while the process has one thread, because user namespaces are per process.
    pub(super) fn enter_private() -> Result<Self, NamespaceError> {
        let (user, group) = (geteuid(), getegid());
        // Root needs no user namespace, but root in a container without CAP_SYS_ADMIN does.
        if user.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
            return Self::of_this_thread();
        }
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(forbidden)?;
        let write = |file: &str, text: String| fs::write(file, text).map_err(|source| map_refused(&source));
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/uid_map", format!("0 {user} 1"))?;
        write("/proc/self/gid_map", format!("0 {group} 1"))?;
        // Ubuntu's AppArmor lets the namespace be made and then takes every capability in it.
        let ns = Self::of_this_thread()?;
        match ns.within(|| unshare(CloneFlags::CLONE_NEWNET)) {
            Ok(()) => Ok(ns),
            Err(errno) => Err(forbidden(errno)),
        }
    }

    /// A new one, connected to nothing.
    pub(super) fn another() -> Result<Self, NamespaceError> {
        let made = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(NamespaceError::system("make a network namespace"))?;
                Self::of_this_thread()
            });
            maker.join()
        });
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn of_this_thread() -> Result<Self, NamespaceError> {
        File::open("/proc/thread-self/ns/net")
            .map(|file| Self(file.into()))
            .map_err(NamespaceError::io("open a network namespace"))
    }

    /// Does something inside: what it opens, and the threads and processes it starts, stay inside.
    pub(super) fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let result = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                if let Err(errno) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
                    // Going on would do it in the wrong namespace.
                    panic!("could not enter a network namespace: {errno}");
                }
                action()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` inside with these arguments, separated by spaces.
    pub(super) fn ip(&self, arguments: &str) -> Result<(), NamespaceError> {
        let program = program("ip").ok_or(NamespaceError::Missing("ip"))?;
        let output = self.within(|| {
            Command::new(program).args(arguments.split_whitespace()).stdin(Stdio::null()).output()
        });
        let output = output.map_err(NamespaceError::io("run ip"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(NamespaceError::Ip {
            arguments: arguments.to_owned(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// A path by which other processes find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }
}

/// One end of the cable.
pub(super) struct End<'a> {
    /// Where it is.
    pub(super) namespace: &'a Namespace,
    /// The interface there.
    pub(super) interface: &'a str,
    /// Its addresses, with prefix lengths.
    pub(super) addresses: &'a [String],
}

/// Lays a cable between two namespaces and brings both ends up.
pub(super) fn connect(one: &End<'_>, other: &End<'_>) -> Result<(), NamespaceError> {
    one.namespace.ip(&format!(
        "link add {} type veth peer name {} netns {}",
        one.interface,
        other.interface,
        other.namespace.path()
    ))?;
    for end in [one, other] {
        for address in end.addresses {
            // Without duplicate address detection an IPv6 address is usable at once.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            end.namespace.ip(&format!("address add {address} dev {}{nodad}", end.interface))?;
        }
        end.namespace.ip("link set lo up")?;
        end.namespace.ip(&format!("link set {} up", end.interface))?;
    }
    Ok(())
}

/// The path of an installed program.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .filter(|folder| folder.as_os_str() != OsStr::new(""))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn map_refused(source: &io::Error) -> NamespaceError {
    forbidden(Errno::from_raw(source.raw_os_error().unwrap_or(nix::libc::EPERM)))
}

/// Names the setting of this system that forbids it, if one of the known ones does.
fn forbidden(errno: Errno) -> NamespaceError {
    const SETTINGS: [(&str, &str, &str); 3] = [
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ];
    let found: Vec<&str> = SETTINGS
        .iter()
        .filter(|(file, closed, _)| {
            fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|value| value.trim() == *closed)
        })
        .map(|&(_, _, remedy)| remedy)
        .collect();
    let remedy = if found.is_empty() {
        "sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0 or \
         user.max_user_namespaces=10000, whichever this system has (a container may forbid them altogether)"
            .to_owned()
    } else {
        found.join(" and ")
    };
    NamespaceError::Forbidden { errno, remedy }
}
