//! What can be done to grants: the daemon does it for knocks and operators, and the
//! command line does it by itself where no daemon runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::backend::{BackendError, Firewall, Plan};
use crate::config::{App, Settings};
use crate::grant::{How, Journal, Ledger, Note, Succession};
use crate::ruleset::allow::{address_key, key_address};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::knocking::Knocking;
use crate::ruleset::layout::Options;
use crate::ruleset::model::{ADOPTED_SET, Element, Elements, KNOCKED_SETS, ONCE_SETS, Timeout};
use crate::ruleset::plan::{app_set, step2_set};
use crate::ruleset::swap::swap;
use crate::service::adopted::{self, Adopted};
use crate::service::allowed::Allowed;
use crate::service::claimed::Claimed;
use crate::service::connected::once_set;
use crate::service::doubt::Doubt;
use crate::service::host_chains::{HostKept, Repaired};
use crate::service::knocked::{GrantSet, is_nobodys};
pub use crate::service::operation_error::OperationError;
use crate::service::operation_error::is_reached_from;
use crate::service::outlasting::Outlasting;
use crate::service::own::OwnAddresses;
use crate::service::shut_out::ShutOut;
use crate::service::taken::OnTrial;
use crate::service::timed::Timed;
use crate::units::{ClientAddr, Family, Lifetime, Network, Now};

/// An element may expire between being read and being removed, which fails the whole change.
pub(super) const TRIES: u32 = 3;

/// Whether what was to be changed is not there any more.
pub(super) fn is_gone(error: &BackendError) -> bool {
    matches!(error, BackendError::Refused { errno: nix::errno::Errno::ENOENT, .. })
}

/// Ends whatever grants and admissions to step 2 the kernel has, known to a configuration or not, and what came in by a grant
/// for one connection; returns how many.
///
/// # Errors
/// [`OperationError`] when the kernel would not.
pub fn end_every_grant(firewall: &mut Firewall) -> Result<usize, OperationError> {
    let live = firewall.read()?.ok_or(OperationError::NoTable)?;
    let grants = |name: &str| ["app_", KNOCKED_SETS, ONCE_SETS].iter().any(|stem| name.starts_with(stem));
    let more = ["step2_", "gate_", ADOPTED_SET];
    let named = live.ruleset.sets.iter().map(|set| set.name.as_str());
    let sets = named.filter(|name| grants(name) || more.iter().any(|stem| name.starts_with(stem)));
    let changes: Vec<Change> = sets.map(|name| Change::FlushSet(name.to_owned())).collect();
    firewall.apply(&changes)?;
    adopted::cut_all(&live);
    Ok(live.elements.iter().filter(|(name, _)| grants(name)).map(|(_, elements)| elements.len()).sum())
}

/// Grants, admissions and allowed networks, in the kernel and in the ledger.
#[derive(Debug)]
pub struct Operations {
    pub(super) firewall: Firewall,
    pub(super) settings: Settings,
    /// What the settings say of knock sequences.
    pub(super) knocking: Knocking,
    pub(super) options: Options,
    pub(super) ledger: Ledger,
    pub(super) allowed: Vec<Allowed>,
    pub(super) adopted: Adopted,
    pub(super) outlasting: Outlasting,
    pub(super) own: OwnAddresses,
    pub(super) claimed: Claimed,
    pub(super) host: HostKept,
    pub(super) timed: Timed,
    pub(super) doubt: Doubt,
    pub(super) on_trial: OnTrial,
    /// Up to when everybody who had expired was seen to.
    pub(super) expired_by: SystemTime,
    /// From where clients came whose grants are for a prefix, until it is told.
    pub(super) clients: BTreeMap<(String, IpAddr), ClientAddr>,
}

impl Operations {
    /// Takes over what is in the kernel.
    ///
    /// # Errors
    /// [`OperationError::NoTable`] where nothing is guarded.
    pub fn adopt(
        mut firewall: Firewall,
        settings: Settings,
        options: Options,
        now: Now,
    ) -> Result<Self, OperationError> {
        let live = firewall.read()?.ok_or(OperationError::NoTable)?;
        Ok(Self::over(firewall, &live, settings, options, now))
    }

    /// Takes over what was read from the kernel at that moment.
    #[must_use]
    pub fn over(firewall: Firewall, live: &Live, settings: Settings, options: Options, now: Now) -> Self {
        let mut out = Self {
            firewall,
            knocking: Knocking::of(&settings),
            settings,
            options,
            ledger: Ledger::default(),
            allowed: Vec::new(),
            adopted: Adopted::default(),
            outlasting: Outlasting::default(),
            own: OwnAddresses::default(),
            claimed: Claimed::default(),
            host: HostKept::default(),
            timed: Timed::default(),
            doubt: Doubt::default(),
            on_trial: OnTrial::default(),
            expired_by: now.wall,
            clients: BTreeMap::new(),
        };
        out.know_table_of(live);
        out.own.learn(Some(live));
        out.adopted.learn(live, now);
        out.adopt_grants(live, now);
        out.adopt_allowed(live, now);
        out
    }

