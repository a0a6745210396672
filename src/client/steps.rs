//! The two steps towards one address of the gateway.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::client::knock::Failure;
use crate::client::request::{Answer, read_answer};
use crate::units::Secret;

/// For the handshake of step 1.
const CONNECT: Duration = Duration::from_secs(5);
/// Nothing tells that a silent step 1 has arrived; where it answers, this wait ends early.
const SILENCE: Duration = Duration::from_millis(100);
/// From step 1 on until step 2 must have opened: one repetition of a lost segment is in it.
const OPENING: Duration = Duration::from_secs(6);
/// For one try to reach step 2, longer where the gateway is far away.
const TRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(400)..=Duration::from_secs(3);
/// For TLS, request and answer; the gateway gives a little less.
const ANSWER: Duration = Duration::from_secs(6);
const MAX_ANSWER: usize = 16_384;

/// A step 1 that was sent. Its connection stays open, so that the kernel repeats what was lost.
pub(super) struct Step1 {
    _stream: TcpStream,
    sent: Instant,
    round_trip: Duration,
}

/// Connects for step 1 and sends what `request` makes for this host's own address.
pub(super) fn step1<E: From<Failure>>(
    to: SocketAddr,
    request: impl FnOnce(IpAddr) -> Result<Secret, E>,
) -> Result<Step1, E> {
    let absent = |source: io::Error| Failure::NoGateway { to, source };
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, CONNECT).map_err(absent)?;
    let round_trip = begun.elapsed();
    let own = stream.local_addr().map_err(absent)?.ip();
    stream.set_nodelay(true).map_err(absent)?;
    let request = request(own)?;
    // From here on it may have arrived, whatever fails.
    let broken = |source: io::Error| Failure::Broken { to, source };
    stream.write_all(request.expose().as_bytes()).map_err(broken)?;
    let sent = Instant::now();
    stream.set_read_timeout(Some(SILENCE)).map_err(broken)?;
    // An answer or the lack of one says nothing about step 1: strangers get the same.
    let _ = stream.read_exact(&mut [0]);
    Ok(Step1 { _stream: stream, sent, round_trip })
}

/// Connects to step 2 as soon as it opens, and asks.
pub(super) fn step2(
    to: SocketAddr,
    name: &ServerName<'static>,
    tls: &Arc<ClientConfig>,
    step1: &Step1,
    request: &Secret,
) -> Result<Answer, Failure> {
    let stream = reach(to, step1)?;
    converse(stream, to, name, tls, request)
}

fn reach(to: SocketAddr, step1: &Step1) -> Result<TcpStream, Failure> {
    let patience = (step1.round_trip * 3).clamp(*TRY.start(), *TRY.end());
    // Somebody may have typed a code meanwhile; step 2 has been open before then.
    let end = (step1.sent + OPENING).max(Instant::now() + OPENING / 2);
    loop {
        let begun = Instant::now();
        let source = match TcpStream::connect_timeout(&to, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Err(Failure::NoStep2 { to, source });
        }
        // What is refused at once is not asked again at once.
        std::thread::sleep(Duration::from_millis(150).saturating_sub(begun.elapsed()));
    }
}

fn converse(
    stream: TcpStream,
    to: SocketAddr,
    name: &ServerName<'static>,
    tls: &Arc<ClientConfig>,
    request: &Secret,
) -> Result<Answer, Failure> {
    let end = Instant::now() + ANSWER;
    let mut timed = Timed { stream, end };
    let failed = |error: io::Error| failure(to, error);
    let mut connection = ClientConnection::new(Arc::clone(tls), name.clone())
        .map_err(|error| Failure::Untrusted { to, reason: error.to_string() })?;
    let mut secure = rustls::Stream::new(&mut connection, &mut timed);
    secure.write_all(request.expose().as_bytes()).map_err(failed)?;
    secure.flush().map_err(failed)?;
    let mut bytes = Vec::new();
    let mut piece = [0; 2_048];
    loop {
        let length = secure.read(&mut piece).map_err(failed)?;
        bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
        match read_answer(&bytes) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if length > 0 && bytes.len() < MAX_ANSWER => {}
            Ok(None) | Err(_) => return Err(Failure::NotHttp { to }),
        }
    }
}

/// A connection on which nothing takes longer than until `end`, however slowly it trickles.
struct Timed {
    stream: TcpStream,
    end: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(timed_out),
            }
        }
    }
}

/// The kernel says of a wait that is over that one might try again.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn failure(to: SocketAddr, error: io::Error) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let reason = match reason {
                rustls::CertificateError::ApplicationVerificationFailure => {
                    "it is not the pinned one".to_owned()
                }
                rustls::CertificateError::Other(other) if is_for_others_only(other) => {
                    "it is an authority's (CA:TRUE), as `openssl req -x509` makes it, and no server's: write `pin:` into the profile instead of `ca:`".to_owned()
                }
                other => other.to_string(),
            };
            Failure::Untrusted { to, reason }
        }
        Some(rustls::Error::InvalidMessage(_)) => Failure::NotTls { to },
        Some(_) | None => Failure::NoAnswer { to, source: error },
    }
}

/// As `openssl req -x509` makes them, unless it is told otherwise.
fn is_for_others_only(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_for_too_long_is_said_to_have_timed_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut timed = Timed { stream, end: Instant::now() + Duration::from_millis(50) };
        let error = timed.read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, "timed out"));
    }
}
