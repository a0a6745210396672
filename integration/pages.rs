//! Follows a page of the documentation word by word, on machines of its own.

pub mod host;
pub mod markdown;

use std::fs;
use std::path::Path;

use crate::namespace::Namespace;
use crate::pages::host::{Done, Host};
use crate::pages::markdown::{Block, Task};
use crate::process::Background;
use crate::topology::Topology;

/// The hosts of pages: what the documentation calls them.
pub struct Hosts {
    // Before the networks that they are in.
    pub gateway: Host,
    pub client: Host,
    pub other: Host,
    pub lan: Host,
    running: Vec<Background>,
    /// What the last terminal showed.
    seen: String,
    /// What had to be typed so far.
    pub typed: Vec<Typed>,
    pub net: Topology,
}

/// Something that a page has its reader type.
pub struct Typed {
    pub text: String,
    /// Whether it answers a question.
    pub answer: bool,
}

impl Hosts {
    /// A gateway with `eth0` towards the world and `eth1` towards the LAN, two clients, a LAN host.
    pub fn new() -> Self {
        Self::named("eth0", "eth1")
    }

    /// The same with other interfaces.
    pub fn named(outside: &str, inside: &str) -> Self {
        let net = Topology::named(outside, inside);
        net.router.run("ip", &["route", "add", "default", "via", "203.0.113.254", "dev", outside]).success();
        Self {
            gateway: Host::new("gateway", &net.router),
            client: Host::new("client", &net.a),
            other: Host::new("other", &net.b),
            lan: Host::new("office", &net.lan),
            running: Vec::new(),
            seen: String::new(),
            typed: Vec::new(),
            net,
        }
    }

