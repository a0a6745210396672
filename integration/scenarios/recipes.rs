//! Pages of the documentation, followed word by word; before and after it packets show that what a page promises is so.

use std::time::{Duration, Instant};

use crate::docker::{self, Docker, INSIDE, PUBLISHED};
use crate::namespace::Namespace;
use crate::pages::Hosts;
use crate::probe::{Reach, assert_echoes, assert_open, assert_silent, assert_udp_silent, tcp, udp_echoes};
use crate::server::{Habit, Server};
use crate::topology::Family;

/// Puts the program where a shell finds it.
const INSTALL: &str = "install -m 0755 ~/knock-agent/target/release/knock-agent /usr/local/bin/";

/// Follows a recipe after what stands before all of them.
fn recipe(mut hosts: Hosts, name: &str) -> Hosts {
    hosts.follow(&format!("docs/recipes/{name}.md"), None);
    hosts
}

/// Asserts that the client is let in, and the other one is not.
#[track_caller]
fn assert_let_in(hosts: &Hosts, families: &[Family], port: u16) {
    for family in families {
        assert_open(hosts.a(), family.router(), port);
        assert_silent(hosts.b(), family.router(), port);
    }
}

#[test]
fn the_quick_start_closes_ssh_and_lets_in_who_knocks() {
    let mut hosts = Hosts::new().with_ssh();
    for family in Family::BOTH {
        assert_open(hosts.b(), family.router(), 22);
    }
    hosts.follow("docs/quick-start.md", Some("## 6. "));
    let (answers, commands): (Vec<_>, Vec<_>) = hosts.typed.iter().partition(|typed| typed.answer);
    let lines: usize = commands.iter().map(|typed| typed.text.lines().count()).sum();
    let enters = answers.iter().filter(|typed| typed.text.is_empty()).count();
    let said = format!(
        "{lines} lines to type or paste, and {} questions, {enters} of them answered by Enter alone",
        answers.len()
    );
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quick-start.md")).unwrap();
    assert!(page.contains(&said), "docs/quick-start.md does not say: {said}");
    for family in Family::BOTH {
        assert_silent(hosts.b(), family.router(), 22);
    }
    hosts.client.does("ssh root@gate.example.com true");
    hosts.follow_from("docs/quick-start.md", "## 6. ");
    for family in Family::BOTH {
        assert_silent(hosts.b(), family.router(), 22);
        assert_silent(hosts.a(), family.router(), 22);
    }
}

#[test]
fn what_the_readme_shows_closes_ssh_with_secrets_that_init_made() {
    let mut hosts = Hosts::new().with_ssh();
    assert_open(hosts.b(), Family::V4.router(), 22);
    hosts.follow("README.md", None);
    for family in Family::BOTH {
        assert_silent(hosts.b(), family.router(), 22);
    }
    let curl = hosts.pasted("Or with curl, towards gate.example.com:");
    assert!(hosts.client.shell(&format!("set +e\n{curl}")).printed.contains("OK"));
    hosts.client.does("ssh root@gate.example.com true");
}

#[test]
fn ssh_on_a_vps_knocks_by_itself_and_is_closed_behind_it() {
    let hosts = Hosts::new().prepared();
    // What the quick start leaves runs, with paths and keys of its own.
    hosts.gateway.does(
        "knock-agent init --yes --service 22 --app ssh --host gate.example.com >init.out && \
         systemctl enable --now knock-agent-guard knock-agent",
    );
    let hosts = recipe(hosts, "ssh-on-a-vps");
    for family in Family::BOTH {
        assert_silent(hosts.a(), family.router(), 22);
        assert_silent(hosts.b(), family.router(), 22);
    }
    hosts.client.does("ssh gate true");
    // Who else has a key for it needs a code: the gateway asks for one, and none is there.
    hosts.client.does(&hosts.own(
        "sed 's/^user: me/user: alice/; s/replace-this-key-1/replace-her-key-1/; s/replace-this-key-2/replace-her-key-2/' \
         ~/.config/knock-agent/home.yaml >~/.config/knock-agent/alice.yaml; chmod 600 ~/.config/knock-agent/alice.yaml",
    ));
    let asked = hosts.client.shell("knock-agent knock alice");
    assert_eq!(asked.code, Some(14), "{}", asked.printed);
}

