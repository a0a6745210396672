//! What a user may say to iptables' programs as root: what this program itself says to them, about what is ours. Lines for ipset
//! could name a file to write (`-file`), and those for iptables-restore a program to run (`-M`).

use super::model::{CHAIN_PREFIX, SET_PREFIX};

/// Less than the programs read of a line at once: they take what is behind that for another line.
const MAX_FOR_SETS: usize = 1_000;
const MAX_FOR_TABLES: usize = 10_000;
const TABLES: [&str; 4] = ["mangle", "raw", "filter", "nat"];
/// All that begins with `-` in our rules. What is left out here may read or start something; the programs take
/// the beginning of a long one for the whole.
const OPTIONS: &[&str] = &[
    "-s",
    "-d",
    "-i",
    "-o",
    "-p",
    "-m",
    "-j",
    "-g",
    "--dport",
    "--sport",
    "--dports",
    "--tcp-flags",
    "--length",
    "--ctstate",
    "--ctproto",
    "--ctorigdstport",
    "--ctdir",
    "--src-type",
    "--dst-type",
    "--comment",
    "--bytecode",
    "--u32",
    "--match-set",
    "--update-counters",
    "--packets-lt",
    "--packets-gt",
    "--add-set",
    "--del-set",
    "--exist",
    "--timeout",
    "--hashlimit-above",
    "--hashlimit-burst",
    "--hashlimit-mode",
    "--hashlimit-name",
    "--hashlimit-htable-size",
    "--hashlimit-htable-max",
    "--hashlimit-htable-expire",
    "--hashlimit-htable-gcinterval",
    "--hashlimit-srcmask",
    "--rcheck",
    "--set",
    "--update",
    "--remove",
    "--seconds",
    "--name",
    "--mask",
    "--rsource",
    "--rdest",
    "--set-xmark",
    "--nflog-prefix",
    "--nflog-group",
    "--nflog-size",
    "--notrack",
    "--to-destination",
];
/// What takes the name of a part of the programs, which is a file.
const NAMING: [&str; 4] = ["-p", "-m", "-j", "-g"];

/// The number of the first line that does not just change our sets; none where all do.
#[must_use]
pub fn beyond_sets(text: &str) -> Option<usize> {
    first(text, |line| {
        line.len() <= MAX_FOR_SETS
            && words(line).is_some_and(|words| {
                let named = match words.as_slice() {
                    ["create" | "add" | "del", set, _, ..] | ["flush" | "destroy", set] => is_our_set(set),
                    ["swap", one, other] => is_our_set(one) && is_our_set(other),
                    _ => false,
                };
                named && !words.iter().any(|word| word.starts_with('-'))
            })
    })
}

/// The number of the first line that does not just list one of our sets; none where all do.
#[must_use]
pub fn beyond_listing(text: &str) -> Option<usize> {
    first(text, |line| {
        let set = line.strip_prefix("save ").and_then(words);
        line.len() <= MAX_FOR_SETS
            && set.is_some_and(|set| matches!(set.as_slice(), [set] if is_our_set(set)))
    })
}

/// The number of the first line that does not just change our chains, or what leads to them; none where all do.
#[must_use]
pub fn beyond_tables(text: &str) -> Option<usize> {
    first(text, |line| line.len() <= MAX_FOR_TABLES && is_for_tables(line))
}

fn is_for_tables(line: &str) -> bool {
    if let Some(table) = line.strip_prefix('*') {
        return TABLES.contains(&table);
    }
    let Some(words) = words(line) else { return false };
    match words.as_slice() {
        ["COMMIT"] => true,
        [chain, "-", "[0:0]"] => chain.strip_prefix(':').is_some_and(is_our_chain),
        ["-X", chain] => is_our_chain(chain),
        ["-A" | "-I" | "-D", chain, rule @ ..] => {
            let pairs = || rule.iter().zip(rule.iter().skip(1));
            let leads = || pairs().any(|(word, to)| ["-j", "-g"].contains(word) && is_our_chain(to));
            !chain.starts_with('-')
                && (is_our_chain(chain) || leads())
                && rule.iter().all(|word| !word.starts_with('-') || OPTIONS.contains(word))
                && pairs().all(|(word, name)| !NAMING.contains(word) || !name.contains('/'))
        }
        _ => false,
    }
}

fn is_our_set(name: &str) -> bool {
    name.starts_with(SET_PREFIX)
}

