//! A start beside others who change rules at the same moment, as at boot: it tries again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::backend::BackendError;
use crate::service::operations::{OperationError, Operations};
use crate::sys::clock;

/// For how long others may get in the way.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Acts until it is done, or until what is in the way is nobody's who changes rules.
///
/// # Errors
/// The last [`OperationError`].
pub(super) fn insist<T>(mut act: impl FnMut() -> Result<T, OperationError>) -> Result<T, OperationError> {
    let end = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match act() {
            Err(error) if is_of_others(&error) && Instant::now() < end => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "somebody else changes rules at the same time: it is tried again for some seconds");
                }
                sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// The same once the guard was in place: what is missing of it is put back before each further try.
///
/// # Errors
/// As [`insist`].
pub(super) fn insist_guarded<T>(
    operations: &mut Operations,
    mut act: impl FnMut(&mut Operations) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    let mut first = true;
    insist(|| {
        if !std::mem::take(&mut first) {
            operations.repair(true, clock::now())?;
        }
        act(operations)
    })
}

/// What the kernel refuses for good, it refuses with other numbers, and who starts the daemon is to hear it at once.
fn is_of_others(error: &OperationError) -> bool {
    match error {
        OperationError::NoTable | OperationError::Backend(BackendError::NotAsWritten(_)) => true,
        OperationError::Backend(BackendError::Refused { errno, .. }) => {
            matches!(errno, Errno::ENOENT | Errno::EEXIST | Errno::EBUSY)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_spoil_is_done_again_and_what_cannot_be_is_not() {
        let mut left = 3;
        let done = insist(|| {
            left -= 1;
            if left > 0 { Err(OperationError::NoTable) } else { Ok(left) }
        });
        assert!(matches!(done, Ok(0)));
        let refused = |errno| BackendError::Refused { change: "add a rule".to_owned(), errno };
        for lasting in [BackendError::NotPermitted, refused(Errno::EOPNOTSUPP)] {
            let (mut tries, mut lasting) = (0, Some(lasting));
            let vain: Result<(), _> = insist(|| {
                tries += 1;
                Err(lasting.take().unwrap().into())
            });
            assert!(vain.is_err() && tries == 1);
        }
        let mut gone = Some(refused(Errno::ENOENT));
        assert!(insist(|| gone.take().map_or(Ok(()), |error| Err(error.into()))).is_ok());
    }
}
