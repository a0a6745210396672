//! What the kernel tells unasked: changes to tables, connections, sockets.

use crate::ruleset::wire::{self, Transactions};

use super::choices::Choices;

const TABLE: &str = "knock_agent";

/// The first byte says what the rest is: messages about tables one after the other, an entry of connection tracking,
/// or a socket.
///
/// A transaction is told once, when it is complete, and only if it touched what concerns us.
pub fn events(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.below(3) {
        0 => messages(choices.rest()),
        1 => {
            if let Some(flow) = wire::tracked(choices.rest()) {
                assert_eq!(wire::tracked(choices.rest()), Some(flow));
            }
        }
        _ => {
            if let Some(socket) = wire::socket(choices.rest()) {
                assert_eq!(socket.local.ip(), socket.local.ip().to_canonical());
                assert_eq!(socket.remote.ip(), socket.remote.ip().to_canonical());
            }
        }
    }
}

fn messages(mut stream: &[u8]) {
    let hosts = ["filter".to_owned()];
    let mut transactions = Transactions::default();
    let (mut named, mut ours) = (false, false);
    // A message says its length first, as in a datagram of the kernel's.
    while let Some(&[l0, l1, l2, l3]) = stream.first_chunk::<4>() {
        let said = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap();
        let length = if (16..=stream.len()).contains(&said) { said } else { stream.len() };
        let (message, rest) = stream.split_at(length);
        stream = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        let contains = |name: &[u8]| message.windows(name.len()).any(|window| window == name);
        named |= contains(TABLE.as_bytes()) || contains(b"filter");
        ours |= contains(TABLE.as_bytes());
        if let Some(touched) = transactions.on_message(message, TABLE, &hosts) {
            assert!(named, "a transaction that names none of the tables");
            assert!(ours || !touched.ours && touched.removed.is_empty() && !touched.table_removed);
            (named, ours) = (false, false);
        }
    }
}
