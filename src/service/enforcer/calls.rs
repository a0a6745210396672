//! What operators ask of the daemon.

use super::super::control::{Failure, Reply, Request};
use super::super::operations::OperationError;
use super::super::record::Record;
use super::super::standing::traffic;
use super::super::status::Status;
use super::super::unblock;
use super::Enforcer;
use crate::ruleset::diff::Live;
use crate::units::{ClientAddr, LogEvent, Now};

impl Enforcer {
    pub(super) fn on_call(&mut self, request: Request, user: &str, now: Now) -> Reply {
        match self.carry_out(request, user, now) {
            Ok(reply) => reply,
            Err(error) => {
                let error = self.cause(error);
                Reply::Failed { failure: error.failure(), message: error.to_string() }
            }
        }
    }

    /// What kept something from being done: rules that somebody removed a moment ago, if they are not there.
    fn cause(&mut self, error: OperationError) -> OperationError {
        let is_of_kernel = matches!(error, OperationError::NoTable | OperationError::Backend(_));
        match is_of_kernel && matches!(self.operations.firewall().guards(), Ok(false)) {
            true => OperationError::Removed,
            false => error,
        }
    }

    fn carry_out(&mut self, request: Request, user: &str, now: Now) -> Result<Reply, OperationError> {
        let reply = match request {
            Request::Status {} => {
                let (live, status) = self.operations.listing(now)?;
                Reply::Status { status: self.with_the_rest(status, &live, now) }
            }
            Request::Overview { most } => {
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let (live, status) = self.operations.overview(most, now)?;
                Reply::Status { status: self.with_the_rest(status, &live, now) }
            }
            Request::Figures {} => Reply::Figures(Box::new(self.figures(now)?)),
            Request::Health {} => self.health(),
            Request::Explain { address } => Reply::Explained { recalled: self.recall(address, now) },
            Request::Unblock { address } => unblock::unblock(&mut self.gatekeeper, address, user, now),
            Request::Confirm {} => self.confirm(user),
            Request::Teardown {} => {
                self.operations.firewall().teardown()?;
                // What is removed by hand is not to come back.
                if let Some(trial) = &self.trial {
                    trial.dismiss();
                }
                Record { by: Some(user.to_owned()), ..Record::of(LogEvent::TornDown) }
                    .log("an operator had everything removed: nothing is guarded any more");
                Reply::Done {
                    message: "the daemon removed its table and stops; nothing is guarded any more".to_owned(),
                }
            }
            other => {
                self.forget_step1(&other);
                Reply::Done { message: self.operations.operate(other, user, now)? }
            }
        };
        Ok(reply)
    }

    /// What else there is to say than who is let in.
    fn with_the_rest(&mut self, mut status: Status, live: &Live, now: Now) -> Status {
        status.limits = self.operations.firewall().limits();
        status.switched_off = live.flagged;
        // Nothing is refused for what is only to be looked at.
        let counted = self.operations.firewall().counters().ok().flatten();
        status.traffic_unknown = counted.is_none();
        status.traffic = traffic(&counted.unwrap_or_default(), &self.operations.names());
        status.daemon = Some(Box::new(self.standing(live, now)));
        unblock::tell(&mut status, &self.gatekeeper, &self.refusals, now);
        status
    }

    fn confirm(&mut self, user: &str) -> Reply {
        let failed = |failure, message: &str| Reply::Failed { failure, message: message.to_owned() };
        let state_file = self.operations.settings().global.state_file.as_deref();
        match self.trial.as_ref().map(|trial| trial.confirm(state_file)) {
            None => {
                failed(Failure::Request, "there is nothing to confirm: `run` was started without --confirm")
            }
            Some(Ok(fresh)) => {
                let reason = (!fresh).then(|| "it was confirmed before".to_owned());
                Record { by: Some(user.to_owned()), reason, ..Record::of(LogEvent::Confirmed) }
                    .log("confirmed by an operator");
                if let Some(state) = &mut self.state {
                    state.confirmed();
                }
                Reply::Done { message: "confirmed: the guard stays".to_owned() }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "not confirmed");
                failed(Failure::Unavailable, &error.to_string())
            }
        }
    }

    /// Whoever takes something back is told where that would not last.
    pub(super) fn warn_of_stale_file(&self, reply: &mut Reply) {
        if let (Some(state), Reply::Done { message }) = (&self.state, reply)
            && state.is_stale()
        {
            let file = state.path().display();
            message.push_str(&format!(
                "; but {file} cannot be changed: a reboot brings back what it says, so remove it"
            ));
        }
    }

    /// Whoever is shut out has to begin anew, also between the two steps.
    fn forget_step1(&mut self, request: &Request) {
        match request {
            Request::Revoke { app, address, .. } => {
                if let Ok(app) = app.parse() {
                    self.gatekeeper.forget(ClientAddr::new(*address), &app);
                }
            }
            Request::RevokeAll { .. } => self.gatekeeper.forget_everybody(),
            _ => {}
        }
    }
}
