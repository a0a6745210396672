//! How long a knock takes, and how many there can be, against the floors.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use knock_agent::backend::nftables::Nftables;
use knock_agent::ruleset::diff::{Change, SetRef};
use knock_agent::ruleset::model::{Element, Elements, Timeout};
use rustls::client::ClientConfig;

use crate::floor::{self, APART, BARE, Floors, WITH_COMMIT};
use crate::gateway::{FORM1, FORM2, GRANTS, Home, SERVICE, STEP1, STEP2, TABLE, family};
use crate::knocker::{Step2, dial_soon, dial_within, step1, step2, tls};
use crate::net::{Net, serve, source};
use crate::reference::{MISSING, Reference};
use crate::report::{Report, Section, Verdict};
use crate::stats::{Sample, significant};
use crate::wire::Wire;

const LOAD: Duration = Duration::from_secs(4);
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(25);
/// Who is not let in by then was one too many.
const BUSY: Duration = Duration::from_millis(200);

/// The parts of a knock.
#[derive(Default)]
struct Knock {
    /// From the first packet of step 1 until step 2 takes connections.
    admitted: Sample,
    /// From the first packet of step 2 until the handshake is done.
    handshake: Sample,
    /// From the request of step 2 until its answer.
    answer: Sample,
    /// From the first packet of step 2 until the answer.
    step2: Sample,
    /// From the request of step 2 until the service takes connections.
    open: Sample,
    /// All of it.
    whole: Sample,
}

impl Knock {
    fn time(&mut self, number: u32, tls: &Arc<ClientConfig>) {
        let from = source(number);
        let begin = Instant::now();
        let first = step1(from, STEP1, FORM1);
        drop(dial_soon(from, STEP2.0));
        self.admitted.push(begin.elapsed());
        let at2 = Instant::now();
        let mut stream = dial_soon(from, STEP2.0);
        let done = step2(&mut stream, at2, tls, STEP2.1, FORM2).expect("an answer of step 2");
        assert_eq!(done.status, 200, "step 2 answers {}", done.status);
        drop(dial_soon(from, SERVICE));
        let open = at2.elapsed();
        self.whole.push(begin.elapsed());
        let Step2 { handshake, answer, .. } = done;
        self.handshake.push(handshake);
        self.answer.push(answer - handshake);
        self.step2.push(answer);
        self.open.push(open - handshake);
        drop(first);
    }
}

/// One of the servers that are the floor.
#[derive(Default)]
struct Floor {
    /// From the request until its answer.
    answer: Sample,
    /// From the first packet until the answer.
    step2: Sample,
}

impl Floor {
    /// A connection, right after one that is ended at once: that is how a client finds out that step 2 is open, and what
    /// it leaves behind in the processor's caches.
    fn time(&mut self, number: u32, port: u16, tls: &Arc<ClientConfig>) {
        drop(dial_soon(source(number), port));
        let Step2 { handshake, answer, .. } = handshake(number, port, tls);
        self.answer.push(answer - handshake);
        self.step2.push(answer);
    }
}

/// A connection to one of those servers.
fn handshake(number: u32, port: u16, tls: &Arc<ClientConfig>) -> Step2 {
    let begin = Instant::now();
    let mut stream = dial_soon(source(number), port);
    step2(&mut stream, begin, tls, STEP2.1, FORM2).expect("an answer of the floor")
}

