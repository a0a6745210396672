//! HTTP for the page, without reading what is asked.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Source;
use crate::config::MetricsAddress;
use crate::sys::{files, tcp, users};

/// Connections served at a time.
const CONNECTIONS: usize = 8;
/// How long one may wait before it sends anything.
const FIRST: Duration = Duration::from_secs(2);
/// How long one may take in all.
const WHOLE: Duration = Duration::from_secs(10);
/// So many bytes that it sends are thrown away, one more ends it.
const REQUEST: u64 = 16 << 10;
/// And for so long it may go on sending after its answer.
const LINGER: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 16;

/// A socket at which the page can be fetched.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

impl Listener {
    /// Listens. Needs a tokio runtime.
    ///
    /// # Errors
    /// Those of `bind(2)`; [`io::ErrorKind::AlreadyExists`] where a file is in the way that is no socket.
    pub fn bind(address: &MetricsAddress) -> io::Result<Self> {
        match address {
            MetricsAddress::Tcp(addr) => {
                let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.set_reuseaddr(true)?;
                // The daemon starts before interfaces have their addresses.
                tcp::bind_before_address(&socket)?;
                socket.bind(*addr)?;
                let listener = socket.listen(BACKLOG)?;
                tcp::wait_for_handshake(&listener)?;
                Ok(Self::Tcp(listener))
            }
            MetricsAddress::Unix(path) => unix(path).map(Self::Unix),
        }
    }

    /// Answers everybody, until it is dropped.
    pub async fn serve(self, source: Arc<Source>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => {
                    let source = Arc::clone(&source);
                    tokio::spawn(async move {
                        let _ = match stream {
                            Stream::Tcp(stream) => timeout(WHOLE, answer(stream, &source)).await,
                            Stream::Unix(stream) => timeout(WHOLE, answer(stream, &source)).await,
                        };
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection for figures is not accepted");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// A socket in the file system, for whom the control socket is.
fn unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        // Of a daemon before this one.
        Ok(about) if about.file_type().is_socket() => files::remove(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    match users::operators() {
        Some(group) => {
            users::give_to_group(path, group)?;
            files::set_mode(path, 0o660)?;
        }
        None => files::set_mode(path, 0o600)?,
    }
    Ok(listener)
}

/// Waits until something comes, whatever it is, and sends the page.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, source: &Source) -> io::Result<()> {
    let mut dustbin = [0; 1_024];
    let begun = timeout(FIRST, stream.read(&mut dustbin)).await??;
    if begun == 0 {
        return Ok(());
    }
    match source.page().await {
        Some(page) => {
            stream.write_all(head("200 OK", page.len()).as_bytes()).await?;
            stream.write_all(page.as_bytes()).await?;
        }
        None => stream.write_all(head("503 Service Unavailable", 0).as_bytes()).await?,
    }
    stream.shutdown().await?;
    // Closed with something unread, a connection is reset, and the other end may lose the answer.
    let mut rest = stream.take(REQUEST);
    timeout(LINGER, async {
        while rest.read(&mut dustbin).await? > 0 {}
        Ok(())
    })
    .await?
}

fn head(status: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::control::{Call, Reply};
    use tokio::sync::mpsc;

    /// A source whose enforcer answers.
    fn source() -> Arc<Source> {
        let (calls, mut asked) = mpsc::channel::<Call>(4);
        tokio::spawn(async move {
            while let Some(call) = asked.recv().await {
                let _ = call.reply.send(Reply::Figures(Box::default()));
            }
        });
        Source::new(Arc::default(), calls)
    }

    async fn answered(request: &[u8]) -> String {
        let (mut here, there) = tokio::io::duplex(1 << 20);
        here.write_all(request).await.unwrap();
        here.shutdown().await.unwrap();
        let source = source();
        let _ = answer(there, &source).await;
        let mut out = String::new();
        here.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn whatever_is_sent_the_answer_is_the_same_page() {
        let first = answered(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = first.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n")
                && head.contains(&format!("Content-Length: {}\r\n", body.len()))
        );
        assert!(body.starts_with("# HELP knock_agent_build_info ") && body.ends_with('\n'));
        let same = |text: &str| {
            text.lines()
                .filter(|line| !line.contains("_seconds") && !line.contains("_bytes"))
                .collect::<String>()
        };
        for request in [&b"x"[..], b"\0\xff\x16\x03\x01", b"POST / HTTP/9\r\n\r\n", &[b'a'; 100_000]] {
            let other = answered(request).await;
            assert_eq!(
                same(&other).replace(char::is_numeric, ""),
                same(&first).replace(char::is_numeric, "")
            );
        }
        assert_eq!(answered(b"").await, "", "who sends nothing gets nothing");
    }

    #[tokio::test]
    async fn who_connects_and_waits_is_hung_up_on() {
        let (here, there) = tokio::io::duplex(100);
        let error = answer(there, &source()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(here);
    }

    #[tokio::test]
    async fn who_goes_on_sending_is_listened_to_for_a_second_only() {
        let (mut here, there) = tokio::io::duplex(100);
        tokio::spawn(async move {
            loop {
                if here.write_all(b"x").await.is_err() {
                    return;
                }
                let _ = timeout(Duration::from_millis(10), here.read(&mut [0; 100])).await;
            }
        });
        let begun = tokio::time::Instant::now();
        let _ = timeout(WHOLE, answer(there, &source())).await.unwrap();
        assert!(begun.elapsed() < WHOLE);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let path = std::env::temp_dir().join(format!("metrics-{}", std::process::id()));
        std::fs::write(&path, "mine").unwrap();
        let address = MetricsAddress::Unix(path.clone());
        let error = Listener::bind(&address).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
        drop(Listener::bind(&address).unwrap());
        drop(Listener::bind(&address).expect("the one of before is replaced"));
        std::fs::remove_file(&path).unwrap();
    }
}