fn is_our_chain(name: &str) -> bool {
    name.starts_with(CHAIN_PREFIX)
}

fn first(text: &str, may: impl Fn(&str) -> bool) -> Option<usize> {
    // Not `lines`, which takes a carriage return for the end of one.
    let all = text.strip_suffix('\n').unwrap_or(text);
    let index = all.split('\n').position(|line| !may(line));
    index.filter(|_| !text.is_empty()).map(|index| index + 1)
}

/// The words of a line as both programs read it, where they do so alike: quotes are around whole words.
fn words(line: &str) -> Option<Vec<&str>> {
    if line.chars().any(|c| c.is_control() || c == '\\') {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
        };
        if word.contains('"') || !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        out.push(word);
        rest = after.trim_start_matches(' ');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::diff::{Change, SetRef};
    use crate::ruleset::iptables::{elements, plan, restore, save};
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::{Element, Elements, Timeout};
    use crate::ruleset::plan::arbitrary;

    const CONFIGURATIONS: [&str; 3] = [
        "global:\n  interface_ext: [eth0, wan-1]\n  interface_int: eth1\n  http_post_path: /a-path\n  https_post_path: /b-path\n  ipv6_prefix: 64\n  allow: [10.0.0.0/8, \"::/0\"]\n\
         ssh:\n  port: [22, \"6000-6010\"]\n  protocol: both\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n\
         lan:\n  port: 3389\n  protocol: both\n  destination: 192.168.1.5:3390\n  duration: 1h\n  established: keep\n  masquerade: true\n  access_key_http: [first-secret2]\n  access_key_https: [other-secret2]\n\
         lan6:\n  port: 3389\n  established: keep\n  destination: \"[fd00:5::5]:22\"\n  duration: 1h\n  access_key_http: [first-secret3]\n  access_key_https: [other-secret3]\n",
        "global:\n  interface_ext: eth0\n  steps: off\n  mark: 1/0xff\n\
         ssh:\n  port: 22\n  duration: 1h\n  sequence: [{knocks: [tcp/1234, udp/5678], strict: true}, {knocks: [tcp/99, tcp/98, tcp/97], duration: 10m}]\n\
         dns:\n  port: 53\n  protocol: udp\n  duration: 1h\n  sequence: {knocks: [tcp/1234, udp/5679], closing: [tcp/7, tcp/8]}\n",
        "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  mark: 0\n\
         ssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n",
    ];

    fn plans() -> Vec<crate::ruleset::iptables::model::Tables> {
        let port = |n| std::num::NonZeroU16::new(n).unwrap();
        let options = Options { http_port: port(80), https_port: port(443), inner_header: true, log: true };
        let mut out = Vec::new();
        for text in CONFIGURATIONS {
            let settings = crate::config::parse("x", text, None, &crate::config::Alone);
            let settings = settings.unwrap_or_else(|report| panic!("{report:?}")).settings;
            for matcher in [plan::Matcher::Bpf, plan::Matcher::U32] {
                out.push(plan::plan(&settings, options, matcher, plan::Keeping::Ipset).unwrap());
            }
        }
        out
    }

    #[test]
    fn what_this_program_says_is_permitted() {
        for tables in plans() {
            for family in [&tables.ipv4, &tables.ipv6] {
                let text = restore::text(family);
                let refused = beyond_tables(&text);
                assert_eq!(refused, None, "{:?}", refused.and_then(|n| text.lines().nth(n - 1)));
                let removal = restore::removal(&save::listing(&text));
                assert!(removal.iter().all(|change| beyond_tables(&change.text).is_none()));
            }
            let created: String = tables.ipsets.iter().map(elements::creation).collect();
            assert_eq!(beyond_sets(&elements::signed(&created, "boot 1-2")), None, "{created}");
        }
        let timeout = Some(Timeout { total_ms: 60_000, left_ms: 60_000 });
        let comment = Some("bob \"the\\ O'Brien-é two-step".to_owned());
        let key = crate::ruleset::allow::address_key("2001:db8::2".parse().unwrap());
        let elements = Elements::from([(key, Element { timeout, comment, ..Element::default() })]);
        let set = SetRef { interval: true, ..SetRef::plain("allow_all_6") };
        let changes = [
            Change::AddElements { set: set.clone(), elements: elements.clone() },
            Change::DeleteElements { set, elements },
            Change::FlushSet("app_ssh_4".into()),
        ];
        let commands = elements::commands(&changes[..1]).unwrap().opening
            + &elements::commands(&changes[1..]).unwrap().closing
            + "swap ka_new ka_app_ssh_4\ndestroy ka_new\n";
        assert_eq!(beyond_sets(&commands), None, "{commands}");
        assert_eq!(beyond_listing("save ka_app_ssh_4\nsave ka_allow_all_4\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_configured_is_permitted(settings in arbitrary::settings(), options in arbitrary::options()) {
            for matcher in [plan::Matcher::Bpf, plan::Matcher::U32] {
                let Ok(tables) = plan::plan(&settings, options, matcher, plan::Keeping::Ipset) else { continue };
                for family in [&tables.ipv4, &tables.ipv6] {
                    proptest::prop_assert_eq!(beyond_tables(&restore::text(family)), None);
                }
                let created: String = tables.ipsets.iter().map(elements::creation).collect();
                proptest::prop_assert_eq!(beyond_sets(&created), None);
            }
        }
    }

    #[test]
    fn no_line_for_ipset_names_a_file_or_what_is_not_ours() {
        for line in [
            "save -file /etc/profile.d/x.sh",
            "add ka_x 192.0.2.9 -file /etc/shadow",
            "add ka_x 192.0.2.9 \"-file\" /etc/shadow",
            "add ka_x 192.0.2.9 \"\"-file /etc/shadow",
            "add ka_x 192.0.2.9 -\"\"file /etc/shadow",
            "add ka_x 192.0.2.9\t-file /etc/shadow",
            "add ka_x 192.0.2.9\r-file /etc/shadow",
            "add ka_x 192.0.2.9 comment \"a\" \"-o\" save",
            "add ka_x 192.0.2.9 comment \"a\\\" -file /etc/shadow",
            "add ka_x 192.0.2.9 comment \"a",
            "-file /etc/shadow",
            "add theirs 192.0.2.9",
            "flush",
            "destroy",
            "destroy theirs",
            "swap ka_x theirs",
            "create theirs hash:ip",
            "rename ka_x theirs",
            "restore",
            "save ka_x",
            "",
        ] {
            assert_eq!(beyond_sets(&format!("flush ka_x\n{line}\n")), Some(2), "{line:?}");
        }
        // What is cut off would be the next line.
        let long = format!("add ka_x 192.0.2.9 comment \"{} -file /etc/shadow\"\n", "x".repeat(1_000));
        assert_eq!(beyond_sets(&long), Some(1));
        for line in
            ["save -file /etc/shadow", "save", "save theirs", "save ka_x -file /a", "add ka_x 1.2.3.4"]
        {
            assert_eq!(beyond_listing(&format!("{line}\n")), Some(1), "{line:?}");
        }
        assert_eq!(beyond_listing(""), None);
    }

    #[test]
    fn no_line_for_iptables_names_a_program_or_what_is_not_ours() {
        for line in [
            "-A KA-a -M /tmp/x -j DROP",
            "-A KA-a -M/tmp/x -j DROP",
            "-A KA-a --modprobe=/tmp/x -j DROP",
            "-A KA-a --modp /tmp/x -j DROP",
            "-A KA-a -4M/tmp/x -j DROP",
            "-A KA-a \"-M\" /tmp/x -j DROP",
            "-A KA-a \"\"-M /tmp/x -j DROP",
            "-A KA-a\t-M /tmp/x -j DROP",
            "-A KA-a -m comment --comment \"a\\\" -M /tmp/x \" -j DROP",
            "-A KA-a -m bpf --object-pinned /sys/fs/bpf/x -j DROP",
            "-A KA-a -m ../../tmp/x -j DROP",
            "-A KA-a -j ../../tmp/x",
            "-A KA-a -p ../../tmp/x",
            "-A INPUT -j ACCEPT",
            "-F",
            "-F KA-a",
            "-X",
            "-X THEIRS",
            "-P INPUT ACCEPT",
            ":INPUT ACCEPT [0:0]",
            ":THEIRS - [0:0]",
            "*security",
            "-A -M /tmp/x -j KA-a",
            " -A KA-a -j DROP",
            "# a comment",
            "",
        ] {
            assert_eq!(beyond_tables(&format!("*mangle\n{line}\nCOMMIT\n")), Some(2), "{line:?}");
        }
        let long =
            format!("-A KA-a -m comment --comment \"{}-A KA-a -M /tmp/x\" -j DROP\n", "x".repeat(10_240));
        assert_eq!(beyond_tables(&long), Some(1));
    }
}