pub fn measure(report: &mut Report, rounds: u32, reference: Option<&Reference>) {
    let (net, home) = (Net::new(), Home::new("  lockout: off\n"));
    serve(&net.router, SERVICE);
    let floors = Floors::start(&home);
    floor::make_set(&net.router);
    let (gateway, _) = home.start(&net.router);
    let tls = tls();

    commits(report, &net, rounds);

    let mut ours = Knock::default();
    let [mut bare, mut with, mut apart] = <[Floor; 3]>::default();
    let processes = gateway.processes();
    let mut before = Duration::ZERO;
    for number in 0..rounds + 20 {
        if number == 20 {
            before = crate::machine::cpu(&processes);
            (ours, bare, with, apart) = Default::default();
        }
        // No faster than newcomers may knock. Each comes after the same pause, so that none finds all at hand that another
        // one has just used.
        for (floor, port) in [(&mut bare, BARE), (&mut with, WITH_COMMIT), (&mut apart, APART)] {
            std::thread::sleep(PAUSE);
            floors.net.client.enter(|| floor.time(number, port, &tls));
        }
        std::thread::sleep(PAUSE);
        net.client.enter(|| ours.time(number, &tls));
    }
    let cpu = (crate::machine::cpu(&processes) - before).as_secs_f64() * 1e6 / f64::from(rounds);
    let theirs = reference.map(|reference| {
        let net = Net::new();
        serve(&net.router, SERVICE);
        let (running, _) = reference.start(&net, &home);
        let mut theirs = Knock::default();
        let rounds = rounds.min(40);
        let (before, unseen) = (
            crate::machine::cpu(&family(running.process.0.id())),
            crate::machine::cpu_of_ended(running.process.0.id()),
        );
        net.client.enter(|| (0..rounds).for_each(|number| theirs.time(number, &tls)));
        // What it starts has ended by then.
        let own = crate::machine::cpu(&family(running.process.0.id())).saturating_sub(before);
        let started = crate::machine::cpu_of_ended(running.process.0.id()).saturating_sub(unseen);
        (theirs, (own + started).as_secs_f64() * 1e6 / f64::from(rounds))
    });

    let mut section = Section::new(
        "A knock",
        "Client and gateway are processes of the same machine, in two network namespaces. The floors are servers of a few lines: one \
         that speaks TLS and answers whatever comes (tokio and rustls, the same certificate), one that also adds one element to a \
         set before it answers, and one that has a second process add it and waits for that. They are in namespaces of their own, \
         without any rule. In each round all four are connected to once, each after the same pause and right after a connection that is ended at once, as a client makes it to find \
         out that step 2 is open. The client is the same: TLS 1.3 without a ticket. A port that does not answer yet is tried again each \
         half millisecond. knock-agent judges 350 requests a second at most of addresses that it knows, whatever it \
         could do, so that more than 175 knocks a second are turned away; what it could do, the processor time tells.",
        &[
            "",
            "knock-agent",
            "floor: TLS alone",
            "floor: TLS and an element",
            "knock-agent against that",
            "floor: TLS and an element of another process's",
            "knock-agent against that",
            "knock-port",
        ],
    );
    let ratio = |ours: &Sample, floor: &Sample| significant(ours.median() / floor.median());
    let of = |part: fn(&Knock) -> &Sample| {
        theirs.as_ref().map_or(MISSING.to_owned(), |(knock, _)| part(knock).text())
    };
    section.row(&[
        "step 2: request sent, answer received",
        &ours.answer.text(),
        &bare.answer.text(),
        &with.answer.text(),
        &ratio(&ours.answer, &with.answer),
        &apart.answer.text(),
        &ratio(&ours.answer, &apart.answer),
        &of(|knock| &knock.answer),
    ]);
    section.row(&[
        "step 2: connection, handshake, request, answer",
        &ours.step2.text(),
        &bare.step2.text(),
        &with.step2.text(),
        &ratio(&ours.step2, &with.step2),
        &apart.step2.text(),
        &ratio(&ours.step2, &apart.step2),
        &of(|knock| &knock.step2),
    ]);
    section.row(&[
        "step 2: request sent, service takes connections",
        &ours.open.text(),
        "",
        "",
        "",
        "",
        "",
        &of(|knock| &knock.open),
    ]);
    section.row(&[
        "step 1: first packet, step 2 takes connections",
        &ours.admitted.text(),
        "",
        "",
        "",
        "",
        "",
        &of(|knock| &knock.admitted),
    ]);
    section.row(&[
        "both steps, until the service takes connections",
        &ours.whole.text(),
        "",
        "",
        "",
        "",
        "",
        &of(|knock| &knock.whole),
    ]);
    let (knocks, seconds) = load(&net, |number| whole_knock(source(number % rounds), &tls));
    let (handshakes, floor_seconds) = load(&floors.net, |number| {
        handshake(number, BARE, &tls);
        true
    });
    let missing = if theirs.is_some() { "not measured" } else { MISSING };
    section.row(&[
        "in a second, 8 clients at once: whole knocks, or handshakes",
        &significant(f64::from(knocks) / seconds),
        &significant(f64::from(handshakes) / floor_seconds),
        "",
        "",
        "",
        "",
        missing,
    ]);
    let micros = |micros: f64| format!("{} µs", significant(micros));
    let their_cpu = theirs.as_ref().map_or(MISSING.to_owned(), |(_, cpu)| micros(*cpu));
    section.row(&[
        "processor time of all its processes for a whole knock",
        &micros(cpu),
        "",
        "",
        "",
        "",
        "",
        &their_cpu,
    ]);
    report.sections.push(section);
    let beyond = (ours.step2.median() - bare.step2.median()) / 1_000.0;
    report.verdicts.push(Verdict {
        what: "The agent's part of step 2, beyond TLS",
        target: "at most 1 ms".to_owned(),
        reached: format!("{} ms", significant(beyond)),
        met: beyond <= 1.0,
        why: "",
    });
    let against = ours.step2.median() / with.step2.median();
    let against_two = ours.step2.median() / apart.step2.median();
    report.verdicts.push(Verdict {
        what: "Step 2 against the floor (TLS and one element)",
        target: "at most 1.3".to_owned(),
        reached: significant(against),
        met: against <= 1.3,
        why: "it is between the request and the answer, and most of it is that the listener and the one who judges are two processes, each of which has to be woken; see the next line.",
    });
    report.verdicts.push(Verdict {
        what: "Step 2 against the floor of two processes",
        target: "at most 1.3".to_owned(),
        reached: significant(against_two),
        met: against_two <= 1.3,
        why: "the one who judges does more than to make an element and finds its caches cold, and each packet passes the rules.",
    });
    gateway.stop();
}

