//! Where chains come on a packet's way, and what of it they see there.

use super::*;

fn drops(port: u16) -> Vec<Step> {
    let [load, compare] = dport(port);
    vec![load, compare, verdict(Verdict::Drop)]
}

#[test]
fn a_chain_behind_the_translation_sees_where_packets_go() {
    let at = |priority, port| {
        let pre = chain("pre", base(HostHook::Prerouting, priority, false), vec![drops(port)]);
        told(&settings(""), &situation(vec![pre]))
    };
    for (priority, port, lost) in
        [(0, 22, true), (0, 2223, false), (-99, 2223, false), (-100, 2223, true), (-300, 22, false)]
    {
        let found = at(priority, port);
        let expected = if lost { vec![(Severity::Error, "host-drops-early")] } else { vec![] };
        let found: Vec<_> = found.iter().map(|finding| (finding.severity, finding.code)).collect();
        assert_eq!(found, expected, "{priority} {port}");
    }
    let rule = "nft insert rule inet host pre position 7 iifname '\"eth0\"'";
    let fix = |priority, port| at(priority, port).remove(0).fix;
    assert!(fix(0, 22).starts_with(&format!("{rule} ip daddr 192.168.1.10 tcp dport 22 accept\n")));
    assert!(fix(-300, 2223).starts_with(&format!("{rule} fib daddr type local tcp dport 2223 accept\n")));
}

#[test]
fn a_chain_behind_the_translation_of_others_sees_it_as_well() {
    let own = "web:\n  port: 2224\n  protocol: tcp\n  destination: local\n  duration: 1h\n  \
               step2_https_duration: 5\n  access_key_http: [third-secret]\n  access_key_https: [fourth-secret]\n";
    let [load, compare] = dport(2224);
    let constant = |to, data: &[u8]| Step::Constant { to, data: data.to_vec() };
    let dnat = Step::Dnat { addr: Some(16), last_addr: None, v6: false, port: Some(32), last_port: None };
    let steps = vec![load, compare, constant(16, &[192, 168, 1, 20]), constant(32, &[0, 80]), dnat];
    let mut nat = chain("nat", base(HostHook::Prerouting, -100, false), vec![steps]);
    nat.base.as_mut().unwrap().kind = HostChainKind::Nat;
    let pre = chain("pre", base(HostHook::Prerouting, 0, false), vec![drops(80)]);
    let found = told(&settings(own), &situation(vec![nat, pre]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity, found[0].code), (Severity::Error, "host-drops-early"));
}

/// Port 22 and a range here, and a range of a LAN host.
fn ranges() -> Settings {
    let app = |name: &str, port: &str, to: &str| {
        format!(
            "{name}:\n  port: {port}\n  protocol: tcp\n  destination: {to}\n  duration: 1h\n  \
             step2_https_duration: 5\n  access_key_http: [{name}-first-secret]\n  access_key_https: [{name}-other-secret]\n"
        )
    };
    settings(&(app("ssh", "[22, \"3330-3339\"]", "local") + &app("many", "\"4330-4339\"", "192.168.1.20")))
}

#[test]
fn a_port_within_a_range_that_is_dropped_is_told_and_the_remedy_names_the_range() {
    for (hook, port, said, remedy) in [
        (HostHook::Input, 3335, "(203.0.113.1 port 3335), ssh:", "meta mark 24107 accept"),
        (HostHook::Forward, 4335, "(203.0.113.1 port 4335), many:", "meta mark 24107 accept"),
        (HostHook::Forward, 4339, "(203.0.113.1 port 4339), many:", "meta mark 24107 accept"),
        (
            HostHook::Prerouting,
            4335,
            "(203.0.113.1 port 4335), many:",
            "iifname '\"eth0\"' ip daddr 192.168.1.20 tcp dport 4330-4339 accept",
        ),
    ] {
        let chain = chain("c", base(hook, 0, false), vec![drops(port)]);
        let found = told(&ranges(), &situation(vec![chain]));
        assert_eq!(found.len(), 1, "{port}: {found:#?}");
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(
            found[0].message.contains(&format!("drops, at some ports or addresses {said}")),
            "{found:#?}"
        );
        let line = format!(
            "# only if it shall be reached there, too:\nnft insert rule inet host c position 7 {remedy}\n"
        );
        assert!(found[0].fix.starts_with(&line), "{found:#?}");
    }
    let other = chain("c", base(HostHook::Prerouting, -300, false), vec![drops(3340), drops(4329)]);
    assert_eq!(told(&ranges(), &situation(vec![other])), []);
}

#[test]
fn an_address_that_one_rule_has_something_against_is_told() {
    let address = |addr: [u8; 4]| {
        let load = Step::Load { source: Source::Payload { base: 1, offset: 16 }, to: 0, len: Some(4) };
        let compare = Step::Compare { at: 0, how: Comparison::Eq, data: addr.to_vec() };
        vec![load, compare, verdict(Verdict::Drop)]
    };
    let host = |addr| {
        let chain = chain("c", base(HostHook::Input, 0, false), vec![address(addr)]);
        let mut out = situation(vec![chain]);
        out.interfaces[0].addresses.push(([198, 51, 100, 9].into(), 32));
        told(&settings(""), &out)
    };
    let found = host([198, 51, 100, 9]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("(198.51.100.9 port 8080), step 1, step 2: "), "{found:#?}");
    assert_eq!(host([198, 51, 100, 10]), []);
}

#[test]
fn the_largest_segment_of_usual_clients_is_larger_by_ipv4() {
    let shorter = |than: u16| {
        let load = Step::Load { source: Source::SegmentSize, to: 0, len: Some(2) };
        let compare = Step::Compare { at: 0, how: Comparison::Lt, data: than.to_be_bytes().to_vec() };
        let input = chain(
            "input",
            base(HostHook::Input, -20, false),
            vec![vec![load, compare, verdict(Verdict::Drop)]],
        );
        told(&settings(""), &situation(vec![input]))
    };
    for (than, severity) in [(1452, None), (1460, Some(Severity::Warning)), (1461, Some(Severity::Error))] {
        let found = shorter(than);
        assert_eq!(found.first().map(|finding| finding.severity), severity, "{than}: {found:#?}");
    }
}

#[test]
fn a_rule_that_adds_to_a_full_set_may_not_match() {
    let host = |size| {
        let steps = vec![Step::AddTo("seen".to_owned()), verdict(Verdict::Accept)];
        let mut out = situation(vec![chain("input", base(HostHook::Input, -20, true), vec![steps])]);
        let elements = Some(vec![HostElement { first: Some(vec![9; 4]), ..HostElement::default() }]);
        let set = HostSet { key_len: 4, size, elements, ..HostSet::default() };
        out.host.sets.insert((table(), "seen".to_owned()), set);
        told(&settings(""), &out)
    };
    assert_eq!((host(None), host(Some(2))), (vec![], vec![]));
    let found = host(Some(1));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(found[0].message.contains("may drop"), "{found:#?}");
}
