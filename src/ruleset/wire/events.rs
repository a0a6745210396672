//! What the kernel tells everybody about changes to tables (`NFNLGRP_NFTABLES`), as far as our table goes and
//! those of the host that hold a rule of ours.
//!
//! The messages of one transaction come one after the other and end with a new
//! generation, which names the process that made it (nf_tables_gen_notify in the
//! kernel's net/netfilter/nf_tables_api.c). Elements that expire, and those that packets
//! add, are not told.

use super::attr::Attributes;
use super::objects::elements;

const DEL_TABLE: u8 = 2;
/// The last of the types about tables, chains and rules; sets and what is in them follow.
const DEL_RULE: u8 = 8;
const DEL_SET_ELEMENTS: u8 = 14;
const NEW_GENERATION: u8 = 15;
const SUBSYS_NFTABLES: u8 = 10;
const FAMILY_INET: u8 = 1;
const FAMILIES: [u8; 3] = [FAMILY_INET, 2, 10];
const HEADER: usize = 16;

/// Somebody's transaction that touched our table, or a table of the host's that concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The netlink port it came from; ours or somebody else's.
    pub port: u32,
    /// The process, as the kernel numbers it.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// Whether it touched our table.
    pub ours: bool,
    /// Whether our table was removed, and perhaps made anew.
    pub table_removed: bool,
    /// Elements that were removed: set and key.
    pub removed: Vec<(String, Vec<u8>)>,
}

/// Puts messages together to transactions.
#[derive(Clone, Debug, Default)]
pub struct Transactions {
    current: Option<Touched>,
}

impl Transactions {
    /// Takes one message; gives a transaction back once it is complete, if it touched our table, or chains and
    /// rules of one of these tables of the host's.
    pub fn on_message(&mut self, message: &[u8], table: &str, hosts: &[String]) -> Option<Touched> {
        let &[_, _, _, _, kind, subsystem, ..] = message else { return None };
        if subsystem != SUBSYS_NFTABLES {
            return None;
        }
        let family = *message.get(HEADER)?;
        let attributes = Attributes(message.get(HEADER + 4..)?);
        if kind == NEW_GENERATION {
            let mut done = self.current.take()?;
            done.port = message.get(12..16)?.try_into().ok().map(u32::from_ne_bytes)?;
            done.pid = attributes.be32(2).unwrap_or(0);
            done.process = attributes.text(3).unwrap_or_default().to_owned();
            return Some(done);
        }
        // The table's name is the first attribute of every message about tables and what is in them.
        let name = attributes.text(1)?;
        if family != FAMILY_INET || name != table {
            if kind <= DEL_RULE && FAMILIES.contains(&family) && hosts.iter().any(|host| host == name) {
                self.current.get_or_insert_default();
            }
            return None;
        }
        let touched = self.current.get_or_insert_default();
        touched.ours = true;
        match kind {
            DEL_TABLE => {
                touched.table_removed = true;
                touched.removed.clear();
            }
            DEL_SET_ELEMENTS => {
                let set = attributes.text(2).unwrap_or_default();
                let gone = elements(message.get(HEADER + 4..).unwrap_or_default());
                let gone = gone.into_iter().filter(|raw| !raw.ends_range);
                touched.removed.extend(gone.map(|raw| (set.to_owned(), raw.key)));
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;

    fn message(kind: u8, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        (out[4], out[5]) = (kind, SUBSYS_NFTABLES);
        out[12..16].copy_from_slice(&4_711_u32.to_ne_bytes());
        out.extend([family, 0, 0, 0]);
        out.extend(attributes.concat());
        out
    }

    fn generation() -> Vec<u8> {
        let attributes =
            [attribute(1, &7_u32.to_be_bytes()), attribute(2, &42_u32.to_be_bytes()), attribute(3, b"nft\0")];
        message(NEW_GENERATION, 0, &attributes)
    }

    #[test]
    fn a_transaction_on_our_table_is_told_with_who_made_it() {
        let mut transactions = Transactions::default();
        let ours = attribute(1, b"knock_agent\0");
        assert_eq!(
            transactions.on_message(
                &message(8, FAMILY_INET, std::slice::from_ref(&ours)),
                "knock_agent",
                &[]
            ),
            None
        );
        let element = attribute(1, &attribute(1, &attribute(1, &[192, 0, 2, 1])));
        let deleted = [ours, attribute(2, b"app_ssh_4\0"), attribute(3, &element)];
        assert_eq!(
            transactions.on_message(&message(DEL_SET_ELEMENTS, FAMILY_INET, &deleted), "knock_agent", &[]),
            None
        );
        let touched = transactions.on_message(&generation(), "knock_agent", &[]).unwrap();
        assert_eq!((touched.port, touched.pid, touched.process.as_str()), (4_711, 42, "nft"));
        assert_eq!(touched.removed, [("app_ssh_4".to_owned(), vec![192, 0, 2, 1])]);
        assert!(touched.ours && !touched.table_removed);
    }

    #[test]
    fn chains_and_rules_of_the_host_s_tables_matter_where_they_are_asked_for() {
        let hosts = ["vyos_filter".to_owned()];
        let name = attribute(1, b"vyos_filter\0");
        let mut transactions = Transactions::default();
        let told = |transactions: &mut Transactions, kind, family, hosts: &[String]| {
            let named = message(kind, family, std::slice::from_ref(&name));
            assert_eq!(transactions.on_message(&named, "knock_agent", hosts), None);
            transactions.on_message(&generation(), "knock_agent", hosts)
        };
        for (kind, family) in [(0, 2), (DEL_TABLE, 10), (3, FAMILY_INET), (DEL_RULE, 2)] {
            let touched = told(&mut transactions, kind, family, &hosts).expect("it matters");
            assert!(!touched.ours && !touched.table_removed, "{kind} {family}");
        }
        assert_eq!(told(&mut transactions, 12, 2, &hosts), None, "elements do not");
        assert_eq!(told(&mut transactions, DEL_RULE, 7, &hosts), None, "nor do bridges");
        assert_eq!(told(&mut transactions, DEL_RULE, 2, &[]), None, "nor does what nobody asked for");
    }

    #[test]
    fn others_tables_do_not_matter() {
        let mut transactions = Transactions::default();
        for (family, name) in [(FAMILY_INET, &b"filter\0"[..]), (2, b"knock_agent\0")] {
            assert_eq!(
                transactions.on_message(
                    &message(DEL_TABLE, family, &[attribute(1, name)]),
                    "knock_agent",
                    &[]
                ),
                None
            );
        }
        assert_eq!(transactions.on_message(&generation(), "knock_agent", &[]), None);
        assert_eq!(transactions.on_message(&[0; 40], "knock_agent", &[]), None);
        assert_eq!(transactions.on_message(&[], "knock_agent", &[]), None);
    }
}