#[test]
fn rdp_behind_a_router_reaches_the_desktop_for_who_knocked() {
    let hosts = Hosts::new().prepared();
    let _desktop =
        [Server::tcp(&hosts.net.lan, 3389, Habit::Echo), Server::udp(&hosts.net.lan, 3389, Habit::Echo)];
    let hosts = recipe(hosts, "rdp-behind-a-router");
    let router = Family::V4.router();
    assert_echoes(hosts.a(), router, 33890);
    assert!(udp_echoes(hosts.a(), router, 33890, Duration::from_secs(4)));
    assert_silent(hosts.b(), router, 33890);
    assert_udp_silent(hosts.b(), router, 33890);
    assert_silent(hosts.b(), Family::V4.lan(), 3389);
}

/// Asserts that nothing comes back to the other one.
#[track_caller]
fn assert_nobody_else_at(host: &Namespace, port: u16) {
    for family in Family::BOTH {
        assert_udp_silent(host, family.router(), port);
    }
}

#[test]
fn wireguard_is_hidden_and_comes_up_after_its_knock() {
    let hosts = Hosts::new().prepared();
    // Every kernel has TUN; WireGuard's own module not.
    let tunnel = |host: &crate::pages::host::Host, address: &str, more: &str| {
        host.does(&format!(
            "umask 077; mkdir -p /etc/wireguard; cd /etc/wireguard; wg genkey >key; wg pubkey <key >public\n\
             printf '[Interface]\\nPrivateKey = %s\\nAddress = {address}/24\\n{more}' \"$(cat key)\" >wg0.conf"
        ));
        std::fs::read_to_string(host.path("/etc/wireguard/public")).unwrap().trim().to_owned()
    };
    let gateway = tunnel(&hosts.gateway, "10.99.0.1", "ListenPort = 51820\\n");
    let client = tunnel(&hosts.client, "10.99.0.2", "");
    let peer = |key: &str, more: &str| {
        format!("printf '[Peer]\\nPublicKey = {key}\\n{more}' >>/etc/wireguard/wg0.conf")
    };
    hosts.gateway.does(&peer(&client, "AllowedIPs = 10.99.0.2/32\\n"));
    hosts.client.does(&peer(&gateway, "AllowedIPs = 10.99.0.1/32\\nEndpoint = 203.0.113.1:51820\\n"));
    hosts.gateway.does("wg-quick up wg0");
    let hosts = recipe(hosts, "wireguard-hidden");
    // Root needs nothing of the user's home for it, and comes up at each boot.
    hosts
        .client
        .does("wg-quick down wg0; rm -r ~/.config/knock-agent; wg-quick up wg0; ping -c 1 -W 5 10.99.0.1");
    // The same tunnel without its knock, from another address: nothing gets in.
    let config = std::fs::read_to_string(hosts.client.path("/etc/wireguard/wg0.conf")).unwrap();
    let config: String = config.lines().filter(|l| !l.starts_with("PreUp")).flat_map(|l| [l, "\n"]).collect();
    hosts.client.does("wg-quick down wg0");
    hosts.other.does("mkdir -p /etc/wireguard");
    std::fs::write(hosts.other.path("/etc/wireguard/wg0.conf"), config).unwrap();
    hosts.other.does("wg-quick up wg0; ! ping -c 2 -W 1 10.99.0.1");
    assert_nobody_else_at(hosts.b(), 51820);
}

