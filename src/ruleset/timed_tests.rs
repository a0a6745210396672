use std::path::Path;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::config::{Outside, SecretFrom, UserFile, parse};
use crate::units::{START, Secret};

struct Clients(Vec<(String, String)>);

impl Outside for Clients {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Err("none".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let file = |(name, text): &(String, String)| UserFile {
            name: name.clone(),
            file: name.clone(),
            text: text.clone().into(),
        };
        Ok(self.0.iter().map(file).collect())
    }
}

const SECRETS: [&str; 3] = [
    "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    "MZXW6YTBOJRGC6RRGIZTINJWG44DSMBR",
    "KRUGKIDROVUWG2ZAMJZG653OEBTG66BA",
];

fn settings(section: &str, more: [&str; 3]) -> Settings {
    let text = format!(
        "global:\n  interface_ext: eth0\n  steps: off\n  time_sequence: {section}\nssh: {{port: 22, duration: 1h}}\nweb: {{port: 443, duration: 2h}}\n"
    );
    let client =
        |(at, more): (usize, &str)| (format!("client{at}"), format!("secret: {}\n{more}", SECRETS[at]));
    let clients = more.into_iter().enumerate().map(client).collect();
    parse("x", &text, None, &Clients(clients)).unwrap().settings
}

const APPS: [&str; 3] = ["app: ssh\n", "apps: [ssh, web]\n", "app: web\nduration: 60\nknocks: 2\n"];
/// Ten seconds into a time step.
const START_SECS: u64 = 1_700_000_020;

/// A host that has been up for an hour.
fn at(secs: u64) -> Now {
    Now {
        boot: Duration::from_secs(3_600 + secs),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(START_SECS + secs),
    }
}

/// What the kernel would have: each element with the moment of its end on the clock that never goes back.
#[derive(Default)]
struct Kernel {
    sets: BTreeMap<String, BTreeMap<Vec<u8>, (Element, Duration)>>,
}

impl Kernel {
    fn apply(&mut self, transactions: VecDeque<Vec<Change>>, now: Now) {
        for change in transactions.into_iter().flatten() {
            let (name, all, renews) = match change {
                Change::FlushSet(name) => {
                    self.sets.remove(&name);
                    continue;
                }
                Change::AddElements { set, elements } => (set.name, elements, false),
                Change::RenewElements { set, elements } => (set.name, elements, true),
                other => panic!("{other}"),
            };
            let set = self.sets.entry(name).or_default();
            for (key, element) in all {
                let end = now.boot + Duration::from_millis(element.timeout.unwrap().left_ms);
                // The kernel may hold it a moment longer than its time.
                let had = set.get(&key).filter(|(_, had)| *had + Duration::from_secs(1) > now.boot);
                assert!(renews || had.is_none(), "added twice");
                if let Some((had, before)) = had {
                    assert_eq!((&had.mark, &had.verdict), (&element.mark, &element.verdict));
                    assert!(end > *before, "shortened");
                }
                set.insert(key, (element, end));
            }
        }
    }

    fn get(&self, set: &str, key: &[u8], now: Now) -> Option<&Element> {
        let (element, end) = self.sets.get(set)?.get(key)?;
        (*end > now.boot).then_some(element)
    }

    /// Where these knocks lead to at a moment: the chain and the mark.
    fn knock(&self, knocks: &[Knock], now: Now) -> Option<(String, u32)> {
        let mut mark = START;
        for &knock in knocks {
            mark = self.get(TIMED, &knock_key(mark, knock), now)?.mark?;
        }
        let Some(Verdict::Goto(chain)) = &self.get(TIMED_OPEN, &mark_key(mark), now)?.verdict else {
            return None;
        };
        let spent = self.get(SPENT, &mark_key(mark), now).is_some();
        Some((if spent { "spent".to_owned() } else { chain.clone() }, mark))
    }
}

/// A daemon and its kernel.
struct Host {
    settings: Settings,
    knocking: Knocking,
    timed: TimedKnocks,
    kernel: Kernel,
}

impl Host {
    fn new(settings: Settings) -> Self {
        let knocking = Knocking::of(&settings);
        Self { settings, knocking, timed: TimedKnocks::default(), kernel: Kernel::default() }
    }

    fn fill(&mut self, now: Now) {
        self.timed.rebuild(&self.settings, &self.knocking, now);
        self.kernel.apply(self.timed.refill(&self.knocking, now), now);
    }

    fn turn(&mut self, now: Now) {
        match self.timed.advance(&self.settings, &self.knocking, now) {
            Advance::Nothing => {}
            Advance::Grow(refill) => self.kernel.apply(refill.transactions, now),
            Advance::Rebuild => self.fill(now),
        }
    }

    fn path(&self, client: usize, step: u64) -> Vec<Knock> {
        let sequence = self.settings.time_sequence.as_ref().unwrap();
        let client = &sequence.clients[client];
        knocks(&client.secret, client.pin.as_ref(), step, &sequence.shape(client))
    }

