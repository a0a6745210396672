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
