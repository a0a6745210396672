//! Where front and enforcer meet: a closed set of messages, and nothing else.
//!
//! They are processes of their own, joined by a pair of sockets ([`frame`]). What the front hears becomes an [`Ask`],
//! and nothing but an [`Answer`] comes back.

pub mod frame;
pub mod serving;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::knock::{Attempt, Step};
use crate::units::Lifetime;

/// How many asks the enforcer may have before it; as many more wait, and what comes then is turned away.
pub const MOST_ASKS: usize = 64;

/// How long whoever knocks at step 2 waits for an answer, from being accepted.
pub const ANSWER: Duration = Duration::from_millis(4_500);

/// What the front may ask.
#[derive(Debug)]
pub enum Ask {
    /// A client presented these credentials at this step.
    Knock(Attempt),
}

/// What the enforcer answers; tells nothing that the client may not learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was right and the kernel has it.
    Opened,
    /// The same for a service, which stays open for so long at least.
    Granted(Lifetime),
    /// The key was right, a one-time code is missing.
    NeedToken,
    /// It was wrong.
    Refused,
    /// Too many requests from this address.
    TooMany,
    /// It was right but could not be carried out, or the enforcer is not there.
    Unavailable,
}

/// One ask with the place its answer goes to.
#[derive(Debug)]
pub struct Pending {
    /// The ask.
    pub ask: Ask,
    answer: oneshot::Sender<Answer>,
    heard: Instant,
}

impl Pending {
    /// An ask, and where its answer will be; that is closed without one where there is nobody to answer.
    #[must_use]
    pub fn new(ask: Ask) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self { ask, answer, heard: Instant::now() }, answered)
    }

    /// Whether the client may still be told. Who asked at step 2 so long ago was told by now that it did not work: nothing is to open after
    /// that, nor to use up a code. Of step 1 nobody is told. What takes longer than that once it was begun is not taken back: who knocked right
    /// may come in, and it may be a renewal.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let Ask::Knock(attempt) = &self.ask;
        attempt.step == Step::One || self.heard.elapsed() < ANSWER
    }

    /// Takes the ask apart from the place of its answer.
    #[must_use]
    pub fn split(self) -> (Ask, oneshot::Sender<Answer>) {
        (self.ask, self.answer)
    }
}

/// The front's end.
#[derive(Clone, Debug)]
pub struct Front {
    asks: mpsc::Sender<Pending>,
}

impl Front {
    /// Asks and waits for the answer; [`Answer::Unavailable`] when the enforcer is gone. Where many ask at once, they wait for
    /// their turn: a step 1 that is turned away would be lost without a word.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (pending, answered) = Pending::new(ask);
        if self.asks.send(pending).await.is_err() {
            return Answer::Unavailable;
        }
        answered.await.unwrap_or(Answer::Unavailable)
    }
}

/// A link: the front's end and the stream of asks for the enforcer.
#[must_use]
pub fn pair() -> (Front, mpsc::Receiver<Pending>) {
    let (asks, stream) = mpsc::channel(MOST_ASKS);
    (Front { asks }, stream)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::knock::{Action, Credential};
    use crate::units::{ClientAddr, Secret};

    fn knock() -> Ask {
        at(Step::One)
    }

    fn at(step: Step) -> Ask {
        Ask::Knock(Attempt {
            client: ClientAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            step,
            app: "ssh".to_owned(),
            credential: Credential::Key(Secret::new("a-key-of-ours".to_owned())),
            user: None,
            token: None,
            duration: None,
            action: Action::Open,
        })
    }

    #[test]
    fn nobody_waits_any_more_for_the_answer_to_an_old_step_2() {
        for (step, awaited) in [(Step::One, true), (Step::Two, false)] {
            let (mut pending, _answered) = Pending::new(at(step));
            assert!(pending.is_awaited(), "{step:?}");
            pending.heard = Instant::now().checked_sub(ANSWER).unwrap();
            assert_eq!(pending.is_awaited(), awaited, "{step:?}");
        }
    }

    #[tokio::test]
    async fn whoever_asks_while_many_do_waits_for_his_turn() {
        let (front, mut asks) = pair();
        let all: Vec<_> = (0..MOST_ASKS * 3)
            .map(|_| {
                let front = front.clone();
                tokio::spawn(async move { front.ask(knock()).await })
            })
            .collect();
        // All of them ask before the first is heard.
        tokio::task::yield_now().await;
        tokio::spawn(async move {
            while let Some(pending) = asks.recv().await {
                let _ = pending.split().1.send(Answer::Opened);
            }
        });
        for asked in all {
            assert_eq!(asked.await.unwrap(), Answer::Opened);
        }
    }
}