    fn opens(&self, client: usize, step: u64, now: Now) -> Option<String> {
        self.kernel.knock(&self.path(client, step), now).map(|(chain, _)| chain)
    }
}

fn step(now: Now) -> u64 {
    step_at(now.wall, crate::units::Lifetime::from_secs(30).unwrap())
}

#[test]
fn each_client_s_knocks_lead_to_what_the_client_may_open() {
    let mut host = Host::new(settings("{}", APPS));
    host.fill(at(0));
    let opens = [0, 1, 2].map(|client| host.opens(client, step(at(0)), at(0)).unwrap());
    assert_eq!(opens[0], "timed_ssh");
    assert_eq!(opens[2], "timed_web.60");
    let rules = host.knocking.timed.as_ref().unwrap();
    let of = |name: &str| &rules.deeds.iter().find(|(chain, _)| chain == name).unwrap().1;
    assert_eq!(of(&opens[1]), &["open_ssh", "open_web"]);
    assert_eq!(of("timed_web.60"), &["open_web.60"]);
}

#[test]
fn a_time_step_is_taken_with_those_beside_it_and_nothing_is_taken_longer() {
    let mut host = Host::new(settings("{}", APPS));
    host.fill(at(0));
    for now in (0..300).step_by(5).map(at) {
        host.turn(now);
        let taken: Vec<u64> =
            (step(now) - 4..step(now) + 5).filter(|&step| host.opens(0, step, now).is_some()).collect();
        assert_eq!(taken, [step(now) - 1, step(now), step(now) + 1]);
    }
    // Nobody turns any more.
    for (secs, left) in [(320, 2), (350, 1), (380, 0)] {
        let still = (0..=60).filter(|&n| host.opens(0, step(at(300)) - 30 + n, at(secs)).is_some()).count();
        assert_eq!(still, left, "{secs}");
    }
}

#[test]
fn what_was_used_stays_used_whatever_is_made_anew_and_wherever_the_calendar_is_set() {
    let mut host = Host::new(settings("{}", APPS));
    host.fill(at(0));
    let now = step(at(0));
    let (_, mark) = host.kernel.knock(&host.path(0, now), at(0)).unwrap();
    let (who, news) = host.timed.on_used(mark).unwrap();
    assert_eq!((&*who, news), ("client0", true));
    assert!(!host.timed.on_used(mark).unwrap().1);
    let mut other = Host::new(settings("{}", APPS));
    for (who, step) in host.timed.used_since(0) {
        other.timed.remember(&who.into(), step);
    }
    for host in [&mut host, &mut other] {
        for shift in [0_i64, -90, -60, -30, 30] {
            let mut moment = at(5);
            moment.wall =
                SystemTime::UNIX_EPOCH + Duration::from_secs((START_SECS + 5).saturating_add_signed(shift));
            host.fill(moment);
            let wanted = (step(moment).abs_diff(now) <= 1).then(|| "spent".to_owned());
            assert_eq!(host.opens(0, now, moment), wanted, "{shift}");
            assert!(
                host.opens(0, step(moment) + 1, moment).is_some_and(|opens| opens != "spent") || shift == -30
            );
            assert!(host.opens(1, step(moment), moment).is_some_and(|opens| opens != "spent"));
        }
    }
    let read: Elements = [(mark_key(mark), Element::default())].into();
    let mut fresh = Host::new(settings("{}", APPS));
    fresh.fill(at(6));
    fresh.timed.on_read(&read);
    fresh.fill(at(6));
    assert_eq!(fresh.opens(0, now, at(6)).as_deref(), Some("spent"));
    assert!(!TimedKnocks::is_witnessed(&read));
    let there = fresh.kernel.sets[SPENT].keys().map(|key| (key.clone(), Element::default())).collect();
    assert!(TimedKnocks::is_witnessed(&there));
}

#[test]
fn what_may_have_been_used_unheard_is_not_taken() {
    let mut host = Host::new(settings("{}", APPS));
    host.timed.doubt(at(0).boot);
    host.fill(at(0));
    let now = step(at(0));
    assert!((now - 3..now + 3).all(|step| host.opens(0, step, at(0)).is_none()));
    for secs in [20, 50, 80] {
        host.turn(at(secs));
        let taken: Vec<u64> =
            (now - 3..now + 9).filter(|&step| host.opens(0, step, at(secs)).is_some()).collect();
        assert_eq!(
            taken,
            ((now + 2).max(step(at(secs)) - 1)..=step(at(secs)) + 1).collect::<Vec<_>>(),
            "{secs}"
        );
    }
    let read = |host: &Host, secs| -> Elements {
        let mut spent = host.timed.refill(&host.knocking, at(secs)).pop_front().unwrap();
        spent.retain(|change| matches!(change, Change::AddElements { set, .. } if set.name == SPENT));
        let Some(Change::AddElements { elements, .. }) = spent.pop() else { panic!("no ends") };
        elements
    };
    // A daemon that starts learns of it, as long as it matters.
    assert!(TimedKnocks::is_doubted(&read(&host, 119)) && !TimedKnocks::is_doubted(&read(&host, 121)));
    let sure = Host::new(settings("{}", APPS));
    assert!(TimedKnocks::is_witnessed(&read(&sure, 0)) && !TimedKnocks::is_doubted(&read(&sure, 0)));
    // A host that has just been started has not heard what it took before.
    let mut young = Host::new(settings("{}", APPS));
    let early = Now { boot: Duration::from_secs(15), ..at(0) };
    young.fill(early);
    assert_eq!(young.opens(0, now, early), None);
    assert!(young.opens(0, now + 1, early).is_some(), "its time began after the host");
    let later = Now { boot: Duration::from_secs(200), ..at(0) };
    young.fill(later);
    assert!(young.opens(0, now, later).is_some());
}

