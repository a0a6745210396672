//! Pages of the documentation, followed word by word; afterwards packets show that what a page promises is so.

use crate::pages::Hosts;
use crate::probe::{assert_open, assert_silent};
use crate::topology::Family;

#[test]
fn the_quick_start_closes_ssh_and_lets_in_who_knocks() {
    let mut hosts = Hosts::new().with_ssh();
    for family in Family::BOTH {
        assert_open(hosts.b(), family.router(), 22);
    }
    hosts.follow("docs/quick-start.md", None);
    for family in Family::BOTH {
        assert_silent(hosts.b(), family.router(), 22);
        assert_silent(hosts.a(), family.router(), 22);
    }
}
