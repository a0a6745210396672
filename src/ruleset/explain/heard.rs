//! Whether knocks come to where they are heard.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::facts::Daemon;
use super::judge::Trial;
use super::member::{covered, is_in_ours};
use super::recalled::Recalled;
use super::walk::{Walk, arrive};
use super::{history, obstacle, variants};
use crate::ruleset::audit::packet::{Interface, Packet, TcpFlags, Tracking};
use crate::ruleset::plan::{METER_V6_PREFIX, SEEN_SECS, SEEN_SET};
use crate::units::Protocol;

/// How many seconds later than the kernel the daemon may have seen a knock.
const AT_ONCE_S: u64 = 5;
/// The port from which knocks happen to come.
const KNOCKS_FROM: u16 = 51_516;

/// Whether what came to step 1 lately was not step 1. Who sends anything else there is left in the middle of a beginning, or
/// remembered by its source; what is heard comes to the daemon at once.
pub(super) fn unheard(trial: &Trial<'_>, recalled: &Recalled) -> Option<Finding> {
    let (http, _) = recalled.ports?;
    let set = format!("{SEEN_SET}_{}", trial.question.family().digit());
    let source = covered(trial.question.client, METER_V6_PREFIX);
    let counted =
        is_in_ours(&trial.facts.situation.host, &set, source).then(|| (trial.facts.ends)(&set, source));
    let ago = match counted.flatten() {
        Some(left) => SEEN_SECS.saturating_sub(left),
        None if trial.facts.begun.contains(&http) => SEEN_SECS,
        None => return None,
    };
    if recalled.events.iter().any(|event| event.ago_s <= ago.saturating_add(AT_ONCE_S)) {
        return None;
    }
    Some(
        Finding::closed(
            Cause::Step1Unheard,
            format!(
                "it came to step 1 (tcp/{http}) within the last minute, and what it sent was not step 1: a wrong path, or something else than a knock"
            ),
        )
        .next("# compare the client's step-1 path (http_post_path) with the configuration; it is POST, and plain HTTP"),
    )
}

/// What keeps knocks from the ports of the steps, or may.
pub(super) fn way(trial: &mut Trial<'_>) -> Vec<Finding> {
    let question = trial.question;
    let (Some(by), Some(host)) = (question.by.clone(), question.host) else { return Vec::new() };
    let options = question.layout.options;
    let mut ports = (options.http_port.get(), options.https_port.get());
    if let Daemon::Says(recalled) = &trial.facts.daemon {
        ports = recalled.ports.unwrap_or(ports);
    }
    let (http, https) = ports;
    let mut out = Vec::new();
    for (step, port) in [(1, http), (2, https)] {
        let walk = walk_of(trial, &by, host, port);
        if let Some(found) = lost(trial, &walk, step, port) {
            trial.take_down("knock", &walk);
            return vec![found];
        }
        out.extend(variants::too_many(trial, &walk, &format!("its step {step} (tcp/{port})")));
    }
    let proxied = question.layout.settings.global.proxy.is_some();
    let Some(listeners) = trial.facts.situation.listeners.as_ref().filter(|_| !proxied) else { return out };
    let heard = |port| listeners.iter().any(|at| at.protocol == Protocol::Tcp && at.port == port);
    let deaf = [(1, http), (2, https)].into_iter().find(|(_, port)| !heard(*port));
    if let Some((step, port)) = deaf.filter(|_| trial.facts.daemon != Daemon::Absent) {
        let found = Finding::closed(
            Cause::StepNotListening,
            format!("nothing listens at tcp/{port}, where step {step} should be heard"),
        );
        out.insert(0, found.next("journalctl -u knock-agent -n 50; systemctl restart knock-agent"));
    }
    out
}

/// Whether a rule of others drops the knock, or sends it elsewhere.
fn lost(trial: &Trial<'_>, walk: &Walk, step: u8, port: u16) -> Option<Finding> {
    let arrives_not = |mut found: Finding| {
        found.cause = Cause::KnockBlocked;
        found.message = format!("its knocks do not arrive at step {step} (tcp/{port}): {}", found.message);
        found
    };
    if let Some((met, place)) = walk.dropper().filter(|(met, _)| !met.is_ours()) {
        return Some(arrives_not(obstacle::drops(trial.facts, trial.question, walk, met, place)));
    }
    // What is in front of the steps may well be reached by a translation.
    let proxied = trial.question.layout.settings.global.proxy.is_some();
    obstacle::redirected(walk, true).into_iter().find(|_| !proxied).map(arrives_not)
}

fn walk_of(trial: &Trial<'_>, by: &Interface, host: IpAddr, port: u16) -> Walk {
    let question = trial.question;
    let from = (Some(question.client), Some(KNOCKS_FROM));
    let to = (Some(host), Some(port));
    let mut packet = Packet::new(question.family(), Protocol::Tcp, from, to, TcpFlags::Syn);
    packet.iif = Some(by.clone());
    packet.tracking = Tracking::NEW;
    packet.of_one_client = true;
    variants::usual(&mut packet);
    arrive(trial.facts.situation, trial.facts.routes, packet, None)
}

/// The certificate of step 2, where it is over.
pub(super) fn certificate(trial: &Trial<'_>) -> Option<Finding> {
    let Daemon::Says(recalled) = &trial.facts.daemon else { return None };
    let ended = recalled.certificate_ended_s?;
    Some(history::expired_certificate(ended))
}
