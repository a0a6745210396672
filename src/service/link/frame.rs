//! The messages as bytes: a length in four bytes, the kind, and what belongs to it.
//!
//! What comes from the front is read as if somebody hostile had written it: whatever is not exactly a message is an
//! error, after which nothing of the front is believed any more.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::Answer;
use super::serving::{MAX_SERVING, Serving};
use crate::knock::{Attempt, MAX_ATTEMPT};
use crate::units::Lifetime;

const ASK: u8 = 1;
const TAKEN: u8 = 2;
const SERVE: u8 = 16;
const ANSWER: u8 = 17;
const LISTENING: u8 = 18;

/// The longest message of the front: bytes.
pub const LONGEST_FROM_FRONT: usize = MAX_ATTEMPT + 5;

/// What the front says.
#[derive(Debug)]
pub enum FromFront {
    /// It asks; the answer carries the same number.
    Ask(u32, Box<Attempt>),
    /// It serves with what the message of this version said; also to show that it listens.
    Taken(u32),
}

/// What the front is told.
pub enum ToFront {
    /// What to serve with from now on.
    Serve(Serving),
    /// The answer to the ask of that number.
    Answer(u32, Answer),
    /// It is to say what it serves with, so that one that hangs is noticed.
    AreYouListening,
}

impl FromFront {
    /// As bytes, without their length; nothing for what is no message.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_FROM_FRONT));
        match self {
            Self::Ask(id, attempt) => {
                bytes.push(ASK);
                bytes.extend_from_slice(&id.to_be_bytes());
                bytes.extend_from_slice(&attempt.to_bytes()?);
            }
            Self::Taken(version) => {
                bytes.push(TAKEN);
                bytes.extend_from_slice(&version.to_be_bytes());
            }
        }
        Some(bytes)
    }

    /// The message that bytes are; nothing where they are not exactly one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes(*number);
        match (kind, rest) {
            (ASK, rest) => Attempt::from_bytes(rest).map(|attempt| Self::Ask(number, Box::new(attempt))),
            (TAKEN, []) => Some(Self::Taken(number)),
            _ => None,
        }
    }
}

impl ToFront {
    /// As bytes, without their length; nothing for what is too long.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Serve(serving) => {
                let serving = serving.to_bytes()?;
                let mut bytes = Zeroizing::new(Vec::with_capacity(serving.len() + 1));
                bytes.push(SERVE);
                bytes.extend_from_slice(&serving);
                Some(bytes)
            }
            Self::Answer(id, answer) => {
                let (code, seconds) = code_of(*answer);
                let mut bytes = Zeroizing::new(vec![ANSWER]);
                bytes.extend_from_slice(&id.to_be_bytes());
                bytes.push(code);
                bytes.extend_from_slice(&seconds.to_be_bytes());
                Some(bytes)
            }
            Self::AreYouListening => Some(Zeroizing::new(vec![LISTENING])),
        }
    }

    /// The message that bytes are; nothing where they are not exactly one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&LISTENING, []) => Some(Self::AreYouListening),
            (&SERVE, rest) => Serving::from_bytes(rest).map(Self::Serve),
            (&ANSWER, rest) => {
                let (id, rest) = rest.split_first_chunk::<4>()?;
                let (&code, rest) = rest.split_first()?;
                let (seconds, rest) = rest.split_first_chunk::<8>()?;
                let answer = answer_of(code, u64::from_be_bytes(*seconds))?;
                rest.is_empty().then(|| Self::Answer(u32::from_be_bytes(*id), answer))
            }
            _ => None,
        }
    }
}

fn code_of(answer: Answer) -> (u8, u64) {
    match answer {
        Answer::Opened => (0, 0),
        Answer::Granted(lifetime) => (1, lifetime.as_secs()),
        Answer::NeedToken => (2, 0),
        Answer::Refused => (3, 0),
        Answer::TooMany => (4, 0),
        Answer::Unavailable => (5, 0),
    }
}

fn answer_of(code: u8, seconds: u64) -> Option<Answer> {
    Some(match (code, seconds) {
        (0, 0) => Answer::Opened,
        (1, seconds) => Answer::Granted(Lifetime::from_secs(seconds).ok()?),
        (2, 0) => Answer::NeedToken,
        (3, 0) => Answer::Refused,
        (4, 0) => Answer::TooMany,
        (5, 0) => Answer::Unavailable,
        _ => return None,
    })
}

