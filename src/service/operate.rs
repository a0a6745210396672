//! Operators' requests, as operations.

use std::collections::BTreeMap;

use super::control::Request;
use super::operations::{OperationError, Operations};
use crate::grant::{How, Note};
use crate::units::{ClientAddr, Lifetime, Network, Now};

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
                let left = self.grant(&app, client, &note, lifetime(seconds)?, now)?;
                tracing::info!(%client, app, user, "granted by an operator");
                let long = Lifetime::from_secs(left.as_secs().max(1))
                    .map_or("for ever".to_owned(), |l| format!("for {l}"));
                Ok(format!("{client} may reach {app} {long}"))
            }
            Request::Revoke { app, address } => {
                let client = ClientAddr::new(address);
                let had = self.revoke(&app, client)?;
                tracing::info!(%client, app, user, had, "revoked by an operator");
                Ok(if had {
                    format!("{client} may no longer reach {app}")
                } else {
                    format!("{client} had no grant for {app}")
                })
            }
            Request::RevokeAll { app } => {
                let ended = self.revoke_all(app.as_deref())?;
                tracing::info!(app, user, ended, "all grants revoked by an operator");
                Ok(format!("{ended} {} ended", if ended == 1 { "grant" } else { "grants" }))
            }
            Request::Allow { network, app, seconds } => {
                let network: Network = network.parse()?;
                let lifetime = lifetime(seconds)?;
                self.allow(network, app.as_deref(), lifetime, now)?;
                tracing::info!(%network, app, user, "allowed by an operator");
                let what = app.as_deref().unwrap_or("every app");
                let long =
                    lifetime.map_or("until it is flushed".to_owned(), |lifetime| format!("for {lifetime}"));
                Ok(format!("{network} may reach {what} {long}"))
            }
            Request::AllowFlush { app } => {
                let count = self.flush_allowed(app.as_deref(), now)?;
                tracing::info!(user, count, "allowed networks flushed by an operator");
                let what = if count == 1 { "network" } else { "networks" };
                Ok(format!("{count} allowed {what} removed; those of the configuration stay"))
            }
            Request::Status {}
            | Request::Explain { .. }
            | Request::Unblock { .. }
            | Request::Confirm {}
            | Request::Teardown {} => Ok(String::new()),
        }
    }
}
