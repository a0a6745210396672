use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::knock::{Form, Limits, NoClient, Problem, Progress, read_request};
use crate::service::front::reply::Reply;
use crate::service::front::sender::Sender;
use crate::units::{ClientAddr, HttpPath};

/// What is read and thrown away of a client that goes on sending after its answer.
const MAX_DRAINED: usize = 256 * 1024;

/// What a connection brought.
pub(super) enum Received {
    /// One good request and nothing else, and who sent it.
    Form(ClientAddr, Form),
    /// One good request, and the proxy does not say whose.
    Nobody(NoClient),
    /// Something else.
    Problem(Problem),
    /// Nothing: it was closed or broke before the first byte.
    Nothing,
    /// Not a byte until the time was over.
    Silence,
}

/// Reads one request, at most [`Limits::total`] bytes and one more, until then.
pub(super) async fn receive<S>(
    io: &mut S,
    paths: &[HttpPath],
    limits: Limits,
    sender: Sender<'_>,
    until: Instant,
) -> Received
where
    S: AsyncRead + Unpin,
{
    // One byte beyond the limit shows that there was more; the buffer never grows, so no copies of secrets stay behind.
    let mut buffer = Zeroizing::new(vec![0; limits.total + 1]);
    let mut filled = 0;
    loop {
        let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) else {
            return Received::Problem(Problem::TooLarge);
        };
        match timeout_at(until, io.read(room)).await {
            Err(_) if filled == 0 => return Received::Silence,
            Err(_) => return Received::Problem(Problem::TooSlow),
            Ok(Ok(0) | Err(_)) if filled == 0 => return Received::Nothing,
            Ok(Ok(0) | Err(_)) => return Received::Problem(Problem::Malformed),
            Ok(Ok(count)) => filled += count,
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        match read_request(bytes, paths, limits) {
            Progress::NeedMore => {}
            Progress::Bad(problem) => return Received::Problem(problem),
            Progress::Done(_) if more_is_there(io).await => return Received::Problem(Problem::Malformed),
            Progress::Done(form) => {
                return sender.of(bytes).map_or_else(Received::Nobody, |client| Received::Form(client, form));
            }
        }
    }
}

/// Whether bytes can be read at this very moment.
async fn more_is_there<S: AsyncRead + Unpin>(io: &mut S) -> bool {
    let mut byte = Zeroizing::new([0]);
    let mut look = |cx: &mut Context<'_>| {
        let mut into = ReadBuf::new(byte.as_mut_slice());
        let read = Pin::new(&mut *io).poll_read(cx, &mut into);
        Poll::Ready(matches!(read, Poll::Ready(Ok(()))) && !into.filled().is_empty())
    };
    poll_fn(&mut look).await
}

/// Writes the answer and ends the stream in that direction.
pub(super) async fn send<S>(io: &mut S, reply: Reply) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    io.write_all(&reply.to_bytes()).await?;
    io.flush().await?;
    io.shutdown().await
}

/// Reads on until the client has closed, because to close with unread bytes would be a reset that can overtake the answer.
pub(super) async fn drain<S: AsyncRead + Unpin>(io: &mut S) {
    let mut scratch = Zeroizing::new([0; 4_096]);
    let mut drained = 0;
    while let Ok(count) = io.read(scratch.as_mut_slice()).await {
        drained += count;
        if count == 0 || drained >= MAX_DRAINED {
            return;
        }
    }
}
