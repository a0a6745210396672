use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

/// So many ends too many are kept before they are sorted out.
const SPARE: usize = 1_024;

/// When grants end, soonest first. Of a grant that was renewed the end of before is in it, too, until it is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(BinaryHeap<Reverse<(Duration, u32, IpAddr)>>);

impl Ends {
    /// One more: at that time, of an app by its number, at an address.
    pub(super) fn push(&mut self, at: Duration, app: u32, addr: IpAddr) {
        self.0.push(Reverse((at, app, addr)));
    }

    /// The next one: when, of which app, and where.
    pub(super) fn next(&self) -> Option<(Duration, u32, IpAddr)> {
        self.0.peek().map(|Reverse(end)| *end)
    }

    /// Forgets the next one.
    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// Whether there are many more than there can be grants: who renews often leaves an end behind each time.
    pub(super) fn are_too_many(&self, grants: usize) -> bool {
        self.0.len() > grants.saturating_mul(2).saturating_add(SPARE)
    }

    /// These and no others.
    pub(super) fn replace(&mut self, all: impl Iterator<Item = (Duration, u32, IpAddr)>) {
        self.0 = all.map(Reverse).collect();
    }
}
