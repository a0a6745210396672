//! What the front logs. It comes through a pipe, and is passed on as what the front says: a front in somebody else's
//! hands could say anything, but neither in another's name nor without end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::Instant;

/// What is kept of a line, in bytes.
const LONGEST: u64 = 512;
/// Lines that are passed on in a second; with `--log-level debug` a busy gateway has more.
const LINES: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Passes on lines until there are no more.
pub(super) async fn pass_on(log: pipe::Receiver) {
    let mut log = BufReader::new(log);
    let (mut since, mut lines, mut missing) = (Instant::now(), 0, 0_u64);
    while let Some(line) = next_line(&mut log).await {
        if since.elapsed() >= SECOND {
            if missing > 0 {
                tracing::warn!(lines = missing, "the front logged more than is passed on");
            }
            (since, lines, missing) = (Instant::now(), 0, 0);
        }
        lines += 1;
        if lines > LINES {
            missing += 1;
        } else {
            say(&line);
        }
    }
}

async fn next_line(log: &mut BufReader<pipe::Receiver>) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let byte = log.read_u8().await.ok();
        match byte {
            None if line.is_empty() => return None,
            None | Some(b'\n') => return Some(plain(&line)),
            Some(byte) if (line.len() as u64) < LONGEST => line.push(byte),
            Some(_) => {}
        }
    }
}

/// One line of text, whatever it was.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a terminal or a reader does something else with it than show it: controls, ends of lines, directions.
fn obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn say(line: &str) {
    let line = line.trim_start();
    let (level, text) = line.split_once(' ').unwrap_or(("", line));
    match level {
        "TRACE" => tracing::trace!("front: {}", text.trim_start()),
        "DEBUG" => tracing::debug!("front: {}", text.trim_start()),
        "INFO" => tracing::info!("front: {}", text.trim_start()),
        "ERROR" => tracing::error!("front: {}", text.trim_start()),
        "WARN" => tracing::warn!("front: {}", text.trim_start()),
        _ => tracing::warn!("front: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_of_text() {
        assert_eq!(plain(b"a\rb\x1b[31mc\xff"), "a\u{fffd}b\u{fffd}[31mc\u{fffd}");
        assert_eq!(plain("a\u{2028}b\u{202e}c".as_bytes()), "a\u{fffd}b\u{fffd}c");
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        use tokio::io::AsyncWriteExt;
        let (mut writer, reader) = pipe::pipe().unwrap();
        let writing = tokio::spawn(async move {
            writer.write_all(&vec![b'x'; 100_000]).await.unwrap();
            writer.write_all(b"\nnext\nlast").await.unwrap();
        });
        let mut log = BufReader::new(reader);
        assert_eq!(next_line(&mut log).await.unwrap().len() as u64, LONGEST);
        assert_eq!(next_line(&mut log).await.unwrap(), "next");
        assert_eq!(next_line(&mut log).await.unwrap(), "last");
        assert_eq!(next_line(&mut log).await, None);
        writing.await.unwrap();
    }
}
