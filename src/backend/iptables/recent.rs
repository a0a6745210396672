//! Lists of `-m recent` in `/proc/net/xt_recent`, written and read as files: no address is on a command line.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::IptablesError;
use crate::ruleset::allow::{Origin, key_address};
use crate::ruleset::diff::Change;
use crate::ruleset::iptables::elements::{ElementError, has_sentinel, sentinel};
use crate::ruleset::iptables::recent::{CLOCK, Filled, List, element, entries, left};
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::sys::files;
use crate::units::Family;

/// Of the network namespace of this process.
const FOLDER: &str = "/proc/net/xt_recent";
/// How many addresses a list holds; of the module, for all lists.
const ROOM: &str = "/sys/module/xt_recent/parameters/ip_list_tot";
/// What the kernel takes where nobody said otherwise.
const USUAL_ROOM: usize = 100;
/// More than a full list of the largest size that anybody has.
const MAX_BYTES: u64 = 64 << 20;
/// Long enough to tell the clocks of kernels apart.
const MEASURED: Duration = Duration::from_millis(200);
/// Ticks a second that kernels are built with.
const HZ: [u64; 4] = [100, 250, 300, 1_000];
/// Measured again when the machine was too busy.
const TRIES: u32 = 5;
/// Two readings of one time may differ by this much.
const SLACK_MS: u64 = 1_000;

/// The lists of this network namespace.
#[derive(Debug, Default)]
pub struct Recent {
    hz: Option<u64>,
}

impl Recent {
    /// How many addresses fit in a list.
    #[must_use]
    pub fn room(&self) -> usize {
        let text = files::read_text(Path::new(ROOM), 64).unwrap_or_default();
        text.trim().parse().unwrap_or(USUAL_ROOM)
    }

    /// Reads lists; entries that ended are left out.
    ///
    /// # Errors
    /// [`IptablesError::List`] when one cannot be read, or its times cannot be told.
    pub fn read(&mut self, lists: &[List]) -> Result<Vec<Filled>, IptablesError> {
        let mut found = Vec::new();
        for list in lists {
            found.push((list, self.entries(&list.name)?));
        }
        if found.iter().all(|(_, entries)| entries.is_empty()) {
            let none = |(list, _): (&List, _)| Filled { list: list.clone(), elements: Elements::new() };
            return Ok(found.into_iter().map(none).collect());
        }
        let hz = self.hz()?;
        let now = self.now()?;
        let each = found.into_iter().map(|(list, entries)| {
            let running = entries
                .into_iter()
                .filter_map(|(address, seen)| Some(element(address, left(list, seen, now, hz)?)));
            Filled { list: list.clone(), elements: running.collect() }
        });
        Ok(each.collect())
    }

    /// Removes entries that ended, so that they take no room, and no clock that goes round makes them new.
    ///
    /// # Errors
    /// [`IptablesError::List`].
    pub fn tidy(&mut self, lists: &[List]) -> Result<(), IptablesError> {
        for filled in self.read(lists)? {
            let running: Vec<IpAddr> = filled.elements.keys().filter_map(|key| key_address(key)).collect();
            // Read again: what is older than the clock that was read before may be new by now.
            let ended = self.entries(&filled.list.name)?.into_iter();
            let ended: Vec<(IpAddr, u64)> = ended.filter(|(addr, _)| !running.contains(addr)).collect();
            if ended.is_empty() {
                continue;
            }
            let (hz, now) = (self.hz()?, self.now()?);
            for (address, seen) in ended {
                if left(&filled.list, seen, now, hz).is_none() {
                    write(&filled.list.name, &format!("-{address}"))?;
                }
            }
        }
        Ok(())
    }

    /// Carries out changes: what closes first.
    ///
    /// # Errors
    /// [`IptablesError`]; nothing was opened that was not wanted, and what was to be closed is.
    pub fn apply(&mut self, lists: &[List], changes: &[Change]) -> Result<(), IptablesError> {
        for change in changes {
            match change {
                Change::FlushSet(set) => {
                    for list in lists.iter().filter(|list| list.meaning == *set) {
                        write(&list.name, "/")?;
                    }
                }
                Change::DeleteElements { set, elements } => {
                    for address in elements.keys().filter_map(|key| key_address(key)) {
                        remove(lists, &set.name, address)?;
                    }
                }
                Change::AddElements { .. } | Change::RenewElements { .. } => {}
                other => return Err(ElementError::NotElements(other.to_string()).into()),
            }
        }
        for change in changes {
            if let Change::AddElements { set, elements } | Change::RenewElements { set, elements } = change {
                for (key, element) in elements {
                    self.add(lists, &set.name, key, element)?;
                }
            }
        }
        Ok(())
    }

