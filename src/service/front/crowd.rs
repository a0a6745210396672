use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
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
/// Where a bound is reached the oldest connection goes, of that address or of the address that holds most in the network that
/// holds most: an honest client has one and is done within a second, and whoever opens many pushes out his own.
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
        let of_client = self.by_age.values().filter(|(who, _)| *who == client).count();
        let from = if of_client >= self.bounds.per_client {
            Some(client)
        } else if self.by_age.len() >= self.bounds.total {
            self.most_crowded()
        } else {
            None
        };
        let oldest = self.by_age.iter().find(|(_, (who, _))| Some(*who) == from).map(|(&age, _)| age);
        if let Some((who, handle)) = oldest.and_then(|age| self.by_age.remove(&age)) {
            tracing::debug!(client = %who, "too many connections: its oldest is closed");
            self.ages.remove(&handle.id());
            handle.abort();
        }
    }

    /// Who holds the most connections, of those in the network that does: who has many addresses has them near each other.
    fn most_crowded(&self) -> Option<ClientAddr> {
        let clients = || self.by_age.values().map(|(who, _)| *who);
        let network = most(clients().map(network_of))?;
        most(clients().filter(|&who| network_of(who) == network))
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

/// As large as one customer's may be: an IPv4 /24, an IPv6 /48 (RFC 6177).
fn network_of(client: ClientAddr) -> IpAddr {
    match client.masked_v6(48).ip() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00).into(),
        v6 @ IpAddr::V6(_) => v6,
    }
}

/// What there is most of; of several, what came first.
fn most<T: Copy + Eq + Hash>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: HashMap<T, (usize, Reverse<usize>)> = HashMap::new();
    for (at, one) in all.enumerate() {
        counts.entry(one).or_insert((0, Reverse(at))).0 += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
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
    async fn the_oldest_goes_of_the_address_that_has_its_share_or_holds_most() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut crowd = Crowd::new(Bounds { total: 4, per_client: 3 });
        let mut enter = |who: u8, number: u8| {
            let tells = Tells(ended.clone(), number);
            crowd.enter(client(who), async move {
                let _tells = tells;
                pending::<()>().await;
            });
            (crowd.by_age.len(), crowd.ages.len())
        };
        for (who, number) in [(1, 0), (2, 1), (2, 2), (2, 3)] {
            enter(who, number);
        }
        assert_eq!(enter(2, 4), (4, 4));
        assert_eq!(ends.recv().await, Some(1));
        assert_eq!(enter(3, 5), (4, 4));
        assert_eq!(ends.recv().await, Some(2));
        // Two of them have two now: who came first.
        enter(3, 6);
        assert_eq!(ends.recv().await, Some(3));
        assert!(ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_comes_from_many_addresses_of_a_network_without_end_pushes_out_nobody_else() {
        for strangers in [
            |n: u16| IpAddr::from([192, 0, 2, n.to_be_bytes()[1]]),
            |n: u16| IpAddr::from([0x2001, 0xdb8, 0x77, n, 0, 0, 0, 7]),
        ] {
            let (ended, mut ends) = mpsc::unbounded_channel();
            let mut crowd = Crowd::new(Bounds { total: 16, per_client: 8 });
            let mut enter = |who: IpAddr, number: u8| {
                let tells = Tells(ended.clone(), number);
                crowd.enter(ClientAddr::new(who), async move {
                    let _tells = tells;
                    pending::<()>().await;
                });
            };
            enter([198, 51, 100, 1].into(), 1);
            enter([0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 1].into(), 1);
            (0..1_000).for_each(|n| enter(strangers(n % 200), 0));
            for _ in 0..1_000 - 14 {
                assert_eq!(ends.recv().await, Some(0));
            }
            assert!(ends.try_recv().is_err());
        }
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
