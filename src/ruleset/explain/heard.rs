//! Whether knocks come to where they are heard.

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::facts::Daemon;
use super::judge::Trial;
use super::member::{covered, is_in_ours};
use super::recalled::{Event, Recalled};
use super::{conversation, history, span};
use crate::grant::Happening;
use crate::ruleset::plan::{METER_V6_PREFIX, SEEN_SECS, SEEN_SET};
use crate::units::{Family, Protocol};

/// Of one knock, the kernel may have counted another connection so many seconds after the daemon heard the first.
const AT_ONCE_S: u64 = 2;

/// Whether what came to step 1 lately was not step 1. Who sends anything else there is left in the middle of a beginning, or
/// remembered by its source; what is heard comes to the daemon at once. Nobody sees what it sent, or whether that came here.
pub(super) fn unheard(trial: &Trial<'_>, recalled: &Recalled) -> Option<Finding> {
    let (http, _) = recalled.ports?;
    let set = format!("{SEEN_SET}_{}", trial.question.family().digit());
    let source = covered(trial.question.client, METER_V6_PREFIX);
    let counted =
        is_in_ours(&trial.facts.situation.host, &set, source).then(|| (trial.facts.ends)(&set, source));
    let ago = match counted.flatten() {
        // Both are whole seconds that have passed.
        Some(left) => SEEN_SECS.saturating_sub(left.saturating_add(1)),
        None if trial.facts.begun.contains(&http) => SEEN_SECS,
        None => return None,
    };
    // Of IPv6, the kernel remembers the network, of which any address may have been heard.
    let heard = recalled.events.iter().filter(|event| event.happening.is_heard()).map(|event| event.ago_s);
    let mut heard = heard.chain(recalled.network_ago_s);
    if heard.any(|ago_s| ago_s <= ago.saturating_add(AT_ONCE_S)) {
        return None;
    }
    let who = match trial.question.family() {
        Family::V4 => "it",
        Family::V6 => "it, or another address of its /64,",
    };
    let global = &trial.question.layout.settings.global;
    let found = Finding::closed(
        Cause::Step1Unheard,
        format!(
            "{who} began a connection to step 1 (tcp/{http}) within the last minute, and the daemon heard nothing: a wrong path, mostly, or something else than a knock, or the rest of it was lost"
        ),
    )
    .next("# compare the client's step-1 path (http_post_path) with the configuration; it is POST, and plain HTTP");
    let found = match global.path_rotation {
        Some(_) => found.next(
            "date -u; timedatectl  # compare it with the client's clock: with http_post_path_secret, the path follows the time",
        ),
        None => found,
    };
    Some(found.next(format!(
        "# its packet with the request may have {} bytes at most (step1_max_bytes); does the daemon hear at all: knock-agent health",
        global.step1_max_bytes
    )))
}

/// Whether something came to step 2 after a right step 1, and was none: connection tracking knows that it came.
pub(super) fn gone_on(trial: &Trial<'_>, recalled: &Recalled, found: Finding) -> Finding {
    let Some((_, https)) = recalled.ports.filter(|_| found.cause == Cause::Step2Missing) else {
        return found;
    };
    // What was refused since was understood.
    let Some(Event { ago_s, happening: Happening::Step1 { .. }, .. }) = recalled.events.first() else {
        return found;
    };
    let flows = trial.facts.flows.iter().filter(|flow| flow.protocol == Protocol::Tcp && flow.port == https);
    let came = flows.filter(|flow| flow.answered && !flow.half).map(|flow| flow.idle_s).min();
    let Some(came_s) = came.filter(|came_s| came_s <= ago_s) else { return found };
    Finding::closed(
        Cause::Step2Unheard,
        format!(
            "step 1 was right {} ago, and what came to step 2 (tcp/{https}) {} ago was not understood: a wrong path (which gets a 404), plain HTTP, or a client that does not trust the certificate",
            span(*ago_s),
            span(came_s)
        ),
    )
    .next(history::COMPARE_STEP2)
    .next("# on the client: is the certificate of step 2 trusted, and is its clock right?")
}

/// The step at which it stands that knocked, and of which nothing was heard there.
#[must_use]
pub(super) fn stands_at(told: &[Finding]) -> Option<u8> {
    match told.first()?.cause {
        Cause::Step1Unheard | Cause::Step1Missing => Some(1),
        Cause::Step2Missing | Cause::Step2Unheard => Some(2),
        _ => None,
    }
}

/// What keeps knocks from the ports of the steps, or may; `stands_at`: the step of which nothing was heard.
pub(super) fn way(trial: &mut Trial<'_>, stands_at: Option<u8>) -> Vec<Finding> {
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
        let found = conversation::obstacles(trial, &by, host, step, port);
        if found.iter().any(|finding| finding.verdict == Verdict::Closed) {
            return found;
        }
        let suspected = stands_at == Some(step);
        out.extend(found.into_iter().map(|finding| if suspected { suspect(finding, step) } else { finding }));
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

/// What may have kept the step away of which nothing was heard.
fn suspect(found: Finding, step: u8) -> Finding {
    if found.verdict != Verdict::Unknown {
        return found;
    }
    let message = format!("nothing was heard of its step {step}, and this may be why: {}", found.message);
    Finding { verdict: Verdict::Closed, message, ..found }
}

/// The certificate of step 2, where it is over.
pub(super) fn certificate(trial: &Trial<'_>) -> Option<Finding> {
    let Daemon::Says(recalled) = &trial.facts.daemon else { return None };
    let ended = recalled.certificate_ended_s?;
    Some(history::expired_certificate(ended))
}
