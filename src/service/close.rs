//! A client that takes back what was opened for it.

use super::operations::{OperationError, Operations, TRIES};
use super::reload::inherited;
use super::shut_out::ShutOut;
use crate::backend::BackendError;
use crate::grant::{How, Note, Succession};
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::model::Elements;
use crate::ruleset::plan::app_set;
use crate::units::{ClientAddr, Now};

impl Operations {
    /// Ends one user's grant at an address, and what it came to by one for one connection; others there keep what was granted to
    /// them. False if there was none.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub fn close(
        &mut self,
        app: &str,
        client: ClientAddr,
        user: &str,
        now: Now,
    ) -> Result<bool, OperationError> {
        let slug = self.app(app)?.slug.clone();
        let had = self.close_grant(&slug, client, user, now)?;
        let addr = client.masked_v6(self.settings.global.ipv6_prefix).ip();
        let succession = Succession::without(user);
        // Whose it is may not be known, and who closes relies on it.
        let theirs = |note: &Note| note.how == How::Unknown || succession.note(note).is_none();
        let connected = self.cut_connected(&slug, |at, note| at == addr && theirs(note))?;
        Ok(had || connected > 0)
    }

    fn close_grant(
        &mut self,
        slug: &str,
        client: ClientAddr,
        user: &str,
        now: Now,
    ) -> Result<bool, OperationError> {
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        let set = SetRef::plain(app_set(slug, addr.family()));
        let key = address_key(addr.ip());
        let succession = Succession::without(user);
        self.ledger.expire(now);
        let users = self.ledger.users(slug, addr.ip(), now);
        let had = users.iter().any(|(note, ..)| succession.note(note).is_none());
        for _ in 0..TRIES {
            let Some(element) = self.firewall.element(&set, &key)? else { break };
            let users = users.clone();
            let change = match inherited(&element, users, &succession) {
                // Somebody else has it for longer.
                Some(after) if after == element => {
                    self.ledger.succeed(slug, Some(addr.ip()), &succession);
                    return Ok(had);
                }
                Some(after) => Change::RenewElements {
                    set: set.clone(),
                    elements: Elements::from([(key.clone(), after)]),
                },
                None => Change::DeleteElements {
                    set: set.clone(),
                    elements: Elements::from([(key.clone(), element)]),
                },
            };
            match self.firewall.apply(&[change]) {
                Ok(()) => {
                    self.ledger.succeed(slug, Some(addr.ip()), &succession);
                    self.cut_open(&ShutOut::one(slug, addr.ip()));
                    return Ok(true);
                }
                // It ended between being read and being removed.
                Err(BackendError::Refused { errno: nix::errno::Errno::ENOENT, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The kernel has none: of rules that somebody removed a moment ago, the ledger would bring it back.
        self.ledger.succeed(slug, Some(addr.ip()), &succession);
        if had {
            self.cut_open(&ShutOut::one(slug, addr.ip()));
        }
        Ok(had)
    }
}
