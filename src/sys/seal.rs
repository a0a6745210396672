//! What a process of ours can never do again: file systems and networks out of reach (`landlock(7)`), and system calls
//! that end it (`seccomp(2)`). Both hold for all that it starts, and nothing lifts them.

use std::fmt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod calls;

/// The newest version of landlock whose ways are known; on an older kernel, those that it knows are closed.
const LANDLOCK: ABI = ABI::V6;

/// Why a process is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Landlock is there and would not.
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter of system calls cannot be put in force.
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Whether the kernel knows landlock.
    pub landlock: bool,
    /// Whether system calls are filtered: this program knows those of some machines only.
    pub seccomp: bool,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.landlock, self.seccomp) {
            (true, true) => "landlock and seccomp",
            (true, false) => "landlock only: no seccomp filter for this machine",
            (false, true) => "seccomp only: this kernel has no landlock",
            (false, false) => {
                "nothing: this kernel has no landlock, and no seccomp filter is known for this machine"
            }
        })
    }
}

/// Leaves the process what is open already and sockets accepted from it: no file, no new socket, no other process, no
/// connection to anywhere.
///
/// # Errors
/// [`SealError`]; some of it may be in force then, and the process should end.
pub fn front() -> Result<Sealed, SealError> {
    let landlock = leave_nothing()?;
    Ok(Sealed { landlock, seccomp: filter(Role::Front)? })
}

/// Leaves the process threads, sockets and files: all of them to read, those below `writable` also to write; it can never start
/// a program. Folders that are not there stay out of reach.
///
/// # Errors
/// As for [`front`].
pub fn enforcer(writable: &[&Path]) -> Result<Sealed, SealError> {
    let landlock = leave_files(writable)?;
    Ok(Sealed { landlock, seccomp: filter(Role::Enforcer)? })
}

/// Whose system calls.
#[derive(Clone, Copy)]
enum Role {
    Front,
    Enforcer,
}

fn leave_nothing() -> Result<bool, SealError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn leave_files(writable: &[&Path]) -> Result<bool, SealError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(["/"], read))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(LANDLOCK) & !AccessFs::Execute))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn filter(role: Role) -> Result<bool, SealError> {
    for program in calls::programs(role).map_err(|error| SealError::Seccomp(error.to_string()))? {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|error| SealError::Seccomp(error.to_string()))?;
    }
    Ok(true)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn filter(_role: Role) -> Result<bool, SealError> {
    Ok(false)
}

#[cfg(test)]
mod tests;
