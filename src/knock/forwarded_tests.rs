use super::*;
use proptest::prelude::*;

const ALL: [ProxyHeader; 3] = [ProxyHeader::XRealIp, ProxyHeader::XForwardedFor, ProxyHeader::Forwarded];

/// Trusted are the proxies 10.0.0.0/24 and 2001:db8:ff::/48.
fn trusted() -> Trusted {
    "10.0.0.0/24,2001:db8:ff::/48".parse().unwrap()
}

fn name(header: ProxyHeader) -> &'static str {
    match header {
        ProxyHeader::XRealIp => "X-Real-IP",
        ProxyHeader::XForwardedFor => "X-Forwarded-For",
        ProxyHeader::Forwarded => "Forwarded",
        ProxyHeader::ProxyProtocol => unreachable!(),
    }
}

fn with_head(header: ProxyHeader, head: &str) -> Result<String, NoClient> {
    let request = format!("POST /x HTTP/1.1\r\nHost: h\r\n{head}Content-Length: 0\r\n\r\n");
    forwarded_client(request.as_bytes(), header, &trusted()).map(|client| client.to_string())
}

fn read(header: ProxyHeader, value: &str) -> Result<String, NoClient> {
    with_head(header, &format!("{}: {value}\r\n", name(header)))
}

#[test]
fn what_proxies_really_send_names_the_client() {
    use ProxyHeader::*;
    for (header, value, client) in [
        (XRealIp, "203.0.113.2", "203.0.113.2"),
        (XRealIp, " \t203.0.113.2 \t", "203.0.113.2"),
        (XRealIp, "2001:db8::2", "2001:db8::2"),
        (XRealIp, "2001:DB8:0:0::2", "2001:db8::2"),
        (XRealIp, "::ffff:203.0.113.2", "203.0.113.2"),
        (XForwardedFor, "203.0.113.2", "203.0.113.2"),
        (XForwardedFor, "198.51.100.1, 203.0.113.2", "203.0.113.2"),
        (XForwardedFor, "203.0.113.2, 10.0.0.7 ,10.0.0.8", "203.0.113.2"),
        (XForwardedFor, "198.51.100.1,203.0.113.2,2001:db8:ff::1", "203.0.113.2"),
        (XForwardedFor, "10.0.0.7, 2001:db8::2, ::ffff:10.0.0.8", "2001:db8::2"),
        (Forwarded, "for=203.0.113.2", "203.0.113.2"),
        (Forwarded, "For=203.0.113.2;proto=http;by=10.0.0.7", "203.0.113.2"),
        (Forwarded, "proto=https;host=\"a, b;for=1.1.1.1\";for=203.0.113.2", "203.0.113.2"),
        (Forwarded, "for=\"203.0.113.2\"", "203.0.113.2"),
        (Forwarded, "for=\"203.0.113.2:4711\"", "203.0.113.2"),
        (Forwarded, "for=\"[2001:db8::2]\"", "2001:db8::2"),
        (Forwarded, "for=\"[2001:db8::2]:65535\"", "2001:db8::2"),
        (Forwarded, "for=\"[::ffff:203.0.113.2]\"", "203.0.113.2"),
        (Forwarded, "for=unknown, for=_hidden;by=_x, for=203.0.113.2 , for=10.0.0.7", "203.0.113.2"),
        (Forwarded, "by=10.0.0.9, for=203.0.113.2", "203.0.113.2"),
    ] {
        assert_eq!(read(header, value).as_deref(), Ok(client), "{header:?} {value}");
    }
}

#[test]
fn names_of_headers_are_read_whatever_their_case() {
    for (header, head) in [
        (ProxyHeader::XRealIp, "x-real-ip: 203.0.113.2\r\n"),
        (ProxyHeader::XForwardedFor, "X-FORWARDED-FOR:203.0.113.2\r\n"),
        (ProxyHeader::Forwarded, "fOrWaRdEd: for=203.0.113.2\r\n"),
    ] {
        assert_eq!(with_head(header, head).as_deref(), Ok("203.0.113.2"));
    }
}

#[test]
fn a_header_that_is_missing_or_another_than_the_configured_one_says_nothing() {
    for header in ALL {
        assert_eq!(with_head(header, ""), Err(NoClient::Missing));
        for other in ALL.into_iter().filter(|&other| other != header) {
            let head = format!("{}: {}\r\n", name(other), good(other));
            assert_eq!(with_head(header, &head), Err(NoClient::Missing), "{header:?} {head}");
            let underscores = format!("{}: {}\r\n", name(header).replace('-', "_"), good(header));
            if underscores.contains('_') {
                assert_eq!(with_head(header, &underscores), Err(NoClient::Missing), "{underscores}");
            }
        }
    }
}

