//! What cannot be together although each part of it is right.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use crate::config::app::AppDraft;
use crate::config::global::GlobalDraft;
use crate::config::proxy::taken;
use crate::config::report::{Report, Spot};
use crate::config::sequence::{KnockEffect, SequenceDraft};
use crate::config::settings::{App, Established, User};
use crate::config::time_sequence::TimeSequence;
use crate::config::users::UsersDraft;
use crate::config::{Behind, StepPorts};
use crate::units::{AccessKey, PortRange, Protocol, Timestamp, form_bytes};

/// Checks the ports of the two steps, and those behind a proxy, against each other.
pub(super) fn check_step_ports(ports: Option<StepPorts>, behind: Option<&Behind>, report: &mut Report) {
    let Some(ports) = ports else { return };
    if behind.is_some() {
        let all = taken(ports, behind);
        for (n, (port, flag)) in all.iter().enumerate() {
            if let Some((_, first)) = all.iter().take(n).find(|(other, _)| other == port) {
                report.error_fix(
                    Spot::elsewhere(flag),
                    format!("port {port} is that of {first} too"),
                    "the proxy has two ports and knock-agent two others: give the four flags different ports",
                );
            }
        }
        return;
    }
    if ports.http == ports.https {
        report.error_fix(
            Spot::elsewhere("--https-port"),
            format!("both steps listen on port {}", ports.http),
            "give --http-port and --https-port different ports",
        );
    }
}

