//! What the daemon's memory says about a grant that is not there.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::recalled::{Event, Recalled, WRONG_PROOF};
use super::span;
use crate::config::App;
use crate::grant::Happening;

/// What became of the address last, for the app.
#[must_use]
pub(super) fn told(recalled: &Recalled, app: &App, client: IpAddr) -> Option<Finding> {
    if let Some(left) = recalled.locked_out_s {
        return Some(
            Finding::closed(
                Cause::LockedOut,
                format!("it is locked out for {} more, after too many wrong knocks", span(left)),
            )
            .next(format!("# check the client's keys, then:\nknock-agent unblock {client}")),
        );
    }
    let concerns = |event: &&Event| {
        // Who is refused for no app that there is may have meant this one.
        event.app.as_deref().is_none_or(|slug| slug == app.slug)
    };
    let event = recalled.events.iter().find(concerns)?;
    let ago = format!("{} ago", span(event.ago_s));
    let found = match &event.happening {
        Happening::Step1 { seconds } => {
            let found = step1(recalled, app, event, *seconds);
            let other = recalled.events.iter().find(|other| is_step2_alone(other));
            match other.filter(|other| other.ago_s <= event.ago_s).and_then(|other| other.app.as_deref()) {
                Some(other) => of_two_apps(found, &app.slug, other),
                None => found,
            }
        }
        Happening::Refused { reason, .. } if reason == NO_STEP1 => {
            let found = refused(2, reason, &ago, event.times);
            let began = recalled.events.iter().find(|other| {
                let begins = matches!(other.happening, Happening::Step1 { .. });
                begins && other.ago_s >= event.ago_s && other.ago_s - event.ago_s <= AT_ONCE_S
            });
            match began.and_then(|other| other.app.as_deref()).filter(|slug| *slug != app.slug) {
                Some(began) => of_two_apps(found, began, &app.slug),
                None => found,
            }
        }
        Happening::CodeWanted {} => Finding::closed(
            Cause::CodeMissing,
            format!("its key was right {ago}, and the one-time code that step 2 asked for has not come"),
        )
        .next("# have the client send a one-time code (its profile's `totp`, or what the person types when asked)"),
        // The kernel does not have it any more, and nobody told the daemon.
        Happening::Opened { .. } => Finding::closed(
            Cause::GrantRevoked,
            format!("it was let in {ago}, and its grant is not in the kernel any more: somebody removed it"),
        ),
        Happening::Closed { end, seconds, .. } => match (end.as_str(), app.once) {
            ("expired", _) => {
                Finding::closed(Cause::GrantExpired, format!("its grant of {} ended {ago}", span(*seconds)))
            }
            (_, true) => Finding::closed(
                Cause::OnceUsed,
                format!(
                    "its grant was for one connection (`once`), which it made {ago}, or somebody took it back"
                ),
            ),
            (_, false) => Finding::closed(
                Cause::GrantRevoked,
                format!(
                    "its grant was taken back {ago}: by an operator, the client, a change of the configuration, or whoever else removed it from the kernel"
                ),
            ),
        },
        Happening::Refused { step, reason } => refused(*step, reason, &ago, event.times),
        Happening::Failed { step, error } => Finding::closed(
            Cause::GrantFailed,
            format!("its knock was right {ago}, and step {step} could not be carried out: {error}"),
        )
        .next("knock-agent status; journalctl -u knock-agent -n 50"),
    };
    Some(found)
}

/// What step 2 must be.
pub(super) const COMPARE_STEP2: &str =
    "# compare the client's step-2 path (https_post_path) with the configuration; it is POST, and HTTPS";

/// The word for a step 2 whose step 1 is missing.
const NO_STEP1: &str = "no-step1";

/// Both steps of one knock come within so many seconds.
const AT_ONCE_S: u64 = 60;

fn is_step2_alone(event: &Event) -> bool {
    matches!(&event.happening, Happening::Refused { reason, .. } if reason == NO_STEP1)
}

/// Step 1 was for one app and step 2 for another one.
fn of_two_apps(mut found: Finding, first: &str, second: &str) -> Finding {
    found.message.push_str(&format!("; its step 1 was for {first} and its step 2 for {second}"));
    found.next.insert(0, "# have both steps name the same app: compare `app` in the client's profile, or what its script sends".to_owned());
    found
}

