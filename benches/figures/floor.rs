//! What no gateway can go below: a TLS server that answers whatever it is sent, one that also makes an element, and one
//! that has a second process make it, as whoever keeps the power away from what strangers reach must.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::gateway::Home;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::process::Background;
use crate::wire::Wire;

/// The first word of the process that all servers are.
pub const SERVE: &str = "serve-floors";
/// The only word of the process that makes elements for one of them.
pub const MAKE: &str = "make-elements";

/// The port of the server that does nothing, of the one that makes an element, and of the one that has it made.
pub const BARE: u16 = 9443;
pub const WITH_COMMIT: u16 = 9444;
pub const APART: u16 = 9445;
pub const TABLE: &str = "floor";
pub const SET: &str = "grants";
const TIMEOUT_MS: u64 = 3_600_000;
const COMMENT: &str = "key 1 two-step";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOK\n";

/// The servers in a network of their own, where nobody hears of what they change and no rule looks at a packet.
pub struct Floors {
    pub net: Net,
    _process: Background,
}

impl Floors {
    /// A process of their own, as a gateway is one, with the certificate of that installation.
    pub fn start(home: &Home) -> Self {
        let net = Net::new();
        make_set(&net.router);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SERVE).arg(home.path()).stdin(Stdio::null());
        let process = net.router.background(command);
        Self { net, _process: process }
    }
}

/// Makes the set in a table that has nothing else.
pub fn make_set(host: &Namespace) {
    host.nft(&format!(
        "table inet {TABLE} {{\nset {SET} {{\ntype ipv4_addr\nflags timeout\nsize 1048576\n}}\n}}\n"
    ));
}

/// Serves for ever, with the certificate in that folder.
pub fn serve_all(folder: &Path) -> ! {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config = server_config(&read("cert.pem"), &read("key.pem"));
    let (here, there) = UnixStream::pair().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap());
    let mut other = other.arg(MAKE).stdin(OwnedFd::from(there)).spawn().unwrap();
    here.set_nonblocking(true).unwrap();
    for (port, then) in
        [(BARE, Then::Nothing), (WITH_COMMIT, Then::Commit(Wire::open())), (APART, Then::Ask(here))]
    {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let config = Arc::clone(&config);
        thread::spawn(move || serve(listener, config, then));
    }
    // It goes on as long as they do.
    let ended = other.wait();
    panic!("who makes elements has ended: {ended:?}")
}

/// Makes an element of each address that comes, and says so, until nobody asks any more.
pub fn make_elements() {
    let mut link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut wire = Wire::open();
    let mut address = [0; 4];
    while link.read_exact(&mut address).is_ok() {
        wire.add(TABLE, SET, &[address], TIMEOUT_MS, COMMENT);
        link.write_all(&[1]).unwrap();
    }
}

/// What comes between a request and its answer.
enum Then {
    Nothing,
    Commit(Wire),
    Ask(UnixStream),
}

fn server_config(certificate: &[u8], key: &[u8]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn serve(listener: TcpListener, config: Arc<ServerConfig>, then: Then) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let (mut wire, mut other) = match then {
            Then::Nothing => (None, None),
            Then::Commit(wire) => (Some(wire), None),
            Then::Ask(link) => (None, Some(tokio::net::UnixStream::from_std(link).unwrap())),
        };
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_err() {
                continue;
            }
            let std::net::IpAddr::V4(from) = from.ip() else { continue };
            if let Some(wire) = &mut wire {
                wire.add(TABLE, SET, &[from.octets()], TIMEOUT_MS, COMMENT);
            }
            if let Some(other) = &mut other {
                other.write_all(&from.octets()).await.unwrap();
                other.read_u8().await.unwrap();
            }
            let _ = stream.write_all(ANSWER).await;
            let _ = stream.shutdown().await;
        }
    });
}
