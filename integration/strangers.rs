//! Clients by the thousand, each with addresses of its own, as one of the hosts of a topology.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::configuration::{STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, request};
use crate::topology::{Family, Topology};

/// How long whoever is held on to is held on to.
const HELD: Duration = Duration::from_millis(1_500);
const LIMIT: TimeVal = TimeVal::new(8, 0);
/// Who floods does not wait for an answer that is late.
const HASTE: TimeVal = TimeVal::new(0, 100_000);

/// One of 65,536 strangers; each is at client B and has an address in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger(pub u32);

impl Stranger {
    /// Has client B speak for all of them, and the router know it.
    pub fn settle(net: &Topology) {
        for (family, network) in [("-4", "198.18.0.0/16"), ("-6", "2001:db8:77::/48")] {
            net.b.run("ip", &[family, "route", "add", "local", network, "dev", "lo"]).success();
            let via = if family == "-4" { Family::V4.client_b() } else { Family::V6.client_b() };
            net.router.run("ip", &[family, "route", "add", network, "via", &via.to_string()]).success();
        }
        net.b.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    }

    /// The address of the stranger in a family; its own network of 64 bits in IPv6.
    pub fn address(self, family: Family) -> IpAddr {
        let [_, _, high, low] = self.0.to_be_bytes();
        let network = u16::from_be_bytes([high, low]);
        match family {
            Family::V4 => Ipv4Addr::new(198, 18, high, low).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x77, network, 0, 0, 0, 7).into(),
        }
    }
}

/// Connects from one address; to be called inside the namespace, where its threads stay. It is closed by a reset.
fn dial(source: IpAddr, to: SocketAddr, limit: TimeVal) -> nix::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&fd, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// Connects, sends all of it in one segment and breaks the connection off; false where that was not possible. Inside the
/// namespace.
pub fn send_and_reset(source: IpAddr, to: SocketAddr, bytes: &[u8]) -> bool {
    dial(source, to, HASTE).is_ok_and(|mut stream| stream.write_all(bytes).is_ok())
}

/// Connects, sends all of it in one segment and leaves the connection open. Inside the namespace.
pub fn connect_and_send(source: IpAddr, to: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = dial(source, to, HASTE).ok()?;
    stream.write_all(bytes).ok()?;
    Some(stream)
}

/// Connects and says nothing. Inside the namespace.
pub fn connect_and_leave_open(source: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    dial(source, to, HASTE).ok()
}

/// Connects, sends that and keeps the connection for a while. Inside the namespace.
pub fn hold(source: IpAddr, to: SocketAddr, bytes: &[u8]) -> bool {
    let Ok(mut stream) = dial(source, to, LIMIT) else { return false };
    let sent = stream.write_all(bytes).is_ok();
    std::thread::sleep(HELD);
    sent
}

/// Connects, finishes the handshake of TLS, sends that and keeps the connection for a while. Inside the namespace.
pub fn shake_hands(source: IpAddr, to: SocketAddr, bytes: &[u8]) -> bool {
    let Ok(stream) = dial(source, to, LIMIT) else { return false };
    let mut tls = over_tls(stream);
    let sent = tls.write_all(bytes).and_then(|()| tls.flush()).is_ok();
    std::thread::sleep(HELD);
    sent
}

/// Both steps of an app from one address, once; whether it was let in. Inside the namespace.
pub fn knock_from(source: IpAddr, to: IpAddr, app: &str) -> bool {
    knock_with(source, to, [&form(app, &http_key(app)), &form(app, &https_key(app))])
}

/// Both steps with these forms. Inside the namespace.
pub fn knock_with(source: IpAddr, to: IpAddr, [first, second]: [&str; 2]) -> bool {
    let first = request(&format!("POST {STEP1_PATH}"), first);
    let Ok(mut step1) = dial(source, (to, STEP1_PORT).into(), LIMIT) else { return false };
    if step1.write_all(first.as_bytes()).is_err() {
        return false;
    }
    // A SYN before the admission is dropped, and sent again a second later.
    std::thread::sleep(Duration::from_millis(300));
    let Ok(step2) = dial(source, (to, STEP2_PORT).into(), LIMIT) else { return false };
    let mut tls = over_tls(step2);
    let second = request(&format!("POST {STEP2_PATH}"), second);
    let mut answer = Vec::new();
    let _ = tls.write_all(second.as_bytes()).and_then(|()| tls.flush());
    let _ = tls.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200 ")
}

fn over_tls(stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
        Arc::new(builder.with_no_client_auth())
    });
    let name = ServerName::try_from("gate.test").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// Takes every certificate, as strangers do; also those who know the keys are not the subject here.
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
