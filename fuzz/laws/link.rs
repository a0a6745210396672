//! What front and enforcer tell each other.

use std::io::{Error, ErrorKind, Result};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::choices::Choices;
use crate::service::link::frame::{FromFront, LONGEST_FROM_FRONT, ToFront, hear_front};

/// The first byte says what the rest is: a message of the front, a message to it, or all that a front sends.
///
/// There is one way to write a message. A stream is the same messages however it is cut into pieces, and after what is no
/// message nothing is heard.
pub fn link(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.below(3) {
        0 => {
            let _ = from_front(choices.rest());
        }
        1 => to_front(choices.rest()),
        _ => {
            let piece = choices.below(32) + 1;
            stream(choices.rest(), piece);
        }
    }
}

/// A message of the front, if it is one, as the bytes that it is written with.
fn from_front(bytes: &[u8]) -> Option<Vec<u8>> {
    let message = FromFront::from_bytes(bytes)?;
    let written = message.to_bytes().expect("a message that was read");
    assert_eq!(written.as_slice(), bytes, "two ways to write {message:?}");
    assert!(bytes.len() <= LONGEST_FROM_FRONT);
    if let FromFront::Ask(_, attempt) = &message {
        assert!((1..=50).contains(&attempt.app.chars().count()) && !attempt.app.contains(char::is_control));
        assert_eq!(attempt.client.ip(), attempt.client.ip().to_canonical());
    }
    Some(written.to_vec())
}

fn to_front(bytes: &[u8]) {
    let Some(message) = ToFront::from_bytes(bytes) else { return };
    let written = message.to_bytes().expect("a message that was read");
    if let ToFront::Answer(..) = message {
        assert_eq!(written.as_slice(), bytes, "two ways to write an answer");
    }
    let again = ToFront::from_bytes(&written).expect("a message that was written");
    assert!(again.to_bytes().expect("the same again") == written, "it says something else the second time");
}

/// A socket that gives so many bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let length = self.0.len().min(self.1).min(into.remaining());
        let (piece, rest) = self.0.split_at(length);
        into.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// The messages of a stream, and the error it ends with, if it does.
fn heard(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<ErrorKind>) {
    let mut reader = Pieces(bytes, piece);
    let mut out = Vec::new();
    loop {
        let hearing = pin!(hear_front(&mut reader));
        let heard = match hearing.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(heard) => heard,
            Poll::Pending => Err(Error::other("it waits for a socket that never waits")),
        };
        match heard {
            Ok(Some(message)) => out.push(message.to_bytes().expect("a message that was read").to_vec()),
            Ok(None) => return (out, None),
            Err(error) => return (out, Some(error.kind())),
        }
    }
}

fn stream(bytes: &[u8], piece: usize) {
    let (messages, error) = heard(bytes, piece);
    assert_eq!((&messages, error), (&heard(bytes, usize::MAX).0, heard(bytes, usize::MAX).1));
    let kinds = [None, Some(ErrorKind::InvalidData), Some(ErrorKind::UnexpectedEof)];
    assert!(kinds.contains(&error), "{error:?}");
    // What was heard is what was said, from the beginning and without a gap.
    let mut said = Vec::new();
    for message in &messages {
        assert_eq!(from_front(message).as_ref(), Some(message));
        said.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        said.extend(message);
    }
    assert!(bytes.starts_with(&said));
    assert_eq!(error.is_none(), said.len() == bytes.len(), "{error:?}");
}
