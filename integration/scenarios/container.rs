//! What `compose.yaml` gives the program is enough: no right but those named there, and a file system that is
//! read-only but for the volumes.

use std::path::Path;

use crate::agent::Installation;
use crate::configuration::Config;
use crate::knocking::knock;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn compose() -> serde_yaml::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let all: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    all["services"]["knock-agent"].clone()
}

fn words(list: &serde_yaml::Value) -> Vec<&str> {
    list.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn the_compose_file_asks_for_the_hosts_network_and_one_capability() {
    let service = compose();
    assert_eq!(service["network_mode"].as_str(), Some("host"));
    assert_eq!(words(&service["cap_drop"]), ["ALL"]);
    assert_eq!(words(&service["cap_add"]), ["NET_ADMIN"]);
    assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"]);
    assert_eq!(service["read_only"].as_bool(), Some(true));
    let file = service["build"]["dockerfile"].as_str().unwrap();
    let recipe = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    for volume in words(&service["volumes"]) {
        let inside = volume.split(':').nth(1).unwrap();
        assert!(recipe.contains(&format!("\"{inside}\"")), "{inside} is no volume of {file}");
    }
}

#[test]
fn the_daemon_works_with_what_the_compose_file_gives_it() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let capabilities: Vec<String> =
        words(&compose()["cap_add"]).iter().map(|name| format!("+{}", name.to_lowercase())).collect();
    // Root without the rights of root, as a container has it: what is executed gets what is in the bounding set.
    let script = format!(
        "set -e\nmount --bind {folder} {folder}\nmount -o remount,bind,ro /\n\
         if touch /tmp/must-not-work 2>/dev/null; then exit 99; fi\n\
         exec setpriv --bounding-set=-all,{capabilities} --inh-caps=-all --no-new-privs \"$@\"",
        folder = home.folder().path().display(),
        capabilities = capabilities.join(","),
    );
    let home = home.wrapper(&["unshare", "--mount", "--propagation=private", "bash", "-c", &script, "bash"]);
    let agent = home.start(&net.router);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    // CAP_NET_ADMIN is number 12.
    assert!(line("CapEff").ends_with("0000000000001000"), "{status}");
    assert!(line("CapBnd").ends_with("0000000000001000"), "{status}");
    assert!(line("NoNewPrivs").ends_with('1'), "{status}");
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    home.verb(&net.router, &["status", "--json"]).success();
    home.rewrite_config(Config::ssh(&["duration: 30"]).text());
    agent.reload();
    agent.terminate();
    assert_echoes(&net.a, Family::V4.router(), 2222);
}