    /// A new time can be given; what is left of an older one cannot, and where the list has more of it than is
    /// wanted, it ends.
    fn add(&mut self, lists: &[List], set: &str, key: &[u8], wanted: &Element) -> Result<(), IptablesError> {
        if has_sentinel(set) && set.starts_with("allow_") {
            let origin = Origin::parse(wanted.comment.as_deref());
            // The configuration's networks are in the rules.
            return if origin.is_some_and(|origin| origin.by_config) {
                Ok(())
            } else {
                Err(ElementError::NoNetworks.into())
            };
        }
        let Some(address) = key_address(key) else { return Ok(()) };
        let parts: Vec<List> = lists.iter().filter(|list| list.meaning == set).cloned().collect();
        let Some(timeout) = wanted.timeout else { return Err(one_time(&parts)) };
        if timeout.left_ms < timeout.total_ms {
            return self.leave_or_end(&parts, address, timeout);
        }
        let fits = |list: &&List| list.secs.checked_mul(1_000) == Some(timeout.total_ms);
        let Some(list) = parts.iter().find(fits) else { return Err(one_time(&parts)) };
        self.make_room(list, address)?;
        write(&list.name, &format!("+{}", list.entry(address)))
    }

    fn leave_or_end(
        &mut self,
        parts: &[List],
        address: IpAddr,
        wanted: Timeout,
    ) -> Result<(), IptablesError> {
        for filled in self.read(parts)? {
            let entry = crate::ruleset::allow::address_key(filled.list.entry(address));
            let left = filled.elements.get(&entry).and_then(|have| have.timeout);
            if left.is_some_and(|left| left.left_ms > wanted.left_ms.saturating_add(SLACK_MS)) {
                write(&filled.list.name, &format!("-{}", filled.list.entry(address)))?;
            }
        }
        Ok(())
    }

    /// The kernel forgets the oldest address of a full list: nobody may lose access because somebody else gets it.
    fn make_room(&mut self, list: &List, address: IpAddr) -> Result<(), IptablesError> {
        let has = |entries: &BTreeMap<IpAddr, u64>| entries.contains_key(&list.entry(address));
        let room = self.room();
        let mut entries = self.entries(&list.name)?;
        if !has(&entries) && entries.len().saturating_add(1) >= room - room / 10 {
            self.tidy(std::slice::from_ref(list))?;
            entries = self.entries(&list.name)?;
        }
        if has(&entries) {
            return Ok(());
        }
        if entries.len() >= room {
            return Err(ElementError::Full { set: list.meaning.clone(), room }.into());
        }
        if entries.len().saturating_add(1) >= room - room / 10 {
            tracing::warn!(
                list = list.name,
                addresses = entries.len().saturating_add(1),
                room,
                "a list of -m recent is nearly full: when it is, nobody else is let in (load xt_recent with a larger ip_list_tot, or install ipset)"
            );
        }
        Ok(())
    }

    /// Whether this process may write the lists.
    ///
    /// # Errors
    /// [`IptablesError::List`] names the first that it may not.
    pub fn check(&self, lists: &[List]) -> Result<(), IptablesError> {
        let names = lists.iter().map(|list| list.name.as_str()).chain([CLOCK]);
        for name in names {
            open(name).map_err(|source| refused(name, source))?;
        }
        Ok(())
    }

    fn entries(&self, name: &str) -> Result<BTreeMap<IpAddr, u64>, IptablesError> {
        let text = files::read_text(&path(name), MAX_BYTES).map_err(|source| refused(name, source))?;
        Ok(entries(&text))
    }

    /// The kernel's clock, which it tells by the time of an entry that is made now.
    fn now(&self) -> Result<u64, IptablesError> {
        let address = sentinel(Family::V4);
        write(CLOCK, &format!("+{address}"))?;
        let seen = self.entries(CLOCK)?.remove(&address);
        seen.ok_or_else(|| refused(CLOCK, io::ErrorKind::NotFound.into()))
    }

    /// How many ticks it has a second.
    fn hz(&mut self) -> Result<u64, IptablesError> {
        if let Some(hz) = self.hz {
            return Ok(hz);
        }
        for _ in 0..TRIES {
            let (first, began) = (self.now()?, Instant::now());
            thread::sleep(MEASURED);
            let (last, ended) = (self.now()?, Instant::now());
            let micros = u64::try_from(ended.duration_since(began).as_micros()).unwrap_or(u64::MAX);
            let rate = last.saturating_sub(first).saturating_mul(1_000_000).checked_div(micros);
            let near = |hz: &&u64| rate.is_some_and(|rate| rate.abs_diff(**hz) <= **hz / 14);
            if let Some(&hz) = HZ.iter().find(near) {
                self.hz = Some(hz);
                return Ok(hz);
            }
        }
        let odd = io::Error::other("the kernel's clock could not be measured");
        Err(refused(CLOCK, odd))
    }
}

fn one_time(parts: &[List]) -> IptablesError {
    let times: Vec<String> = parts.iter().map(|list| format!("{} s", list.secs)).collect();
    ElementError::OneTime(if times.is_empty() { "no time".to_owned() } else { times.join(" or ") }).into()
}

fn remove(lists: &[List], set: &str, address: IpAddr) -> Result<(), IptablesError> {
    for list in lists.iter().filter(|list| list.meaning == set) {
        write(&list.name, &format!("-{}", list.entry(address)))?;
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn open(name: &str) -> io::Result<std::fs::File> {
    OpenOptions::new().write(true).open(path(name))
}

fn write(name: &str, command: &str) -> Result<(), IptablesError> {
    // At one stroke: the kernel takes each write for a whole command.
    let done = open(name).and_then(|mut list| list.write_all(format!("{command}\n").as_bytes()));
    done.map_err(|source| refused(name, source))
}

fn refused(name: &str, source: io::Error) -> IptablesError {
    IptablesError::List { name: name.to_owned(), source }
}
