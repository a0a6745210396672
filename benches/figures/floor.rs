//! What no gateway can go below: a TLS server that answers whatever it is sent, and one that also makes an element.

use std::net::{Ipv4Addr, TcpListener};
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

/// The first word of the process that both servers are.
pub const SERVE: &str = "serve-floors";

/// The port of the server that does nothing, and of the one that makes an element.
pub const BARE: u16 = 9443;
pub const WITH_COMMIT: u16 = 9444;
pub const TABLE: &str = "floor";
pub const SET: &str = "grants";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOK\n";

/// Both servers in a network of their own, where nobody hears of what they change and no rule looks at a packet.
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
pub fn serve_both(folder: &Path) -> ! {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config = server_config(&read("cert.pem"), &read("key.pem"));
    for (port, commits) in [(BARE, false), (WITH_COMMIT, true)] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let wire = commits.then(Wire::open);
        let config = Arc::clone(&config);
        thread::spawn(move || serve(listener, config, wire));
    }
    loop {
        thread::park();
    }
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

fn serve(listener: TcpListener, config: Arc<ServerConfig>, mut wire: Option<Wire>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = TlsAcceptor::from(config);
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_err() {
                continue;
            }
            if let (Some(wire), std::net::IpAddr::V4(from)) = (&mut wire, from.ip()) {
                wire.add(TABLE, SET, &[from.octets()], 3_600_000, "key 1 two-step");
            }
            let _ = stream.write_all(ANSWER).await;
            let _ = stream.shutdown().await;
        }
    });
}
