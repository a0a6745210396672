//! Knocking from within this process, so that nothing but the gateway is measured: both steps, over real sockets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::net::ROUTER;

/// A port that does not answer is asked again after this long.
const AGAIN: Duration = Duration::from_micros(500);
const LIMIT: Duration = Duration::from_secs(10);

/// A client's TLS.
pub fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Connects from an address; none when nobody answered in time.
pub fn dial(source: Ipv4Addr, port: u16, limit: Duration) -> io::Result<Option<TcpStream>> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
    match connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ROUTER, port))) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    if ppoll(&mut ready, Some(TimeSpec::from_duration(limit)), None)? == 0 {
        return Ok(None);
    }
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(Some(stream))
}

/// Connects as soon as the port takes it.
pub fn dial_soon(source: Ipv4Addr, port: u16) -> TcpStream {
    dial_within(source, port, LIMIT).unwrap_or_else(|| panic!("port {port} does not open for {source}"))
}

/// The same, if it does so in time.
pub fn dial_within(source: Ipv4Addr, port: u16, limit: Duration) -> Option<TcpStream> {
    let end = Instant::now() + limit;
    loop {
        if let Ok(Some(stream)) = dial(source, port, AGAIN) {
            return Some(stream);
        }
        if Instant::now() > end {
            return None;
        }
    }
}

fn request(path: &str, form: &str) -> Vec<u8> {
    let length = form.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\n\r\n{form}"
    )
    .into_bytes()
}

/// Step 1: sends the request and waits for nothing; the connection lives as long as what is given back.
pub fn step1(source: Ipv4Addr, (port, path): (u16, &str), form: &str) -> TcpStream {
    let mut stream = dial(source, port, LIMIT).unwrap().expect("step 1 takes connections");
    stream.write_all(&request(path, form)).unwrap();
    // It goes without a word: the gateway does not hear of the end.
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    stream
}

/// When the parts of step 2 were done, since the beginning of the connection.
pub struct Step2 {
    /// The TLS handshake.
    pub handshake: Duration,
    /// The answer.
    pub answer: Duration,
    /// Its status.
    pub status: u16,
}

/// Step 2 on a connection that was begun at that moment.
pub fn step2(
    stream: &mut TcpStream,
    begin: Instant,
    tls: &Arc<ClientConfig>,
    path: &str,
    form: &str,
) -> io::Result<Step2> {
    let name = ServerName::try_from("knock-agent").unwrap();
    let mut connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(stream)?;
    }
    let handshake = begin.elapsed();
    let mut session = rustls::Stream::new(&mut connection, stream);
    session.write_all(&request(path, form))?;
    session.flush()?;
    let mut answer = [0; 1024];
    let length = session.read(&mut answer)?;
    let took = begin.elapsed();
    let status = std::str::from_utf8(&answer[..length]).ok().and_then(|text| text.get(9..12)?.parse().ok());
    Ok(Step2 { handshake, answer: took, status: status.unwrap_or(0) })
}

/// Takes whoever answers for the gateway.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
