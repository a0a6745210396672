//! `global.notify`: who else is told of what happens.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::config::keys::{said_secret, secret_of};
use crate::config::outside::Outside;
use crate::config::report::Report;
use crate::config::section::{Field, Section};
use crate::config::shared_keys::Said;
use crate::units::{EventKind, Lifetime, Secret};

pub(super) const KEYS: &[&str] = &["exec", "webhook", "mail"];
pub(super) const EXEC: &[&str] = &["command", "events", "timeout"];
pub(super) const WEBHOOK: &[&str] = &["url", "file", "credential", "authorization", "ca_file", "events"];
pub(super) const MAIL: &[&str] =
    &["server", "security", "ca_file", "user", "password", "from", "to", "whois", "events"];

/// How many of a kind there may be: each is a thread of its own.
const MOST: usize = 16;
/// Words of a command, and recipients of a mail.
const MOST_WORDS: usize = 64;
const TIMEOUT_SECS: u64 = 10;
const LONGEST_TIMEOUT_SECS: u64 = 300;

/// Who else is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// Programs.
    pub exec: Vec<ExecHook>,
    /// HTTP servers.
    pub webhooks: Vec<Webhook>,
    /// People.
    pub mails: Vec<Mail>,
}

impl Notify {
    /// Whether nobody is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exec.is_empty() && self.webhooks.is_empty() && self.mails.is_empty()
    }
}

/// A program that is run for each event, which it gets as a line of JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecHook {
    /// Its absolute path and its arguments.
    pub command: Vec<String>,
    /// For what.
    pub events: BTreeSet<EventKind>,
    /// When it is ended; at most 300 s.
    pub timeout: Lifetime,
}

/// An HTTP server that gets each event as JSON by POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where; whoever knows it can often use it.
    pub url: Secret,
    /// What stands in the header `Authorization`.
    pub authorization: Option<Secret>,
    /// PEM file with the authorities that its certificate is judged by; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// For what.
    pub events: BTreeSet<EventKind>,
}

/// How mail is protected on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS from the first byte (RFC 8314), port 465.
    Tls,
    /// STARTTLS (RFC 3207), without which nothing is sent; port 587.
    StartTls,
    /// None, for a server on this host or a network that is trusted; port 25.
    None,
}

/// Mail by SMTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is protected.
    pub security: MailSecurity,
    /// PEM file with the authorities that its certificate is judged by; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// With what the server is asked to take it.
    pub login: Option<(String, Secret)>,
    /// The sender.
    pub from: String,
    /// The recipients; at least one.
    pub to: Vec<String>,
    /// Whether `whois` is asked whose the address is.
    pub whois: bool,
    /// For what.
    pub events: BTreeSet<EventKind>,
}

/// Reads `notify`; none where something is wrong with it.
pub(super) fn read(field: Option<Field<'_>>, outside: &dyn Outside, report: &mut Report) -> Option<Notify> {
    let Some(field) = field else { return Some(Notify::default()) };
    let section = field.section(report)?;
    section.refuse_unknown(KEYS, &[], "", report);
    for key in ["webhook", "mail"] {
        if !cfg!(feature = "notify")
            && let Some(field) = section.get(key)
        {
            report.error_fix(
                field.key(),
                "this program was built without web servers and mail",
                "let a program do it (`exec`), or build with the feature `notify`",
            );
        }
    }
    let exec = several(&section, "exec", report, exec);
    let webhooks = several(&section, "webhook", report, |section, report| webhook(section, outside, report));
    let mails = several(&section, "mail", report, |section, report| mail(section, outside, report));
    Some(Notify { exec: exec?, webhooks: webhooks?, mails: mails? })
}

fn several<T>(
    section: &Section<'_>,
    key: &str,
    report: &mut Report,
    mut read: impl FnMut(&Section<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(field) = section.get(key) else { return Some(Vec::new()) };
    let found = field.each(MOST, report, |item, report| read(&item.section(report)?, report))?;
    Some(found.into_iter().map(|(value, _)| value).collect())
}

fn exec(section: &Section<'_>, report: &mut Report) -> Option<ExecHook> {
    section.refuse_unknown(EXEC, &[], "", report);
    let command = match section.get("command") {
        None => {
            section.missing("command", "[/usr/local/sbin/on-knock]", report);
            None
        }
        Some(field) => command(&field, report),
    };
    let events = events(section, report);
    let usual = Lifetime::from_secs(TIMEOUT_SECS).ok();
    let timeout = match section.get("timeout") {
        None => usual,
        Some(field) => field.lifetime(report).and_then(|timeout| {
            let fits = timeout.as_secs() <= LONGEST_TIMEOUT_SECS;
            if !fits {
                report.error(field.spot(), format!("write a time of at most {LONGEST_TIMEOUT_SECS}s"));
            }
            fits.then_some(timeout)
        }),
    };
    Some(ExecHook { command: command?, events: events?, timeout: timeout? })
}

fn command(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let words = field.each(MOST_WORDS, report, |item, report| item.text(report).map(str::to_owned))?;
    let words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    if words.iter().any(|word| word.contains('\0')) {
        report.error(field.spot(), "a word of a command has no null character");
        return None;
    }
    if !words.first().is_some_and(|program| Path::new(program).is_absolute()) {
        report.error_fix(
            field.spot(),
            "this does not begin with the whole path of a program",
            "write a list: [/usr/local/sbin/on-knock, argument]; no shell is involved",
        );
        return None;
    }
    Some(words)
}

fn webhook(section: &Section<'_>, outside: &dyn Outside, report: &mut Report) -> Option<Webhook> {
    section.refuse_unknown(WEBHOOK, &[], "", report);
    let url = secret_of(section, "url", outside, report).and_then(|(url, at)| {
        let fits = is_url(url.expose());
        if !fits {
            report.error_fix(
                at.spot(),
                "this is not the address of a web server",
                "write https://name/path, or http:// for a server on this host or a network that is trusted",
            );
        }
        fits.then_some(url)
    });
    let authorization = said_secret(section, "authorization", outside, report);
    let authorization = authorization.and_then(|said| match (said, section.secret("authorization")) {
        (Some(secret), Some(field)) if !is_header_value(secret.expose()) => {
            report.error(
                field.spot(),
                "this cannot stand in an HTTP header: letters, digits and signs of ASCII only",
            );
            None
        }
        (said, _) => Some(said),
    });
    let (ca_file, events) = (ca_file(section, report), events(section, report));
    Some(Webhook { url: url?, authorization: authorization?, ca_file: ca_file?, events: events? })
}

fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.len() <= 4_096
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty() && !host.starts_with(':') && !host.contains('@'))
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text.len() <= 2_048
}

