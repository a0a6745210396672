//! Services that take up a conversation by themselves, after connection tracking has forgotten the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use crate::agent::{Agent, Installation};
use crate::backend::{Backend, on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::probe::{GENEROUS, dial, udp_socket};
use crate::server::receive;
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_service_that_speaks_first_after_the_grant_does_not_bring_it_back,
    a_conversation_that_turned_around_during_the_grant_ends_with_it,
    this_host_may_still_ask_a_former_client_from_a_guarded_port,
    the_ports_of_one_client_leave_room_for_the_conversations_of_others_to_end,
    a_service_behind_a_port_that_others_translate_does_not_bring_it_back,
    a_conversation_with_such_a_service_that_turned_around_during_the_grant_ends_with_it,
    a_connection_to_such_a_service_does_not_turn_around_after_its_grant_was_revoked,
}

without_ipset! {
    a_service_that_speaks_first_after_the_grant_does_not_bring_it_back,
    a_conversation_that_turned_around_during_the_grant_ends_with_it,
}

const SERVICE: u16 = 5000;
const UNUSED: u16 = 5001;
const CLIENT: u16 = 7777;
const GRANT: u32 = 3;
/// Where a service behind a translated port is.
const INSIDE: u16 = 5080;

/// What Docker does for a published port, with the LAN host as the container.
fn publish(net: &Topology) {
    let [lan4, lan6] = Family::BOTH.map(Family::lan);
    let each = ["tcp", "udp"].map(|protocol| {
        format!(
            "  meta nfproto ipv4 fib daddr type local {protocol} dport {SERVICE} dnat ip to {lan4}:{INSIDE}\n  \
               meta nfproto ipv6 fib daddr type local {protocol} dport {SERVICE} dnat ip6 to [{lan6}]:{INSIDE}\n"
        )
    });
    net.router.nft(&format!(
        "table inet publishing {{\n chain pre {{\n  type nat hook prerouting priority dstnat\n{} }}\n \
         chain post {{\n  type nat hook postrouting priority srcnat\n  iifname int0 oifname ext0 masquerade\n }}\n}}\n",
        each.concat()
    ));
}

fn config() -> Config {
    Config::new(&[]).app("vpn", "[5000, 5001]", "both", "local", &["duration: 3"])
}

/// A client and a UDP service that have spoken with each other, with a grant.
struct Conversation {
    net: Topology,
    family: Family,
    service: UdpSocket,
    client: UdpSocket,
    /// Where the client speaks to: a service behind a translated port may have got through by its own one.
    ports: &'static [u16],
    _agent: Agent,
    _home: Installation,
}

impl Conversation {
    fn begun(family: Family) -> Self {
        Self::begun_after(family, |_, _| {}, &[])
    }

    /// With a service behind a translated port.
    fn behind(family: Family) -> Self {
        let net = Topology::new();
        publish(&net);
        let service = udp_socket(&net.lan, family.lan(), INSIDE);
        Self::with(net, family, service, &[SERVICE, INSIDE], |_, _| {}, &[])
    }

    /// Before the grant, `prepare` is done; and with it, the client speaks from these ports first.
    fn begun_after(family: Family, prepare: impl FnOnce(&Topology, &Installation), ports: &[u16]) -> Self {
        let net = Topology::new();
        let service = udp_socket(&net.router, family.router(), SERVICE);
        Self::with(net, family, service, &[SERVICE], prepare, ports)
    }

    fn with(
        net: Topology,
        family: Family,
        service: UdpSocket,
        to: &'static [u16],
        prepare: impl FnOnce(&Topology, &Installation),
        ports: &[u16],
    ) -> Self {
        let home = Installation::new(&config());
        let agent = home.start(&net.router);
        let client = udp_socket(&net.a, family.client_a(), CLIENT);
        for socket in [&service, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a time limit");
        }
        let out = Self { net, family, service, client, ports: to, _agent: agent, _home: home };
        assert!(!out.client_is_heard(), "open without a grant");
        prepare(&out.net, &out._home);
        while heard(&out.service) {}
        out._home.grant(&out.net.router, "vpn", family.client_a(), GRANT);
        for &port in ports {
            out.says_from(port);
            assert!(heard(&out.service), "closed with a grant");
        }
        assert!(out.client_is_heard() && out.service_is_heard(), "closed with a grant");
        out
    }

    fn client_is_heard(&self) -> bool {
        for &port in self.ports {
            let _ = self.client.send_to(b"hello", (self.family.router(), port));
        }
        let first = heard(&self.service);
        while first && heard(&self.service) {}
        first
    }

    fn says_from(&self, port: u16) {
        let other = udp_socket(&self.net.a, self.family.client_a(), port);
        let _ = other.send_to(b"from elsewhere", (self.family.router(), SERVICE));
    }

    /// The service speaks first, to where the client spoke from.
    fn service_is_heard(&self) -> bool {
        let _ = self.service.send_to(b"are you there", (self.family.client_a(), CLIENT));
        heard(&self.client)
    }

    fn tracking_forgets(&self) {
        self.net.router.run("conntrack", &["-F"]).success();
    }

    fn grant_ends(&self) {
        sleep(Duration::from_secs(u64::from(GRANT)) + Duration::from_millis(600));
    }

    fn is_over(&self) {
        for _ in 0..3 {
            assert!(!self.service_is_heard(), "the service reaches the client after the grant");
            assert!(!self.client_is_heard(), "the client reaches the service after the grant");
        }
    }
}

fn heard(socket: &UdpSocket) -> bool {
    receive(socket, &mut [0; 64]).is_ok()
}

