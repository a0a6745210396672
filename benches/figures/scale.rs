//! Starting, and what hundreds of thousands of grants cost beside packets: memory, taking them over, putting them back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gateway::{FORM1, FORM2, GRANTS, Home, STEP1, STEP2, TABLE, family};
use crate::knocker::{dial_soon, step1, step2, tls};
use crate::machine::{Memory, mib};
use crate::net::{Net, others, source};
use crate::reference::{MISSING, Reference};
use crate::report::{Report, Section, Verdict};
use crate::stats::{Sample, significant, thousands};
use crate::wire::Wire;

const LASTING: u64 = 86_400_000;

pub fn measure(report: &mut Report, starts: usize, most: u32, reference: Option<&Reference>) {
    let (net, home) = (Net::new(), Home::new("  lockout: off\n"));
    let ready = start_times(report, &net, &home, starts, reference);

    let mut section = Section::new(
        "Many grants",
        "Grants are put into the kernel beforehand; then the daemon is started and takes them over. *Put back*: somebody deletes the \
         whole table; until the last grant is there again. *A grant*: step 2's request sent to its answer, with as many grants there. \
         The kernel lists a set in pieces and begins at the beginning for each, so that reading a million takes it half a minute: \
         that is the start with 1,000,000.",
        &["", "start to ready", "put back", "a grant", "memory: resident", "proportional", "anonymous"],
    );
    let tls = tls();
    let mut wire = net.router.enter(Wire::open);
    let mut verdicts = Vec::new();
    for number in [0, 100_000, 1_000_000_u32].into_iter().filter(|&n| n <= most) {
        home.teardown(&net.router);
        home.guard(&net.router);
        wire.add(TABLE, GRANTS, &others(number), LASTING, "key 1 two-step");
        let (gateway, took) = home.start(&net.router);
        std::thread::sleep(Duration::from_secs(2));
        let memory = Memory::of(&gateway.processes());
        let grant = grant_time(&net, &tls);
        let back = put_back(&net, &mut wire, number);
        let [rss, pss, anonymous] = memory.cells();
        let name = format!("{} grants", thousands(number.into()));
        let mut start = Sample::default();
        start.push(took);
        section.row(&[&name, &start.text(), &back, &grant.text(), &rss, &pss, &anonymous]);
        if number == 0 {
            verdicts.extend(memory_verdicts(memory));
        }
        gateway.stop();
    }
    report.sections.push(section);
    report.verdicts.push(ready);
    report.verdicts.extend(verdicts);
}

fn memory_verdicts(memory: Memory) -> [Verdict; 1] {
    [Verdict {
        what: "Memory of both roles, idle",
        target: "at most 8 MiB".to_owned(),
        reached: format!(
            "{} resident, {} with what they share counted once",
            mib(memory.rss),
            mib(memory.pss)
        ),
        met: memory.rss <= 8 * 1024,
        why: "there are three processes, as one that starts others stands beside the two roles, and each counts the pages of the same program as resident. What belongs to no file, all of them together, is in the last column below.",
    }]
}

fn start_times(
    report: &mut Report,
    net: &Net,
    home: &Home,
    starts: usize,
    reference: Option<&Reference>,
) -> Verdict {
    let (mut fresh, mut again) = (Sample::default(), Sample::default());
    let mut idle = Memory::default();
    for _ in 0..starts {
        home.teardown(&net.router);
        for sample in [&mut fresh, &mut again] {
            let (gateway, took) = home.start(&net.router);
            sample.push(took);
            idle = Memory::of(&gateway.processes());
            gateway.stop();
        }
    }
    let theirs = reference.map(|reference| {
        let mut times = Sample::default();
        let mut memory = Memory::default();
        for _ in 0..starts.min(3) {
            let net = Net::new();
            let (running, took) = reference.start(&net, home);
            times.push(took);
            std::thread::sleep(Duration::from_secs(1));
            memory = Memory::of(&family(running.process.0.id()));
        }
        (times.text(), mib(memory.rss), mib(memory.pss))
    });
    let (theirs, their_rss, their_pss) =
        theirs.unwrap_or_else(|| (MISSING.to_owned(), MISSING.to_owned(), MISSING.to_owned()));
    let mut section = Section::new(
        "A start",
        "From the start of the process until it says that it is ready (knock-port: until step 1 takes connections). Memory is that \
         of all processes together: resident, and with what several map counted in parts.",
        &["", "knock-agent", "knock-port"],
    );
    section.row(&["where nothing was guarded", &fresh.text(), &theirs]);
    section.row(&["where all is guarded already", &again.text(), ""]);
    section.row(&["memory just after, resident", &mib(idle.rss), &their_rss]);
    section.row(&["memory just after, proportional", &mib(idle.pss), &their_pss]);
    let size = std::fs::metadata(crate::gateway::PROGRAM).map_or(0, |file| file.len());
    section.row(&["size of the program", &mib(size / 1024), "Python"]);
    report.sections.push(section);
    let worst = fresh.median().max(again.median()) / 1_000.0;
    Verdict {
        what: "Start to ready",
        target: "at most 20 ms".to_owned(),
        reached: format!("{} ms", significant(worst)),
        met: worst <= 20.0,
        why: "the kernel takes most of it: to hang the chains into its hooks, and to wait until no packet uses the rules of before.",
    }
}

/// Step 2's request to its answer, a few times.
fn grant_time(net: &Net, tls: &Arc<rustls::ClientConfig>) -> Sample {
    let mut out = Sample::default();
    net.client.enter(|| {
        for number in 0..30 {
            let from = source(number);
            let first = step1(from, STEP1, FORM1);
            let begin = Instant::now();
            let mut stream = dial_soon(from, STEP2.0);
            let done = step2(&mut stream, begin, tls, STEP2.1, FORM2).expect("an answer of step 2");
            assert_eq!(done.status, 200);
            out.push(done.answer - done.handshake);
            drop(first);
        }
    });
    out
}

fn put_back(net: &Net, wire: &mut Wire, number: u32) -> String {
    let Some(last) = others(number).pop() else { return "-".to_owned() };
    let begin = Instant::now();
    net.router.run("nft", &["delete", "table", "inet", TABLE]).success();
    let mut gone = Sample::default();
    gone.push(begin.elapsed());
    while !wire.has(TABLE, GRANTS, last) {
        std::thread::sleep(Duration::from_millis(2));
        assert!(begin.elapsed() < Duration::from_secs(120), "the grants did not come back");
    }
    let mut back = Sample::default();
    back.push(begin.elapsed());
    format!("{} (of it `nft delete table`: {})", back.text(), gone.text())
}
