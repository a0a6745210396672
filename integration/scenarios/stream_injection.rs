//! Segments crafted so that the packet filter sees one thing and the stream holds another.

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::handmade;
use crate::knocking::{form, request, step1};
use crate::topology::Family;

#[test]
fn a_segment_that_begins_before_the_stream_does_not_smuggle_another_request_in() {
    let net = handmade::topology();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let mut agent = home.start(&net.router);
    let filter_sees = format!("POST {STEP1_PATH} ");
    let right1 = form("ssh", &http_key("ssh"));
    let right2 = form("ssh", &https_key("ssh"));
    for family in Family::BOTH {
        let (to, client) = (family.router(), family.client_a());
        for start in ["POST /", "POST /wrong", &format!("GET {STEP1_PATH}"), &format!("POST {STEP2_PATH}")] {
            handmade::send(&net.a, to, &filter_sees, &[&request(start, &right1)]);
            assert_eq!(admission_left(&net.router, client), None, "the stream says {start}");
        }
        step1(&net.a, to, "ssh");
        assert!(admission_left(&net.router, client).is_some(), "the ordinary step 1");
        for start in [format!("POST {STEP2_PATH}"), format!("POST {STEP1_PATH}")] {
            handmade::send(&net.a, to, &filter_sees, &[&request(&start, &right2)]);
            assert_eq!(time_left(&net.router, "ssh", client), None, "the stream says {start}");
        }
        assert!(agent.is_alive());
    }
}

#[test]
fn the_same_segment_without_the_trick_is_an_ordinary_step_1() {
    let net = handmade::topology();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let right = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
        handmade::send(&net.a, family.router(), "", &[&right]);
        assert!(admission_left(&net.router, family.client_a()).is_some(), "step 1 by hand works");
    }
}

#[test]
fn a_segment_that_begins_before_the_stream_really_reaches_the_stream() {
    let net = handmade::topology();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    // What is cut off and what is left are both a right start: the process reads the second one. Were it
    // never to arrive, the refusals of the other test would prove nothing.
    let right = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    handmade::send(&net.a, Family::V4.router(), &format!("POST {STEP1_PATH} "), &[&right]);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the stream was read");
}
