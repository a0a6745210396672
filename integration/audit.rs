use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::agent::Installation;
use crate::machine::Machine;
use crate::namespace::Namespace;

/// A finding of `check-ruleset --json`.
#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub fix: String,
}

/// What `check-ruleset` has to say; its exit code must agree with it.
#[track_caller]
pub fn findings(home: &Installation, host: &Namespace) -> Vec<Finding> {
    let done = home.check(host, &["check-ruleset", "--json"]);
    let report: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}\n{}", done.text(), done.stderr));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found: Vec<Finding> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| Finding {
            severity: text(finding, "severity"),
            code: text(finding, "code"),
            message: text(finding, "message"),
            fix: text(finding, "fix"),
        })
        .collect();
    let errors = found.iter().any(|finding| finding.severity == "error");
    assert_eq!(done.code, Some(i32::from(errors)), "{found:#?}");
    assert_eq!(report["ok"], !errors);
    found
}

/// The findings that ask somebody to do something.
#[track_caller]
pub fn obstacles(home: &Installation, host: &Namespace) -> Vec<Finding> {
    let mut found = findings(home, host);
    found.retain(|finding| finding.severity != "info");
    found
}

/// The finding with that code; stops the test if there is none.
#[track_caller]
pub fn find(found: &[Finding], code: &str) -> Finding {
    found.iter().find(|f| f.code == code).unwrap_or_else(|| panic!("no {code} in {found:#?}")).clone()
}

/// Stops the test unless nothing asks for anything.
#[track_caller]
pub fn assert_quiet(home: &Installation, host: &Namespace) {
    let left = obstacles(home, host);
    assert!(left.is_empty(), "{left:#?}");
}

/// Does literally what the findings say.
#[track_caller]
pub fn remedy(machine: &Machine<'_>, found: &[Finding]) {
    for finding in found {
        assert!(!finding.fix.is_empty(), "{finding:#?}");
        machine.sh(&format!("{STAND_INS}\nset_e() {{ builtin set -e; }}; set_e\n{}", finding.fix)).success();
    }
}

/// The text of a file in `integration/hosts/audit`.
pub fn host_rules(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/hosts/audit").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Puts the base of an OpenWrt router's rules where the `fw4` below finds it, and loads it.
pub fn start_fw4(machine: &Machine<'_>) {
    let mut script = String::from("cat > /etc/fw4.nft <<'END'\n");
    write!(script, "{}\nEND\n{STAND_INS}\nfw4 reload\n", host_rules("openwrt.nft")).unwrap();
    machine.sh(&script).success();
}

/// What programs that cannot be had here do with the commands they are given. `fw4 reload` loads its rules anew
/// and puts the files below `chain-pre` first into their chains; VyOS makes a rule of `set firewall ...` at
/// each commit, after the state policy and before rules with higher numbers.
const STAND_INS: &str = r#"
fw4() {
    [ "$1" = reload ] || return 1
    nft -f /etc/fw4.nft || return 1
    for file in /usr/share/nftables.d/chain-pre/*/*.nft; do
        [ -e "$file" ] || continue
        chain=$(basename "$(dirname "$file")")
        while read -r rule; do nft "insert rule inet fw4 $chain $rule" || return 1; done < "$file"
    done
}
configure() { rm -f /mnt/commands; }
set() { echo "set $*" >> /mnt/commands; }
delete() { echo "delete $*" >> /mnt/commands; }
save() { :; }
commit() {
    grep '^delete nat destination rule' /mnt/commands | while read -r _ _ _ _ number; do
        handle=$(nft -a list chain ip vyos_nat PREROUTING | sed -n "s/.*\"DST-NAT-$number\".*# handle //p")
        nft delete rule ip vyos_nat PREROUTING handle "$handle"
    done
    sed -n 's/^set firewall \(.* rule [0-9]*\) .*/\1/p' /mnt/commands | sort -u | while read -r path; do
        command set -- $path
        number=${path##* }
        six=''; family=ip
        [ "$1" = ipv6 ] && { six=6; family=ip6; }
        case "$2" in
            name) chain=NAME${six}_$3 ;;
            *) chain=VYOS_${six:+IPV6_}${2^^}_filter ;;
        esac
        grep -q "^set firewall $path action accept$" /mnt/commands || return 1
        mark=$(sed -n "s/^set firewall $path mark //p" /mnt/commands)
        lower=$(nft list chain $family vyos_filter $chain | sed -n 's/.*"ipv[46].*-\([0-9]*\)"$/\1/p' | sort -n | head -n 1)
        if [ -n "$lower" ] && [ "$lower" -le "$number" ]; then echo "rule $number is not free"; return 1; fi
        first=$(nft -a list chain $family vyos_filter $chain | sed -n 's/.*jump VYOS_STATE_POLICY6\{0,1\} # handle //p' | head -n 1)
        if [ -n "$first" ]; then
            nft add rule $family vyos_filter $chain position $first meta mark $mark counter accept
        else
            nft insert rule $family vyos_filter $chain meta mark $mark counter accept
        fi || return 1
    done
}
"#;
