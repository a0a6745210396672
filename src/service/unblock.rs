//! Lock-outs as operators see them.

use super::control::Reply;
use super::record::{Record, number};
use super::refusals::Refusals;
use super::status::{Locked, Status};
use crate::knock::Gatekeeper;
use crate::units::{ClientAddr, LogEvent, Now};
use std::net::IpAddr;

/// Adds to the status what only the daemon knows.
pub(super) fn tell(status: &mut Status, gatekeeper: &Gatekeeper, refusals: &Refusals, now: Now) {
    status.locked_out = gatekeeper.defence().locked_out(now.boot).iter().map(Locked::row).collect();
    status.refused = refusals.counts();
}

/// Lifts the lock-out of an address; or all of them, and what is held back of one-time codes.
pub(super) fn unblock(gatekeeper: &mut Gatekeeper, address: Option<IpAddr>, user: &str, now: Now) -> Reply {
    let client = address.map(ClientAddr::new);
    let lifted = gatekeeper.defence_mut().unblock(client, now.boot);
    let message = match client {
        Some(client) if lifted > 0 => {
            let (address, by) = (Some(client.to_string()), Some(user.to_owned()));
            Record { address, by, ..Record::of(LogEvent::Unlocked) }
                .log("a lock-out was lifted by an operator");
            format!("{client} may knock again")
        }
        Some(client) => format!("{client} was not locked out; its failures are forgotten"),
        None => {
            gatekeeper.guesses_mut().lift();
            let (by, count) = (Some(user.to_owned()), number(lifted));
            Record { by, count, ..Record::of(LogEvent::Unlocked) }
                .log("all lock-outs were lifted by an operator");
            format!("{lifted} lock-outs lifted; all failures are forgotten")
        }
    };
    Reply::Done { message }
}
