//! Whom the process that tells others is to tell, as it gets it by its pipe: never by arguments or environment.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{MailSecurity, Notify};
use crate::units::EventKind;

/// Whom to tell of what.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) host: String,
    pub(super) targets: Vec<Target>,
}

/// One of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) events: Vec<String>,
    pub(super) way: Way,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Way {
    Exec { command: Vec<String>, timeout: Duration },
    Webhook { url: String, authorization: Option<String>, ca_file: Option<PathBuf> },
    Mail(MailOrder),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailOrder {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) starttls: bool,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) login: Option<(String, String)>,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) whois: bool,
}

impl Order {
    pub(super) fn of(notify: &Notify, host: String) -> Self {
        let words = |events: &std::collections::BTreeSet<EventKind>| -> Vec<String> {
            events.iter().map(|kind| kind.word().to_owned()).collect()
        };
        let exec = notify.exec.iter().map(|hook| Target {
            events: words(&hook.events),
            way: Way::Exec { command: hook.command.clone(), timeout: hook.timeout.as_duration() },
        });
        let webhooks = notify.webhooks.iter().map(|hook| Target {
            events: words(&hook.events),
            way: Way::Webhook {
                url: hook.url.expose().to_owned(),
                authorization: hook.authorization.as_ref().map(|secret| secret.expose().to_owned()),
                ca_file: hook.ca_file.clone(),
            },
        });
        let mails = notify.mails.iter().map(|mail| Target {
            events: words(&mail.events),
            way: Way::Mail(MailOrder {
                host: mail.host.clone(),
                port: mail.port,
                tls: mail.security == MailSecurity::Tls,
                starttls: mail.security == MailSecurity::StartTls,
                ca_file: mail.ca_file.clone(),
                login: mail.login.as_ref().map(|(user, secret)| (user.clone(), secret.expose().to_owned())),
                from: mail.from.clone(),
                to: mail.to.clone(),
                whois: mail.whois,
            }),
        });
        Self { host, targets: exec.chain(webhooks).chain(mails).collect() }
    }
}
