//! The plan in force, kept for `knock-agent guard`; tried again where the disk would not.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::around::Around;
use super::last_good::LastGood;

/// Who keeps it. Waits for the disk.
pub(super) struct PlanKeeper {
    state_dir: PathBuf,
    /// The one that could not be kept. Held while one is written, so that none is written over by an older one.
    unkept: Mutex<Option<LastGood>>,
    around: Arc<Around>,
}

impl PlanKeeper {
    /// Keeps plans in the state directory, and has those know of it who watch the daemon.
    pub(super) fn new(state_dir: PathBuf, around: Arc<Around>) -> Self {
        Self { state_dir, unkept: Mutex::default(), around }
    }

    /// Keeps this one instead of any before.
    pub(super) fn keep(&self, good: &LastGood) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = good.keep(&self.state_dir);
        if let Err(error) = &kept {
            tracing::warn!(%error, "this plan is not kept: `knock-agent guard` would fall back on the one before, if there is one; it is tried again");
        }
        *unkept = kept.is_err().then(|| good.clone());
        self.tell(kept);
    }

    /// Keeps the one that could not be kept, if there is one.
    pub(super) fn again(&self) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(good) = &*unkept else { return };
        let kept = good.keep(&self.state_dir);
        if kept.is_ok() {
            tracing::info!("the plan in force is kept now");
            *unkept = None;
        }
        self.tell(kept);
    }

    /// The first of these, while others are served.
    pub(super) async fn keep_beside(self: &Arc<Self>, good: LastGood) {
        let this = Arc::clone(self);
        let _ = spawn_blocking(move || this.keep(&good)).await;
    }

    /// The second one.
    pub(super) async fn again_beside(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let _ = spawn_blocking(move || this.again()).await;
    }

    fn tell(&self, kept: io::Result<()>) {
        let why = |error| {
            let path = LastGood::path(&self.state_dir);
            format!(
                "{} cannot be written ({error}): with a configuration that cannot be used, `knock-agent guard` would close by a plan of before, or not at all",
                path.display()
            )
        };
        self.around.plan_kept(kept.map_err(why));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backend::Plan;
    use crate::config::Step1Reply;
    use crate::ruleset::model::Ruleset;
    use crate::service::front::settings_for_tests;

    #[test]
    fn a_plan_that_could_not_be_kept_is_told_and_kept_later() {
        let top = std::env::temp_dir().join(format!("ka-kept-plan-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        // In the place of the folder, for a while.
        let state_dir = top.join("state");
        fs::write(&state_dir, "").unwrap();
        let around = Arc::new(Around::default());
        let plans = PlanKeeper::new(state_dir.clone(), Arc::clone(&around));
        let good = LastGood::of(&settings_for_tests(Step1Reply::Silent), Plan::Nftables(Ruleset::default()));
        plans.again();
        assert_eq!(around.known().unkept_plan, None, "there is nothing to keep yet");
        plans.keep(&good);
        plans.again();
        assert!(around.known().unkept_plan.unwrap().contains("state/last-good-plan"));
        fs::remove_file(&state_dir).unwrap();
        plans.again();
        assert_eq!(around.known().unkept_plan, None);
        assert!(LastGood::read(&state_dir).unwrap() == good);
        fs::remove_dir_all(&top).unwrap();
    }
}
