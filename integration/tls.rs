use std::io::{Read, Write};
use std::net::IpAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::knocking::{Reply, STEP2_PORT, parse_reply};
use crate::namespace::Namespace;
use crate::process::Background;
use crate::server::in_url;

/// A TLS connection to step 2 by `openssl s_client`, for requests that curl would not send.
pub struct Tls {
    process: Background,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
}

impl Tls {
    pub fn connect(from: &Namespace, to: IpAddr, more: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &format!("{}:{STEP2_PORT}", in_url(to))]);
        command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = from.background(command);
        let input = process.0.stdin.take().unwrap();
        let mut answers = process.0.stdout.take().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = answers.read(&mut piece) {
                let _ = sender.send(piece[..length].to_vec());
            }
        });
        Self { process, input, output }
    }

    /// Sends bytes; tells whether somebody still takes them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.input.write_all(bytes).and_then(|()| self.input.flush()).is_ok()
    }

    /// Everything that comes until the other side closes; stops the test when it has not by the limit.
    #[track_caller]
    pub fn rest(mut self, limit: Duration) -> Vec<u8> {
        let end = Instant::now() + limit;
        let mut all = Vec::new();
        loop {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(piece) => all.extend(piece),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    panic!("the connection is still open after {limit:?}");
                }
            }
        }
        let _ = self.process.0.wait();
        all
    }
}

/// Sends a request over TLS and reads the answer to its end; none when the connection was closed without one.
#[track_caller]
pub fn exchange(from: &Namespace, to: IpAddr, request: &[u8]) -> Option<Reply> {
    let mut connection = Tls::connect(from, to, &[]);
    connection.send(request);
    let answer = connection.rest(Duration::from_secs(8));
    (!answer.is_empty()).then(|| parse_reply(&String::from_utf8_lossy(&answer)))
}
