//! Ports that Docker publishes are guarded like any other.

use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::audit::{assert_quiet, find, findings};
use crate::configuration::Config;
use crate::docker::{Backend, Docker, INSIDE, PUBLISHED, Proxy};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, assert_udp_open, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// The container's own connections work as before.
#[track_caller]
fn assert_reaches_out(container: &Namespace, families: &[Family]) {
    for family in families {
        assert_echoes(container, family.client_b(), 7);
        assert_udp_open(container, family.client_b(), 7);
    }
}

fn published(backend: Backend, proxy: Proxy) {
    let net = Topology::new();
    let docker = Docker::new(&net, backend, proxy);
    let _services = [
        Server::tcp(&docker.container, INSIDE, Habit::Echo),
        Server::tcp(&net.b, 7, Habit::Echo),
        Server::udp(&net.b, 7, Habit::Echo),
    ];
    // With the proxy, the container has no IPv6 of its own that is translated.
    let outward = if proxy == Proxy::On { &Family::BOTH[..1] } else { &Family::BOTH[..] };
    for family in Family::BOTH {
        assert_echoes(&net.b, family.router(), PUBLISHED);
    }
    assert_reaches_out(&docker.container, outward);
    let config = Config::new(&[]).app("web", &PUBLISHED.to_string(), "tcp", "local", &["duration: 8"]);
    let home = Installation::new(&config);
    assert_quiet(&home, &net.router);
    let found = findings(&home, &net.router);
    let told = find(&found, "docker-published");
    assert!(told.message.contains("3080") && told.message.contains("172.17.0.2"), "{told:#?}");
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        assert_silent(&net.a, to, PUBLISHED);
        assert_silent(&net.b, to, PUBLISHED);
        assert_reaches_out(&docker.container, outward);
        knock(&net.a, to, "web");
        let due = Instant::now() + Duration::from_secs(8);
        assert_echoes(&net.a, to, PUBLISHED);
        assert_silent(&net.b, to, PUBLISHED);
        assert_reaches_out(&docker.container, outward);
        assert_on_time(when_silent(&net.a, to, PUBLISHED, due + Duration::from_secs(3)), due);
    }
    // The host itself and its containers are not outside.
    assert_echoes(&net.router, [203, 0, 113, 1].into(), PUBLISHED);
    assert_quiet(&home, &net.router);
}

#[test]
fn a_port_published_by_nftables_is_guarded() {
    published(Backend::Nftables, Proxy::Off);
}

#[test]
fn a_port_published_by_nftables_and_the_proxy_is_guarded() {
    published(Backend::Nftables, Proxy::On);
}

#[test]
fn a_port_published_by_iptables_is_guarded() {
    published(Backend::Iptables, Proxy::Off);
}

#[test]
fn a_port_published_by_iptables_and_the_proxy_is_guarded() {
    published(Backend::Iptables, Proxy::On);
}
