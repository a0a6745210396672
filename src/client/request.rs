//! A knock as bytes, and the answer to it.

use crate::knock::LIFETIME_HEADER;
use crate::units::{HttpPath, Lifetime, Secret};

const MAX_HEADERS: usize = 64;

/// A form in the making; what is added is percent-encoded.
pub(super) struct FormText(zeroize::Zeroizing<String>);

impl FormText {
    pub fn new() -> Self {
        // Longer than any form becomes: a text that grows leaves copies behind.
        Self(zeroize::Zeroizing::new(String::with_capacity(2_048)))
    }

    pub fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(byte.into());
            } else {
                self.0.push_str(&format!("%{byte:02X}"));
            }
        }
    }
}

/// The whole request, to be sent in one piece: the gateway's kernel compares the first segment.
pub(super) fn post(host: &str, path: &HttpPath, form: &FormText) -> Secret {
    let mut text = String::with_capacity(4_096);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    text.push_str("POST ");
    text.push_str(path.expose());
    text.push_str(" HTTP/1.1\r\nHost: ");
    text.push_str(&host);
    text.push_str("\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ");
    text.push_str(&form.0.len().to_string());
    text.push_str("\r\nConnection: close\r\n\r\n");
    text.push_str(&form.0);
    Secret::new(text)
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    /// Whether it asks for a one-time code.
    pub wants_code: bool,
    /// For how long the service is open, where it says so.
    pub lifetime: Option<Lifetime>,
}

/// The answer in these bytes; nothing as long as its head is not complete.
pub(super) fn read_answer(bytes: &[u8]) -> Result<Option<Answer>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    if response.parse(bytes)?.is_partial() {
        return Ok(None);
    }
    let wants_code = response.headers.iter().any(|header| {
        let scheme = header.value.split(|b| *b == b' ').next().unwrap_or_default();
        header.name.eq_ignore_ascii_case("www-authenticate") && scheme.eq_ignore_ascii_case(b"totp")
    });
    let lifetime = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(LIFETIME_HEADER))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .and_then(|secs| Lifetime::from_secs(secs).ok());
    Ok(response.code.map(|status| Answer { status, wants_code, lifetime }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::{Credential, Limits, Progress, read_request};

    #[test]
    fn the_gateway_reads_what_the_client_writes() {
        let mut form = FormText::new();
        form.add("app", "my app!");
        form.add("access_key", "a+b &=%ä0123456789");
        let path: HttpPath = "/first-one-4711".parse().unwrap();
        for host in ["gate.example.com", "2001:db8::1"] {
            let request = post(host, &path, &form);
            let read =
                read_request(request.expose().as_bytes(), std::slice::from_ref(&path), Limits::step1(512));
            let Progress::Done(form) = read else { panic!("{host}: {read:?}") };
            assert_eq!(form.app, "my app!");
            assert!(matches!(form.credential, Credential::Key(key) if key.expose() == "a+b &=%ä0123456789"));
        }
    }

    #[test]
    fn an_answer_is_its_status_and_whether_it_wants_a_code() {
        let read = |text: &str| read_answer(text.as_bytes());
        let asked = read("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: TOTP\r\n\r\n").unwrap().unwrap();
        assert_eq!((asked.status, asked.wants_code), (401, true));
        let other =
            read("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic totp\r\n\r\n").unwrap().unwrap();
        assert!(!other.wants_code);
        assert_eq!(read("HTTP/1.1 200 OK\r\nConte"), Ok(None));
        for (value, secs) in
            [("90", Some(90)), ("0", None), ("-1", None), ("1m", None), ("99999999999", None)]
        {
            let answer =
                read(&format!("HTTP/1.1 200 OK\r\nknock-lifetime: {value}\r\n\r\n")).unwrap().unwrap();
            assert_eq!(answer.lifetime.map(Lifetime::as_secs), secs, "{value}");
        }
        assert!(read("SSH-2.0-OpenSSH_9.2\r\n").is_err());
    }
}
