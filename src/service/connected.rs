//! Who came in by a door that closed behind it (`once`): the kernel remembers the clients' ends of those connections. Words on
//! them say by whose grants they came, so that they end with whoever goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::clients_gone::{ClientsGone, Ended, Moved, may_knock};
use super::knocked::GrantSet;
use super::operations::{OperationError, Operations, TRIES, is_gone};
use super::shut_out::ShutOut;
use crate::config::{App, Settings};
use crate::grant::{How, Note, Succession};
use crate::ruleset::allow::{address_key, key_address};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::model::{Element, Elements, ONCE_SETS};
use crate::ruleset::wire::Logged;
use crate::units::{ClientAddr, Family, Now, Protocol};

/// The set of the ends of an app's connections.
pub(super) fn once_set(slug: &str, family: Family) -> SetRef {
    let name = format!("{ONCE_SETS}{slug}_{}", family.digit());
    SetRef { concatenated: true, ..SetRef::plain(name) }
}

/// The key of a client's end; each part fills whole registers.
pub(super) fn end_key(protocol: Protocol, client: SocketAddr) -> Vec<u8> {
    let port = client.port().to_be_bytes();
    [&[protocol.number(), 0, 0, 0][..], &address_key(client.ip()), &port, &[0, 0]].concat()
}

/// The address in such a key.
pub(super) fn end_address(key: &[u8]) -> Option<IpAddr> {
    let rest = key.get(4..)?;
    key_address(rest.get(..rest.len().checked_sub(4)?)?)
}

/// The ends of an app's connections that were read, with whose they are.
fn ends<'l>(live: &'l Live, slug: &str) -> Vec<(SetRef, &'l Vec<u8>, &'l Element, IpAddr, Note)> {
    let of = |family: Family| {
        let set = once_set(slug, family);
        let elements = live.elements.get(&set.name).into_iter().flatten();
        elements.filter_map(move |(key, element)| {
            Some((set.clone(), key, element, end_address(key)?, Note::parse(element.comment.as_deref())))
        })
    };
    Family::BOTH.into_iter().flat_map(of).collect()
}

/// What becomes of an end.
enum Fate {
    Stays,
    Goes,
    /// By the name that its key has from now on.
    Renamed(Note),
}

/// By what grants they came that end.
struct Gone<'g> {
    succession: Option<&'g Succession>,
    clients: Option<&'g BTreeSet<String>>,
    /// The app has other ports, or no sequence any more.
    moved: bool,
    without_sequence: bool,
}

impl Gone<'_> {
    /// Whose it is may not be known: then it goes with anybody.
    fn fate(&self, note: &Note) -> Fate {
        let takes = self.succession.is_some_and(Succession::takes_somebody);
        let goes = self.moved
            || match note.how {
                How::Sequence => {
                    let theirs = |names: &BTreeSet<String>| note.by.is_empty() || names.contains(&note.by);
                    self.without_sequence || self.clients.is_some_and(theirs)
                }
                How::Unknown => takes || self.clients.is_some(),
                How::TwoStep | How::Operator | How::Config => false,
            };
        match self.succession.map(|succession| succession.note(note)) {
            _ if goes => Fate::Goes,
            Some(None) => Fate::Goes,
            Some(Some(after)) if after != *note => Fate::Renamed(after),
            Some(Some(_)) | None => Fate::Stays,
        }
    }
}

/// The one by whose grants somebody came, if that is only one.
fn only_one(users: impl IntoIterator<Item = Note>) -> Option<Note> {
    let mut users = users.into_iter();
    let first = users.next().filter(|note| note.how != How::Unknown)?;
    users.all(|other| other.by == first.by).then_some(first)
}

impl Operations {
    /// Takes note whose connection it was that used up a door, while it is known who had the grant.
    pub(super) fn name_connected(&mut self, slug: &str, logged: &Logged, now: Now) {
        let Some((protocol, port)) = logged.from else { return };
        let addr = self.of_grant(logged.source);
        let sets = self.grant_sets_of(slug);
        let users = sets.iter().flat_map(|set| self.ledger.users(&set.key, addr, now));
        let words = only_one(users.map(|(note, ..)| note)).map(|note| note.to_string());
        let set = once_set(slug, Family::of(logged.source));
        let key = end_key(protocol, SocketAddr::new(logged.source, port));
        let Ok(Some(had)) = self.firewall.element(&set, &key) else { return };
        if had.comment == words {
            return;
        }
        let has = Element { comment: words, ..had.clone() };
        let [had, has] = [had, has].map(|element| Elements::from([(key.clone(), element)]));
        // One that ended meanwhile is not to come back.
        let changes = [
            Change::DeleteElements { set: set.clone(), elements: had },
            Change::AddElements { set, elements: has },
        ];
        if let Err(error) = self.firewall.apply(&changes) {
            tracing::debug!(%error, app = slug, "whose connection it is will not be known");
        }
    }

