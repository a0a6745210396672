use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// The pause between two pieces of a pushed stream.
pub const TICK: Duration = Duration::from_millis(50);

/// What a server does with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Sends back what it gets.
    Echo,
    /// Sends a piece every [`TICK`], whatever it gets.
    Push,
}

/// A server for both families inside a namespace; ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Option<Instant>>>,
}

impl Server {
    pub fn tcp(host: &Namespace, port: u16, habit: Habit) -> Self {
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = host.enter(|| TcpListener::bind(at)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self::idle();
        let (stop, heard) = (server.stop.clone(), server.heard.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (stop, heard) = (stop.clone(), heard.clone());
                        thread::spawn(move || serve(stream, habit, &stop, &heard));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        server
    }

    pub fn udp(host: &Namespace, port: u16, habit: Habit) -> Self {
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let socket = host.enter(|| UdpSocket::bind(at)).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        let server = Self::idle();
        let (stop, heard) = (server.stop.clone(), server.heard.clone());
        thread::spawn(move || {
            let mut peers = Vec::new();
            let mut piece = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut piece) {
                    note(&heard);
                    if habit == Habit::Echo {
                        let _ = socket.send_to(&piece[..length], peer);
                    } else if !peers.contains(&peer) {
                        peers.push(peer);
                    }
                }
                for peer in &peers {
                    let _ = socket.send_to(b"tick", peer);
                }
            }
        });
        server
    }

    /// When the server last got anything from anybody.
    pub fn last_heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap()
    }

    fn idle() -> Self {
        Self { stop: Arc::default(), heard: Arc::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, habit: Habit, stop: &AtomicBool, heard: &Mutex<Option<Instant>>) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    stream.set_write_timeout(Some(TICK)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut piece = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => {
                note(heard);
                if habit == Habit::Echo && stream.write_all(&piece[..length]).is_err() {
                    return;
                }
            }
            Err(e) if is_nothing_yet(&e) => {}
            Err(_) => return,
        }
        if habit == Habit::Push {
            let _ = stream.write(b"tick");
        }
    }
}

fn note(heard: &Mutex<Option<Instant>>) {
    *heard.lock().unwrap() = Some(Instant::now());
}

/// Whether a read with a time limit ended for no other reason than that limit or a signal.
pub fn is_nothing_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Receives a datagram, again where a signal interrupted it.
pub fn receive(socket: &UdpSocket, piece: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.recv(piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Reads until nothing has come for 2 s or until `end`; when the last piece came.
pub fn last_piece(
    mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    end: Instant,
) -> Option<Instant> {
    let mut last = None;
    let mut piece = [0; 2048];
    let mut quiet_since = Instant::now();
    while Instant::now() < end && quiet_since.elapsed() < Duration::from_secs(2) {
        match read(&mut piece) {
            Ok(0) => return last,
            Ok(_) => {
                quiet_since = Instant::now();
                last = Some(quiet_since);
            }
            Err(e) if is_nothing_yet(&e) => {}
            Err(_) => return last,
        }
    }
    last
}

/// The address as text for a URL.
pub fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