fn good(header: ProxyHeader) -> &'static str {
    if header == ProxyHeader::Forwarded { "for=203.0.113.2" } else { "203.0.113.2" }
}

#[test]
fn other_headers_beside_the_configured_one_change_nothing() {
    for header in ALL {
        let lie = |other| if other == ProxyHeader::Forwarded { "for=198.51.100.9" } else { "198.51.100.9" };
        let lines: String = ALL
            .into_iter()
            .map(|one| format!("{}: {}\r\n", name(one), if one == header { good(one) } else { lie(one) }))
            .collect();
        let more = "X-Client-IP: 1.1.1.1\r\nCF-Connecting-IP: 1.1.1.1\r\nTrue-Client-IP: 1.1.1.1\r\n";
        assert_eq!(with_head(header, &(lines + more)).as_deref(), Ok("203.0.113.2"), "{header:?}");
    }
}

#[test]
fn a_header_that_comes_twice_is_refused_even_if_both_agree() {
    for header in ALL {
        let line = format!("{}: {}\r\n", name(header), good(header));
        let lower = line.to_lowercase();
        assert_eq!(with_head(header, &format!("{line}{line}")), Err(NoClient::Repeated));
        assert_eq!(with_head(header, &format!("{lower}X: y\r\n{line}")), Err(NoClient::Repeated));
        let empty = format!("{}:\r\n", name(header));
        assert_eq!(with_head(header, &format!("{line}{empty}")), Err(NoClient::Repeated));
    }
}

#[test]
fn what_is_no_address_is_refused_wherever_it_stands() {
    for bad in [
        "",
        "unknown",
        "localhost",
        "-",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.02",
        "0xcb007102",
        "3405803778",
        "203.0.113.2.",
        "203.0.113.2/32",
        "203.0.113.2:80",
        "203.0.113.2 198.51.100.1",
        "203.0.113.2;",
        "\"203.0.113.2\"",
        "[2001:db8::2]",
        "[2001:db8::2]:80",
        "2001:db8::2%eth0",
        "2001:db8::2:::",
        "fe80::1%25eth0",
        "2001:db8::203.0.113.256",
        "٢٠٣.0.113.2",
        "203.0.113.2\u{a0}",
        "for=203.0.113.2",
        "$(id)",
    ] {
        assert_eq!(read(ProxyHeader::XRealIp, bad), Err(NoClient::Malformed), "{bad:?}");
        for list in [bad.to_owned(), format!("{bad}, 203.0.113.2"), format!("203.0.113.2,{bad}")] {
            assert_eq!(read(ProxyHeader::XForwardedFor, &list), Err(NoClient::Malformed), "{list:?}");
        }
    }
    assert_eq!(read(ProxyHeader::XRealIp, "203.0.113.2, 203.0.113.2"), Err(NoClient::Malformed));
}

#[test]
fn a_forwarded_header_that_is_not_exactly_right_is_refused() {
    for bad in [
        "",
        ",",
        ";",
        "for",
        "for=",
        "=203.0.113.2",
        "203.0.113.2",
        "for=203.0.113.2,",
        ",for=203.0.113.2",
        "for=203.0.113.2,,for=10.0.0.7",
        "for=203.0.113.2;",
        "for=203.0.113.2;;by=10.0.0.7",
        "for =203.0.113.2",
        "for= 203.0.113.2",
        "for=203.0.113.2 ;by=10.0.0.7",
        "for=203.0.113.2; by=10.0.0.7",
        "for=203.0.113.2 for=10.0.0.7",
        "for=203.0.113.2;for=10.0.0.7",
        "for=203.0.113.2;FOR=203.0.113.2",
        "for=203.0.113.2:80",
        "for=[2001:db8::2]",
        "for=2001:db8::2",
        "for=\"2001:db8::2\"",
        "for=\"[2001:db8::2\"",
        "for=\"2001:db8::2]\"",
        "for=\"[203.0.113.2]\"",
        "for=\"[2001:db8::2%eth0]\"",
        "for=\"[2001:db8::2]80\"",
        "for=\"[2001:db8::2]:\"",
        "for=\"[2001:db8::2]:123456\"",
        "for=\"203.0.113.2:_port\"",
        "for=\"203.0.113.2:-1\"",
        "for=\" 203.0.113.2\"",
        "for=\"203.0.113.2",
        "for=203.0.113.2\"",
        "for=\"203.0.113.2\\\"\"",
        "for=\"203.0.113\\.2\"",
        "for=\"203.0.113.2\"x",
        "for=\"\"",
        "for=\"_\"",
        "for=\"_hid den\"",
        "for=host.example",
        "for='203.0.113.2'",
        "for=\"é\"",
    ] {
        for text in [bad.to_owned(), format!("{bad}, for=203.0.113.2"), format!("for=203.0.113.2,{bad}")] {
            assert_eq!(read(ProxyHeader::Forwarded, &text), Err(NoClient::Malformed), "{text:?}");
        }
    }
}

