//! What strangers begin while the guard is missing for a moment, where connections outlive their grants
//! (`established: keep`): it must end when the guard is back, and what was kept before must not.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::shut_out::Open;
use crate::agent::{Agent, Installation};
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{is_guarded, remove_guard};
use crate::probe::{assert_open, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    what_strangers_begin_while_the_guard_is_missing_ends_and_what_was_kept_does_not,
}

/// Connection tracking must not rest with our table: other rules ask it as well.
const OTHERS: &str = "table inet of_others { chain input { type filter hook input priority 0; ct state established counter; }; }";

/// Long enough for a grant and what it opens, on a slow machine.
const GRANT: u32 = 5;

fn what_strangers_begin_while_the_guard_is_missing_ends_and_what_was_kept_does_not() {
    let net = Topology::new();
    net.router.nft(OTHERS);
    let _services =
        (Server::tcp(&net.router, 2223, Habit::Echo), Server::udp(&net.router, 2223, Habit::Echo));
    let keep = ["duration: 600", "established: keep"];
    let home = Installation::new(
        &Config::new(&["adopt_established: false"]).app("keep", "2223", "both", "local", &keep),
    );
    let agent = home.start(&net.router);
    let [v4, v6] = Family::BOTH.map(Family::router);
    home.grant(&net.router, "keep", Family::V4.client_a(), GRANT);
    home.verb(&net.router, &["allow", &Family::V6.client_b().to_string(), "--for", &format!("{GRANT}s")])
        .success();
    let due = Instant::now() + Duration::from_secs(GRANT.into());
    let mut stay = vec![Open::new(&net.a, v4, 2223), Open::new(&net.b, v6, 2223)];
    home.grant(&net.router, "keep", Family::V6.client_a(), 600);
    stay.extend([Open::new(&net.a, v6, 2223), Open::new(&net.lan, [10, 0, 0, 1].into(), 2223)]);
    // The agent notes what is left a moment later.
    sleep(due.saturating_duration_since(Instant::now()) + Duration::from_secs(3));
    assert_silent(&net.a, v4, 2223);
    assert_silent(&net.b, v6, 2223);

    let strangers =
        || [Open::new(&net.b, v4, 2223), Open::new(&net.a, v4, 2223), Open::new(&net.b, v6, 2223)];
    let in_the_gap = |agent: &Agent| {
        agent.signal(Signal::SIGSTOP);
        // Until it stands still, it may be at the table as well.
        let limit = Instant::now() + Duration::from_secs(20);
        while is_guarded(&net.router) {
            assert!(Instant::now() < limit, "the guard cannot be removed");
            remove_guard(&net.router);
        }
        let began = strangers();
        agent.signal(Signal::SIGCONT);
        began
    };
    let all_is_well = |began: &[Open], when: &str| {
        let limit = Instant::now() + Duration::from_secs(20);
        while !is_guarded(&net.router)
            || began.iter().any(|open| open.live(Duration::from_millis(300)) != [false; 2])
        {
            assert!(Instant::now() < limit, "what strangers began goes on {when}: {}", home.log());
        }
        assert_silent(&net.b, v4, 2223);
        stay.iter().for_each(|open| open.assert_lives(when));
        assert_open(&net.a, v6, 2223);
    };
    all_is_well(&in_the_gap(&agent), "after a repair");
    agent.terminate();
    let agent = home.start(&net.router);
    all_is_well(&in_the_gap(&agent), "after a restart and a repair");

    // Nobody tells what came during a gap in which no daemon ran from what was there before: all that may not come ends. The
    // grants went with the rules.
    agent.terminate();
    remove_guard(&net.router);
    let began = strangers();
    let _agent = home.start(&net.router);
    began.iter().chain(&stay[..3]).for_each(|open| open.assert_cut("after a start over an open port"));
    stay[3..].iter().for_each(|open| open.assert_lives("after a start over an open port"));
}