    /// Has sshd run on the gateway, where root of the client may log in.
    pub fn with_ssh(self) -> Self {
        self.client.does("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519");
        self.gateway.does(
            "mkdir -p -m 0700 ~/.ssh && rm -f /etc/ssh/ssh_host_* && ssh-keygen -A && systemctl start ssh",
        );
        let key = fs::read(self.client.path("~/.ssh/id_ed25519.pub")).unwrap();
        fs::write(self.gateway.path("~/.ssh/authorized_keys"), key).unwrap();
        let host = fs::read_to_string(self.gateway.path("/etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
        fs::write(self.client.path("~/.ssh/known_hosts"), format!("gate.example.com {host}")).unwrap();
        self
    }

    /// Does what the page for all recipes says.
    pub fn prepared(mut self) -> Self {
        self = self.with_ssh();
        self.follow("docs/quick-start.md", Some("## 2. "));
        self.follow("docs/recipes/README.md", None);
        self
    }

    /// Follows a page from top to bottom, or up to the line that begins with this.
    #[track_caller]
    pub fn follow(&mut self, page: &str, until: Option<&str>) {
        self.follow_lines(page, None, until);
    }

    /// Follows a page from the line that begins with this to the bottom.
    #[track_caller]
    pub fn follow_from(&mut self, page: &str, from: &str) {
        self.follow_lines(page, Some(from), None);
    }

    #[track_caller]
    fn follow_lines(&mut self, page: &str, from: Option<&str>, until: Option<&str>) {
        let text = read(page);
        let whole = markdown::steps(&text).unwrap_or_else(|mistake| panic!("{page}: {mistake}"));
        let line =
            |start| text.lines().position(|line| line.starts_with(start)).expect("that line of the page");
        let (begin, end) = (from.map_or(0, line), until.map_or(usize::MAX, line));
        let mut printed = String::new();
        let blocks: Vec<Block> =
            whole.into_iter().filter(|block| (begin..=end).contains(&block.line)).collect();
        for (at, block) in blocks.iter().enumerate() {
            let place = format!("{page}, line {}", block.line);
            if let Task::Terminal { on } = &block.task {
                let seen = blocks.get(at + 1).filter(|next| next.task == Task::Output);
                let seen = seen.unwrap_or_else(|| panic!("{place}: what is seen at the terminal?"));
                self.note(&block.text);
                let talk = markdown::talk(&seen.text);
                self.typed.extend(talk.iter().map(|(_, text)| Typed { text: text.clone(), answer: true }));
                printed = self.host(on).terminal(&block.text, &talk);
                self.seen.clone_from(&printed);
            } else {
                printed = self.carry_out(block, &place, printed);
            }
        }
    }

    #[track_caller]
    fn carry_out(&mut self, block: &Block, place: &str, before: String) -> String {
        let own = self.own(&block.text);
        match &block.task {
            Task::Run { on, background: true, listens, .. } => {
                self.note(&block.text);
                let started = self.host(on).background(&own, self.running.len());
                self.running.push(started);
                listens.inspect(|port| self.host(on).await_listener(*port));
            }
            Task::Run { on, exits, listens, interrupts, .. } => {
                if *interrupts {
                    let last = self.running.len().checked_sub(1).expect("something goes on");
                    self.host(on).interrupt(last);
                }
                self.note(&block.text);
                let done = self.host(on).shell(&own);
                assert!(
                    done.code == Some(*exits),
                    "{place} ended with {:?} and not with {exits}; it printed\n{}\nlogs of the gateway:\n{}",
                    done.code,
                    done.printed,
                    self.gateway.logs()
                );
                listens.inspect(|port| self.host(on).await_listener(*port));
                return done.printed;
            }
            Task::File { on, path } => fs::write(self.host(on).path(path), &block.text)
                .unwrap_or_else(|e| panic!("{place}: cannot write {path}: {e}")),
            Task::Output => {
                assert!(markdown::matches(&block.text, &before), "{place}: this was printed\n{before}");
            }
            Task::Check => {
                let own = block.text.replace("replace-this-", "my-own-").replace("replace-her-", "her-own-");
                let own = own.replace("REPLACETHISSECRET", "OFTHISMACHINEONLY");
                let done = self.check(&own);
                assert_eq!(done.code, Some(0), "{place}: check-config says\n{}", done.printed);
                if own != block.text {
                    let refused = self.check(&block.text);
                    assert_eq!(refused.code, Some(78), "{place}: secrets of the page are taken");
                    assert!(
                        refused.printed.contains("comes from an example"),
                        "{place}: {}",
                        refused.printed
                    );
                }
            }
            Task::Pasted { on, below } => {
                let text = self.pasted(below);
                assert!(
                    markdown::matches(&block.text, &text),
                    "{place}: this was shown to be pasted\n{text}"
                );
                self.note("(pasted)");
                return self.host(on).shell(&format!("set +e\n{text}")).printed;
            }
            Task::Shown | Task::NotRun(_) | Task::Terminal { .. } => {}
        }
        String::new()
    }

    /// Has a configuration checked.
    fn check(&self, text: &str) -> Done {
        fs::write(self.gateway.path("/run/page/checked.yaml"), text).unwrap();
        self.gateway.shell(
            "chmod 600 /run/page/checked.yaml; ~/knock-agent/target/release/knock-agent check-config -c /run/page/checked.yaml",
        )
    }

    /// What a reader types where a page has `replace-this-...`: the secrets of this gateway.
    pub fn own(&self, text: &str) -> String {
        let list = fs::read_to_string(self.gateway.path("~/my-secrets")).unwrap_or_default();
        let pairs =
            list.lines().filter_map(|line| line.strip_prefix("s/")?.strip_suffix('/')?.split_once('/'));
        pairs.fold(text.to_owned(), |text, (shown, own)| text.replace(shown, own))
    }

    fn note(&mut self, text: &str) {
        self.typed.push(Typed { text: text.to_owned(), answer: false });
    }

    /// What the last terminal showed below the line that begins so.
    #[track_caller]
    pub fn pasted(&self, heading: &str) -> String {
        markdown::below(&self.seen, heading).unwrap_or_else(|| panic!("no {heading}... in\n{}", self.seen))
    }

    fn host(&self, name: &str) -> &Host {
        match name {
            "gateway" => &self.gateway,
            "client" => &self.client,
            "other" => &self.other,
            "office" => &self.lan,
            other => panic!("there is no host `{other}`"),
        }
    }

    /// The client's network.
    pub fn a(&self) -> &Namespace {
        &self.net.a
    }

    /// That of somebody who does not knock.
    pub fn b(&self) -> &Namespace {
        &self.net.b
    }
}

fn read(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}
