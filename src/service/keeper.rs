//! The front as the daemon keeps it: started, told what to serve with, heard, and started anew when it ends. What it
//! says is believed word by word only: the first that is no message ends it.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::around::Around;
use super::front::Ears;
use super::front_log;
use super::launcher::Launcher;
use super::link::frame::{FromFront, ToFront, hear_front, say};
use super::link::serving::Serving;
use super::link::{Answer, Ask, MOST_ASKS, Pending};
use super::record::Record;
use crate::sys::handover;
use crate::units::LogEvent;

/// For a front to say that it serves, and to hear what it is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether it listens.
const LOOK: Duration = Duration::from_secs(5);
/// So many questions in a row go unanswered before it counts as one that hangs.
const UNHEARD: u32 = 3;
/// A front that lasted so long is started anew at once.
const LASTING: Duration = Duration::from_secs(10);
/// Before others, doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why there is no front.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The process cannot be started.
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    /// Nothing can be started any more.
    #[error("the process that would start it is gone: {0}")]
    Launcher(#[source] io::Error),
    /// It ended.
    #[error("it ended")]
    Ended,
    /// It does not say that it serves.
    #[error("it does not answer")]
    Silent,
    /// It said what no front says.
    #[error("it sent what is not a message ({0}): it may be in somebody else's hands")]
    Hostile(io::Error),
    /// It asked more than it may at a time.
    #[error("it asked more than {MOST_ASKS} things at a time: it may be in somebody else's hands")]
    Flood,
    /// It said again that it serves.
    #[error("it said that it serves without being asked: it may be in somebody else's hands")]
    Unasked,
    /// The link broke.
    #[error("the link to it broke: {0}")]
    Link(#[source] io::Error),
}

/// A front that has been started and waits for its ears.
pub struct Begun {
    link: UnixStream,
    log: io::PipeReader,
}

impl Begun {
    /// Starts one: it gets ready while the rest does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(launcher: &Launcher) -> io::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        let (log, their_log) = io::pipe()?;
        launcher.start_front(theirs.as_fd(), their_log.as_fd())?;
        Ok(Self { link, log })
    }

    /// The same without waiting until it has been started: that is asked of the launcher.
    ///
    /// # Errors
    /// When the launcher is gone.
    pub fn order(launcher: &Launcher) -> io::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        let (log, their_log) = io::pipe()?;
        launcher.begin_front(theirs.as_fd(), their_log.as_fd())?;
        Ok(Self { link, log })
    }
}

/// Keeps a front.
pub struct Keeper {
    launcher: Arc<Launcher>,
    /// The first one.
    begun: Option<Begun>,
    /// The sockets that listen: those of step 1, then those of step 2. They outlast every front, so that clients wait instead of being refused.
    ears: Vec<OwnedFd>,
    of_step1: u8,
    serving: watch::Receiver<Serving>,
    taken: watch::Sender<Option<u32>>,
    asks: mpsc::Sender<Pending>,
    log: Arc<Mutex<front_log::Budget>>,
    /// How often the front was told something to which it has yet to say that it serves.
    owed: Arc<AtomicUsize>,
    around: Arc<Around>,
}

impl Keeper {
    /// Keeps a front with these ears, which serves with what `serving` says and passes on asks; `taken` says which
    /// version it serves with.
    ///
    /// # Errors
    /// Those of taking the sockets out of this process's own loop.
    pub fn new(
        launcher: Arc<Launcher>,
        begun: Begun,
        step1: Ears,
        step2: Ears,
        serving: watch::Receiver<Serving>,
        taken: watch::Sender<Option<u32>>,
        asks: mpsc::Sender<Pending>,
    ) -> io::Result<Self> {
        let mut ears = step1.into_descriptors()?;
        let of_step1 = u8::try_from(ears.len()).unwrap_or(u8::MAX);
        ears.extend(step2.into_descriptors()?);
        let log = Arc::new(Mutex::new(front_log::Budget::new(Instant::now())));
        let (begun, around) = (Some(begun), Arc::default());
        Ok(Self { launcher, begun, ears, of_step1, serving, taken, asks, log, owed: Arc::default(), around })
    }

    /// Has those know of it who watch the daemon.
    #[must_use]
    pub fn known_by(mut self, around: Arc<Around>) -> Self {
        self.around = around;
        self
    }