fn step1(recalled: &Recalled, app: &App, event: &Event, seconds: u64) -> Finding {
    let ago = format!("{} ago", span(event.ago_s));
    if let Some(ended) = recalled.certificate_ended_s {
        let mut found = expired_certificate(ended);
        found.message = format!("step 1 was right {ago} and step 2 never came: {}", found.message);
        return found;
    }
    let live = recalled.step1.contains(&app.slug);
    let now = match live {
        true => format!("it has {} in all to come", span(seconds)),
        false => format!("it was open for {}, so that it came too late if it came", span(seconds)),
    };
    Finding::closed(Cause::Step2Missing, format!("step 1 was right {ago}, and no step 2 has been understood since; {now}"))
        .next(match live {
            true => "# have the client go on with step 2".to_owned(),
            false => format!("# if its step 2 comes late: step2_https_duration of {} gives it more time than {}", app.name, span(seconds)),
        })
        .next("# on the client: is the port of step 2 reachable from there, is its certificate trusted, is its clock right?")
        .next(COMPARE_STEP2)
        .next("# step 2 must come from the same address as step 1 (IPv4 or IPv6, no other proxy or VPN)")
}

fn refused(step: u8, reason: &str, ago: &str, times: u32) -> Finding {
    let often = if times > 1 { format!(", {times} times") } else { String::new() };
    let closed = |cause, text: &str| Finding::closed(cause, format!("{text} ({ago}{often})"));
    match reason {
        "too-many" => {
            closed(Cause::RateLimited, "its knocks come too fast: more than step1_2_rate_limit_per_minute")
                .next("# wait a minute, then knock once; or raise step1_2_rate_limit_per_minute")
        }
        "busy" => {
            closed(Cause::RateLimited, "its knock was put off, as too many came from everybody at that time")
                .next("# knock again")
        }
        "locked-out" => {
            closed(Cause::LockedOut, "it knocked while it was locked out, and has not knocked since")
                .next("# check the client's keys, then knock again")
        }
        NO_STEP1 => {
            closed(Cause::Step1Missing, "step 2 came, and there was no step 1 of this address for the app")
                .next("# both steps must come from the same address: IPv4 or IPv6, no other proxy or VPN")
                .next("# if step 1 was right and step 2 comes late: step2_https_duration gives it more time")
        }
        "missing-code" => closed(Cause::CodeMissing, &format!("step {step} came without its one-time code"))
            .next("# have the client send a one-time code"),
        other => {
            let (why, what) = words(other);
            closed(Cause::KnockRefused, &format!("step {step} was refused: {why}")).next(what)
        }
    }
}

/// What a reason means, and what to do.
fn words(reason: &str) -> (String, &'static str) {
    let (why, what) = match reason {
        "unknown-app" => (
            "there is no app of the name that it gave",
            "# compare `app` in the client's profile with the configuration",
        ),
        "wrong-key" => (
            "wrong key, or the key of a user who is disabled or may not reach this app",
            "# compare the client's key of that step with the configuration, and `apps` of its user",
        ),
        WRONG_PROOF => (
            "a proof of no key: a wrong key, the key of a user who is disabled or may not reach this app, or a clock that differs from this host's, as a proof holds the time",
            "date -u; timedatectl  # compare it with the client's clock. If they agree, compare its key of that step, and `apps` of its user",
        ),
        "wrong-code" => (
            "wrong one-time code",
            "date -u; timedatectl  # compare it with the client's clock: codes follow the time. If they agree, the secret differs: knock-agent enroll",
        ),
        "code-held" => (
            "codes of that secret are held back: too many wrong ones came after a right key, from whatever address",
            "# somebody else may have these keys: change them, then knock-agent unblock --all",
        ),
        "replayed-code" => ("a one-time code that was used before", "# wait for the next code"),
        "replayed-proof" => {
            ("a proof that was used before", "# knock anew; the client makes a new proof each time")
        }
        "expired" => ("its key has ended (`expires`)", "# give the user a later `expires`, or a new key"),
        "key-not-taken" => (
            "step 1 takes proofs only (`step1_proof`)",
            "# have the client send proofs: step1: proof in its profile",
        ),
        "wrong-family" => {
            ("the service is of the other IP version", "# knock by the IP version of the LAN host")
        }
        "link-local" => (
            "its address is link-local, and a grant would be for every neighbour (`ipv6_prefix`)",
            "# knock by another address of this host, or set ipv6_prefix: 128",
        ),
        "table-full" => (
            "too many step 1s are pending, or too many proofs of its key were used within half a minute",
            "# knock again in a minute",
        ),
        other => return (other.to_owned(), "# journalctl -u knock-agent"),
    };
    (why.to_owned(), what)
}

/// The certificate of step 2 is over.
#[must_use]
pub(super) fn expired_certificate(seconds_ago: u64) -> Finding {
    Finding::closed(
        Cause::CertificateExpired,
        format!(
            "the certificate of step 2 ended {} ago, so clients end their knock there",
            span(seconds_ago)
        ),
    )
    .next("# renew it (ACME client, or: knock-agent cert), then: systemctl reload knock-agent")
}