/// Checks that nothing needs the two steps where there are none.
pub(super) fn check_without_steps(
    global: &GlobalDraft<'_>,
    apps: &[AppDraft<'_>],
    behind: Option<&Behind>,
    report: &mut Report,
) {
    let Some(steps) = &global.without_steps else { return };
    let fix = "remove that, or the line `steps: off`";
    let has_keys =
        |app: &AppDraft<'_>| app.settings.as_ref().is_some_and(|app| !app.access_key_http.is_empty());
    for app in apps {
        if has_keys(app) {
            let fix = "remove the keys, or the line `steps: off`";
            report.conflict(app.spot.clone(), steps, "without the two steps, access keys open nothing", fix);
        } else if app.sequences.is_empty() && !app.with_sequence && !global.timed {
            let fix = "add a `sequence`, or a client of `time_sequence`; or remove the line `steps: off`";
            report.conflict(app.spot.clone(), steps, "without the two steps, nothing opens this app", fix);
        }
    }
    if global.with_users {
        report.error_fix(steps.clone(), "without the two steps, users open nothing", fix);
    }
    if behind.is_some() {
        report.error_fix(steps.clone(), "without the two steps, there is nothing for a proxy", fix);
    }
    let gate =
        |draft: &&SequenceDraft| matches!(draft.sequence.effect, KnockEffect::Step1 | KnockEffect::Step2);
    for draft in global.sequences.iter().filter(gate) {
        report.conflict(draft.spot.clone(), steps, "this opens a step, and there are none", fix);
    }
}

/// Checks the apps against each other and against what all share.
pub(super) fn check(
    global: Option<&GlobalDraft<'_>>,
    apps: &[AppDraft<'_>],
    users: &UsersDraft,
    taken: &[(u16, &'static str)],
    report: &mut Report,
) {
    slugs(apps, report);
    step_ports(apps, taken, report);
    shared_ports(apps, report);
    if let Some(global) = global {
        healthcheck(global, apps, report);
        step1_room(global, apps, users, report);
    }
}

fn slugs(apps: &[AppDraft<'_>], report: &mut Report) {
    let mut seen: HashMap<&str, &AppDraft<'_>> = HashMap::new();
    for app in apps {
        let Some(slug) = app.slug.as_deref() else { continue };
        if slug == "all" {
            report.error_fix(
                app.spot.clone(),
                "in nftables `all` stands for every app".to_owned(),
                "give the app another name".to_owned(),
            );
        }
        match seen.get(slug) {
            Some(first) => report.conflict(
                app.spot.clone(),
                &first.spot,
                format!("in nftables this app and `{}` have the same name, `{slug}`", first.name),
                "rename one so that they differ in a-z, 0-9 or _ within the first 48 characters",
            ),
            None => {
                seen.insert(slug, app);
            }
        }
    }
}

fn step_ports(apps: &[AppDraft<'_>], taken: &[(u16, &'static str)], report: &mut Report) {
    for app in apps.iter().filter(|app| has(app, Protocol::Tcp)) {
        for (range, spot) in &app.ports {
            for &(port, flag) in taken {
                if range.contains(port) {
                    report.error_fix(
                        spot.clone(),
                        format!("tcp port {port} belongs to knock-agent itself ({flag})"),
                        format!("give the app another port, or knock-agent with {flag}"),
                    );
                }
            }
        }
    }
}

fn has(app: &AppDraft<'_>, protocol: Protocol) -> bool {
    app.protocol.is_some_and(|p| p.each().contains(&protocol))
}

/// Two apps with one port must agree on `established`: the rule of the port cannot tell whose a connection was.
fn shared_ports(apps: &[AppDraft<'_>], report: &mut Report) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut uses: Vec<(PortRange, usize, Established, &Spot)> = Vec::new();
        for (index, app) in apps.iter().enumerate().filter(|(_, app)| has(app, protocol)) {
            let Some(established) = app.established else {
                continue;
            };
            uses.extend(app.ports.iter().map(|(range, spot)| (*range, index, established, spot)));
        }
        uses.sort_by_key(|(range, index, ..)| (range.first(), *index));
        let mut reach_cut: Option<(u16, usize)> = None;
        let mut reach_keep: Option<(u16, usize)> = None;
        for (range, index, established, spot) in uses {
            let (own, other) = match established {
                Established::Cut => (&mut reach_cut, reach_keep),
                Established::Keep => (&mut reach_keep, reach_cut),
            };
            if own.is_none_or(|(last, _)| last < range.last()) {
                *own = Some((range.last(), index));
            }
            let clash = other.filter(|(last, _)| *last >= range.first());
            if let Some(first) = clash.and_then(|(_, other)| apps.get(other)) {
                report.conflict(
                    spot.clone(),
                    &first.spot,
                    format!(
                        "`{}` has {protocol} port {} too, but another `established`",
                        first.name,
                        range.first()
                    ),
                    "write the same `established` in both apps",
                );
            }
        }
    }
}

fn healthcheck(global: &GlobalDraft<'_>, apps: &[AppDraft<'_>], report: &mut Report) {
    if let Some((name, spot)) = &global.healthcheck
        && let Some(app) = apps.iter().find(|app| app.name == *name)
    {
        report.conflict(
            spot.clone(),
            &app.spot,
            "an app has this name: a monitor could not be told from a knock",
            "rename one of them",
        );
    }
}

/// What a step-1 packet holds beside path, app and key when curl sends it over IPv6, in bytes: IP and TCP headers
/// with options (72), `POST  HTTP/1.1` (16), `Host: [address]:port` (55), `User-Agent` (26), `Accept` (13),
/// `Content-Type` (49), `Content-Length` and the empty line (23), `app=&access_key=` (16) and `&token=123456` (13).
const STEP1_FRAME: usize = 283;

/// Checks that a request of step 1 fits into a packet.
pub(super) fn step1_room(
    global: &GlobalDraft<'_>,
    apps: &[AppDraft<'_>],
    users: &UsersDraft,
    report: &mut Report,
) {
    let Some((path, spot, most)) = &global.step1 else {
        return;
    };
    let form = apps.iter().map(|app| app.form_bytes).max().unwrap_or_default();
    let name = apps.iter().map(|app| form_bytes(app.name)).max().unwrap_or_default();
    let form = form.max(if users.form_bytes == 0 { 0 } else { name + users.form_bytes });
    let needed = STEP1_FRAME + path.expose().len() + form;
    if needed > usize::from(*most) {
        report.error_fix(
            spot.clone(),
            format!("a step-1 request with this path needs {needed} bytes, step1_max_bytes is {most}"),
            "shorten the path, the app's name or the keys of step 1, or raise step1_max_bytes (at most 1400)",
        );
    }
}

/// Warns of an app that nobody can open.
pub(super) fn nobody(
    apps: &[AppDraft<'_>],
    users: &UsersDraft,
    timed: Option<&Option<TimeSequence>>,
    report: &mut Report,
) {
    let (Some(users), Some(timed)) = (&users.list, timed) else { return };
    let knocked: BTreeSet<usize> = timed
        .iter()
        .flat_map(|timed| &timed.clients)
        .flat_map(|client| client.apps.iter().copied())
        .collect();
    for (place, app) in apps.iter().enumerate() {
        let Some(settings) = &app.settings else { continue };
        if !app.sequences.is_empty() || knocked.contains(&place) {
            continue;
        }
        let own = [&settings.access_key_http, &settings.access_key_https];
        let of_users = users.iter().flat_map(|user| &user.apps).filter(|theirs| theirs.app == settings.name);
        let fix = "add keys or a sequence here, or the app to a user or client";
        if own.iter().all(|keys| keys.is_empty()) && of_users.count() == 0 {
            report.warning(app.spot.clone(), "nobody has a key for this app: it stays closed", fix);
        } else if !has_good_keys(settings, users, None) {
            report.warning(app.spot.clone(), "every key for this app is disabled: it stays closed", fix);
        }
    }
}

/// Whether anybody has keys for an app that are not disabled and, where a time is said, have not expired.
#[must_use]
pub fn has_good_keys(app: &App, users: &[User], now: Option<SystemTime>) -> bool {
    let lasts = |ends: Option<Timestamp>| ends.zip(now).is_none_or(|(ends, now)| ends.left(now).is_some());
    let good = |keys: &[AccessKey]| keys.iter().any(|key| !key.disabled && lasts(key.expires));
    let by_user = |user: &User| {
        let theirs = user.apps.iter().find(|theirs| theirs.app == app.name);
        let good = theirs.is_some_and(|theirs| {
            !theirs.disabled && lasts(theirs.expires) && good(&theirs.http) && good(&theirs.https)
        });
        good && !user.disabled && lasts(user.expires)
    };
    good(&app.access_key_http) && good(&app.access_key_https) || users.iter().any(by_user)
}
