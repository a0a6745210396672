//! `global.notify`.

use super::*;
use crate::config::{MailSecurity, Notify};
use crate::units::EventKind;

fn with(notify: &str) -> Result<Checked, Problems> {
    let text = GLOBAL.replace('}', &format!(", notify: {notify}}}"));
    read(&format!("{text}{APP}}}"))
}

fn good(notify: &str) -> Notify {
    with(notify).unwrap_or_else(|problems| panic!("{problems}\n{notify}")).settings.notify
}

#[test]
fn nobody_is_told_unless_somebody_is_named() {
    assert!(loads(&format!("{GLOBAL}{APP}}}")).settings.notify.is_empty());
}

#[test]
fn what_is_left_out_has_its_default() {
    let notify = good(
        "{exec: {command: /bin/x}, webhook: [{url: 'http://a'}, {url: 'https://b/c?d'}], mail: {server: m, from: a@b, to: c@d}}",
    );
    assert_eq!(
        (notify.exec[0].command.as_slice(), notify.exec[0].timeout.as_secs()),
        (&["/bin/x".to_owned()][..], 10)
    );
    assert_eq!(notify.exec[0].events.len(), EventKind::ALL.len());
    assert_eq!(notify.webhooks.len(), 2);
    let mail = &notify.mails[0];
    assert_eq!((mail.host.as_str(), mail.port, mail.security), ("m", 587, MailSecurity::StartTls));
    assert_eq!((mail.login.is_none(), mail.whois), (true, false));
}

#[test]
fn servers_and_ports_are_read_in_every_form() {
    for (server, security, host, port) in [
        ("m.example", "tls", "m.example", 465),
        ("127.0.0.1", "none", "127.0.0.1", 25),
        ("'[2001:db8::1]:2525'", "none", "2001:db8::1", 2525),
        ("'2001:db8::1'", "starttls", "2001:db8::1", 587),
        ("localhost:1025", "none", "localhost", 1025),
    ] {
        let text = format!("{{mail: {{server: {server}, security: {security}, from: a@b, to: [c@d, e@f]}}}}");
        let mail = good(&text).mails.remove(0);
        assert_eq!((mail.host.as_str(), mail.port, mail.to.len()), (host, port, 2), "{server}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (notify, path, part) in [
        ("{exec: {command: [x]}}", "global.notify.exec.command", "whole path"),
        ("{exec: {}}", "global.notify.exec.command", "missing"),
        ("{exec: {command: [/bin/x], timeout: 301}}", "global.notify.exec.timeout", "at most"),
        ("{exec: {command: [/bin/x], events: open}}", "global.notify.exec.events", "no event"),
        ("{exec: {command: [/bin/x], shell: true}}", "global.notify.exec.shell", "no such key"),
        ("{hook: {}}", "global.notify.hook", "no such key"),
        ("{webhook: {url: 'ftp://a'}}", "global.notify.webhook.url", "web server"),
        ("{webhook: {url: 'https://user@a/'}}", "global.notify.webhook.url", "web server"),
        ("{webhook: {url: 'https:// a'}}", "global.notify.webhook.url", "web server"),
        (
            "{webhook: {url: 'https://a', authorization: \"a\\nb: c\"}}",
            "global.notify.webhook.authorization",
            "header",
        ),
        ("{webhook: {events: opened}}", "global.notify.webhook", "where the secret is"),
        ("{mail: {server: m, from: 'A <a@b>', to: c@d}}", "global.notify.mail.from", "mail address"),
        ("{mail: {server: m, from: a@b, to: \"c@d\\nBcc: e@f\"}}", "global.notify.mail.to", "mail address"),
        ("{mail: {server: 'm:0', from: a@b, to: c@d}}", "global.notify.mail.server", "not a server"),
        ("{mail: {server: m, from: a@b, to: c@d, user: u}}", "global.notify.mail.user", "password"),
        (
            "{mail: {server: m, from: a@b, to: c@d, user: u, password: p, security: none}}",
            "global.notify.mail.security",
            "unprotected",
        ),
        (
            "{mail: {server: m, from: a@b, to: c@d, ca_file: x.pem}}",
            "global.notify.mail.ca_file",
            "whole path",
        ),
    ] {
        let problems = with(notify).expect_err(notify);
        let found = problems.list.iter().any(|p| p.path == path && p.message.contains(part));
        assert!(found, "{notify}: {problems}");
    }
}

#[test]
fn no_message_shows_a_secret() {
    for notify in [
        "{webhook: {url: 'ftp://correct-horse'}}",
        "{webhook: {url: 'https://a', authorization: \"correct-horse\\n\"}}",
        "{mail: {server: m, from: a@b, to: c@d, password: correct-horse}}",
        "{mail: {server: m, from: a@b, to: c@d, user: u, password: [correct-horse]}}",
    ] {
        let problems = with(notify).expect_err(notify);
        assert!(!problems.to_string().contains("horse"), "{problems}");
    }
    let notify = good(
        "{webhook: {url: 'https://a/correct-horse'}, mail: {server: m, from: a@b, to: c@d, user: u, password: correct-horse}}",
    );
    assert!(!format!("{notify:?}").contains("horse"), "{notify:?}");
}
