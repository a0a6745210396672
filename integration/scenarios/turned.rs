//! Services that take up a conversation by themselves, after connection tracking has forgotten the client.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::Duration;

use crate::agent::{Agent, Installation};
use crate::backend::{Backend, on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::probe::udp_socket;
use crate::server::receive;
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_service_that_speaks_first_after_the_grant_does_not_bring_it_back,
    a_conversation_that_turned_around_during_the_grant_ends_with_it,
    this_host_may_still_ask_a_former_client_from_a_guarded_port,
    the_ports_of_one_client_leave_room_for_the_conversations_of_others_to_end,
}

without_ipset! {
    a_service_that_speaks_first_after_the_grant_does_not_bring_it_back,
    a_conversation_that_turned_around_during_the_grant_ends_with_it,
}

const SERVICE: u16 = 5000;
const UNUSED: u16 = 5001;
const CLIENT: u16 = 7777;
const GRANT: u32 = 3;

/// A client and a UDP service that have spoken with each other, with a grant.
struct Conversation {
    net: Topology,
    family: Family,
    service: UdpSocket,
    client: UdpSocket,
    _agent: Agent,
    _home: Installation,
}

impl Conversation {
    fn begun(family: Family) -> Self {
        Self::begun_after(family, |_, _| {}, &[])
    }

    /// Before the grant, `prepare` is done; and with it, the client speaks from these ports first.
    fn begun_after(family: Family, prepare: impl FnOnce(&Topology, &Installation), ports: &[u16]) -> Self {
        let net = Topology::new();
        let home = Installation::new(&Config::new(&[]).app(
            "vpn",
            "[5000, 5001]",
            "both",
            "local",
            &["duration: 3"],
        ));
        let agent = home.start(&net.router);
        let service = udp_socket(&net.router, family.router(), SERVICE);
        let client = udp_socket(&net.a, family.client_a(), CLIENT);
        for socket in [&service, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a time limit");
        }
        let out = Self { net, family, service, client, _agent: agent, _home: home };
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
        let _ = self.client.send_to(b"hello", (self.family.router(), SERVICE));
        heard(&self.service)
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