#[test]
fn openvpn_is_hidden_and_comes_up_after_its_knock() {
    let hosts = Hosts::new().prepared();
    for (host, name) in [(&hosts.gateway, "server"), (&hosts.client, "client")] {
        host.does(&format!(
            "cd /etc/openvpn/{name} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
             -keyout key.pem -out cert.pem -days 30 -subj /CN={name} 2>/dev/null"
        ));
    }
    let print = |host: &crate::pages::host::Host, name: &str| {
        let text = host.does(&format!(
            "openssl x509 -noout -fingerprint -sha256 -in /etc/openvpn/{name}/cert.pem | cut -d= -f2"
        ));
        text.trim().to_owned()
    };
    let (server, client) = (print(&hosts.gateway, "server"), print(&hosts.client, "client"));
    let common = "dev tun\ncert cert.pem\nkey key.pem\ndata-ciphers AES-256-GCM\n";
    std::fs::write(
        hosts.gateway.path("/etc/openvpn/server/office.conf"),
        format!(
            "{common}port 1194\nproto udp4\ntls-server\ndh none\npeer-fingerprint {client}\n\
             topology subnet\nserver 10.98.0.0 255.255.255.0\n"
        ),
    )
    .unwrap();
    let config = format!(
        "{common}client\nremote 203.0.113.1 1194 udp4\npeer-fingerprint {server}\nnobind\nconnect-timeout 4\n"
    );
    std::fs::write(hosts.client.path("/etc/openvpn/client/office.conf"), &config).unwrap();
    hosts.gateway.does("systemctl start openvpn-server@office");
    let hosts = recipe(hosts, "openvpn-hidden");
    // Root needs nothing of the user's home for it.
    hosts.client.does("rm -r ~/.config/knock-agent; systemctl restart openvpn-client@office");
    assert_nobody_else_at(hosts.b(), 1194);
}

/// Has Docker itself publish the port of a container, by the page's own line.
fn publish_by_docker_itself(hosts: &Hosts) {
    hosts.gateway.does("~/knock-agent/integration/pages/docker");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recipes/docker-published-port.md");
    let page = std::fs::read_to_string(page).unwrap();
    let line = page.lines().find(|line| line.starts_with("docker run ")).expect("the page publishes a port");
    hosts.gateway.does(line);
}

#[test]
fn a_port_of_docker_is_closed_and_opens_for_who_knocked() {
    let hosts = Hosts::new().prepared();
    if crate::pages::host::is_booted() {
        publish_by_docker_itself(&hosts);
        let hosts = recipe(hosts, "docker-published-port");
        let closed = |hosts: &Hosts| {
            assert_silent(hosts.b(), Family::V4.router(), PUBLISHED);
            assert_silent(hosts.b(), Family::V6.router(), PUBLISHED);
        };
        closed(&hosts);
        // Docker writes its rules anew.
        hosts.gateway.does("systemctl restart docker && docker start wiki");
        closed(&hosts);
        hosts.client.does("curl -sm 5 -o /dev/null http://gate.example.com:3080/");
        return;
    }
    let docker = Docker::new(&hosts.net, docker::Backend::Nftables, docker::Proxy::On);
    let mut serve = std::process::Command::new("python3");
    serve.args(["-m", "http.server", &INSIDE.to_string()]).current_dir("/usr/share/doc");
    serve.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _web = docker.container.background(serve);
    let end = Instant::now() + Duration::from_secs(60);
    while tcp(&docker.container, ([127, 0, 0, 1], INSIDE).into(), Duration::from_secs(1)) != Reach::Open {
        assert!(Instant::now() < end, "the container does not serve");
    }
    let hosts = recipe(hosts, "docker-published-port");
    assert_silent(hosts.b(), Family::V4.router(), PUBLISHED);
    assert_silent(hosts.b(), Family::V6.router(), PUBLISHED);
}

#[test]
fn on_openwrt_what_is_let_in_passes_fw4() {
    let hosts = Hosts::named("wan", "br-lan").prepared();
    let rules = std::fs::read_to_string(crate::hosts::file("openwrt.nft")).unwrap();
    let rules = rules.replace("ext0", "wan").replace("int0", "br-lan").replace(
        "icmp type echo-request accept",
        "icmp type echo-request accept\n\t\ttcp dport { 8080, 8443 } accept",
    );
    hosts.net.router.nft(&rules);
    let _camera = Server::tcp(&hosts.net.lan, 443, Habit::Echo);
    let hosts = recipe(hosts, "openwrt");
    assert_let_in(&hosts, &Family::BOTH, 22);
    assert_silent(hosts.a(), Family::V4.router(), 9443);
    hosts.client.does(&hosts.own(
        "sed 's/replace-this-key-1/replace-this-key-3/; s/replace-this-key-2/replace-this-key-4/' \
         ~/.config/knock-agent/home.yaml >~/.config/knock-agent/camera.yaml\n\
         chmod 600 ~/.config/knock-agent/camera.yaml\nknock-agent knock camera --app camera",
    ));
    assert_echoes(hosts.a(), Family::V4.router(), 9443);
    assert_silent(hosts.b(), Family::V4.router(), 9443);
}