    /// Takes over the grants in the kernel.
    pub(super) fn adopt_grants(&mut self, live: &Live, now: Now) {
        let nameless = self.firewall.is_nameless();
        for set in self.grant_sets() {
            for family in Family::BOTH {
                for (key, element) in live.elements.get(&set.set(family)).into_iter().flatten() {
                    let (Some(addr), Some(timeout)) = (key_address(key), element.timeout) else {
                        continue;
                    };
                    let note = Note::parse(element.comment.as_deref());
                    // What packets put there says nothing; the log may have told more.
                    let known =
                        self.ledger.users(&set.key, addr, now).into_iter().next().map(|(note, ..)| note);
                    let note = match (set.how, known) {
                        (How::Sequence, Some(known)) => known,
                        (How::Sequence, None) => Note { how: How::Sequence, ..note },
                        (_, Some(known)) if is_nobodys(&note) && known.how == How::Sequence => known,
                        (_, Some(known)) if nameless => known,
                        _ => note,
                    };
                    let (left, total) =
                        (Duration::from_millis(timeout.left_ms), Duration::from_millis(timeout.total_ms));
                    self.ledger.adopt(&set.key, addr, &note, left, total, now);
                }
            }
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings in force, and what else the rules depend on.
    pub(super) fn in_force(&self) -> (&Settings, Options) {
        (&self.settings, self.options)
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Has the ledger follow who is there.
    pub(super) fn succeed_to(&mut self, app: &str, succession: &Succession) {
        self.ledger.succeed(app, None, succession);
    }

    /// What is in the kernel right now.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be read.
    pub fn live(&mut self) -> Result<Live, OperationError> {
        self.firewall.read()?.ok_or(OperationError::NoTable)
    }

    /// The app of that name.
    ///
    /// # Errors
    /// [`OperationError::NoApp`] with the names there are.
    pub fn app(&self, name: &str) -> Result<&App, OperationError> {
        self.settings.apps.iter().find(|app| app.name.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = self.settings.apps.iter().map(|app| app.name.as_str()).collect();
            OperationError::NoApp(name.to_owned(), names.join(", "))
        })
    }

    /// Lets an address reach an app; a running grant is renewed and never shortened.
    ///
    /// # Errors
    /// [`OperationError`]; nothing was opened then.
    pub fn grant(
        &mut self,
        app: &str,
        client: ClientAddr,
        note: &Note,
        lifetime: Option<Lifetime>,
        now: Now,
    ) -> Result<Duration, OperationError> {
        let app = self.app(app)?;
        is_reached_from(app, Network::host(client.ip()))?;
        let prefix = self.settings.global.ipv6_prefix;
        if !client.may_be_masked(prefix) {
            return Err(OperationError::LinkLocal(client.ip(), prefix));
        }
        let lifetime = lifetime.unwrap_or(app.duration);
        if lifetime > app.max_duration && note.how != How::Operator {
            return Err(OperationError::TooLong { app: app.name.to_string(), max: app.max_duration });
        }
        let slug = app.slug.clone();
        let addr = client.masked_v6(prefix);
        let left = self.renew(&app_set(&slug, addr.family()), addr, lifetime, &note.to_string())?;
        self.ledger.expire(now);
        self.clients.insert((slug.clone(), addr.ip()), client);
        self.ledger.grant(&slug, addr.ip(), note, lifetime, now);
        Ok(left)
    }

    /// Puts settings in force that differ in nothing that grants depend on.
    ///
    /// # Errors
    /// [`OperationError`]; everything is then as it was.
    pub(super) fn put_in_force(&mut self, settings: Settings) -> Result<(), OperationError> {
        let plan = self.firewall.plan(&settings, self.options)?;
        if !self.swap_rules(&plan)? {
            let live = self.firewall.read()?;
            self.firewall.install_over(live.as_ref(), &plan, Vec::new())?;
        }
        self.settings = settings;
        Ok(())
    }

    /// Replaces the rules that differ from the plan in force without reading what is live, which takes longer the more
    /// grants there are; false where that cannot be done, or somebody has been at the table.
    fn swap_rules(&mut self, wanted: &Plan) -> Result<bool, OperationError> {
        let before = self.firewall.plan(&self.settings, self.options)?;
        let (Plan::Nftables(before), Plan::Nftables(after)) = (&before, wanted) else { return Ok(false) };
        if before.sets != after.sets {
            return Ok(false);
        }
        match self.firewall.apply(&swap(before, after)) {
            Ok(()) => Ok(true),
            Err(BackendError::Refused { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets grants that have ended.
    pub fn forget_expired(&mut self, now: Now) {
        self.ledger.expire(now);
    }

    /// What is written down of grants.
    pub fn journal(&mut self) -> &mut Journal {
        self.ledger.journal()
    }

    /// From where clients came since this was last asked, by app and the address of their grant.
    pub(super) fn take_clients(&mut self) -> BTreeMap<(String, IpAddr), ClientAddr> {
        std::mem::take(&mut self.clients)
    }

    /// Lets an address begin step 2.
    ///
    /// # Errors
    /// [`OperationError`]; nothing was opened then.
    pub fn admit_to_step2(
        &mut self,
        client: ClientAddr,
        app: &str,
        lifetime: Lifetime,
    ) -> Result<(), OperationError> {
        self.renew(&step2_set(client.family()), client, lifetime, app)?;
        Ok(())
    }

    /// Gives an element the later of its own end and that of a new lifetime; returns what it then has left.
    fn renew(
        &mut self,
        set: &str,
        client: ClientAddr,
        lifetime: Lifetime,
        comment: &str,
    ) -> Result<Duration, OperationError> {
        let set = SetRef::plain(set);
        let key = address_key(client.ip());
        let fresh = Timeout::fresh_ms(lifetime.as_secs() * 1_000);
        let had = self.firewall.element(&set, &key)?;
        match &had {
            Some(Element { timeout: None, .. }) => return Ok(Duration::MAX),
            Some(Element { timeout: Some(have), .. }) if have.left_ms >= fresh.left_ms => {
                return Ok(Duration::from_millis(have.left_ms));
            }
            Some(_) | None => {}
        }
        let element =
            Element { timeout: Some(fresh), comment: Some(comment.to_owned()), ..Element::default() };
        let elements = Elements::from([(key, element)]);
        // What is not there takes one step instead of three.
        let change = match had {
            Some(_) => Change::RenewElements { set, elements },
            None => Change::AddElements { set, elements },
        };
        self.firewall.apply(&[change])?;
        Ok(lifetime.as_duration())
    }

    /// Ends an address's grant for an app at once; false if there was none.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub fn revoke(&mut self, app: &str, client: ClientAddr) -> Result<bool, OperationError> {
        let slug = self.app(app)?.slug.clone();
        let prefix = self.settings.global.ipv6_prefix;
        let mut ended = false;
        for addr in client.sources().map(|addr| addr.masked_v6(prefix)) {
            self.ended_by_hand(&slug, Some(addr.ip()));
            for grants in self.grant_sets_of(&slug) {
                ended |= self.revoke_from(&grants, addr)?;
            }
            ended |= !self.end_connected(&slug, |at, _| at == addr.ip())?.is_empty();
            // Also where the grant was over: what it left open is not wanted any more.
            self.cut_open(&ShutOut::one(&slug, addr.ip()));
        }
        Ok(ended)
    }

    fn revoke_from(&mut self, grants: &GrantSet, addr: ClientAddr) -> Result<bool, OperationError> {
        let set = SetRef::plain(grants.set(addr.family()));
        let key = address_key(addr.ip());
        let mut ended = false;
        for _ in 0..TRIES {
            let Some(element) = self.firewall.element(&set, &key)? else { break };
            let elements = Elements::from([(key.clone(), element)]);
            match self.firewall.apply(&[Change::DeleteElements { set: set.clone(), elements }]) {
                Ok(()) => {
                    ended = true;
                    break;
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Also where the kernel has none: of rules that somebody removed a moment ago, the ledger brings grants back.
        Ok(ended | self.ledger.revoke(&grants.key, addr.ip()))
    }

    /// Ends all grants, or those for one app, and the admissions to step 2; returns how many grants.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub fn revoke_all(&mut self, app: Option<&str>) -> Result<usize, OperationError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let outcome = match app {
                None => self.revoke_everything(),
                Some(name) => self.revoke_app(name),
            };
            match outcome {
                // Somebody removed the rules between two of our steps.
                Err(OperationError::Backend(error)) if tries > 0 && is_gone(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn revoke_everything(&mut self) -> Result<usize, OperationError> {
        self.on_trial.emptied(|before| before.sets(false));
        let ended = match end_every_grant(&mut self.firewall) {
            // Somebody removed the rules a moment ago: what is put back is what the ledger says.
            Err(OperationError::NoTable) => {
                self.adopted.cut_all();
                0
            }
            outcome => outcome?,
        };
        let ended = ended.max(self.ledger.len());
        self.ledger.revoke_everything();
        self.adopted.forget();
        self.cut_open(&ShutOut::Everybody(None));
        Ok(ended)
    }

    fn revoke_app(&mut self, name: &str) -> Result<usize, OperationError> {
        let slug = self.app(name)?.slug.clone();
        self.on_trial.emptied(|_| self.sets_of(&slug).into_iter().collect());
        let live = self.firewall.read()?.unwrap_or_default();
        let kinds = self.grant_sets_of(&slug);
        let sets = kinds.iter().flat_map(|kind| Family::BOTH.map(|family| kind.set(family)));
        let sets = sets.chain(Family::BOTH.map(|family| once_set(&slug, family).name));
        // One that is gone is put back with what the ledger says.
        let sets: Vec<String> = sets.filter(|set| live.ruleset.set(set).is_some()).collect();
        let ended: usize = sets.iter().filter_map(|set| live.elements.get(set)).map(BTreeMap::len).sum();
        let changes: Vec<Change> = sets.into_iter().map(Change::FlushSet).collect();
        self.firewall.apply(&changes)?;
        self.end_adopted(name)?;
        let known: usize = kinds.iter().map(|kind| self.ledger.revoke_app(&kind.key)).sum();
        self.cut_open(&ShutOut::Everybody(Some(slug)));
        Ok(ended.max(known))
    }

    /// Takes note that somebody removed an element: from a set of grants or of networks, that is a revocation.
    /// Returns who was shut out by it, of which app (its slug).
    pub fn on_removed(&mut self, set: &str, key: &[u8], now: Now) -> Option<(String, IpAddr)> {
        self.adopted.on_removed(set, key);
        self.on_network_removed(set, key, now);
        let addr = key_address(key)?;
        let family = Family::of(addr);
        if let Some(grants) = self.grant_sets().iter().find(|grants| grants.set(family) == set) {
            self.ledger.revoke(&grants.key, addr);
            self.ended_by_hand(&grants.slug, Some(addr));
            return Some((grants.slug.clone(), addr));
        }
        None
    }

    /// Puts the table right, and with it the host's chains, in one transaction; returns how much had to be done.
    ///
    /// Where a set of grants was lost, or the whole table (`removed`, even if somebody made it anew), the
    /// ledger says what belongs there and for how much longer. Where it was not, the kernel does.
    ///
    /// # Errors
    /// [`OperationError`]; the table is then as somebody left it.
    pub fn repair(&mut self, removed: bool, now: Now) -> Result<Repaired, OperationError> {
        self.ledger.expire(now);
        let mut removed = removed;
        if self.has_slept() {
            removed = true;
            self.doubt_timed();
        }
        let mut result = Ok(Repaired::default());
        for tried in 1..=TRIES {
            // The last try leaves the host's chains out, in case they are what the kernel refuses.
            let host = if tried < TRIES { self.read_host() } else { None };
            let with_host = host.is_some();
            let live = self.firewall.read()?;
            removed |= self.settle_doubt(live.as_ref(), now);
            match self.mend(live.as_ref(), removed, host, now) {
                Err(OperationError::Backend(error))
                    if with_host || matches!(error, BackendError::Refused { .. }) =>
                {
                    result = Err(error.into());
                }
                other => {
                    if let Ok(repaired) = &other {
                        self.slept_off();
                        if repaired.own > 0 {
                            self.know_table();
                        }
                    }
                    return other;
                }
            }
        }
        result
    }

    /// A set of grants as the ledger has it, whatever is in it.
    pub(super) fn regrant(&self, grants: &GrantSet, family: Family, now: Now) -> Vec<Change> {
        let name = grants.set(family);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let elements: Elements = self
            .ledger
            .longest_of(&grants.key, now)
            .filter(|(_, addr, ..)| Family::of(*addr) == family)
            .map(|(_, addr, note, left, lifetime)| {
                let timeout = Timeout { total_ms: ms(lifetime.max(left)), left_ms: ms(left) };
                let element =
                    Element { timeout: Some(timeout), comment: Some(note.to_string()), ..Element::default() };
                (address_key(addr), element)
            })
            .collect();
        let mut out = vec![Change::FlushSet(name.clone())];
        if !elements.is_empty() {
            let set = SetRef::plain(name);
            out.push(Change::AddElements { set, elements });
        }
        out
    }

    /// The firewall, for whoever has to do more with it.
    pub fn firewall(&mut self) -> &mut Firewall {
        &mut self.firewall
    }
}