fn ca_file(section: &Section<'_>, report: &mut Report) -> Option<Option<PathBuf>> {
    let file = Said::read(section.get("ca_file"), |field| {
        let path = PathBuf::from(field.text(report)?);
        if path.is_relative() {
            report.error(field.spot(), "write the whole path of the file");
            return None;
        }
        Some(Some(path))
    });
    file.or(None)
}

fn events(section: &Section<'_>, report: &mut Report) -> Option<BTreeSet<EventKind>> {
    let Some(field) = section.get("events") else { return Some(EventKind::ALL.into_iter().collect()) };
    let found = field.each(MOST, report, |item, report| item.parse_text::<EventKind>(report))?;
    Some(found.into_iter().map(|(kind, _)| kind).collect())
}

fn mail(section: &Section<'_>, outside: &dyn Outside, report: &mut Report) -> Option<Mail> {
    section.refuse_unknown(MAIL, &[], "", report);
    let ways =
        &[("tls", MailSecurity::Tls), ("starttls", MailSecurity::StartTls), ("none", MailSecurity::None)];
    let security = Said::read(section.get("security"), |field| field.choice(ways, report));
    let security = security.or(MailSecurity::StartTls);
    let server = match section.get("server") {
        None => {
            section.missing("server", "mail.example.net", report);
            None
        }
        Some(field) => server(&field, report),
    };
    let from = address_of(section, "from", report);
    let to = match section.get("to") {
        None => {
            section.missing("to", "admin@example.net", report);
            None
        }
        Some(field) => {
            field.each(MOST_WORDS, report, address).map(|all| all.into_iter().map(|(to, _)| to).collect())
        }
    };
    let password = said_secret(section, "password", outside, report);
    let user = Said::read(section.get("user"), |field| field.text(report).map(|user| Some(user.to_owned())));
    let login = match (user.or(None)?, password?) {
        (None, None) => None,
        (Some(user), Some(password)) => Some((user, password)),
        (user, _) => {
            let (has, lacks) = if user.is_some() { ("user", "password") } else { ("password", "user") };
            report.error(section.spot_for(has), format!("there is no `{lacks}` to it"));
            return None;
        }
    };
    let whois = Said::read(section.get("whois"), |field| field.switch(report)).or(false);
    let (ca_file, events) = (ca_file(section, report), events(section, report));
    let (security, (host, port)) = (security?, server?);
    if login.is_some() && security == MailSecurity::None && !is_here(&host) {
        report.error_fix(
            section.spot_for("security"),
            "the password would go to another host unprotected",
            "write `security: starttls` or `security: tls`",
        );
        return None;
    }
    let port = port.unwrap_or(match security {
        MailSecurity::Tls => 465,
        MailSecurity::StartTls => 587,
        MailSecurity::None => 25,
    });
    Some(Mail {
        host,
        port,
        security,
        ca_file: ca_file?,
        login,
        from: from?,
        to: to?,
        whois: whois?,
        events: events?,
    })
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

fn address_of(section: &Section<'_>, key: &str, report: &mut Report) -> Option<String> {
    match section.get(key) {
        Some(field) => address(&field, report),
        None => {
            section.missing(key, "knock-agent@example.net", report);
            None
        }
    }
}

/// A mail address without a name beside it.
fn address(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let text = field.text(report)?;
    let fits = text.split_once('@').is_some_and(|(user, host)| {
        let legal = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>()[]\\,;:@\"".contains(&byte))
        };
        legal(user) && legal(host)
    });
    if !fits || text.len() > 254 {
        report.error(field.spot(), "this is not a mail address: write name@host, nothing else");
        return None;
    }
    Some(text.to_owned())
}

/// `host`, `host:port`, `[v6]:port`, a bare address.
fn server(field: &Field<'_>, report: &mut Report) -> Option<(String, Option<u16>)> {
    let text = field.text(report)?;
    let found = split(text);
    if found.is_none() {
        report.error(field.spot(), "this is not a server: write name, name:port, an address, or [v6]:port");
    }
    found
}

fn split(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Some((addr.to_string(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|&port| port > 0)?)),
    };
    if let Some(v6) = host.strip_prefix('[') {
        return Some((v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(legal)).then(|| (host.to_owned(), port))
}
