//! What no gateway can go below: a TLS server that answers whatever it is sent, and one that also makes an element.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::gateway::Home;
use crate::namespace::Namespace;
use crate::wire::Wire;

/// The port of the server that does nothing, and of the one that makes an element.
pub const BARE: u16 = 9443;
pub const WITH_COMMIT: u16 = 9444;
pub const TABLE: &str = "floor";
pub const SET: &str = "grants";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOK\n";

/// Makes the set and starts both servers, which end with this process.
pub fn start(host: &Namespace, home: &Home) {
    host.nft(&format!(
        "table inet {TABLE} {{\nset {SET} {{\ntype ipv4_addr\nflags timeout\nsize 1048576\n}}\n}}\n"
    ));
    let config = server_config(&home.read("cert.pem"), &home.read("key.pem"));
    for (port, commits) in [(BARE, false), (WITH_COMMIT, true)] {
        let (listener, wire) = host.enter(|| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            (listener, commits.then(Wire::open))
        });
        let config = Arc::clone(&config);
        thread::spawn(move || serve(listener, config, wire));
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