#[test]
fn what_is_carried_out_late_ends_no_later_for_that() {
    let mut host = Host::new(settings("{}", APPS));
    host.timed.rebuild(&host.settings, &host.knocking, at(0));
    let now = step(at(0));
    let mut late = host.timed.refill(&host.knocking, at(0));
    late.iter_mut().for_each(|changes| shorten(changes, Duration::from_secs(25)));
    host.kernel.apply(late, at(25));
    assert_eq!(host.opens(0, now - 1, at(25)), None, "it was over before it was there");
    assert!(host.opens(0, now, at(49)).is_some());
    assert_eq!(host.opens(0, now, at(51)), None);
    let mut all = host.timed.refill(&host.knocking, at(0)).pop_front().unwrap();
    shorten(&mut all, Duration::MAX);
    assert!(all.iter().all(|change| matches!(change, Change::FlushSet(_))), "what empties stays");
}

#[test]
fn clients_who_are_disabled_or_whose_time_is_over_have_no_knocks() {
    let more = [
        "app: ssh\ndisabled: true\n",
        "app: ssh\nexpires: 2023-11-14T22:13:50Z\n",
        "app: ssh\nexpires: 2023-11-14T22:13:40Z\n",
    ];
    let mut host = Host::new(settings("{}", more));
    host.fill(at(0));
    let now = step(at(0));
    assert_eq!([0, 1, 2].map(|client| host.opens(client, now, at(0)).is_some()), [false, true, false]);
    assert_eq!(host.opens(1, now, at(10)), None, "1700000030");
}

#[test]
fn a_step_that_ends_as_another_begins_with_it_is_renewed() {
    let mut host = Host::new(settings("{drift: 0, ports: 20000-20999}", APPS));
    host.fill(at(0));
    // Long enough that first knocks of one step are those of the next one, again and again.
    let mut shared = 0;
    for secs in (20..20 + 30 * 2_000).step_by(30) {
        let before: Vec<Knock> = (0..3).map(|client| host.path(client, step(at(secs)) - 1)[0]).collect();
        host.turn(at(secs));
        shared += (0..3).filter(|&client| before.contains(&host.path(client, step(at(secs)))[0])).count();
        assert!((0..3).all(|client| host.opens(client, step(at(secs)), at(secs)).is_some()));
    }
    assert!(shared > 3, "{shared}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_any_moment_the_kernel_takes_what_a_fresh_one_would_and_never_more(
        moments in proptest::collection::vec((0_u64..200, any::<bool>()), 1..30),
        kind in proptest::sample::select(&["{}", "{drift: 0}", "{drift: 3, ports: 20000-20999}"][..]),
    ) {
        let mut host = Host::new(settings(kind, APPS));
        host.fill(at(0));
        let mut secs = 0;
        for (more, awake) in moments {
            secs += more;
            let now = at(secs);
            if awake {
                host.turn(now);
            }
            let drift = u64::from(host.settings.time_sequence.as_ref().unwrap().drift);
            for client in 0..3 {
                for asked in step(now) - 6..=step(now) + 6 {
                    let taken = host.opens(client, asked, now).is_some();
                    let right = asked.abs_diff(step(now)) <= drift;
                    prop_assert!(right || !taken, "{} at {}", asked, secs);
                    prop_assert!(taken || !right || !awake, "{} at {}", asked, secs);
                }
            }
        }
    }
}

#[test]
fn by_a_calendar_that_is_behind_nothing_opens_that_could_be_used_before_and_what_comes_later_does() {
    let mut host = Host::new(settings("{}", APPS));
    let now = step(at(0));
    host.timed.refuse_until(at(19).wall);
    for (secs, first) in [(0, now + 2), (25, now + 2), (85, now + 2), (115, now + 3)] {
        host.fill(at(secs));
        let taken: Vec<u64> =
            (now - 3..now + 9).filter(|&step| host.opens(0, step, at(secs)).is_some()).collect();
        let wanted: Vec<u64> = (first.max(step(at(secs)) - 1)..=step(at(secs)) + 1).collect();
        assert_eq!(taken, wanted, "{secs}");
    }
    assert_eq!(host.timed.uses(), 0);
}
