//! Whatever may happen, in any order, against a model of who may reach what until when. The order follows from a seed, which
//! a failure prints; `KNOCK_AGENT_SOAK_SEED` and `KNOCK_AGENT_SOAK_SECONDS` set it and the length.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{Agent, Installation};
use crate::configuration::{Config, STEP1_PATH};
use crate::firewall::{Element, elements, is_guarded};
use crate::front;
use crate::knocking::{STEP1_PORT, form, request};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, Reach, tcp};
use crate::server::{Habit, Server};
use crate::strangers::{knock_from, send_and_reset};
use crate::topology::{Family, Topology};
use crate::usage::{Usage, family};

const SECONDS: u64 = 120;
/// What clocks and rounding may differ by.
const SLACK: Duration = Duration::from_millis(1_200);
/// For whatever the agent does by itself.
const SOON: Duration = Duration::from_secs(30);
const APPS: [(&str, u16); 2] = [("ssh", 2222), ("web", 3333)];
/// Files of the configuration, and how long knocks open there; the third one has no app `web`.
const DURATIONS: [u64; 3] = [14, 7, 14];
const CLIENTS: [(char, Family); 4] =
    [('a', Family::V4), ('a', Family::V6), ('b', Family::V4), ('b', Family::V6)];

/// Numbers that follow from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// The end of an access, as far as it can be known from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    not_before: Instant,
    not_after: Instant,
}

impl End {
    /// Of something that was asked for at the one moment, was done by the other, and lasts so long.
    fn of(asked: Instant, done: Instant, lasts: Duration) -> Self {
        Self { not_before: asked + lasts, not_after: done + lasts }
    }

    fn or_later(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.max(other.not_after),
        })
    }
}

/// Whether somebody may come in at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Yes,
    No,
    /// It ends just now.
    Perhaps,
}

fn may(end: Option<End>, from: Instant, until: Instant) -> May {
    match end {
        Some(end) if until + SLACK < end.not_before => May::Yes,
        Some(end) if from <= end.not_after + SLACK => May::Perhaps,
        Some(_) | None => May::No,
    }
}

/// Who may reach what.
#[derive(Default)]
struct Model {
    /// By client and app.
    grants: [[Option<End>; 2]; 4],
    /// By client, for every app.
    allowed: [Option<End>; 4],
}

