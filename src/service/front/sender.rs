//! Who a connection or request is from: whoever made the connection, or who the proxy in front says.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::{Proxy, ProxyHeader};
use crate::knock::{MAX_PROXY_HEADER, NoClient, ProxyLine, forwarded_client, read_proxy_line};
use crate::units::ClientAddr;

/// Whether a proxy that does not say who its clients are has been told of aloud.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Who sends the requests of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sender<'p> {
    /// This client.
    Known(ClientAddr),
    /// A header of the request says it.
    InHeader(&'p Proxy),
}

impl<'p> Sender<'p> {
    /// Who sends on a connection from `peer`, who is that proxy if there is one; reads what it says in front of
    /// everything else. The caller sets the time.
    ///
    /// # Errors
    /// [`NoClient`] where the proxy names nobody.
    pub(super) async fn on(
        stream: &mut TcpStream,
        peer: ClientAddr,
        proxy: Option<&'p Proxy>,
    ) -> Result<Self, NoClient> {
        match proxy {
            None => Ok(Self::Known(peer)),
            Some(proxy) => match proxy.header {
                ProxyHeader::XRealIp | ProxyHeader::XForwardedFor | ProxyHeader::Forwarded => {
                    Ok(Self::InHeader(proxy))
                }
                ProxyHeader::ProxyProtocol => {
                    let line = proxy_line(stream, proxy).await;
                    line.unwrap_or(Err(NoClient::Missing)).map(Self::Known)
                }
            },
        }
    }

    /// Who sent a request, whose head is complete.
    ///
    /// # Errors
    /// [`NoClient`] where the proxy does not say it in one way only.
    pub(super) fn of(self, request: &[u8]) -> Result<ClientAddr, NoClient> {
        match self {
            Self::Known(client) => Ok(client),
            Self::InHeader(proxy) => forwarded_client(request, proxy.header, &proxy.trusted),
        }
    }
}

/// Reads a header of the PROXY protocol and not a byte more.
async fn proxy_line(stream: &mut TcpStream, proxy: &Proxy) -> io::Result<Result<ClientAddr, NoClient>> {
    let mut bytes = [0; MAX_PROXY_HEADER];
    let mut filled = 0;
    loop {
        match read_proxy_line(bytes.get(..filled).unwrap_or_default(), &proxy.trusted) {
            ProxyLine::Client(client) => return Ok(Ok(client)),
            ProxyLine::Bad(why) => return Ok(Err(why)),
            ProxyLine::Needs(more) => {
                let Some(room) = bytes.get_mut(filled..filled + more) else {
                    return Ok(Err(NoClient::Malformed));
                };
                stream.read_exact(room).await?;
                filled += more;
            }
        }
    }
}

/// Whether a proxy may be at the other end; anybody where there is none in front.
pub(super) fn may_speak(peer: ClientAddr, proxy: Option<&Proxy>, step: &str) -> bool {
    let trusted = proxy.is_none_or(|proxy| proxy.trusted.contains(peer));
    if !trusted {
        tracing::debug!(%peer, "{step}: not a trusted proxy");
    }
    trusted
}

/// Notes that a proxy did not say who its client is. The first time aloud, because the proxy may be set up wrongly;
/// afterwards not, because strangers may have a hand in it.
pub(super) fn note_nobody(proxy: ClientAddr, why: NoClient, step: &str) {
    if TOLD.swap(true, Ordering::Relaxed) {
        tracing::debug!(%proxy, %why, "{step}: refused");
    } else {
        tracing::warn!(%proxy, %why, "{step}: refused, and more of these only with --log-level debug");
    }
}
