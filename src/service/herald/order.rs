//! Whom the process that tells others is to tell, as it gets it by its pipe: never by arguments or environment.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{MailSecurity, Notify};
use crate::units::{EventKind, Secret};

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
    Webhook { url: Zeroizing<String>, authorization: Option<Zeroizing<String>>, ca_file: Option<PathBuf> },
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
    pub(super) login: Option<(String, Zeroizing<String>)>,
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
                url: private(&hook.url),
                authorization: hook.authorization.as_ref().map(private),
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
                login: mail.login.as_ref().map(|(user, secret)| (user.clone(), private(secret))),
                from: mail.from.clone(),
                to: mail.to.clone(),
                whois: mail.whois,
            }),
        });
        Self { host, targets: exec.chain(webhooks).chain(mails).collect() }
    }

    /// As a line of text, wiped when dropped.
    ///
    /// # Errors
    /// None is known.
    pub(super) fn to_line(&self) -> io::Result<Zeroizing<String>> {
        // Counted first, because a text that grows would leave copies behind.
        let mut count = Count(0);
        serde_json::to_writer(&mut count, self)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(count.0 + 1));
        serde_json::to_writer(&mut *bytes, self)?;
        bytes.push(b'\n');
        String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(io::Error::other)
    }
}

fn private(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(secret.expose().to_owned())
}

/// Counts bytes.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
