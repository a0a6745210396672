use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::service::front::listen::Ears;
use crate::units::ClientAddr;

/// How long to wait when the process has run out of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// In total.
    pub(super) total: usize,
    /// From one address (IPv6: one /64).
    pub(super) per_client: usize,
}

impl Bounds {
    /// Those for a proxy, which speaks for all clients.
    pub(super) fn for_proxy(self) -> Self {
        Self { per_client: self.total, ..self }
    }
}

/// Accepts for ever and holds a conversation with everybody who comes and is to have one, within the bounds.
///
/// Where a bound is reached the oldest connection goes (of that address, or of all): an honest client is
/// done within milliseconds, and whoever only holds connections pushes out his own.
pub(super) async fn serve<F, C>(ears: Ears, bounds: Bounds, mut converse: F) -> Infallible
where
    F: FnMut(TcpStream, ClientAddr) -> Option<C>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut crowd = Crowd::new(bounds);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = ears.accept() => accepted,
            Some(ended) = crowd.tasks.join_next_with_id() => {
                crowd.leave(&ended);
                continue;
            }
        };
        match accepted {
            Ok((stream, from)) => {
                failing = false;
                let client = ClientAddr::new(from.ip());
                if let Some(conversation) = converse(stream, client) {
                    crowd.enter(client, conversation);
                }
            }
            Err(e) if gone_before_accepted(&e) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections: raise the limit of open files");
                }
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

fn gone_before_accepted(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The conversations going on, in the order they began.
struct Crowd {
    bounds: Bounds,
    tasks: JoinSet<()>,
    next: u64,
    by_age: BTreeMap<u64, (ClientAddr, AbortHandle)>,
    ages: HashMap<Id, u64>,
}

impl Crowd {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, tasks: JoinSet::new(), next: 0, by_age: BTreeMap::new(), ages: HashMap::new() }
    }

    fn enter(&mut self, client: ClientAddr, conversation: impl Future<Output = ()> + Send + 'static) {
        let client = client.masked_v6(64);
        self.make_room(client);
        let handle = self.tasks.spawn(conversation);
        self.ages.insert(handle.id(), self.next);
        self.by_age.insert(self.next, (client, handle));
        self.next += 1;
    }

    fn make_room(&mut self, client: ClientAddr) {
        let of_client = || self.by_age.iter().filter(|(_, (who, _))| *who == client);
        let oldest = if of_client().count() >= self.bounds.per_client {
            of_client().next().map(|(&age, _)| age)
        } else if self.by_age.len() >= self.bounds.total {
            self.by_age.first_key_value().map(|(&age, _)| age)
        } else {
            None
        };
        if let Some((who, handle)) = oldest.and_then(|age| self.by_age.remove(&age)) {
            tracing::debug!(client = %who, "too many connections: the oldest is closed");
            self.ages.remove(&handle.id());
            handle.abort();
        }
    }

    fn leave(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!("a conversation ended in a bug of this program");
                }
                error.id()
            }
        };
        if let Some(age) = self.ages.remove(&id) {
            self.by_age.remove(&age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::mpsc;

    struct Tells(mpsc::UnboundedSender<u8>, u8);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }

    fn client(n: u8) -> ClientAddr {
        ClientAddr::new([192, 0, 2, n].into())
    }

    #[tokio::test]
    async fn the_oldest_of_the_address_goes_and_then_the_oldest_of_all() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut crowd = Crowd::new(Bounds { total: 3, per_client: 2 });
        let mut enter = |who: u8, number: u8| {
            let tells = Tells(ended.clone(), number);
            crowd.enter(client(who), async move {
                let _tells = tells;
                pending::<()>().await;
            });
            (crowd.by_age.len(), crowd.ages.len())
        };
        enter(1, 0);
        enter(2, 1);
        enter(2, 2);
        assert_eq!(enter(2, 3), (3, 3));
        assert_eq!(ends.recv().await, Some(1));
        assert_eq!(enter(3, 4), (3, 3));
        assert_eq!(ends.recv().await, Some(0));
        assert!(ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_is_done_makes_room() {
        let mut crowd = Crowd::new(Bounds { total: 2, per_client: 1 });
        crowd.enter(client(1), async {});
        let ended = crowd.tasks.join_next_with_id().await.unwrap();
        crowd.leave(&ended);
        assert!(crowd.by_age.is_empty() && crowd.ages.is_empty());
    }
}