/// Reads one message of the front; nothing at its end. What it said stays nowhere but in the message.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for anything that is not a message; else what the kernel says.
pub async fn hear_front<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<FromFront>> {
    match read(reader, LONGEST_FROM_FRONT).await? {
        None => Ok(None),
        Some(bytes) => FromFront::from_bytes(&bytes).map(Some).ok_or_else(invalid),
    }
}

/// Reads one message to the front; nothing at the end.
///
/// # Errors
/// As for [`hear_front`].
pub async fn hear_enforcer<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<ToFront>> {
    match read(reader, MAX_SERVING + 1).await? {
        None => Ok(None),
        Some(bytes) => ToFront::from_bytes(&bytes).map(Some).ok_or_else(invalid),
    }
}

/// Writes a message as [`FromFront::to_bytes`] or [`ToFront::to_bytes`] made it, in one piece.
///
/// # Errors
/// What the kernel says.
pub async fn say<W: AsyncWrite + Unpin>(
    writer: &mut W,
    message: Option<Zeroizing<Vec<u8>>>,
) -> io::Result<()> {
    let message = message.ok_or_else(invalid)?;
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(message.len() + 4));
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message);
    writer.write_all(&bytes).await
}

/// A message of at most `most` bytes; nothing where there is none any more.
async fn read<R: AsyncRead + Unpin>(reader: &mut R, most: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut length = [0; 4];
    let begun = reader.read(&mut length).await?;
    if begun == 0 {
        return Ok(None);
    }
    if let Some(rest) = length.get_mut(begun..).filter(|rest| !rest.is_empty()) {
        reader.read_exact(rest).await?;
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| invalid())?;
    if !(1..=most).contains(&length) {
        return Err(invalid());
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    reader.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no message of the closed set")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::{Form, Step};
    use crate::units::ClientAddr;

    fn ask() -> FromFront {
        let form = Form::parse(b"app=ssh&access_key=0123456789&token=123456").unwrap();
        let client = ClientAddr::new([192, 0, 2, 7].into());
        FromFront::Ask(7, Box::new(Attempt::of(client, Step::Two, form)))
    }

    #[test]
    fn answers_come_back() {
        let lifetime = Lifetime::from_secs(3_600).unwrap();
        for answer in [
            Answer::Opened,
            Answer::Granted(lifetime),
            Answer::NeedToken,
            Answer::Refused,
            Answer::TooMany,
            Answer::Unavailable,
        ] {
            let bytes = ToFront::Answer(u32::MAX, answer).to_bytes().unwrap();
            let Some(ToFront::Answer(u32::MAX, read)) = ToFront::from_bytes(&bytes) else {
                panic!("{answer:?}")
            };
            assert_eq!(read, answer);
            let mut wrong = bytes.to_vec();
            wrong[5] = 9;
            assert!(ToFront::from_bytes(&wrong).is_none());
        }
    }

    #[tokio::test]
    async fn messages_follow_one_another_and_end() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let writing = tokio::spawn(async move {
            say(&mut here, ask().to_bytes()).await.unwrap();
            say(&mut here, FromFront::Taken(3).to_bytes()).await.unwrap();
        });
        let Some(FromFront::Ask(7, attempt)) = hear_front(&mut there).await.unwrap() else {
            panic!("no ask")
        };
        assert_eq!(attempt.app, "ssh");
        assert!(matches!(hear_front(&mut there).await.unwrap(), Some(FromFront::Taken(3))));
        writing.await.unwrap();
        assert!(hear_front(&mut there).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn whatever_is_not_a_message_is_an_error() {
        let good = ask().to_bytes().unwrap();
        let framed = |body: &[u8]| {
            let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend_from_slice(body);
            bytes
        };
        let longer = [&good[..], &[0]].concat();
        let huge = u32::try_from(LONGEST_FROM_FRONT + 1).unwrap().to_be_bytes();
        for bad in [
            framed(&[]),
            framed(&[ASK]),
            framed(&[0, 0, 0, 0, 0]),
            framed(&[SERVE, 0, 0, 0, 0]),
            framed(&[TAKEN, 0, 0, 0]),
            framed(&[TAKEN, 0, 0, 0, 0, 0]),
            framed(&good[..good.len() - 1]),
            framed(&longer),
            huge.to_vec(),
            vec![0xff; 4],
            framed(&good)[..good.len()].to_vec(),
            vec![0],
        ] {
            let error = hear_front(&mut bad.as_slice()).await.unwrap_err();
            let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
            assert!(kinds.contains(&error.kind()), "{bad:?}: {error}");
        }
    }
}
