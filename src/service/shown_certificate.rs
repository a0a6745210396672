//! The certificate that step 2 shows right now, as a client sees it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

/// How long a handshake with this host may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many seconds ago the certificate ended that is shown at a port of this host; none: it has not, or nobody shows
/// one.
#[must_use]
pub(super) fn ended(port: u16) -> Option<u64> {
    let ends = end_of(&shown(port).ok()??)?;
    SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(ends)).ok().map(|over| over.as_secs())
}

fn shown(port: u16) -> io::Result<Option<Vec<u8>>> {
    let seen = Arc::new(Seen::default());
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Whatever comes of it: nothing is sent over it.
    let _ = tls.complete_io(&mut stream);
    Ok(seen.0.lock().unwrap_or_else(PoisonError::into_inner).take())
}

/// Looks at a certificate and takes none: no secret goes over such a connection.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<Vec<u8>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate.to_vec());
        Err(Error::General("only looked at".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only looked at".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only looked at".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// `notAfter` of a certificate in DER (RFC 5280), in seconds since 1970.
fn end_of(der: &[u8]) -> Option<u64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = item(der)?;
    let (_, mut rest, _) = item(certificate)?;
    // Version (perhaps), serial number, algorithm, issuer.
    if let Some((VERSION, _, after)) = item(rest) {
        rest = after;
    }
    for _ in 0..3 {
        rest = item(rest)?.2;
    }
    let (SEQUENCE, validity, _) = item(rest)? else { return None };
    let (_, _, rest) = item(validity)?;
    let (kind, text, _) = item(rest)?;
    moment(kind, std::str::from_utf8(text).ok()?)
}

/// Tag, content and what follows.
fn item(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `UTCTime` (`YYMMDDHHMMSSZ`, up to 2049) or `GeneralizedTime` (`YYYYMMDDHHMMSSZ`).
fn moment(kind: u8, text: &str) -> Option<u64> {
    const UTC: u8 = 0x17;
    let number = |at: usize, len: usize| text.get(at..at + len)?.parse::<u64>().ok();
    let (year, at) = match kind {
        UTC => match number(0, 2)? {
            short @ 0..=49 => (2_000 + short, 2),
            short => (1_900 + short, 2),
        },
        _ => (number(0, 4)?, 4),
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1_970 {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From 1 March of year 0 to 1970.
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::certificate::self_signed;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn the_end_of_a_certificate_is_the_one_it_was_made_with() {
        for (now, days) in [(1_763_700_000, 30), (1_709_164_800, 1), (4_102_444_800, 900)] {
            let begun = UNIX_EPOCH + Duration::from_secs(now);
            let made = self_signed(&["gate.example.com".to_owned()], days, begun).unwrap();
            let der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap();
            assert_eq!(end_of(&der), Some(now + u64::from(days) * 86_400));
        }
        assert_eq!(end_of(b"nonsense"), None);
        assert_eq!(end_of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn nobody_shows_a_certificate_where_nobody_listens() {
        assert_eq!(ended(1), None);
    }
}
