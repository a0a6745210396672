//! What the enforcer tells those who watch it.

use std::sync::Arc;

use super::super::around::Around;
use super::super::health::{Ailment, Part, ending, unusable};
use super::super::knocked::slug_of;
use super::super::link::Answer;
use super::super::operations::OperationError;
use super::super::tally::Figures;
use super::super::trial::ALONE;
use super::Enforcer;
use crate::backend::Firewall;
use crate::knock::{Attempt, Verdict};
use crate::ruleset::plan::GRANTS;
use crate::sys::clock;
use crate::units::Now;

impl Enforcer {
    /// Has it know what others find out of the daemon.
    #[must_use]
    pub fn knowing(mut self, around: Arc<Around>) -> Self {
        self.around = around;
        self
    }

    /// Carries a verdict out and counts the answer.
    pub(super) fn counted(&mut self, attempt: &Attempt, verdict: Verdict, now: Now) -> Answer {
        if verdict == Verdict::Alive {
            self.tally.on_monitor(attempt.step);
            return Answer::Opened;
        }
        let answer = self.carry_through(attempt, verdict, now);
        self.tally.on_answer(attempt.step, answer);
        answer
    }

    /// All figures. The sets of grants are not read: the ledger knows how many there are.
    pub(super) fn figures(&mut self, now: Now) -> Result<Figures, OperationError> {
        let rules = self.operations.firewall().counters()?;
        let firewall = self.operations.firewall();
        let mut figures = Figures {
            backend: firewall.name(),
            guarded: Some(match firewall {
                Firewall::Nftables(_) => rules.is_some(),
                // As it was when it was last looked at.
                Firewall::Iptables(iptables) => iptables.guarded(),
            }),
            rules,
            room: firewall.room().and_then(|room| u64::try_from(room).ok()).unwrap_or(u64::from(GRANTS)),
            denials: self.refusals.counts(),
            locked_out: u64::try_from(self.gatekeeper.defence().locked_out(now.boot).len())
                .unwrap_or(u64::MAX),
            commits: firewall.commits().clone(),
            ..Figures::default()
        };
        let names = self.operations.names();
        self.tally.tell(&names, &mut figures);
        for (key, count) in self.operations.ledger().counts() {
            if let Some(app) = names.get(slug_of(key)).and_then(|name| figures.apps.get_mut(name)) {
                app.grants += u64::try_from(count).unwrap_or(u64::MAX);
            }
        }
        Ok(figures)
    }

    /// What is wrong. The kernel is asked one thing, so that a socket that hangs is noticed.
    pub(super) fn ailments(&mut self) -> Vec<Ailment> {
        let mut out = Vec::new();
        let mut add = |part, message: String| out.push(Ailment { part, message });
        let firewall = self.operations.firewall();
        let gone = "the rules are not in the kernel, or not all: ports stand open";
        match firewall {
            Firewall::Nftables(_) => match firewall.guards() {
                Ok(true) => {}
                Ok(false) => add(Part::Guard, gone.to_owned()),
                Err(error) => add(Part::Kernel, format!("the kernel does not tell of the rules: {error}")),
            },
            // As it was when it was last looked at: else programs would be run.
            Firewall::Iptables(iptables) => match iptables.closes() {
                Ok(true) => {}
                Ok(false) => add(Part::Guard, gone.to_owned()),
                // No restart would help.
                Err(error) => add(Part::Guard, format!("nobody can tell whether ports are closed: {error}")),
            },
        }
        if let Some((reason, _)) = &self.unrepaired {
            add(Part::Rules, format!("the rules cannot be put right: {reason}"));
        }
        if self.trial.as_ref().is_some_and(|trial| trial.is_alone()) {
            add(Part::Daemon, ALONE.to_owned());
        }
        let known = self.around.known();
        if let Some(problem) = known.front_problem() {
            add(Part::Front, problem);
        }
        if let Some(why) = &known.certificate_refused {
            add(Part::Certificate, unusable(why));
        }
        if let Some(problem) = known.certificate_ends.and_then(|ends| ending(ends, clock::now().wall)) {
            add(Part::Certificate, problem);
        }
        if known.users_refused {
            let message =
                "files of users or clients cannot be put in force, and those of before are: the log says why";
            add(Part::Configuration, message.to_owned());
        }
        if !known.last_reload_good {
            let message =
                "the last reload was refused: the configuration of before is in force, the log says why";
            add(Part::Configuration, message.to_owned());
        }
        for trouble in known.codes {
            add(Part::Configuration, trouble);
        }
        if let Some(why) = known.no_figures {
            add(Part::Metrics, why);
        }
        if let Some(why) = known.unkept_plan {
            add(Part::LastGoodPlan, why);
        }
        if let Some(path) = &self.operations.settings().global.state_file {
            let path = path.display();
            match &self.state {
                None => add(
                    Part::StateFile,
                    format!(
                        "{path} is no state file of ours, or cannot be read: it is left as it is, and grants would not outlast a reboot; remove it, or name another, and reload"
                    ),
                ),
                Some(file) if file.has_failed() => {
                    add(
                        Part::StateFile,
                        format!("{path} cannot be written: grants would not outlast a reboot"),
                    );
                }
                Some(_) => {}
            }
        }
        out.extend(self.outside.look(self.operations.settings()));
        out
    }
}
