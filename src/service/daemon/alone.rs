//! `guard`, where no daemon runs: the next one starts over what is put in place here and cannot tell any more what there was
//! before, so that what a start takes over and what it ends is taken over and ended here.

use std::path::Path;
use std::thread::sleep;

use super::end_those_gone;
use super::insist::{insist, insist_guarded};
use crate::backend::Firewall;
use crate::config::Settings;
use crate::ruleset::layout::Options;
use crate::service::last_good::LastGood;
use crate::service::lockout::{self, Installed};
use crate::service::operations::{OperationError, Operations};
use crate::service::outlasting::SETTLED;
use crate::service::taken::OnTrial;
use crate::service::used_knocks::UsedKnocksFile;
use crate::sys::{clock, flows};

/// Puts the plan of these settings in force as a start does, and gives the firewall back with how much was changed.
///
/// # Errors
/// [`OperationError`]; what was guarded before still is, though somebody who is gone may be in until the next start.
pub fn guard_alone(
    mut firewall: Firewall,
    settings: &Settings,
    options: Options,
    good: &LastGood,
    runtime_dir: &Path,
) -> (Firewall, Result<usize, OperationError>) {
    let mut settings = settings.clone();
    settings.global.adopt_established &= firewall.adopts();
    let mut before = None;
    let installed = insist(|| {
        lockout::install(&mut firewall, &settings, options, good.plan(), &OnTrial::default(), &mut before)
    });
    let Installed { live, read_at, changes } = match installed {
        Ok(installed) => installed,
        Err(error) => return (firewall, Err(error)),
    };
    let mut operations = Operations::over(firewall, &live, settings, options, read_at);
    if let Some(lockout::Before { outlasting, guard, own }) = before {
        (operations.outlasting, operations.own) = (outlasting, own);
        operations.end_ways_of(&guard, &live);
    }
    drop(live);
    let gone = end_those_gone(&mut operations);
    let allowed = insist_guarded(&mut operations, |operations| operations.sync_allowed(clock::now()));
    // Whose grants packets made is known to the daemon alone: it wrote that down.
    let opened = UsedKnocksFile::read(runtime_dir);
    let clients =
        insist_guarded(&mut operations, |operations| operations.resume_opened(opened.opened(), clock::now()));
    operations.end_strangers(clock::now());
    if changes > 0 {
        operations.end_claimed(clock::now());
        look_again(&mut operations);
    }
    (operations.firewall, gone.and(allowed).and(clients).map(|()| changes))
}

/// For a packet that was on its way when the guard came. Before the network is up there is none, and the boot does not wait.
fn look_again(operations: &mut Operations) {
    if flows::known_connections().is_ok_and(|known| known.is_empty()) {
        return;
    }
    sleep(SETTLED);
    operations.finish_claimed(clock::now());
    operations.follow_outlasting(clock::now());
}