    /// Keeps it for ever.
    ///
    /// # Errors
    /// [`FrontError`] where the first one does not begin to serve, or no other can be started.
    pub async fn keep(mut self) -> Result<Infallible, FrontError> {
        let mut pause = SHORTEST_PAUSE;
        let mut served = false;
        loop {
            let begun = Instant::now();
            self.taken.send_replace(None);
            self.around.front_begins(served);
            let Err(error) = self.one().await;
            served |= self.taken.borrow().is_some();
            // Whatever it does now, it does not go on.
            let gone = self.launcher.end_front();
            if !served {
                return Err(error);
            }
            let ended = gone.map_err(FrontError::Launcher)?.map(|status| status.to_string());
            let ended = ended.as_deref().unwrap_or("it was ended");
            let reason = Some(format!("{error}; {ended}"));
            Record { reason, ..Record::of(LogEvent::FrontRestarted) }
                .log("the front is started anew; the guard and all grants stay as they are");
            if begun.elapsed() >= LASTING {
                pause = SHORTEST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The life of one front.
    async fn one(&mut self) -> Result<Infallible, FrontError> {
        let (reader, mut writer, log) = self.start().map_err(FrontError::Start)?;
        let logging = tokio::spawn(front_log::pass_on(log, Arc::clone(&self.log)));
        let (answers, mut answered) = mpsc::channel(MOST_ASKS);
        let open = Arc::new(AtomicUsize::new(0));
        let relay = Relay {
            asks: self.asks.clone(),
            answers,
            open: Arc::clone(&open),
            taken: self.taken.clone(),
            owed: Arc::clone(&self.owed),
            around: Arc::clone(&self.around),
        };
        self.owed.store(0, Ordering::Relaxed);
        let mut hearing = tokio::spawn(relay.hear(reader));
        let begun = self.serve(&mut writer).await;
        let mut serving = self.serving.clone();
        let mut first = self.taken.subscribe();
        let outcome = async {
            let expected = begun?;
            let mut waited = 0;
            loop {
                tokio::select! {
                    biased;
                    ended = &mut hearing => return Err(ended.unwrap_or(FrontError::Ended)),
                    taken = first.wait_for(|taken| *taken >= Some(expected)) => {
                        break taken.map(drop).map_err(|_| FrontError::Ended)?;
                    }
                    () = sleep(LOOK) => waited += 1,
                }
                if waited >= UNHEARD {
                    return Err(FrontError::Silent);
                }
            }
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // Looks since it was last heard of. They are counted, not timed: this thread may have been busy itself.
            let mut unheard = 0_u32;
            loop {
                tokio::select! {
                    biased;
                    ended = &mut hearing => return Err(ended.unwrap_or(FrontError::Ended)),
                    Ok(()) = first.changed() => unheard = 0,
                    Some((id, answer)) = answered.recv() => {
                        // Only now, so that one that does not listen cannot ask for more; and before it can know of it.
                        open.fetch_sub(1, Ordering::Relaxed);
                        tell(&mut writer, &ToFront::Answer(id, answer)).await?;
                    }
                    Ok(()) = serving.changed() => {
                        self.serve(&mut writer).await?;
                    }
                    _ = looks.tick() => {
                        if unheard >= UNHEARD {
                            return Err(FrontError::Silent);
                        }
                        unheard += 1;
                        self.around.front_asked();
                        self.owed.fetch_add(1, Ordering::Relaxed);
                        tell(&mut writer, &ToFront::AreYouListening).await?;
                    }
                }
            }
        }
        .await;
        hearing.abort();
        // What it said last may be why it ended.
        let _ = timeout(Duration::from_millis(200), logging).await;
        outcome
    }

    fn start(&mut self) -> io::Result<(OwnedReadHalf, OwnedWriteHalf, pipe::Receiver)> {
        let Begun { link, log } = match self.begun.take() {
            Some(begun) => begun,
            None => Begun::start(&self.launcher)?,
        };
        let ears: Vec<BorrowedFd<'_>> = self.ears.iter().map(AsFd::as_fd).collect();
        handover::send(&link, &[self.of_step1], &ears)?;
        link.set_nonblocking(true)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(link)?.into_split();
        Ok((reader, writer, pipe::Receiver::from_owned_fd(log.into())?))
    }

    /// Tells the front what to serve with; which version that is.
    async fn serve(&mut self, writer: &mut OwnedWriteHalf) -> Result<u32, FrontError> {
        let serving = self.serving.borrow_and_update().clone();
        let version = serving.version;
        self.owed.fetch_add(1, Ordering::Relaxed);
        tell(writer, &ToFront::Serve(serving)).await.map(|()| version)
    }
}

/// Tells the front something; one that does not read is waited for only so long.
async fn tell(writer: &mut OwnedWriteHalf, message: &ToFront) -> Result<(), FrontError> {
    let said = timeout(PATIENCE, say(writer, message.to_bytes())).await;
    said.map_err(|_| FrontError::Silent)?.map_err(FrontError::Link)
}

/// Passes on what a front asks, and the answers.
struct Relay {
    asks: mpsc::Sender<Pending>,
    answers: mpsc::Sender<(u32, Answer)>,
    /// Asks without an answer.
    open: Arc<AtomicUsize>,
    taken: watch::Sender<Option<u32>>,
    /// How often it was told something to which it says that it serves.
    owed: Arc<AtomicUsize>,
    around: Arc<Around>,
}

impl Relay {
    /// Until the front ends or is not to be believed; returns why.
    async fn hear(self, mut reader: OwnedReadHalf) -> FrontError {
        loop {
            let message = match hear_front(&mut reader).await {
                Ok(Some(message)) => message,
                Ok(None) => return FrontError::Ended,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return FrontError::Hostile(error);
                }
                Err(error) => return FrontError::Link(error),
            };
            match message {
                FromFront::Taken(version) => {
                    let asked = |owed: usize| owed.checked_sub(1);
                    if self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, asked).is_err() {
                        return FrontError::Unasked;
                    }
                    self.around.front_heard();
                    self.taken.send_replace(Some(version));
                }
                FromFront::Ask(id, attempt) => {
                    if self.open.fetch_add(1, Ordering::Relaxed) >= MOST_ASKS {
                        return FrontError::Flood;
                    }
                    self.pass_on(id, Ask::Knock(*attempt));
                }
            }
        }
    }

    fn pass_on(&self, id: u32, ask: Ask) {
        let (pending, answered) = Pending::new(ask);
        let passed = self.asks.try_send(pending).is_ok();
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let answer = if passed { answered.await.ok() } else { None };
            let _ = answers.send((id, answer.unwrap_or(Answer::Unavailable))).await;
        });
    }
}
