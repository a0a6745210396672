//! Putting right what others did to our rules, and saying so.

use std::time::Duration;

use tokio::time::Instant;

use super::super::host_chains::Repaired;
use super::super::knocked::Knocks;
use super::super::operations::{OperationError, TRIES};
use super::super::record::{Record, number};
use super::super::repair::{AGAIN, Watch};
use super::Enforcer;
use crate::units::{LogEvent, Now};

/// So many grants that somebody else made at once are looked at again.
const MANY: usize = 1_000;
/// When it is said again that the same thing keeps us from putting the rules right.
const SAID_AGAIN: Duration = Duration::from_secs(60);

impl Enforcer {
    pub(super) fn repair(&mut self, now: Now) {
        self.repair_at = None;
        let known = self.operations.ledger().len();
        let outcome = self.operations.repair(self.removed, now);
        self.after_repair(outcome, now);
        // While the kernel makes room for many more in a set (`rhashtable`), a listing of it may lack some of them.
        if self.repair_at.is_none() && self.operations.ledger().len() > known + MANY {
            self.repair_at = Some(Instant::now() + AGAIN);
        }
    }

    /// Looks at the table at once where it is not known any more what is in it.
    pub(super) fn settle(&mut self, knocks: &mut Option<Knocks>, now: Now) {
        if self.repair_at.is_some() {
            return;
        }
        if self.operations.has_slept() {
            Record::of(LogEvent::Slept).log(
                "the host slept: grants that ended meanwhile are closed, and the others last as long as they were to",
            );
            // What packets opened until now counts, before everything is written anew.
            self.hear_now(knocks, now);
            if let Err(error) = self.operations.repair(true, now) {
                tracing::error!(%error, "grants cannot be made to end in time: trying again");
                self.repair_at = Some(Instant::now() + AGAIN);
            }
        } else if self.operations.is_in_doubt() {
            self.repair_at = Some(Instant::now());
        }
    }

    /// Where nobody tells of changes: looks for itself. In a fight, the next looks wait.
    pub(super) fn look(&mut self, now: Now) {
        let wait = self.patience.wait(now.boot);
        if self.fought_at.is_some_and(|at| now.boot < at + wait) {
            return;
        }
        self.by = "somebody, whom iptables does not name".to_owned();
        let outcome = self.operations.look(now);
        self.after_repair(outcome, now);
    }

    /// Puts right what somebody did until now, as nobody will who does so later; whether all is as it should be.
    pub(super) fn leave(&mut self, watch: Option<Watch>, now: Now) -> bool {
        let happened = watch.map(|mut watch| watch.heard_now()).unwrap_or_default();
        happened.into_iter().for_each(|happened| self.on_happened(happened));
        if self.trial.as_ref().is_some_and(|trial| !trial.is_confirmed()) {
            // What is tried is put back next, and what was taken back meanwhile is told by what is in the kernel then.
            if self.repair_at.take().is_some() {
                self.repair(now);
            }
            return true;
        }
        let polls = self.operations.firewall().look_every().is_some();
        let mut due = self.repair_at.take().is_some();
        for _ in 0..TRIES {
            if polls {
                self.fought_at = None;
                self.look(now);
            } else if due {
                self.repair(now);
            }
            // What iptables was given, it was asked for again; its programs may have other words for it.
            let right = if polls { Ok(self.repair_at.is_none()) } else { self.operations.is_as_wanted() };
            match right {
                Ok(true) => return true,
                Ok(false) => due = true,
                Err(error) => {
                    tracing::error!(%error, "it cannot be told whether the guard is in place");
                    return false;
                }
            }
            self.repair_at = None;
        }
        false
    }

    fn after_repair(&mut self, outcome: Result<Repaired, OperationError>, now: Now) {
        match outcome {
            Ok(repaired @ Repaired { own, host }) => {
                self.unrepaired = None;
                self.tally.on_repair(repaired);
                if host > 0 {
                    self.on_host_repaired(host, now);
                }
                if self.operations.host_is_pending() {
                    self.repair_at = Some(Instant::now() + AGAIN);
                }
                if own > 0 {
                    self.fought_at = Some(now.boot);
                    self.on_repaired(own, now);
                }
            }
            Err(error) => {
                self.on_unrepaired(error.to_string(), now);
                self.repair_at = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// What lasts is tried every second, and said once a minute.
    fn on_unrepaired(&mut self, reason: String, now: Now) {
        let said = self.unrepaired.as_ref();
        if said.is_some_and(|(before, at)| *before == reason && now.boot < *at + SAID_AGAIN) {
            return;
        }
        let by = Some(self.by.clone());
        Record { by, reason: Some(reason.clone()), ..Record::of(LogEvent::NotRepaired) }
            .log("our table was changed and cannot be put right: ports may stand open; trying again");
        self.unrepaired = Some((reason, now.boot));
    }

    fn on_host_repaired(&mut self, changes: usize, now: Now) {
        let fight = self.host_patience.on_repair(now.boot);
        let (by, changes) = (Some(self.by.clone()), number(changes));
        Record { by, changes, ..Record::of(LogEvent::HostRepaired) }
            .log("the host's chains were made anew or changed: the rule that accepts our mark is in place");
        if let Some(repairs) = fight {
            let (by, count) = (Some(self.by.clone()), Some(u64::from(repairs)));
            Record { by, count, ..Record::of(LogEvent::Fight) }.log(
                "another program keeps taking our rule out of the host's chains: stop it; from now on repairs wait a second",
            );
        }
    }

    fn on_repaired(&mut self, changes: usize, now: Now) {
        self.removed = false;
        let fought = !self.patience.wait(now.boot).is_zero();
        let fight = self.patience.on_repair(now.boot);
        if !fought || fight.is_some() {
            self.tell_repair(changes, now);
        }
        let by = Some(self.by.clone());
        Record { by: by.clone(), changes: number(changes), ..Record::of(LogEvent::Repaired) }
            .log("somebody changed our table: it is as it should be again");
        if let Some(repairs) = fight {
            let count = Some(u64::from(repairs));
            Record { by, count, ..Record::of(LogEvent::Fight) }.log(
                "another program keeps changing our table: stop it; from now on repairs wait a second, and ports may stand open for so long",
            );
        }
    }
}