struct Soak {
    net: Topology,
    home: Installation,
    agent: Option<Agent>,
    chance: Chance,
    model: Model,
    /// Which configuration is in force.
    config: usize,
    /// What was done, for whoever has to find out.
    story: Vec<String>,
    _services: Vec<Server>,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let net = Topology::new();
        let services = APPS.map(|(_, port)| Server::tcp(&net.router, port, Habit::Echo)).into();
        let home = Installation::new(&config(0));
        let agent = Some(home.start(&net.router));
        let (chance, model) = (Chance(seed), Model::default());
        Self { net, home, agent, chance, model, config: 0, story: Vec::new(), _services: services }
    }

    fn host(&self) -> &Namespace {
        &self.net.router
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn tell(&mut self, what: String) {
        self.story.push(what);
    }

    /// An app that is configured.
    fn app(&mut self) -> usize {
        if self.config == 2 { 0 } else { self.chance.index(APPS.len()) }
    }

    fn signal(&self, signal: Signal) {
        for pid in family(self.agent().pid()) {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
        }
    }

    fn await_guard(&self) {
        let end = Instant::now() + SOON;
        while !is_guarded(self.host()) {
            assert!(Instant::now() < end, "the guard does not come back");
            sleep(Duration::from_millis(5));
        }
    }

    /// One thing that may happen.
    fn step(&mut self) {
        match self.chance.below(100) {
            0..20 => self.knock(),
            20..27 => self.knock_wrongly(),
            27..39 => self.grant(),
            39..47 => self.revoke(),
            47..49 => self.revoke_all(),
            49..53 => self.allow(),
            53..55 => self.allow_nothing(),
            55..62 => self.reload(),
            62..64 => self.reload_nonsense(),
            64..70 => self.flush(),
            70..74 => self.remove_by_hand(),
            74..77 => self.add_a_rule(),
            77..82 => self.restart(),
            82..88 => self.kill_front(),
            88..93 => self.pause(),
            _ => {
                let time = Duration::from_millis(self.chance.below(900));
                self.tell(format!("{time:?} pass"));
                sleep(time);
            }
        }
    }

    fn client(&mut self) -> (usize, IpAddr, Family) {
        let at = self.chance.index(CLIENTS.len());
        let (_, family) = CLIENTS[at];
        (at, address(at), family)
    }

    fn at(&self, client: usize) -> &Namespace {
        if CLIENTS[client].0 == 'a' { &self.net.a } else { &self.net.b }
    }

    fn knock(&mut self) {
        let (client, address, family) = self.client();
        let app = self.app();
        self.tell(format!("{address} knocks for {}", APPS[app].0));
        let end = Instant::now() + SOON;
        loop {
            let asked = Instant::now();
            let opened = self.at(client).enter(|| knock_from(address, family.router(), APPS[app].0));
            if opened {
                let lasts = Duration::from_secs(DURATIONS[self.config]);
                return self.granted(client, app, End::of(asked, Instant::now(), lasts));
            }
            // The front may have been killed a moment ago. What got lost on the way back may have opened.
            assert!(Instant::now() < end, "a knock does not open");
            if self.has(client, app).is_some() {
                let lasts = Duration::from_secs(DURATIONS[self.config]);
                let grant = &mut self.model.grants[client][app];
                let end = End::of(asked, Instant::now(), lasts);
                *grant =
                    Some(grant.map_or(end, |had| End { not_after: had.not_after.max(end.not_after), ..had }));
            }
        }
    }

    fn granted(&mut self, client: usize, app: usize, end: End) {
        let grant = &mut self.model.grants[client][app];
        *grant = Some(end.or_later(grant.take()));
    }

    fn knock_wrongly(&mut self) {
        let (client, address, family) = self.client();
        let (path, key) = match self.chance.below(2) {
            0 => ("/another", crate::configuration::http_key("ssh")),
            _ => (STEP1_PATH, "a-wrong-key-of-ssh".to_owned()),
        };
        self.tell(format!("{address} knocks wrongly at {path}"));
        let bytes = request(&format!("POST {path}"), &form("ssh", &key));
        let to = (family.router(), STEP1_PORT).into();
        self.at(client).enter(|| send_and_reset(address, to, bytes.as_bytes()));
    }

    fn grant(&mut self) {
        let (client, address, _) = self.client();
        let (app, seconds) = (self.app(), 2 + self.chance.below(25));
        self.tell(format!("an operator grants {} to {address} for {seconds} s", APPS[app].0));
        let asked = Instant::now();
        let words = ["grant", APPS[app].0, &address.to_string(), "--for", &format!("{seconds}s")];
        self.home.verb(self.host(), &words).success();
        self.granted(client, app, End::of(asked, Instant::now(), Duration::from_secs(seconds)));
    }

    fn revoke(&mut self) {
        let (client, address, _) = self.client();
        let app = self.app();
        self.tell(format!("an operator revokes {} from {address}", APPS[app].0));
        self.home.verb(self.host(), &["revoke", APPS[app].0, &address.to_string()]).success();
        self.model.grants[client][app] = None;
    }

    fn revoke_all(&mut self) {
        self.tell("an operator revokes everything".to_owned());
        self.home.verb(self.host(), &["revoke", "--all"]).success();
        self.model.grants = Default::default();
    }

    fn allow(&mut self) {
        let (client, address, _) = self.client();
        let seconds = 2 + self.chance.below(12);
        self.tell(format!("an operator allows {address} for {seconds} s"));
        let asked = Instant::now();
        let words = ["allow", &address.to_string(), "--for", &format!("{seconds}s")];
        self.home.verb(self.host(), &words).success();
        // The newest word counts here.
        self.model.allowed[client] = Some(
            End::of(asked, Instant::now(), Duration::from_secs(seconds)).or_later(self.model.allowed[client]),
        );
    }

    fn allow_nothing(&mut self) {
        self.tell("an operator flushes what is allowed".to_owned());
        self.home.verb(self.host(), &["allow", "--flush"]).success();
        self.model.allowed = Default::default();
    }

    fn reload(&mut self) {
        let next = self.chance.index(DURATIONS.len());
        self.tell(format!("configuration {next} is loaded"));
        self.home.rewrite_config(config(next).text());
        let said = self.agent().reload();
        assert!(said.contains("READY=1"), "{said}");
        self.config = next;
        if next == 2 {
            self.model.grants.iter_mut().for_each(|of| of[1] = None);
        }
    }

    fn reload_nonsense(&mut self) {
        self.tell("nonsense is loaded".to_owned());
        self.home.rewrite_config("global: {}\nssh: [nonsense]\n");
        self.agent().reload();
        self.home.rewrite_config(config(self.config).text());
    }

    fn flush(&mut self) {
        let how = ["flush ruleset", "delete table inet knock_agent"][self.chance.index(2)];
        self.tell(format!("somebody says {how}"));
        self.host().nft(how);
        self.await_guard();
    }

    fn remove_by_hand(&mut self) {
        let (client, address, family) = self.client();
        let app = self.app();
        if self.has(client, app).is_none_or(|element| element.expires < Some(SLACK)) {
            return;
        }
        self.tell(format!("somebody removes {address} from {}", APPS[app].0));
        let set = format!("app_{}_{}", APPS[app].0, family.digit());
        self.host().nft(&format!("delete element inet knock_agent {set} {{ {address} }}"));
        self.model.grants[client][app] = None;
    }

    fn add_a_rule(&mut self) {
        self.tell("somebody adds a rule that lets everybody in".to_owned());
        self.host().nft("insert rule inet knock_agent gate accept comment \"soak\"");
        let end = Instant::now() + SOON;
        let chain =
            || self.host().run("nft", &["list", "chain", "inet", "knock_agent", "gate"]).success().text();
        while chain().contains("soak") {
            assert!(Instant::now() < end, "the rule stays");
            sleep(Duration::from_millis(10));
        }
    }

    fn restart(&mut self) {
        let how = self.chance.below(3);
        self.tell(format!(
            "the daemon {}",
            ["is killed", "is told to stop", "is killed, and guard runs"][usize::try_from(how).unwrap()]
        ));
        let agent = self.agent.take().unwrap();
        match how {
            1 => agent.terminate(),
            _ => agent.kill(),
        }
        sleep(Duration::from_millis(self.chance.below(700)));
        if how == 2 {
            self.home.guard(self.host()).success();
        }
        self.check();
        self.agent = Some(self.home.start(self.host()));
    }

    fn kill_front(&mut self) {
        self.tell("the front is killed".to_owned());
        if let Some(pid) = front::pid_of(self.agent()) {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
    }

    /// The agent stands still, and what happens meanwhile holds.
    fn pause(&mut self) {
        self.tell("the agent stands still".to_owned());
        self.signal(Signal::SIGSTOP);
        if self.chance.below(2) == 0 {
            self.remove_by_hand();
        }
        sleep(Duration::from_millis(self.chance.below(1_500)));
        self.check();
        self.signal(Signal::SIGCONT);
    }

    /// What the kernel has of a client for an app.
    fn has(&self, client: usize, app: usize) -> Option<Element> {
        let set = format!("app_{}_{}", APPS[app].0, CLIENTS[client].1.digit());
        elements(self.host(), &set).into_iter().find(|element| element.key == address(client).to_string())
    }

    /// Compares what the kernel lists with the model.
    fn check(&mut self) {
        for (app, (name, _)) in APPS.into_iter().enumerate() {
            if app == 1 && self.config == 2 {
                continue;
            }
            for client in 0..CLIENTS.len() {
                let from = Instant::now();
                let has = self.has(client, app);
                let until = Instant::now();
                let end = self.model.grants[client][app];
                let case = format!("{} for {}: {has:?}, and {end:?}", address(client), name);
                match (may(end, from, until), &has) {
                    (May::Yes, None) => panic!("lost: {case}"),
                    (May::No, Some(_)) => panic!("open: {case}"),
                    _ => {}
                }
                if let (Some(left), Some(end)) = (has.and_then(|element| element.expires), end) {
                    assert!(
                        left <= end.not_after.saturating_duration_since(from) + SLACK,
                        "prolonged: {case}"
                    );
                    assert!(
                        left + SLACK >= end.not_before.saturating_duration_since(until),
                        "shortened: {case}"
                    );
                }
            }
        }
        let client = self.chance.index(CLIENTS.len());
        let app = self.app();
        self.probe(client, app);
    }

    /// Compares what packets do with the model.
    fn probe(&self, client: usize, app: usize) {
        let ends = [self.model.grants[client][app], self.model.allowed[client]];
        let to = (CLIENTS[client].1.router(), APPS[app].1).into();
        let from = Instant::now();
        let first = tcp(self.at(client), to, Duration::from_millis(150));
        let mut is = ends.map(|end| may(end, from, Instant::now()));
        let mut reach = first;
        if reach == Reach::Silent && is.contains(&May::Yes) {
            // A busy machine may be slow.
            reach = tcp(self.at(client), to, GENEROUS);
            is = ends.map(|end| may(end, from, Instant::now()));
        }
        let case = format!("{} to {}: {reach:?}, {ends:?}", address(client), APPS[app].0);
        if is.contains(&May::Yes) {
            assert_eq!(reach, Reach::Open, "{case}");
        } else if is == [May::No; 2] {
            assert_eq!(reach, Reach::Silent, "{case}");
        }
    }
}

fn address(client: usize) -> IpAddr {
    let (at, family) = CLIENTS[client];
    if at == 'a' { family.client_a() } else { family.client_b() }
}

fn config(number: usize) -> Config {
    let duration = format!("duration: {}", DURATIONS[number]);
    let base = Config::new(&["step1_2_rate_limit_per_minute: 6000"]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &[&duration],
    );
    if number == 2 { base } else { base.app("web", "3333", "tcp", "local", &[&duration]) }
}

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

#[test]
fn whatever_happens_in_any_order_everybody_has_what_the_model_says() {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = told("KNOCK_AGENT_SOAK_SEED").unwrap_or_else(clock);
    let seconds = told("KNOCK_AGENT_SOAK_SECONDS").unwrap_or(SECONDS);
    eprintln!("KNOCK_AGENT_SOAK_SEED={seed} KNOCK_AGENT_SOAK_SECONDS={seconds}");
    let mut soak = Soak::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let usage = Usage::of(soak.agent());
    let mut steps = 0;
    while Instant::now() < end {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            soak.step();
            soak.check();
        }));
        if let Err(panic) = outcome {
            let story = soak.story[soak.story.len().saturating_sub(40)..].join("\n");
            eprintln!("step {steps} of seed {seed}; what came before:\n{story}");
            std::panic::resume_unwind(panic);
        }
        steps += 1;
    }
    let now = Usage::of(soak.agent());
    eprintln!("{steps} steps; {} KiB of memory at the start, {} at the end", usage.memory, now.memory);
    assert!(steps > seconds / 4, "only {steps} steps");
    assert!(now.memory < usage.memory + 30_000, "{usage:?} at the start, {now:?} at the end");
}
