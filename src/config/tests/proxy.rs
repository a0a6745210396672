//! A proxy in front: what command line and configuration say together.

use std::num::NonZeroU16;

use super::*;
use crate::config::{Behind, ProxyHeader, ProxyStep2, parse_behind};

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn behind(global: &str, app_port: u16, own: (u16, u16)) -> Result<Checked, Problems> {
    let text = GLOBAL.replace('}', &format!("{global}}}")) + &APP.replace("22", &app_port.to_string()) + "}";
    let ports = Some(StepPorts { http: 80, https: 443 });
    let behind =
        Behind { http: port(own.0), https: port(own.1), trusted: "10.0.0.5,fd00::/64".parse().unwrap() };
    parse_behind("test.yaml", &text, ports, Some(&behind), &crate::config::Alone)
}

#[test]
fn the_reference_s_header_and_tls_are_the_defaults() {
    let global = behind(", step1_reply: http", 22, (8081, 8444)).unwrap().settings.global;
    let proxy = global.proxy.unwrap();
    assert_eq!((proxy.header, proxy.step2), (ProxyHeader::XRealIp, ProxyStep2::Https));
    assert_eq!((proxy.http_port.get(), proxy.https_port.get()), (8081, 8444));
    assert_eq!(proxy.trusted.networks().len(), 2);
    assert!(loads(&format!("{GLOBAL}{APP}}}")).settings.global.proxy.is_none());
}

#[test]
fn every_header_and_both_ways_to_step_2_have_their_word() {
    for (word, header) in [
        ("x-real-ip", ProxyHeader::XRealIp),
        ("x-forwarded-for", ProxyHeader::XForwardedFor),
        ("forwarded", ProxyHeader::Forwarded),
        ("proxy-protocol", ProxyHeader::ProxyProtocol),
    ] {
        let said = format!(", step1_reply: http, proxy_header: {word}, proxy_step2: http");
        let proxy = behind(&said, 22, (8081, 8444)).unwrap().settings.global.proxy.unwrap();
        assert_eq!((proxy.header, proxy.header.word()), (header, word));
        assert_eq!(proxy.step2, ProxyStep2::Http);
    }
}

#[test]
fn a_silent_step_1_is_refused_behind_a_proxy_where_that_is_or_should_be_written() {
    for (said, place) in [("", (1, 1)), (", step1_reply: silent", (1, 101))] {
        let problems = behind(said, 22, (8081, 8444)).unwrap_err();
        let [problem] = &problems.list[..] else { panic!("{problems}") };
        let at = problem.place.unwrap();
        assert_eq!((at.line, at.column), place, "{problems}");
        assert_eq!(problem.path, "global.step1_reply");
        assert!(problem.message.contains("must answer"), "{problems}");
    }
}

#[test]
fn no_app_and_no_other_step_may_have_one_of_the_four_ports() {
    for (app, flag) in
        [(80, "--waf-http-port"), (443, "--waf-https-port"), (8081, "--http-port"), (8444, "--https-port")]
    {
        let problems = behind(", step1_reply: http", app, (8081, 8444)).unwrap_err().to_string();
        assert!(problems.contains(&format!("belongs to knock-agent itself ({flag})")), "{problems}");
    }
    for own in [(80, 8444), (443, 8444), (8081, 80), (8081, 443), (8081, 8081)] {
        let problems = behind(", step1_reply: http", 22, own).unwrap_err().to_string();
        assert!(problems.contains("give the four flags different ports"), "{own:?}: {problems}");
    }
}

#[test]
fn what_is_said_of_a_proxy_is_refused_where_there_is_none_and_unknown_words_everywhere() {
    for said in [", proxy_header: forwarded", ", proxy_step2: http"] {
        let text = GLOBAL.replace('}', &format!("{said}}}")) + APP + "}";
        let problems = read(&text).unwrap_err();
        assert!(problems.to_string().contains("the command line names none"), "{problems}");
        // Verbs that know no ports, such as `status`, read the same file.
        assert!(crate::config::parse("test.yaml", &text, None, &crate::config::Alone).is_ok());
    }
    for said in ["proxy_header: x-client-ip", "proxy_header: [x-real-ip, forwarded]", "proxy_step2: tls"] {
        assert!(behind(&format!(", step1_reply: http, {said}"), 22, (8081, 8444)).is_err(), "{said}");
    }
}
