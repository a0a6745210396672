//! The client: what curl and ssh would do, with nothing hidden by them.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What became of a connection attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Somebody answered and took it.
    Open(TcpStream),
    /// Nobody answered in time.
    Silent,
    /// Somebody answered and refused, or the network did.
    Refused(io::Error),
}

impl Outcome {
    /// A word for it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Open(_) => "open".to_owned(),
            Self::Silent => "no answer".to_owned(),
            Self::Refused(error) => format!("refused: {error}"),
        }
    }
}

/// Opens a connection from one of our addresses.
pub(super) fn knock_on(source: IpAddr, to: SocketAddr, patience: Duration) -> Outcome {
    match open(source, to, patience) {
        Ok(stream) => Outcome::Open(stream),
        // A connect that runs into SO_SNDTIMEO says EINPROGRESS.
        Err(Errno::EINPROGRESS | Errno::EAGAIN | Errno::ETIMEDOUT) => Outcome::Silent,
        Err(errno) => Outcome::Refused(errno.into()),
    }
}

fn open(source: IpAddr, to: SocketAddr, patience: Duration) -> Result<TcpStream, Errno> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let millis = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
    let limit = TimeVal::new(millis / 1000, (millis % 1000) * 1000);
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    // As curl does; otherwise a request waits for the acknowledgement of the handshake's end.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// A form by POST.
pub(super) fn form_request(path: &str, app: &str, access_key: &str) -> String {
    let body = format!("app={app}&access_key={access_key}");
    format!(
        "POST {path} HTTP/1.1\r\nHost: gateway.example\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request over plain TCP and waits for whatever comes back; an error says what did.
pub(super) fn send_and_hear_nothing(
    source: IpAddr,
    to: SocketAddr,
    request: &str,
    patience: Duration,
) -> Result<(), String> {
    let mut stream = match knock_on(source, to, patience) {
        Outcome::Open(stream) => stream,
        other => return Err(format!("no handshake: {}", other.describe())),
    };
    stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).map_err(|error| format!("could not send: {error}"))?;
    let mut buffer = [0_u8; 512];
    match read(&mut stream, &mut buffer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(format!("an answer: {error}")),
        Ok(0) => Err("an answer: the end of the connection".to_owned()),
        Ok(length) => Err(format!("an answer of {length} bytes")),
    }
}

/// Reads again where a signal interrupted it.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// How a client trusts step 2: the gateway's own certificate and nothing else.
pub(super) fn trust(certificate_pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Sends a request over TLS on an open connection; the status line of the answer.
pub(super) fn request_over_tls(
    stream: TcpStream,
    trust: &Arc<ClientConfig>,
    name: &'static str,
    request: &str,
    patience: Duration,
) -> Result<String, String> {
    stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let session = ClientConnection::new(Arc::clone(trust), name).map_err(|error| error.to_string())?;
    let mut tls = StreamOwned::new(session, stream);
    tls.write_all(request.as_bytes()).map_err(|error| format!("TLS: {error}"))?;
    let mut line = String::new();
    BufReader::new(tls).read_line(&mut line).map_err(|error| format!("TLS: {error}"))?;
    Ok(line.trim_end().to_owned())
}

/// Reads the service's first line.
pub(super) fn read_greeting(stream: &TcpStream, patience: Duration) -> Result<String, String> {
    let complain = |error: io::Error| format!("no greeting: {error}");
    stream.set_read_timeout(Some(patience)).map_err(complain)?;
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).map_err(complain)?;
    Ok(line.trim_end().to_owned())
}

/// Listens to a service that keeps talking until `deadline`; when it was heard last, none: never.
pub(super) fn heard_last(mut stream: TcpStream, deadline: Instant) -> Option<Instant> {
    let mut buffer = [0_u8; 512];
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A read timeout of zero would mean none at all.
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return last;
        }
        match read(&mut stream, &mut buffer) {
            Ok(0) | Err(_) => return last,
            Ok(_) => last = Some(Instant::now()),
        }
    }
}

/// Connects again and again; the first moment at which nobody answered any more, none: not before `deadline`.
pub(super) fn first_refusal(source: IpAddr, to: SocketAddr, deadline: Instant) -> Option<Instant> {
    const EACH: Duration = Duration::from_millis(200);
    const PAUSE: Duration = Duration::from_millis(40);
    while Instant::now() < deadline {
        let begun = Instant::now();
        match knock_on(source, to, EACH) {
            Outcome::Open(_) => std::thread::sleep(PAUSE),
            Outcome::Silent | Outcome::Refused(_) => return Some(begun),
        }
    }
    None
}
