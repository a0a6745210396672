//! Mail.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport};

use super::message::Message;
use super::order::MailOrder;
use super::process::persist;
use crate::sys::command;

/// Events of this time share a mail.
const GATHER: Duration = Duration::from_secs(2);
/// The most that share one.
const MOST: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);
/// For one question to whois, and how many of them a mail may cost.
const WHOIS: Duration = Duration::from_secs(5);
const QUESTIONS: usize = 5;
/// What whois servers of all regions call what a person wants to know.
const TELLING: &[&str] = &["netname:", "org-name:", "orgname:", "descr:", "country:"];
const OUTPUT: u64 = 64 << 10;
const TOLD: usize = 120;

/// Mails what comes, several events in one mail where they come together.
pub(super) fn work(order: &MailOrder, receiver: &Receiver<Message>, host: &str) {
    while let Ok(first) = receiver.recv() {
        let (messages, last) = gather(first, receiver);
        let text = body(order, &messages, host);
        persist(|| send(order, &messages, &text, host));
        if last {
            return;
        }
    }
}

/// What comes within a short time, and whether nothing will come after it.
fn gather(first: Message, receiver: &Receiver<Message>) -> (Vec<Message>, bool) {
    let end = Instant::now() + GATHER;
    let mut messages = vec![first];
    while messages.len() < MOST {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(message) => messages.push(message),
            Err(RecvTimeoutError::Timeout) => return (messages, false),
            Err(RecvTimeoutError::Disconnected) => return (messages, true),
        }
    }
    (messages, false)
}

fn subject(messages: &[Message], host: &str) -> String {
    let first = messages.first().map(Message::sentence).unwrap_or_default();
    // Whatever a name holds, a header is one line.
    let first: String = first.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect();
    match messages.len() {
        0 | 1 => format!("{host}: {first}"),
        many => format!("{host}: {first}, and {} more", many - 1),
    }
}

fn body(order: &MailOrder, messages: &[Message], host: &str) -> String {
    let mut text = format!("knock-agent on {host}:\n\n");
    for message in messages {
        let _ = writeln!(text, "{}  {}", message.time, message.sentence());
    }
    if order.whois {
        let addresses: BTreeSet<&str> = messages.iter().filter_map(|m| m.address.as_deref()).collect();
        for address in addresses.into_iter().take(QUESTIONS) {
            let _ = write!(text, "\n{address}: {}\n", whose(address));
        }
    }
    text
}

/// What whois says about an address, in one line.
fn whose(address: &str) -> String {
    let Some(program) = command::find("whois") else { return "whois is not installed".to_owned() };
    // An IPv6 prefix is asked for by its first address.
    let address = address.split('/').next().unwrap_or_default();
    if address.parse::<std::net::IpAddr>().is_err() {
        return "not an address".to_owned();
    }
    let words = [program.to_str().unwrap_or_default(), address];
    match command::run_bounded(&words, "", WHOIS, OUTPUT) {
        Ok(done) => summary(&done.output),
        Err(error) => format!("whois: {error}"),
    }
}

/// The telling lines of a whois answer, once each.
fn summary(answer: &str) -> String {
    let mut seen = BTreeSet::new();
    let telling = answer.lines().filter_map(|line| {
        let line = line.trim();
        let lower = line.to_ascii_lowercase();
        let key = TELLING.iter().find(|key| lower.starts_with(**key))?;
        let value: String =
            line.get(key.len()..)?.trim().chars().filter(|c| !c.is_control()).take(TOLD).collect();
        (!value.is_empty() && seen.insert((*key, value.clone()))).then_some(value)
    });
    let found: Vec<String> = telling.take(6).collect();
    if found.is_empty() { "whois says nothing".to_owned() } else { found.join(", ") }
}

fn send(order: &MailOrder, messages: &[Message], text: &str, host: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("mail by {}: {error}", order.host);
    let from = order.from.parse().map_err(|error| failed(&error))?;
    let mut mail = lettre::Message::builder().from(from).subject(subject(messages, host));
    for to in &order.to {
        mail = mail.to(to.parse().map_err(|error| failed(&error))?);
    }
    let mail = mail.header(ContentType::TEXT_PLAIN).body(text.to_owned()).map_err(|error| failed(&error))?;
    let mut transport = SmtpTransport::builder_dangerous(&order.host)
        .port(order.port)
        .hello_name(ClientId::Domain(host.to_owned()))
        .timeout(Some(PATIENCE))
        .tls(tls(order)?);
    if let Some((user, password)) = &order.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.to_string()));
    }
    transport.build().send(&mail).map(drop).map_err(|error| failed(&error))
}

fn tls(order: &MailOrder) -> Result<Tls, String> {
    if !order.tls && !order.starttls {
        return Ok(Tls::None);
    }
    let failed = |error: &dyn std::fmt::Display| format!("mail by {}: {error}", order.host);
    let mut parameters = TlsParameters::builder(order.host.clone());
    if let Some(path) = &order.ca_file {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        parameters = parameters.certificate_store(CertificateStore::None);
        for certificate in Certificate::from_pem(&text).into_iter() {
            parameters = parameters.add_root_certificate(certificate);
        }
    }
    let parameters = parameters.build().map_err(|error| failed(&error))?;
    Ok(if order.tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{EventKind, Now};

    #[test]
    fn what_whois_says_becomes_one_line() {
        let answer = "% comment\nnetname:        TEST-NET-3\ndescr: Documentation\ndescr: Documentation\r\ncountry:  ZZ\nsource: X\n";
        assert_eq!(summary(answer), "TEST-NET-3, Documentation, ZZ");
        assert_eq!(summary("No match\n"), "whois says nothing");
        assert_eq!(summary(&format!("descr: {}\n", "x".repeat(10_000))).len(), TOLD);
    }

    #[test]
    fn a_subject_is_one_line_whatever_a_name_holds() {
        let mut message = Message::new(EventKind::Opened, Now::at_secs(1));
        message.by = Some("mallory\r\nBcc: everybody@example.net".to_owned());
        let line = subject(&[message.clone(), message], "router");
        assert!(!line.contains(['\r', '\n']) && line.starts_with("router: ") && line.ends_with("and 1 more"));
    }
}