#[test]
fn a_home_router_is_guarded_whatever_address_it_gets() {
    let hosts = Hosts::named("ppp0", "eth1").prepared();
    let _photos = Server::tcp(&hosts.net.lan, 443, Habit::Echo);
    let hosts = recipe(hosts, "home-router-dynamic-address");
    let old = Family::V4.router();
    assert_echoes(hosts.a(), old, 8443);
    assert_silent(hosts.b(), old, 8443);
    // The provider gives another address, and the name follows.
    let change = "addr del 203.0.113.1/24 dev ppp0\naddr add 203.0.113.77/24 dev ppp0\n";
    hosts.net.router.feed("ip", &["-batch", "-"], change.as_bytes()).success();
    hosts
        .client
        .does("sed -i 's/^203.0.113.1 /203.0.113.77 /' /etc/hosts; knock-agent knock home --app photos -4");
    let new = [203, 0, 113, 77].into();
    assert_silent(hosts.b(), new, 8443);
    assert_echoes(hosts.a(), new, 8443);
}

#[test]
fn behind_nginx_ssh_opens_for_who_knocked() {
    let hosts = recipe(Hosts::new().prepared(), "nginx-in-front");
    assert_let_in(&hosts, &Family::BOTH, 22);
    // The agent's own ports are for nginx alone.
    assert_silent(hosts.a(), Family::V4.router(), 8081);
    assert_silent(hosts.a(), Family::V4.router(), 8444);
}

#[test]
fn a_knock_sequence_and_one_that_changes_open_ssh() {
    let hosts = recipe(Hosts::new().prepared(), "knock-sequence");
    assert_let_in(&hosts, &[Family::V4], 22);
    assert_silent(hosts.b(), Family::V6.router(), 22);
}

#[test]
fn what_operations_says_works_in_that_order_and_leaves_nothing() {
    let mut hosts = Hosts::new().with_ssh();
    hosts.follow("docs/quick-start.md", Some("## 6. "));
    assert_silent(hosts.b(), Family::V4.router(), 22);
    hosts.follow("docs/operations.md", Some("## Backup"));
    // A key was changed, the certificate too, and the port stayed closed.
    assert_silent(hosts.b(), Family::V4.router(), 22);
    hosts.follow_from("docs/operations.md", "## Backup");
    assert_open(hosts.b(), Family::V4.router(), 22);
    assert!(!hosts.net.router.run("nft", &["list", "tables"]).text().contains("knock_agent"));
}

#[test]
fn the_pages_on_sequences_and_proxies_are_right() {
    let mut hosts = Hosts::new().prepared();
    assert_open(hosts.b(), Family::V4.router(), 22);
    hosts.follow("docs/sequences.md", None);
    assert_let_in(&hosts, &[Family::V4], 22);
    hosts.follow("docs/proxy.md", None);
}

#[test]
fn configurations_of_the_pages_on_moving_containers_and_vyos_are_right() {
    let mut hosts = Hosts::new();
    hosts.follow("docs/containers.md", None);
    hosts.follow("docs/vyos.md", None);
    hosts.gateway.does(INSTALL);
    for page in ["knockd", "fwknop", "nfknock", "knock-knock"] {
        hosts.follow(&format!("docs/migration/{page}.md"), None);
    }
}

#[test]
fn rules_with_recent_become_one_command_and_a_configuration() {
    let page = "docs/migration/iptables-recent.md";
    let mut hosts = Hosts::new();
    hosts.gateway.does(INSTALL);
    hosts.client.does(INSTALL);
    let _greeting = Server::tcp(&hosts.net.router, 2222, Habit::Echo);
    hosts.follow(page, Some("And from a client"));
    let (door, end) = (Family::V4.router(), Instant::now() + Duration::from_secs(60));
    while tcp(hosts.b(), (door, 2222).into(), Duration::from_secs(1)) != Reach::Silent {
        assert!(Instant::now() < end, "the port is not guarded");
    }
    hosts.follow_from(page, "And from a client");
    assert_echoes(hosts.a(), door, 2222);
    assert_silent(hosts.b(), door, 2222);
}