    /// Ends what an app's door let in, of those who are meant by address and grant; their addresses as grants have them, one
    /// for each end. Connection tracking does not forget them by that.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn end_connected(
        &mut self,
        slug: &str,
        is_meant: impl Fn(IpAddr, &Note) -> bool,
    ) -> Result<Vec<IpAddr>, OperationError> {
        let mut ended = Vec::new();
        for set in Family::BOTH.map(|family| once_set(slug, family)) {
            for tries_left in (0..TRIES).rev() {
                let mut elements = self.firewall.elements(&set)?;
                elements.retain(|key, element| {
                    let note = Note::parse(element.comment.as_deref());
                    end_address(key).is_some_and(|addr| is_meant(self.of_grant(addr), &note))
                });
                if elements.is_empty() {
                    break;
                }
                let addresses: Vec<_> =
                    elements.keys().filter_map(|key| Some(self.of_grant(end_address(key)?))).collect();
                match self.firewall.apply(&[Change::DeleteElements { set: set.clone(), elements }]) {
                    Ok(()) => {
                        ended.extend(addresses);
                        break;
                    }
                    // It ended between being read and being removed.
                    Err(error) if is_gone(&error) && tries_left > 0 => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(ended)
    }

    /// The same with what connection tracking knows; how many ends.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn cut_connected(
        &mut self,
        slug: &str,
        is_meant: impl Fn(IpAddr, &Note) -> bool,
    ) -> Result<usize, OperationError> {
        let ended = self.end_connected(slug, is_meant)?;
        let count = ended.len();
        if count > 0 {
            let grants = ended.into_iter().map(|addr| (slug.to_owned(), addr)).collect();
            self.cut_open(&ShutOut::Those { grants, networks: Vec::new() });
        }
        Ok(count)
    }

    /// A packet closed what packets opened: what came in by that ends as well. What somebody has by both steps, or was given,
    /// stays; others may have the same address.
    pub(super) fn end_connected_at(&mut self, slug: &str, addr: IpAddr) {
        let by_packets = |note: &Note| matches!(note.how, How::Sequence | How::Unknown);
        if let Err(error) = self.end_connected(slug, |at, note| at == addr && by_packets(note)) {
            tracing::warn!(%error, app = slug, "what a door let in before it was closed goes on");
        }
    }

    /// At a start: ends what clients of sequences are connected to who are no more.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn end_connected_of_gone(&mut self, now: Now) -> Result<(), OperationError> {
        for App { slug, .. } in self.settings.apps.clone().into_iter().filter(|app| app.once) {
            let settings = self.settings.clone();
            let is_gone =
                |note: &Note| note.how == How::Sequence && !may_knock(&settings, &slug, &note.by, now);
            self.trial_cuts(&slug, is_gone, now.wall)?;
            self.cut_connected(&slug, |_, note| is_gone(note))?;
        }
        Ok(())
    }

    /// Users and keys who came to an app by a door that closed behind them, as notes call them.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn connected(&mut self, app: &App) -> Result<BTreeSet<String>, OperationError> {
        let mut out = BTreeSet::new();
        for family in Family::BOTH.into_iter().filter(|_| app.once) {
            let elements = self.firewall.elements(&once_set(&app.slug, family))?;
            let notes = elements.values().map(|element| Note::parse(element.comment.as_deref()));
            out.extend(notes.filter(|note| note.how == How::TwoStep).map(|note| note.by));
        }
        Ok(out)
    }

    /// What [`Operations::end_of_clients`] says, and what becomes of those who are connected.
    pub(super) fn end_of_those(
        &self,
        clients: &ClientsGone,
        moved: &Moved,
        successions: &BTreeMap<String, Succession>,
        live: &Live,
        now: Now,
    ) -> (Vec<Change>, Ended) {
        let (mut changes, mut ended) = self.end_of_clients(clients, moved, live, now);
        for App { slug, .. } in self.settings.apps.iter().filter(|app| app.once) {
            let gone = Gone {
                succession: successions.get(slug),
                clients: clients.get(slug),
                moved: moved.contains(slug),
                without_sequence: !self.grant_sets_of(slug).iter().any(|set| set.how == How::Sequence),
            };
            for (set, key, element, addr, note) in ends(live, slug) {
                let elements = |element: Element| Elements::from([(key.clone(), element)]);
                match gone.fate(&note) {
                    Fate::Stays => {}
                    Fate::Goes => {
                        ended.push((set.name.clone(), addr));
                        changes.push(Change::DeleteElements { set, elements: elements(element.clone()) });
                    }
                    Fate::Renamed(note) => {
                        let element = Element { comment: Some(note.to_string()), ..element.clone() };
                        changes.push(Change::RenewElements { set, elements: elements(element) });
                    }
                }
            }
        }
        (changes, ended)
    }

    /// Who was let in by the settings of before: by a grant, a network, or a door that closed behind it. Whom an app let in that
    /// stays and does not say `once` any more, nothing is taken back from.
    pub(super) fn who_was_in(&self, sets: &[GrantSet], live: &Live, before: &Settings) -> ShutOut {
        let mut out = ShutOut::all_of(sets, live).and_allowed_by(before);
        let stays_otherwise =
            |app: &App| self.settings.apps.iter().any(|new| new.slug == app.slug && !new.once);
        if let ShutOut::Those { grants, .. } = &mut out {
            let prefix = before.global.ipv6_prefix;
            for App { slug, .. } in before.apps.iter().filter(|app| app.once && !stays_otherwise(app)) {
                let addrs = ends(live, slug).into_iter().map(|(_, _, _, addr, _)| addr);
                grants.extend(addrs.map(|addr| (slug.clone(), ClientAddr::new(addr).masked_v6(prefix).ip())));
            }
        }
        out
    }

    /// Whether a door let this very end in, and it may go on.
    pub(super) fn is_connected(&mut self, slug: &str, protocol: Protocol, client: SocketAddr) -> bool {
        let set = once_set(slug, Family::of(client.ip()));
        matches!(self.firewall.element(&set, &end_key(protocol, client)), Ok(Some(_)))
    }

    /// The address of a grant that covers this one.
    fn of_grant(&self, addr: IpAddr) -> IpAddr {
        ClientAddr::new(addr).masked_v6(self.settings.global.ipv6_prefix).ip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(by: &str, how: How) -> Note {
        Note { by: by.to_owned(), how }
    }

    #[test]
    fn an_end_s_key_has_its_address() {
        for (client, len) in [("192.0.2.1:4000", 12), ("[2001:db8::1]:4000", 24)] {
            let client: SocketAddr = client.parse().unwrap();
            let key = end_key(Protocol::Udp, client);
            assert_eq!((key.len(), end_address(&key)), (len, Some(client.ip())));
            assert_eq!(key[len - 4..], [0x0f, 0xa0, 0, 0]);
        }
        assert_eq!((end_address(&[6, 0, 0, 0, 1]), end_address(&[])), (None, None));
    }

    #[test]
    fn whose_it_is_is_said_only_where_it_can_be_one_alone() {
        let (alice, bob) = (note("alice", How::TwoStep), note("bob", How::TwoStep));
        assert_eq!(only_one([alice.clone(), note("alice", How::Sequence)]), Some(alice.clone()));
        assert_eq!(only_one([note("", How::Sequence)]), Some(note("", How::Sequence)));
        for all in [vec![alice, bob], vec![note("", How::Unknown)], Vec::new()] {
            assert_eq!(only_one(all), None);
        }
    }

    #[test]
    fn who_goes_takes_its_own_ends_along_and_those_that_may_be_its() {
        let alice = Succession::without("alice");
        let laptop = BTreeSet::from(["laptop".to_owned()]);
        let stays = |gone: &Gone<'_>, by: &str, how| matches!(gone.fate(&note(by, how)), Fate::Stays);
        let nobody = Gone { succession: None, clients: None, moved: false, without_sequence: false };
        assert!(stays(&nobody, "alice", How::TwoStep) && stays(&nobody, "", How::Unknown));
        let user = Gone { succession: Some(&alice), ..nobody };
        assert!(!stays(&user, "alice", How::TwoStep) && !stays(&user, "", How::Unknown));
        assert!(stays(&user, "bob", How::TwoStep) && stays(&user, "alice", How::Operator));
        assert!(stays(&user, "", How::Sequence));
        let client = Gone { succession: None, clients: Some(&laptop), moved: false, without_sequence: false };
        assert!(!stays(&client, "laptop", How::Sequence) && !stays(&client, "", How::Sequence));
        assert!(stays(&client, "phone", How::Sequence) && !stays(&client, "", How::Unknown));
        assert!(stays(&client, "laptop", How::TwoStep));
        let all = Gone { succession: None, clients: None, moved: true, without_sequence: true };
        assert!(!stays(&all, "root", How::Operator) && !stays(&all, "phone", How::Sequence));
    }
}
