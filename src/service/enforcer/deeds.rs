//! What a right knock does: admits to step 2, opens, closes.

use super::super::link::Answer;
use super::super::operations::OperationError;
use super::super::record::Record;
use super::Enforcer;
use crate::grant::{How, Note};
use crate::units::{AppName, ClientAddr, Lifetime, LogEvent, Now};

impl Enforcer {
    pub(super) fn close(&mut self, client: ClientAddr, app: &AppName, user: &str, now: Now) -> Answer {
        match self.operations.close(app.as_str(), client, user, now) {
            Ok(ended) => {
                let record = Record {
                    address: Some(client.to_string()),
                    app: Some(app.to_string()),
                    by: Some(user.to_owned()),
                    grants: Some(u64::from(ended)),
                    ..Record::of(LogEvent::ClosedByClient)
                };
                record.log("closed by the client");
                Answer::Opened
            }
            Err(error) => failed("a grant could not be closed", client, app, &error),
        }
    }

    pub(super) fn admit(
        &mut self,
        client: ClientAddr,
        app: &AppName,
        lifetime: Lifetime,
        now: Now,
    ) -> Answer {
        let slug = self.operations.app(app.as_str()).map(|app| app.slug.clone());
        let admitted = slug.and_then(|slug| self.operations.admit_to_step2(client, &slug, lifetime));
        match admitted {
            Ok(()) => {
                let record = Record {
                    address: Some(client.to_string()),
                    app: Some(app.to_string()),
                    lifetime_s: Some(lifetime.as_secs()),
                    ..Record::of(LogEvent::Admitted)
                };
                if self.refusals.on_admission() {
                    self.later.push((record, "step 1 was right: step 2 is open"));
                }
                Answer::Opened
            }
            Err(error) => {
                self.gatekeeper.forget(client, app);
                self.remember_failure(client, app, 1, &error, now);
                failed("step 2 could not be opened", client, app, &error)
            }
        }
    }

    pub(super) fn grant(
        &mut self,
        client: ClientAddr,
        app: &AppName,
        user: &str,
        lifetime: Lifetime,
        now: Now,
    ) -> Answer {
        let note = Note { by: user.to_owned(), how: How::TwoStep };
        match self.operations.grant(app.as_str(), client, &note, Some(lifetime), now) {
            Ok(_) => Answer::Granted(lifetime),
            Err(error) => {
                self.remember_failure(client, app, 2, &error, now);
                failed("a grant could not be made", client, app, &error)
            }
        }
    }
}

fn failed(what: &str, client: ClientAddr, app: &AppName, error: &OperationError) -> Answer {
    let record = Record {
        address: Some(client.to_string()),
        app: Some(app.to_string()),
        reason: Some(error.to_string()),
        ..Record::of(LogEvent::NotGranted)
    };
    record.log(what);
    Answer::Unavailable
}
