//! Flows that were there before the guard, remembered in case somebody removes the table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::operations::{OperationError, Operations};
use super::ways_in::is_at;
use crate::backend::BackendError;
use crate::ruleset::diff::{Change, Live};
use crate::ruleset::lockout::{adopted_ref, ends_of, flow_key};
use crate::ruleset::model::{Elements, Timeout};
use crate::sys::flows;
use crate::units::{Family, Now, Protocol};

/// The flows as they were when the kernel was last read, and when that was.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    elements: BTreeMap<String, Elements>,
    read_at: Duration,
}

impl Adopted {
    /// Takes note of what is in the kernel; sets that are not there say nothing.
    pub(super) fn learn(&mut self, live: &Live, now: Now) {
        let names = Family::BOTH.map(|family| adopted_ref(family).name);
        let found = names.iter().filter_map(|name| Some((name.clone(), live.elements.get(name)?.clone())));
        let found: BTreeMap<String, Elements> = found.collect();
        if !found.is_empty() {
            (self.elements, self.read_at) = (found, now.boot);
        }
    }

    /// Whether the flow between two ends is one of them.
    pub(super) fn knows(&self, protocol: Protocol, client: SocketAddr, server: SocketAddr) -> bool {
        let set = adopted_ref(Family::of(client.ip())).name;
        let of_family = self.elements.get(&set);
        of_family.is_some_and(|elements| elements.contains_key(&flow_key(protocol, client, server)))
    }

    pub(super) fn forget(&mut self) {
        self.elements.clear();
    }

    /// Has connection tracking forget all of them.
    pub(super) fn cut_all(&self) {
        self.elements.values().flat_map(Elements::keys).for_each(|key| cut(key));
    }

    /// Has connection tracking forget some of them, which are not to come back.
    fn end(&mut self, of_app: impl Fn(&[u8]) -> bool) {
        for elements in self.elements.values_mut() {
            elements.retain(|key, _| {
                let stays = !of_app(key);
                if !stays {
                    cut(key);
                }
                stays
            });
        }
    }

    /// Somebody removed a flow: it is not to come back.
    pub(super) fn on_removed(&mut self, set: &str, key: &[u8]) {
        if let Some(elements) = self.elements.get_mut(set) {
            elements.remove(key);
        }
    }

    /// The flows of lost sets, with what was left of their time when they were read and is left of that.
    pub(super) fn restored(&self, lost: impl Fn(&str) -> bool, now: Now) -> Vec<Change> {
        let passed = u64::try_from(now.boot.saturating_sub(self.read_at).as_millis()).unwrap_or(u64::MAX);
        let mut out = Vec::new();
        for set in Family::BOTH.map(adopted_ref) {
            if !lost(&set.name) {
                continue;
            }
            out.push(Change::FlushSet(set.name.clone()));
            let mut elements = self.elements.get(&set.name).cloned().unwrap_or_default();
            elements.retain(|_, element| {
                let left = element.timeout.and_then(|timeout| timeout.left_ms.checked_sub(passed));
                let left = left.filter(|&left_ms| left_ms > 0);
                element.timeout = element.timeout.zip(left).map(|(t, left_ms)| Timeout { left_ms, ..t });
                element.timeout.is_some()
            });
            if !elements.is_empty() {
                out.push(Change::AddElements { set, elements });
            }
        }
        out
    }
}

/// Has connection tracking forget flows that no longer live on: where it learnt of one from a packet of the
/// service, it would take all others for answers.
pub(super) fn cut_all(live: &Live) {
    for set in Family::BOTH.map(adopted_ref) {
        live.elements.get(&set.name).into_iter().flatten().for_each(|(key, _)| cut(key));
    }
}

fn cut(key: &[u8]) {
    if let Some((protocol, client, server)) = ends_of(key)
        && let Err(error) = flows::forget_connection(protocol, client, server)
    {
        tracing::debug!(%error, "a connection that was to end may go on as long as it is tracked");
    }
}

impl Operations {
    /// Ends the flows of before to an app's ports.
    pub(super) fn end_adopted(&mut self, app: &str) -> Result<(), OperationError> {
        let app = self.app(app)?.clone();
        let of_app = |key: &[u8]| {
            ends_of(key).is_some_and(|(protocol, _, server)| {
                let mut each = app.protocol.each().iter();
                each.any(|each| each.number() == protocol && is_at(&app, *each, server))
            })
        };
        let live = self.firewall().read()?.unwrap_or_default();
        for set in Family::BOTH.map(adopted_ref) {
            let found = live.elements.get(&set.name).into_iter().flatten();
            // One by one, because each may end by itself meanwhile.
            for (key, element) in found.filter(|(key, _)| of_app(key)) {
                self.adopted.on_removed(&set.name, key);
                let elements = Elements::from([(key.clone(), element.clone())]);
                match self.firewall().apply(&[Change::DeleteElements { set: set.clone(), elements }]) {
                    Ok(()) | Err(BackendError::Refused { errno: nix::errno::Errno::ENOENT, .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                cut(key);
            }
        }
        // Those of rules that somebody removed a moment ago.
        self.adopted.end(of_app);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::model::Element;

    fn now(secs: u64) -> Now {
        Now { boot: Duration::from_secs(secs), ..crate::sys::clock::now() }
    }

    #[test]
    fn lost_flows_come_back_with_what_is_left_of_their_time_unless_somebody_ended_them() {
        let timeout = |ms| Some(Timeout { total_ms: 100_000, left_ms: ms });
        let element = |ms| Element { timeout: timeout(ms), ..Element::default() };
        let live = Live {
            elements: [(
                "adopted_4".to_owned(),
                [(vec![1], element(60_000)), (vec![2], element(5_000)), (vec![3], element(60_000))].into(),
            )]
            .into(),
            ..Live::default()
        };
        let mut adopted = Adopted::default();
        adopted.learn(&live, now(100));
        adopted.learn(&Live::default(), now(105));
        adopted.on_removed("adopted_4", &[3]);
        assert_eq!(adopted.restored(|_| false, now(110)), []);
        let changes = adopted.restored(|set| set == "adopted_4", now(110));
        let [Change::FlushSet(_), Change::AddElements { elements, .. }] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(*elements, Elements::from([(vec![1], element(50_000))]));
        adopted.forget();
        assert_eq!(adopted.restored(|set| set == "adopted_4", now(110)).len(), 1);
    }

    #[test]
    fn each_of_very_many_flows_is_found_at_once() {
        let server =
            |family| SocketAddr::new(if family { [203, 0, 113, 1].into() } else { [0; 16].into() }, 22);
        let client = |family, port| SocketAddr::new(server(family).ip(), port);
        let all = |family| {
            let keys = (0..30_000).map(|port| flow_key(Protocol::Tcp, client(family, port), server(family)));
            keys.map(|key| (key, Element::default())).collect::<Elements>()
        };
        let sets = [("adopted_4", true), ("adopted_6", false)];
        let elements = sets.map(|(set, family)| (set.to_owned(), all(family))).into();
        let mut adopted = Adopted::default();
        adopted.learn(&Live { elements, ..Live::default() }, now(1));
        let begun = std::time::Instant::now();
        for family in [true, false] {
            for port in 0..60_000 {
                let known = adopted.knows(Protocol::Tcp, client(family, port), server(family));
                assert_eq!(known, port < 30_000);
            }
            assert!(!adopted.knows(Protocol::Udp, client(family, 1), server(family)));
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
