use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::service::front::listen::Ears;
use crate::units::ClientAddr;

/// How long to wait when the process has run out of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);
/// What somebody with many IPv6 addresses has, as a rule (RFC 6177).
const SITE: u8 = 48;

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

/// Whether anything has come on a connection: told by the conversation, which is the one to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Something has come.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn anything(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Accepts for ever and holds a conversation with everybody who comes and is to have one, within the bounds.
///
/// Where a bound is reached a connection goes: of that address, or of all. First those on which nothing has come, then those
/// of the site that has most, then the oldest: an honest client has one, speaks at once and is done within milliseconds,
/// and whoever holds connections pushes out his own.
pub(super) async fn serve<F, C>(ears: Ears, bounds: Bounds, mut converse: F) -> Infallible
where
    F: FnMut(TcpStream, ClientAddr, Heard) -> Option<C>,
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
                let heard = Heard::default();
                if let Some(conversation) = converse(stream, client, heard.clone()) {
                    crowd.enter(client, heard, conversation);
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
    by_age: BTreeMap<u64, Guest>,
    ages: HashMap<Id, u64>,
}

struct Guest {
    client: ClientAddr,
    heard: Heard,
    conversation: AbortHandle,
}

impl Crowd {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, tasks: JoinSet::new(), next: 0, by_age: BTreeMap::new(), ages: HashMap::new() }
    }

    fn enter(
        &mut self,
        client: ClientAddr,
        heard: Heard,
        conversation: impl Future<Output = ()> + Send + 'static,
    ) {
        let client = client.masked_v6(64);
        self.make_room(client);
        let conversation = self.tasks.spawn(conversation);
        self.ages.insert(conversation.id(), self.next);
        self.by_age.insert(self.next, Guest { client, heard, conversation });
        self.next += 1;
    }

    fn make_room(&mut self, client: ClientAddr) {
        let of_client = || self.by_age.iter().filter(|(_, guest)| guest.client == client);
        let goes = if of_client().count() >= self.bounds.per_client {
            first_to_go(of_client())
        } else if self.by_age.len() >= self.bounds.total {
            first_to_go(self.by_age.iter())
        } else {
            None
        };
        if let Some(Guest { client, conversation, .. }) = goes.and_then(|age| self.by_age.remove(&age)) {
            tracing::debug!(%client, "too many connections: one is closed");
            self.ages.remove(&conversation.id());
            conversation.abort();
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

/// Of these, by age, the one that makes room.
fn first_to_go<'g>(by_age: impl Iterator<Item = (&'g u64, &'g Guest)> + Clone) -> Option<u64> {
    let mut of_site: HashMap<ClientAddr, usize> = HashMap::new();
    for (_, guest) in by_age.clone() {
        *of_site.entry(guest.client.masked_v6(SITE)).or_default() += 1;
    }
    let rank = |guest: &Guest| {
        let many = of_site.get(&guest.client.masked_v6(SITE)).copied().unwrap_or_default();
        (guest.heard.anything(), Reverse(many))
    };
    // The first of several that are equal.
    by_age.min_by_key(|(_, guest)| rank(guest)).map(|(&age, _)| age)
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
    async fn the_oldest_of_the_address_goes_and_then_that_of_whoever_has_most() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut crowd = Crowd::new(Bounds { total: 3, per_client: 2 });
        let mut enter = |who: u8, number: u8| {
            let tells = Tells(ended.clone(), number);
            crowd.enter(client(who), Heard::default(), async move {
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
        assert_eq!(ends.recv().await, Some(2), "of the one that has most");
        assert_eq!(enter(4, 5), (3, 3));
        assert_eq!(ends.recv().await, Some(0), "of those that have one each");
        assert!(ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_site_with_many_addresses_pushes_nobody_else_out() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut crowd = Crowd::new(Bounds { total: 4, per_client: 2 });
        let mut enter = |who: &str, number: u8| {
            let tells = Tells(ended.clone(), number);
            crowd.enter(ClientAddr::new(who.parse().unwrap()), Heard::default(), async move {
                let _tells = tells;
                pending::<()>().await;
            });
        };
        enter("192.0.2.1", 0);
        enter("2001:db8:a::1", 1);
        for n in 2..40_u8 {
            enter(&format!("2001:db8:b:{n}::1"), n);
        }
        for n in 2..38 {
            assert_eq!(ends.recv().await, Some(n));
        }
        assert!(ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_has_said_nothing_goes_before_who_has() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut crowd = Crowd::new(Bounds { total: 3, per_client: 2 });
        let mut enter = |who: u8, number: u8, speaks: bool| {
            let (tells, heard) = (Tells(ended.clone(), number), Heard::default());
            if speaks {
                heard.note();
            }
            crowd.enter(client(who), heard, async move {
                let _tells = tells;
                pending::<()>().await;
            });
        };
        enter(1, 0, true);
        enter(2, 1, true);
        enter(2, 2, false);
        enter(3, 3, false);
        assert_eq!(ends.recv().await, Some(2), "not the oldest of all, who has spoken");
        enter(2, 4, true);
        assert_eq!(ends.recv().await, Some(3));
        enter(2, 5, false);
        assert_eq!(ends.recv().await, Some(1), "of an address that has its share, its own");
        enter(4, 6, false);
        assert_eq!(ends.recv().await, Some(5));
        enter(5, 7, true);
        enter(6, 8, false);
        assert_eq!((ends.recv().await, ends.recv().await), (Some(6), Some(0)), "all have spoken: the oldest");
    }

    #[tokio::test]
    async fn who_is_done_makes_room() {
        let mut crowd = Crowd::new(Bounds { total: 2, per_client: 1 });
        crowd.enter(client(1), Heard::default(), async {});
        let ended = crowd.tasks.join_next_with_id().await.unwrap();
        crowd.leave(&ended);
        assert!(crowd.by_age.is_empty() && crowd.ages.is_empty());
    }
}
