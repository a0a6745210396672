use std::net::{IpAddr, Ipv6Addr};

use ring::hmac;

use crate::units::{ClientAddr, Family};

/// Addresses that share a set; a set is searched from end to end.
const WAYS: usize = 8;
/// Sets per address family: 16,384 addresses each; under a fuzzer few, as it makes new tables all the time.
const SETS: usize = if cfg!(fuzzing) { 2 } else { 2_048 };

/// Some numbers for each client address (IPv6: per /64), all 0 at first; fixed memory, constant time.
///
/// Which addresses share a set of eight depends on a random key, so that nobody can aim at a neighbour's place. The
/// families have tables of their own: addresses that are cheap to come by do not crowd out those that are not.
pub struct Places<const N: usize> {
    key: hmac::Key,
    v4: Table<N>,
    v6: Table<N>,
}

/// Parallel vectors of zeros, which the system hands out untouched. An id of 0 marks a free place.
struct Table<const N: usize> {
    ids: Vec<u128>,
    values: Vec<[u64; N]>,
}

impl<const N: usize> Places<N> {
    /// Places that are all free, under a random key.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        let table = || Table { ids: vec![0; SETS * WAYS], values: vec![[0; N]; SETS * WAYS] };
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), v4: table(), v6: table() }
    }

    /// What is held about an address.
    #[must_use]
    pub fn get(&self, client: ClientAddr) -> Option<&[u64; N]> {
        let at = self.at(client)?;
        self.table(client.family()).values.get(at)
    }

    /// The place of an address that has one.
    pub fn get_mut(&mut self, client: ClientAddr) -> Option<&mut [u64; N]> {
        let at = self.at(client)?;
        self.table_mut(client.family()).values.get_mut(at)
    }

    /// The place of an address. One that has none gets a free one, else that of the neighbour with the lowest `worth`;
    /// a neighbour without a worth stays, and where all do there is none.
    pub fn take(
        &mut self,
        client: ClientAddr,
        worth: impl Fn(&[u64; N]) -> Option<u64>,
    ) -> Option<&mut [u64; N]> {
        let (id, first) = (identity(client), self.first(client));
        let own = self.at(client);
        let table = self.table_mut(client.family());
        if let Some(at) = own {
            return table.values.get_mut(at);
        }
        let neighbours = table.ids.iter().zip(&table.values).enumerate().skip(first).take(WAYS);
        let free = |(at, (&held, values)): (usize, (&u128, &[u64; N]))| {
            let worth = if held == 0 { Some(0) } else { worth(values).map(|worth| worth.max(1)) };
            worth.map(|worth| (worth, at))
        };
        let (_, at) = neighbours.filter_map(free).min()?;
        *table.ids.get_mut(at)? = id;
        let values = table.values.get_mut(at)?;
        *values = [0; N];
        Some(values)
    }

    /// Frees the place of an address; what it held.
    pub fn free(&mut self, client: ClientAddr) -> Option<[u64; N]> {
        let at = self.at(client)?;
        let table = self.table_mut(client.family());
        *table.ids.get_mut(at)? = 0;
        table.values.get(at).copied()
    }

    /// Every address that has a place, IPv6 as the first of its /64.
    pub fn iter(&self) -> impl Iterator<Item = (ClientAddr, &[u64; N])> {
        let held = Family::BOTH.into_iter().flat_map(|family| {
            let table = self.table(family);
            table.ids.iter().zip(&table.values).map(move |(id, values)| (family, id, values))
        });
        held.filter(|(_, id, _)| **id != 0).map(|(family, &id, values)| (address(family, id), values))
    }

    fn at(&self, client: ClientAddr) -> Option<usize> {
        let id = identity(client);
        let first = self.first(client);
        let ways = self.table(client.family()).ids.get(first..first + WAYS)?;
        ways.iter().position(|&held| held == id).map(|way| first + way)
    }

    fn first(&self, client: ClientAddr) -> usize {
        let hash = hmac::sign(&self.key, &identity(client).to_be_bytes());
        let number = hash.as_ref().first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        usize::try_from(number % (SETS as u64)).unwrap_or_default() * WAYS
    }

    fn table(&self, family: Family) -> &Table<N> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn table_mut(&mut self, family: Family) -> &mut Table<N> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A number of its own for each address that is counted apart; never 0.
fn identity(client: ClientAddr) -> u128 {
    match client.masked_v6(64).ip() {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6) | 1,
    }
}

fn address(family: Family, id: u128) -> ClientAddr {
    let id = if family == Family::V6 { id & !1 } else { id };
    ClientAddr::new(Ipv6Addr::from(id).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> ClientAddr {
        ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into()))
    }

    #[test]
    fn an_address_gets_its_own_numbers_back_and_a_v6_site_shares_them() {
        let mut places = Places::<1>::new(&[1; 16]);
        let texts = ["192.0.2.1", "2001:db8::1", "2001:db8:0:1::", "::1"];
        let clients = texts.map(|text| ClientAddr::new(text.parse().unwrap()));
        for (n, &client) in (7..).zip(&clients) {
            *places.take(client, |_| None).unwrap() = [n];
        }
        assert_eq!(clients.map(|client| places.get(client).copied()), [7, 8, 9, 10].map(|n| Some([n])));
        assert_eq!(places.get(ClientAddr::new("2001:db8::5:5".parse().unwrap())), Some(&[8]));
        let mut listed: Vec<_> = places.iter().map(|(client, n)| (n[0], client.to_string())).collect();
        listed.sort();
        let shown = ["192.0.2.1", "2001:db8::", "2001:db8:0:1::", "::"];
        assert_eq!(listed, (7..).zip(shown.map(str::to_owned)).collect::<Vec<_>>());
        assert_eq!(places.free(clients[0]), Some([7]));
        assert_eq!((places.get(clients[0]), places.iter().count()), (None, 3));
    }

    #[test]
    fn the_least_worth_gives_way_and_what_has_no_worth_stays() {
        let mut places = Places::<1>::new(&[2; 16]);
        let held = (0..60_000)
            .filter(|&n| places.take(client(n), |_| None).map(|value| *value = [u64::from(n % 2)]).is_some());
        let held: Vec<u32> = held.collect();
        assert_eq!(held.len(), SETS * WAYS);
        for n in 100_000..110_000 {
            if let Some(value) = places.take(client(n), |value| (value[0] == 0).then_some(1)) {
                *value = [1];
            }
        }
        let odd = held.iter().filter(|&n| n % 2 == 1);
        assert!(odd.into_iter().all(|&n| places.get(client(n)).is_some()));
        assert!(held.iter().any(|&n| places.get(client(n)).is_none()));
        assert_eq!(places.iter().count(), SETS * WAYS);
    }
}
