//! How the daemon stands, for `status`.

use std::num::NonZeroU16;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::control::Reply;
use super::super::standing::{Configuration, FrontState, HostRule, Standing};
use super::Enforcer;
use crate::backend::Plan;
use crate::config::Behind;
use crate::ruleset::diff::{Live, diff};
use crate::ruleset::model::Hook;
use crate::units::{Now, Timestamp};

impl Enforcer {
    /// How it stands, given what is live.
    pub(super) fn standing(&mut self, live: &Live, now: Now) -> Standing {
        let known = self.around.known();
        let ends = known.certificate_ends;
        Standing {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: text(known.started),
            uptime_s: now.wall.duration_since(known.started).map_or(0, |up| up.as_secs()),
            trial_ends_in_s: self.trial.as_ref().and_then(|trial| trial.ends_in()).map(|left| left.as_secs()),
            rules_as_wanted: self.rules_as_wanted(live),
            host_rule: self.host_rule(),
            listens: self.listens(),
            ports: self.public_ports(),
            front: known.front.map(|front| FrontState { serves: front.serves, restarts: front.restarts }),
            configuration: Configuration {
                since: text(known.configured),
                last_reload_good: known.last_reload_good && !known.users_refused,
                reloads: known.reloaded,
                refused: known.refused,
                newer: None,
            },
            certificate_ends: ends.map(text),
            certificate_ends_in_s: ends.map(|ends| seconds_until(ends, now.wall)),
            certificate_refused: known.certificate_refused,
            problems: self.ailments(),
        }
    }

    /// What is wrong, and by which ports that is to be judged.
    pub(super) fn health(&mut self) -> Reply {
        let proxy = self.operations.in_force().0.global.proxy.as_ref();
        let behind = proxy.map(|proxy| Behind {
            http: proxy.http_port,
            https: proxy.https_port,
            trusted: proxy.trusted.clone(),
        });
        Reply::Health { problems: self.ailments(), ports: self.public_ports(), behind, by_flags: false }
    }

    fn closes(&mut self, live: &Live) -> bool {
        self.operations.firewall().closes(live).unwrap_or(false)
    }

    fn rules_as_wanted(&mut self, live: &Live) -> Option<bool> {
        let (settings, options) = self.operations.in_force();
        let (settings, options) = (settings.clone(), options);
        match self.operations.firewall().plan(&settings, options) {
            Ok(Plan::Nftables(wanted)) => Some(diff(Some(live), &wanted).is_empty()),
            // Whether they are more than closed would be programs that are run.
            Ok(Plan::Iptables(_)) => (self.unrepaired.is_some() || !self.closes(live)).then_some(false),
            Err(_) => None,
        }
    }

    fn host_rule(&self) -> Option<HostRule> {
        let (wishes, pending, troubles) = self.operations.host_rule()?;
        let chains = wishes.iter().map(|wish| {
            let hook = match wish.hook {
                Hook::Prerouting => "prerouting",
                Hook::Input => "input",
                Hook::Forward => "forward",
                Hook::Output => "output",
                Hook::Postrouting => "postrouting",
            };
            format!("{} {}", wish.table, wish.chain.as_deref().unwrap_or(hook))
        });
        Some(HostRule { chains: chains.collect(), pending, troubles })
    }

    fn public_ports(&self) -> Option<(NonZeroU16, NonZeroU16)> {
        let (settings, options) = self.operations.in_force();
        settings.global.steps.then_some((options.http_port, options.https_port))
    }

    fn listens(&self) -> Vec<String> {
        let (settings, options) = self.operations.in_force();
        let ports = match &settings.global.proxy {
            _ if !settings.global.steps => return Vec::new(),
            Some(proxy) => [proxy.http_port, proxy.https_port],
            None => [options.http_port, options.https_port],
        };
        ports.map(|port| format!("tcp/{port}")).to_vec()
    }
}

fn text(at: SystemTime) -> String {
    let secs = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_secs(secs).map(|at| at.to_string()).unwrap_or_default()
}

fn seconds_until(at: SystemTime, now: SystemTime) -> i64 {
    let whole = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(now) {
        Ok(left) => whole(left),
        Err(past) => -whole(past.duration()),
    }
}
