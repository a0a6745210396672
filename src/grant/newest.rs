use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

/// The newest of all, newest first: when, which app, where. Takes as long as there are, and room for those that are wanted.
pub(super) fn newest<'l>(
    all: impl Iterator<Item = (Duration, &'l str, IpAddr)>,
    most: usize,
) -> Vec<(&'l str, IpAddr)> {
    let mut kept: BinaryHeap<Reverse<(Duration, &str, IpAddr)>> = BinaryHeap::new();
    for one in all {
        if kept.len() < most {
            kept.push(Reverse(one));
        } else if kept.peek().is_some_and(|Reverse(oldest)| one > *oldest) {
            kept.pop();
            kept.push(Reverse(one));
        }
    }
    kept.into_sorted_vec().into_iter().map(|Reverse((_, app, addr))| (app, addr)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_no_more_than_are_wanted() {
        let addr = |n: u8| IpAddr::from([203, 0, 113, n]);
        let all = |most| {
            newest([3, 9, 1, 7].map(|n| (Duration::from_secs(n.into()), "ssh", addr(n))).into_iter(), most)
        };
        assert_eq!(all(2), [("ssh", addr(9)), ("ssh", addr(7))]);
        assert_eq!((all(0).len(), all(9).len()), (0, 4));
    }
}
