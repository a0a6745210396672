//! Operators' requests, as operations.

use std::collections::BTreeMap;
use std::time::Duration;

use super::allowed::Lasting;
use super::control::Request;
use super::operation_error::is_of_one_grant;
use super::operations::{OperationError, Operations};
use super::record::{Record, number};
use super::still_in::revoked;
use crate::grant::{How, Note};
use crate::units::{ClientAddr, Lifetime, LogEvent, Network, Now};

impl Operations {
    /// The apps' names by slug.
    #[must_use]
    pub fn names(&self) -> BTreeMap<String, String> {
        self.settings().apps.iter().map(|app| (app.slug.clone(), app.name.to_string())).collect()
    }

    /// Carries out an operator's change; returns a sentence that says what was done.
    ///
    /// # Errors
    /// [`OperationError`]; nothing was done then.
    pub fn operate(&mut self, request: Request, user: &str, now: Now) -> Result<String, OperationError> {
        let lifetime =
            |seconds: Option<u64>| seconds.map(Lifetime::from_secs).transpose().map_err(OperationError::from);
        match request {
            Request::Grant { app, address, seconds } => {
                let note = Note { by: user.to_owned(), how: How::Operator };
                let client = ClientAddr::new(address);
                Network::host(client.ip()).of_clients()?;
                let left = self.grant(&app, client, &note, lifetime(seconds)?, now)?;
                Record { app: Some(app.clone()), ..by(user, "grant", &client) }.log("granted by an operator");
                let long = Lifetime::from_secs(left.as_secs().max(1))
                    .map_or("for ever".to_owned(), |l| format!("for {}", l.rounded()));
                Ok(format!("{client} may reach {app} {long}"))
            }
            Request::Revoke { app, address, prefix } => {
                let client = ClientAddr::new(address);
                is_of_one_grant(client, prefix, self.settings().global.ipv6_prefix)?;
                let had = self.revoke(&app, client)?;
                let record = Record {
                    app: Some(app.clone()),
                    grants: Some(u64::from(had)),
                    ..by(user, "revoke", &client)
                };
                record.log("revoked by an operator");
                Ok(revoked(client, &app, had, &self.still_in(&app, client, now)))
            }
            Request::RevokeAll { app } => {
                self.forget_expired(now);
                let ended = self.revoke_all(app.as_deref())?;
                let grants = number(ended);
                Record { app: app.clone(), grants, address: None, ..by(user, "revoke", &"") }
                    .log("all grants revoked by an operator");
                let done = format!("{ended} {} ended", if ended == 1 { "grant" } else { "grants" });
                Ok(match self.count_networks(app.as_deref(), now) {
                    0 => done,
                    1 => format!("{done}; 1 allowed network goes on letting in (`knock-agent allow --list`)"),
                    more => {
                        format!(
                            "{done}; {more} allowed networks go on letting in (`knock-agent allow --list`)"
                        )
                    }
                })
            }
            Request::Allow { network, app, seconds } => {
                let network = network.parse::<Network>()?.of_clients()?;
                let lifetime = lifetime(seconds)?;
                let lasting = self.allow(network, app.as_deref(), lifetime, now)?;
                let lifetime_s = lifetime.map(Lifetime::as_secs);
                Record { app: app.clone(), lifetime_s, ..by(user, "allow", &network) }
                    .log("allowed by an operator");
                let what = app.as_deref().unwrap_or("every app");
                Ok(format!("{network} may reach {what} {}", how_long(lifetime, lasting)))
            }
            Request::AllowFlush { app } => {
                let count = self.flush_allowed(app.as_deref(), now)?;
                Record {
                    app: app.clone(),
                    count: number(count),
                    address: None,
                    ..by(user, "allow --flush", &"")
                }
                .log("allowed networks flushed by an operator");
                let what = if count == 1 { "network" } else { "networks" };
                Ok(format!("{count} allowed {what} removed; those of the configuration stay"))
            }
            Request::Status {}
            | Request::Overview { .. }
            | Request::Explain { .. }
            | Request::Unblock { .. }
            | Request::Confirm {}
            | Request::Teardown {}
            | Request::Health {}
            | Request::Figures {} => Ok(String::new()),
        }
    }
}

/// How long a network is allowed that was asked for so long, in words.
fn how_long(asked: Option<Lifetime>, lasting: Lasting) -> String {
    let secs = |left: Duration| left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let left = lasting.left.map(secs);
    let longer = asked.is_some_and(|asked| left.is_none_or(|left| left > asked.as_secs()));
    let time = match (left.filter(|_| longer), asked) {
        (Some(left), _) => Lifetime::from_secs(left)
            .map_or_else(|_| format!("for {left}s"), |left| format!("for {}", left.rounded())),
        (None, Some(asked)) if !longer => format!("for {asked}"),
        (None, _) => "until it is flushed".to_owned(),
    };
    let before = if longer {
        ": it was allowed for longer before, which this does not shorten (`allow --flush` ends it)"
    } else {
        ""
    };
    let anyway = if lasting.by_config {
        "; the configuration allows it, too: that goes on, and is all that a restart keeps"
    } else {
        ""
    };
    format!("{time}{before}{anyway}")
}

/// What an operator did, and about whom.
fn by(user: &str, action: &str, address: &impl ToString) -> Record {
    Record {
        address: Some(address.to_string()),
        by: Some(user.to_owned()),
        action: Some(action.to_owned()),
        ..Record::of(LogEvent::Operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_counts_is_told_and_not_the_one_that_was_asked_for() {
        let secs = Duration::from_secs;
        let said = |asked: Option<u64>, left: Option<u64>, by_config| {
            let asked = asked.map(|asked| Lifetime::from_secs(asked).unwrap());
            how_long(asked, Lasting { left: left.map(secs), by_config })
        };
        assert_eq!(said(Some(2), Some(2), false), "for 2s");
        assert_eq!(said(None, None, false), "until it is flushed");
        for (left, told) in [(None, "until it is flushed: it was"), (Some(3_600), "for 1h: it was")] {
            assert!(said(Some(2), left, false).starts_with(told), "{}", said(Some(2), left, false));
        }
        let both = said(Some(2), Some(2), true);
        assert!(both.starts_with("for 2s; the configuration"), "{both}");
    }
}