#[test]
fn installing_by_hand_and_the_two_requests_by_curl_open_ssh() {
    let mut hosts = Hosts::new().with_ssh();
    hosts.follow("docs/install-by-hand.md", None);
    assert_silent(hosts.a(), Family::V6.router(), 22);
    let certificate = std::fs::read(hosts.gateway.path("/etc/knock-agent/cert.pem")).unwrap();
    std::fs::write(hosts.client.path("~/cert.pem"), certificate).unwrap();
    hosts.follow("docs/requests.md", None);
    // By the family that curl took.
    let open = Family::BOTH
        .iter()
        .filter(|f| tcp(hosts.a(), (f.router(), 22).into(), Duration::from_secs(4)) == Reach::Open);
    assert_eq!(open.count(), 1);
    assert_silent(hosts.b(), Family::V6.router(), 22);
    assert_silent(hosts.b(), Family::V4.router(), 22);
}

#[test]
fn what_troubleshooting_says_of_curl_is_so() {
    let mut hosts = Hosts::new().prepared();
    let curl = |hosts: &Hosts, words: &str| {
        let words = hosts.own(words);
        let done = hosts.client.shell(&format!("curl -4 -s -o /dev/null -w '%{{http_code}}\\n' {words}"));
        (done.code.unwrap(), done.printed.trim().to_owned())
    };
    let one = "-m 2 -d 'app=ssh&access_key=replace-this-key-1' http://gate.example.com/replace-this-path-1";
    let ca = "-m 20 --cacert ~/.config/knock-agent/cert.pem";
    let two = format!("{ca} https://gate.example.com/replace-this-path-2");
    assert_eq!(curl(&hosts, one).0, 7, "nobody listens");
    assert_eq!(curl(&hosts, "-m 5 http://no.such.name/").0, 6);
    let config = "global: {http_post_path: /replace-this-path-1, https_post_path: /replace-this-path-2,\n\
                  \x20 interface_ext: eth0, step1_2_rate_limit_per_minute: 10}\n\
                  ssh: {port: 22, duration: 1h, step2_https_duration: 5m, access_key_http: [replace-this-key-1],\n\
                  \x20 access_key_https: [replace-this-key-2]}\n";
    std::fs::write(hosts.gateway.path("/etc/knock-agent/config.yaml"), hosts.own(config)).unwrap();
    hosts
        .gateway
        .does("systemd-tmpfiles --create knock-agent.conf; systemctl start knock-agent-guard knock-agent");
    assert_eq!(curl(&hosts, &format!("{two} -m 2")).0, 28, "step 2 before step 1");
    assert_eq!(curl(&hosts, one).0, 28);
    assert_eq!(curl(&hosts, "-m 20 -d a=b https://gate.example.com/replace-this-path-2").0, 60);
    let answers = [
        ("-d app=ssh", "400"),
        ("-d 'app=ssh&access_key=not-the-right-key'", "403"),
        ("", "405"),
        ("-d 'app=ssh&access_key=replace-this-key-2'", "200"),
    ];
    for (words, code) in answers {
        assert_eq!(curl(&hosts, &format!("{two} {words}")), (0, code.to_owned()), "{words}");
    }
    assert_eq!(curl(&hosts, one).0, 28);
    let other = two.replace("path-2", "path-of-nobody");
    assert_eq!(curl(&hosts, &format!("{other} -d a=b")), (0, "404".to_owned()));
    let right = format!("{two} -d 'app=ssh&access_key=replace-this-key-2'");
    let often = (0..12).any(|_| curl(&hosts, &right).1 == "429");
    assert!(often, "nothing is too often");
    hosts.gateway.does("systemctl restart knock-agent");
    hosts.follow("docs/troubleshooting.md", None);
    // The client's own page, for a profile that has what that page's has.
    hosts.gateway.does("systemctl restart knock-agent");
    hosts.client.does("echo 'check: 22' >>~/.config/knock-agent/home.yaml");
    hosts.follow("docs/client.md", None);
}