fn a_service_that_speaks_first_after_the_grant_does_not_bring_it_back() {
    for family in Family::BOTH {
        let talk = Conversation::begun(family);
        talk.grant_ends();
        talk.tracking_forgets();
        talk.is_over();
    }
}

fn a_conversation_that_turned_around_during_the_grant_ends_with_it() {
    for family in Family::BOTH {
        let talk = Conversation::begun(family);
        talk.tracking_forgets();
        assert!(talk.service_is_heard() && talk.client_is_heard(), "the grant still counts");
        talk.grant_ends();
        talk.is_over();
        talk.tracking_forgets();
        talk.is_over();
    }
}

fn a_service_behind_a_port_that_others_translate_does_not_bring_it_back() {
    for family in Family::BOTH {
        let talk = Conversation::behind(family);
        talk.grant_ends();
        talk.tracking_forgets();
        talk.is_over();
        let more = config().app("other", "6000", "both", "local", &[]);
        talk._home.rewrite_config(more.text());
        assert!(talk._agent.reload().contains("STATUS=guarding\n"), "{}", talk._home.log());
        talk.is_over();
    }
}

fn a_conversation_with_such_a_service_that_turned_around_during_the_grant_ends_with_it() {
    for family in Family::BOTH {
        let talk = Conversation::behind(family);
        talk.tracking_forgets();
        assert!(talk.service_is_heard() && talk.client_is_heard(), "the grant still counts");
        talk.grant_ends();
        talk.is_over();
        talk.tracking_forgets();
        talk.is_over();
    }
}

fn a_connection_to_such_a_service_does_not_turn_around_after_its_grant_was_revoked() {
    let net = Topology::new();
    publish(&net);
    let keep = ["duration: 600", "established: keep"];
    let home = Installation::new(&Config::new(&[]).app("web", "5000", "tcp", "local", &keep));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let (router, client) = (family.router(), family.client_a());
        home.grant(&net.router, "web", client, 600);
        let listener = net.lan.enter(|| TcpListener::bind((family.lan(), INSIDE))).unwrap();
        let outside = dial(&net.a, (router, SERVICE).into(), GENEROUS).expect("a grant");
        let (inside, _) = listener.accept().unwrap();
        for stream in [&outside, &inside] {
            stream.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
        }
        assert!(reaches(&outside, &inside) && reaches(&inside, &outside), "closed with a grant");
        home.verb(&net.router, &["revoke", "web", &client.to_string()]).success();
        // The client knows the service's own port, and takes up the connection that comes from there. Where none
        // does, this host refuses what it sends there.
        net.a.nft(&format!(
            "table inet turning\ndelete table inet turning\ntable inet turning {{\n \
             chain out {{\n  type filter hook output priority -400\n  tcp dport {SERVICE} tcp dport set {INSIDE}\n }}\n \
             chain back {{\n  type filter hook prerouting priority -400\n  tcp flags & rst == rst drop\n  tcp sport {INSIDE} tcp sport set {SERVICE}\n }}\n}}\n"
        ));
        for _ in 0..3 {
            assert!(!reaches(&inside, &outside), "the service reaches the client, {family:?}");
            assert!(!reaches(&outside, &inside), "the client reaches the service, {family:?}");
        }
        net.a.nft("delete table inet turning");
        home.grant(&net.router, "web", client, 600);
        // Until the client's kernel tries once more.
        inside.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(reaches(&outside, &inside), "a grant takes it up again, the right way round, {family:?}");
        home.verb(&net.router, &["revoke", "--all"]).success();
    }
}

fn reaches(mut from: &TcpStream, mut to: &TcpStream) -> bool {
    let _ = from.write_all(b"x");
    loop {
        match to.read(&mut [0; 16]) {
            // Where this process was stopped meanwhile (signal(7): sockets with a time limit).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return matches!(read, Ok(1..)),
        }
    }
}

fn this_host_may_still_ask_a_former_client_from_a_guarded_port() {
    for family in Family::BOTH {
        let talk = Conversation::begun(family);
        talk.grant_ends();
        let own = udp_socket(&talk.net.router, family.router(), UNUSED);
        let other = udp_socket(&talk.net.a, family.client_a(), 9999);
        for socket in [&own, &other] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
        }
        own.send_to(b"question", (family.client_a(), 9999)).expect("our own question leaves");
        assert!(heard(&other), "the question arrives");
        other.send_to(b"answer", (family.router(), UNUSED)).expect("the answer leaves");
        assert!(heard(&own), "the answer arrives");
    }
}

fn the_ports_of_one_client_leave_room_for_the_conversations_of_others_to_end() {
    let family = Family::V4;
    let neighbour = |net: &Topology, home: &Installation| {
        home.grant(&net.router, "vpn", family.client_b(), 600);
        for port in 1..=u16::MAX {
            let socket = udp_socket(&net.b, family.client_b(), port);
            socket.send_to(b"and from here", (family.router(), SERVICE)).expect("sent");
        }
    };
    // With the first of these ends, all places for ends are taken.
    let talk = Conversation::begun_after(family, neighbour, &[9_000, 9_001]);
    talk.grant_ends();
    talk.tracking_forgets();
    talk.is_over();
    let list: &[&str] = match Backend::current() {
        Backend::Nftables => &["nft", "list", "set", "inet", "knock_agent", "spoken_by_4"],
        _ => &["ipset", "list", "ka_spoken_by_4"],
    };
    let without_room = talk.net.router.run(list[0], &list[1..]).success().text();
    let client = family.client_a().to_string();
    assert!(without_room.contains(&client), "there was room for every end: {without_room}");
}