#[test]
fn a_quote_that_a_client_left_open_does_not_swallow_what_the_proxy_added() {
    for injected in ["for=\"", "for=\"[::1];by=", "for=1.1.1.1;host=\"x", "for=\"\\"] {
        let text = format!("{injected}, for=203.0.113.2");
        assert_eq!(read(ProxyHeader::Forwarded, &text), Err(NoClient::Malformed), "{text}");
        let text = format!("{injected}, for=\"[2001:db8::2]\"");
        assert_eq!(read(ProxyHeader::Forwarded, &text), Err(NoClient::Malformed), "{text}");
    }
}

#[test]
fn a_hop_that_hides_its_address_is_no_client() {
    for value in ["for=unknown", "for=Unknown", "for=_abc", "for=\"_a.b-c\"", "by=203.0.113.2", "proto=http"]
    {
        assert_eq!(read(ProxyHeader::Forwarded, value), Err(NoClient::Hidden), "{value}");
        let behind = format!("for=203.0.113.2, {value}, for=10.0.0.7");
        assert_eq!(read(ProxyHeader::Forwarded, &behind), Err(NoClient::Hidden), "{behind}");
    }
}

#[test]
fn proxies_and_addresses_that_nobody_has_are_no_clients() {
    for (addr, why) in [
        ("10.0.0.9", NoClient::OnlyProxies),
        ("::ffff:10.0.0.9", NoClient::OnlyProxies),
        ("2001:db8:ff:ffff::1", NoClient::OnlyProxies),
        ("127.0.0.1", NoClient::NotAClient),
        ("127.9.9.9", NoClient::NotAClient),
        ("::1", NoClient::NotAClient),
        ("0.0.0.0", NoClient::NotAClient),
        ("0.1.2.3", NoClient::NotAClient),
        ("::", NoClient::NotAClient),
        ("255.255.255.255", NoClient::NotAClient),
        ("224.0.0.1", NoClient::NotAClient),
        ("ff02::1", NoClient::NotAClient),
        ("::ffff:127.0.0.1", NoClient::NotAClient),
    ] {
        assert_eq!(read(ProxyHeader::XRealIp, addr), Err(why), "{addr}");
        assert_eq!(read(ProxyHeader::XForwardedFor, addr), Err(why), "{addr}");
        let node = if addr.contains(':') { format!("for=\"[{addr}]\"") } else { format!("for={addr}") };
        assert_eq!(read(ProxyHeader::Forwarded, &node), Err(why), "{addr}");
    }
    assert_eq!(read(ProxyHeader::XForwardedFor, "10.0.0.1, 10.0.0.2"), Err(NoClient::OnlyProxies));
}

proptest! {
    #[test]
    fn no_value_makes_it_panic_and_whatever_it_reads_stands_there(
        value in "(for=|by=|\"|\\[|\\]|,|;|=|:|\\.| |\\\\|_|unknown|[0-9]{1,3}|[0-9a-f]{1,4}|203\\.0\\.113\\.2|2001:db8::2){0,14}",
    ) {
        for header in ALL {
            if let Ok(client) = read(header, &value) {
                let addr: IpAddr = client.parse().unwrap();
                let words: Vec<&str> = value.split(['"', '[', ']', ',', ';', '=', ' ']).collect();
                let there = words.iter().any(|word| {
                    let bare = word.split_once(':').filter(|_| addr.is_ipv4()).map_or(*word, |(host, _)| host);
                    [*word, bare].iter().any(|w| w.parse::<IpAddr>().is_ok_and(|a| ClientAddr::new(a).ip() == addr))
                });
                prop_assert!(there, "{header:?} {value:?} {client}");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut request = b"POST /x HTTP/1.1\r\nForwarded: ".to_vec();
        request.extend(&value);
        request.extend(b"\r\nX-Real-IP: \xff\r\n\r\n");
        for header in ALL {
            let _ = forwarded_client(&request, header, &trusted());
        }
    }

    /// What the client wrote never decides, as long as the proxy appends who it is.
    #[test]
    fn whatever_a_client_forges_it_is_itself_or_nobody(forged in "[ -~]{0,40}", v6 in any::<bool>()) {
        let own = if v6 { "2001:db8::2" } else { "203.0.113.2" };
        let node = if v6 { format!("for=\"[{own}]\"") } else { format!("for={own}") };
        for (header, appended) in [(ProxyHeader::XForwardedFor, own.to_owned()), (ProxyHeader::Forwarded, node)] {
            if let Ok(client) = read(header, &format!("{forged}, {appended}")) {
                prop_assert_eq!(client, own);
            }
        }
    }
}
