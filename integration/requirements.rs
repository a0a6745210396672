use std::path::Path;
use std::sync::OnceLock;

/// Each tool the tests start, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("iptables-legacy", "iptables"),
    ("iptables-nft", "iptables"),
    ("ipset", "ipset"),
    ("sudo", "sudo"),
    ("visudo", "sudo"),
    ("curl", "curl"),
    ("iptables-nft", "iptables"),
    ("nmap", "nmap"),
    ("hping3", "hping3"),
    ("scapy", "python3-scapy"),
    ("knock", "knockd"),
    ("tcpdump", "tcpdump"),
    ("conntrack", "conntrack"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("ping", "iputils-ping"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("dash", "dash"),
    ("wg-quick", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("openvpn", "openvpn"),
    ("unshare", "util-linux"),
    ("systemd-sysusers", "systemd"),
    ("oathtool", "oathtool"),
    ("zbarimg", "zbar-tools"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("nsenter", "util-linux"),
    ("iptables-nft", "iptables"),
    ("iptables-legacy", "iptables"),
    ("ufw", "ufw"),
    ("firewalld", "firewalld"),
    ("dbus-daemon", "dbus"),
    ("strace", "strace"),
    ("fail2ban-regex", "fail2ban"),
    ("fail2ban-server", "fail2ban"),
    ("pass", "pass"),
    ("gpg", "gnupg"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("caddy", "caddy"),
    ("pkill", "procps"),
    ("whois", "whois"),
    ("systemd-analyze", "systemd"),
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("stty", "coreutils"),
    ("journalctl", "systemd"),
    ("/lib/systemd/systemd-journal-remote", "systemd-journal-remote"),
    ("readelf", "binutils"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("man", "man-db"),
    ("mandoc", "mandoc"),
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
];

/// Stops the test unless it runs as root and every tool is there.
pub fn demand() {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(survey);
    assert!(
        missing.is_empty(),
        "this test cannot run here:\n  {}\n`integration/test` installs what is missing and runs the tests as root",
        missing.join("\n  ")
    );
}

fn survey() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("it makes network namespaces, which needs root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (tool, package) in TOOLS {
        let found = std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(|p| Path::new(p).to_owned()))
            .any(|folder| folder.join(tool).is_file());
        if !found {
            missing.push(format!("`{tool}` is not installed: apt-get install {package}"));
        }
    }
    missing
}
