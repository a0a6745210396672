//! Where front and enforcer meet: a closed set of messages, and nothing else.
//!
//! Today the two are threads of one process joined by channels; to make them
//! processes, only this file changes.

use tokio::sync::{mpsc, oneshot};

use crate::knock::Attempt;
use crate::units::Lifetime;

/// How many asks may wait for the enforcer before new ones are turned away.
const QUEUE: usize = 64;

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
}

impl Pending {
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
    /// Asks and waits for the answer; [`Answer::Unavailable`] when the enforcer is gone or overloaded.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(Pending { ask, answer }).is_err() {
            return Answer::Unavailable;
        }
        answered.await.unwrap_or(Answer::Unavailable)
    }
}

/// A link: the front's end and the stream of asks for the enforcer.
#[must_use]
pub fn pair() -> (Front, mpsc::Receiver<Pending>) {
    let (asks, stream) = mpsc::channel(QUEUE);
    (Front { asks }, stream)
}
