//! From where the page comes: a moment old at most, asked for once however many want it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::document::document;
use crate::service::around::Around;
use crate::service::control::{Call, Reply, Request};
use crate::sys::process;

/// A page so old is good enough for whoever asks next.
const FRESH: Duration = Duration::from_secs(1);
/// The enforcer answers within this time, or there is no page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the page.
pub struct Source {
    around: Arc<Around>,
    calls: mpsc::Sender<Call>,
    last: Mutex<Last>,
    fresh: Duration,
    patience: Duration,
}

#[derive(Default)]
struct Last {
    page: Option<(Instant, Arc<str>)>,
    /// What the enforcer was asked for and has not answered yet.
    asked: Option<oneshot::Receiver<Reply>>,
}

impl Source {
    /// A source that asks the enforcer by these calls.
    pub fn new(around: Arc<Around>, calls: mpsc::Sender<Call>) -> Arc<Self> {
        Arc::new(Self { around, calls, last: Mutex::default(), fresh: FRESH, patience: PATIENCE })
    }

    /// The page; none where the enforcer does not answer.
    pub async fn page(&self) -> Option<Arc<str>> {
        let mut last = self.last.lock().await;
        if let Some((at, page)) = &last.page
            && at.elapsed() < self.fresh
        {
            return Some(Arc::clone(page));
        }
        // Asked anew only when the answer is there: what waits would be in the way of operators.
        let mut asked = match last.asked.take() {
            Some(asked) => asked,
            None => call(&self.calls, Request::Figures {})?,
        };
        let reply = match timeout(self.patience, &mut asked).await {
            Ok(reply) => reply.ok()?,
            Err(_) => {
                last.asked = Some(asked);
                return None;
            }
        };
        let Reply::Figures(figures) = reply else { return None };
        let page: Arc<str> = document(&figures, &self.around.known(), process::resident_memory()).into();
        last.page = Some((Instant::now(), Arc::clone(&page)));
        Some(page)
    }
}

/// Asks the enforcer; none where it does not answer within that time.
pub async fn ask(calls: &mpsc::Sender<Call>, request: Request, patience: Duration) -> Option<Reply> {
    timeout(patience, call(calls, request)?).await.ok()?.ok()
}

/// Where the reply will be; none where too many wait already.
fn call(calls: &mpsc::Sender<Call>, request: Request) -> Option<oneshot::Receiver<Reply>> {
    let (reply, replied) = oneshot::channel();
    let user = "knock-agent".to_owned();
    calls.try_send(Call { request, user, reply, caller: None }).ok()?;
    Some(replied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tally::Figures;

    fn source() -> (Arc<Source>, mpsc::Receiver<Call>) {
        let (calls, asked) = mpsc::channel(4);
        let fresh = Duration::from_millis(500);
        let source =
            Source { around: Arc::default(), calls, last: Mutex::default(), fresh, patience: fresh / 10 };
        (Arc::new(source), asked)
    }

    #[tokio::test]
    async fn one_answer_serves_all_who_ask_soon_after() {
        let (source, mut asked) = source();
        let enforcer = tokio::spawn(async move {
            let mut count = 0;
            while let Some(call) = asked.recv().await {
                count += 1;
                let _ =
                    call.reply.send(Reply::Figures(Box::new(Figures { room: count, ..Figures::default() })));
            }
            count
        });
        let first = source.page().await.unwrap();
        assert_eq!(source.page().await, Some(first));
        tokio::time::sleep(source.fresh).await;
        assert!(source.page().await.unwrap().contains("knock_agent_grants_limit 2\n"));
        drop(source);
        assert_eq!(enforcer.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn an_enforcer_that_hangs_is_asked_once_and_its_late_answer_is_taken() {
        let (source, mut asked) = source();
        for _ in 0..5 {
            assert_eq!(source.page().await, None);
        }
        let call = asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err(), "only one question waits");
        call.reply.send(Reply::Figures(Box::default())).unwrap();
        assert!(source.page().await.is_some());
        assert!(asked.try_recv().is_err());
    }
}
