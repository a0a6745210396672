//! Figures: what a knock, a packet and a million grants cost, against what cannot be gone below and what is used today.
//!
//! `benches/run` runs it and writes `docs/benchmarks.md`. It needs root and makes network namespaces of its own; nothing in it
//! is a test, and nothing runs it by itself.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a measurement stops at the first thing that is not as it should be, and says how far it is"
)]

mod floor;
mod gateway;
mod knocker;
mod latency;
mod machine;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../integration/namespace.rs"]
mod namespace;
mod net;
mod packets;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../integration/process.rs"]
mod process;
mod reference;
mod report;
mod requirements;
mod scale;
mod stats;
mod strangers;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../integration/temporary.rs"]
mod temporary;
mod wire;

use reference::Reference;
use report::Report;

/// How much is measured.
struct Effort {
    rounds: u32,
    turns: usize,
    starts: usize,
    most: u32,
    connections: u32,
}

const WHOLE: Effort = Effort { rounds: 300, turns: 15, starts: 15, most: 1_000_000, connections: 50_000 };
const QUICK: Effort = Effort { rounds: 40, turns: 3, starts: 4, most: 100_000, connections: 5_000 };

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder] = words.as_slice()
        && first == floor::SERVE
    {
        floor::serve_all(folder.as_ref());
    }
    if words == [floor::MAKE] {
        return floor::make_elements();
    }
    // cargo adds this.
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let effort = if words.contains(&"--quick") { QUICK } else { WHOLE };
    let file = words.iter().position(|&word| word == "--write").and_then(|at| words.get(at + 1));
    let parts: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| ["latency", "scale", "strangers", "packets"].contains(word))
        .collect();
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    requirements::demand();

    let reference = Reference::find();
    if reference.is_none() {
        eprintln!("knock-port is not compared with: KNOCK_PORT_DIR does not name its folder");
    }
    let reference = reference.as_ref();
    let before = machine::load();
    let mut report = Report::default();
    if wanted("latency") {
        latency::measure(&mut report, effort.rounds, reference);
    }
    if wanted("scale") {
        scale::measure(&mut report, effort.starts, effort.most, reference);
    }
    if wanted("strangers") {
        strangers::measure(&mut report, effort.connections, reference);
    }
    if wanted("packets") {
        packets::measure(&mut report, effort.turns, effort.most);
    }
    let machine = format!(
        "{}\n\nLoad average before: {before}; after: {} (this run is part of it).",
        machine::describe(),
        machine::load()
    );
    let text = report.markdown(&machine);
    match file {
        Some(file) => std::fs::write(file, text).unwrap(),
        None => eprintln!("{text}"),
    }
}