/// Both steps, without measuring; false where they were not taken in time.
fn whole_knock(from: Ipv4Addr, tls: &Arc<ClientConfig>) -> bool {
    let first = step1(from, STEP1, FORM1);
    let Some(mut stream) = dial_within(from, STEP2.0, BUSY) else { return false };
    let done = step2(&mut stream, Instant::now(), tls, STEP2.1, FORM2);
    drop(first);
    done.is_ok_and(|done| done.status == 200)
}

/// How often something succeeded, by several clients at once, in how many seconds.
fn load(net: &Net, once: impl Fn(u32) -> bool + Sync) -> (u32, f64) {
    let (next, done) = (AtomicU32::new(0), AtomicU32::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                net.client.enter(|| {
                    while begin.elapsed() < LOAD {
                        if once(next.fetch_add(1, Ordering::Relaxed)) {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            });
        }
    });
    (done.into_inner(), begin.elapsed().as_secs_f64())
}

/// One element, by several ways.
fn commits(report: &mut Report, net: &Net, rounds: u32) {
    let (mut wire, mut nft) = net.router.enter(|| (Wire::open(), Nftables::open().unwrap()));
    let [mut bare, mut among, mut ours, mut renewed, mut program] = <[Sample; 5]>::default();
    for number in 0..rounds * 3 {
        let key = (u32::from_be_bytes([11, 0, 0, 0]) + number).to_be_bytes();
        let timed = |sample: &mut Sample, work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            sample.push(begin.elapsed());
        };
        timed(&mut bare, &mut || wire.add(floor::TABLE, floor::SET, &[key], 3_600_000, "key 1 two-step"));
        timed(&mut among, &mut || wire.add(TABLE, GRANTS, &[key], 3_600_000, "key 1 two-step"));
        let own = (u32::from_be_bytes([12, 0, 0, 0]) + number).to_be_bytes();
        timed(&mut ours, &mut || grant(&mut nft, own, 3_600_000));
        timed(&mut renewed, &mut || grant(&mut nft, own, 3_700_000));
        if number < rounds / 2 {
            let text = format!(
                "{{ 13.0.{}.{} timeout 1h comment \"key 1 two-step\" }}",
                number / 250,
                number % 250 + 1
            );
            let words = ["add", "element", "inet", floor::TABLE, floor::SET, &text];
            net.router.enter(|| {
                timed(&mut program, &mut || {
                    assert!(Command::new("nft").args(words).status().is_ok_and(|status| status.success()));
                });
            });
        }
    }
    let mut section = Section::new(
        "An element of a set",
        "From the call to its return, when the kernel has it. The first row is the floor: one message of netlink, made by hand.",
        &["", "time", "against the floor"],
    );
    for (what, sample) in [
        ("bare netlink, a table with nothing else", &bare),
        ("bare netlink, knock-agent's table", &among),
        ("knock-agent's own code: look for it, then make it", &ours),
        ("the same for one that is there: look for it, then renew it", &renewed),
        ("`nft add element` as a process", &program),
    ] {
        section.row(&[what, &sample.text(), &significant(sample.median() / bare.median())]);
    }
    report.sections.push(section);
    report.verdicts.push(Verdict {
        what: "A grant's commit to the kernel",
        target: "at most 50 µs".to_owned(),
        reached: format!("{} µs", significant(ours.median())),
        met: ours.median() <= 50.0,
        why: "",
    });
}

/// As the enforcer does it.
fn grant(nft: &mut Nftables, key: [u8; 4], ms: u64) {
    let set = SetRef::plain(GRANTS);
    let had = nft.element(&set, &key).unwrap();
    let comment = Some("key 1 two-step".to_owned());
    let element = Element { timeout: Some(Timeout::fresh_ms(ms)), comment, ..Element::default() };
    let elements = Elements::from([(key.to_vec(), element)]);
    let change = match had {
        None => Change::AddElements { set, elements },
        Some(_) => Change::RenewElements { set, elements },
    };
    nft.apply(&[change]).unwrap();
}
