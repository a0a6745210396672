//! A configuration that was changed on the disk and is not in force.

use super::answer::Finding;
use super::cause::Cause;
use super::facts::Daemon;
use super::judge::Trial;
use super::recalled::Newer;
use super::span;

const RELOAD: &str = "systemctl reload knock-agent  # or: kill -HUP the daemon";
/// Keys of the global section and of an app's that keep nobody's knock from being heard.
const OF_NO_KNOCK: [&str; 19] = [
    "adopt_established",
    "default_input",
    "duration",
    "established",
    "healthcheck_app_name",
    "interface_int",
    "log_knocks",
    "log_knocks_group",
    "mark",
    "masquerade",
    "max_duration",
    "metrics",
    "notify",
    "once",
    "state_file",
    "step1_2_rate_limit_per_minute",
    "step1_reply",
    "step2_https_duration",
    "token_window",
];

/// What the daemon says of the file.
fn of<'t>(trial: &'t Trial<'_>) -> Option<&'t Newer> {
    match &trial.facts.daemon {
        Daemon::Says(recalled) => recalled.newer.as_deref(),
        Daemon::Absent | Daemon::Mute(_) => None,
    }
}

/// That a change of the file which may keep this client out is not in force.
pub(super) fn keeps_out(trial: &Trial<'_>) -> Option<Finding> {
    let newer = of(trial)?;
    let app = trial.question.app?;
    let matters = |part: &String| match part.split_once('.') {
        _ if part.starts_with('/') || part.starts_with("credential ") => true,
        Some((section, key)) => {
            (section == "global" || section == app.name.as_str()) && !OF_NO_KNOCK.contains(&key)
        }
        None => true,
    };
    let parts: Vec<String> = newer.parts.iter().filter(|part| matters(part)).cloned().collect();
    // Of a file that cannot be read nobody knows what it would change.
    let unknown = newer.refused.is_some() && newer.parts.is_empty();
    (unknown || !parts.is_empty()).then(|| told(Finding::closed, &Newer { parts, ..newer.clone() }))
}

/// The same, where it lets the client in or has another reason not to.
pub(super) fn beside(trial: &Trial<'_>) -> Option<Finding> {
    of(trial).map(|newer| told(Finding::open, newer))
}

/// A port that is guarded by rules of before.
pub(super) fn still_guarded(trial: &Trial<'_>) -> Finding {
    let found = Finding::closed(
        Cause::NotReloaded,
        format!(
            "the rules in force guard {}, and no app of the configuration does: it was changed, and is not in force",
            trial.question.service()
        ),
    );
    found.next(remedy(trial))
}

/// What puts the configuration in force.
pub(super) fn remedy(trial: &Trial<'_>) -> &'static str {
    match trial.facts.daemon {
        Daemon::Absent => {
            "systemctl restart knock-agent-guard knock-agent  # or: knock-agent guard, with the ports of its steps"
        }
        Daemon::Mute(_) | Daemon::Says(_) => RELOAD,
    }
}

fn told(finding: impl Fn(Cause, String) -> Finding, newer: &Newer) -> Finding {
    let ago = newer.changed_s.map_or_else(String::new, |seconds| format!(" {} ago", span(seconds)));
    let (message, next) = match &newer.refused {
        Some(why) => (
            format!("the configuration was changed{ago}, and the daemon cannot put it in force: {why}"),
            "knock-agent check-config; journalctl -u knock-agent -n 50",
        ),
        None => (
            format!(
                "the configuration was changed{ago} and not reloaded, so that the daemon goes by the one of before ({})",
                newer.named()
            ),
            RELOAD,
        ),
    };
    finding(Cause::NotReloaded, message).next(next)
}
