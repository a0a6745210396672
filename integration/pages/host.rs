use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::PROGRAM;
use crate::namespace::Namespace;
use crate::process::{Background, finish};
use crate::temporary::TempDir;

/// How long one block of a page may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A machine of its own for one host of a page: network, files, processes and name are its own; all of it ends with it.
pub struct Host {
    /// Process 1 of it, as seen from here.
    init: u32,
    _scratch: TempDir,
    /// Where it goes on living: it ends when this is closed.
    _alive: ChildStdin,
    _unshare: Background,
}

/// Names the root of a Debian that is booted for each host, instead of this machine's files with a stand-in for systemd.
const BOOTED: &str = "KNOCK_AGENT_PAGES_ROOT";
/// Names the package that pages install there.
const PACKAGE: &str = "KNOCK_AGENT_PAGES_PACKAGE";

/// Whether hosts are booted.
pub fn is_booted() -> bool {
    std::env::var_os(BOOTED).is_some()
}

fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Process 1 of what the shell has booted: the one below it with a process namespace of its own.
fn booted_by(shell: u32) -> u32 {
    let is_first = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let numbers: Vec<&str> = line.split_whitespace().collect();
        numbers.len() > 2 && numbers.last() == Some(&"1")
    };
    let below = children(shell);
    let all = below.iter().flat_map(|child| children(*child)).chain(below.iter().copied());
    all.into_iter().find(is_first).expect("something was booted")
}

/// A package of the program under test, with the units and the scripts of the real one, made once; or the real one.
fn package() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        if let Some(real) = std::env::var_os(PACKAGE) {
            return PathBuf::from(real);
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-package.deb");
        let script = source.join("integration/pages/package");
        let done = Command::new(script).arg(PROGRAM).arg(&made).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        made
    })
}

/// How a block ended.
pub struct Done {
    pub code: Option<i32>,
    /// What it printed, both outputs together.
    pub printed: String,
}

impl Host {
    /// Starts it, with the network of a namespace; in a Debian that systemd boots, where there is one.
    pub fn new(role: &str, network: &Namespace) -> Self {
        let scratch = TempDir::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let debian = std::env::var_os(BOOTED);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "bash"])
            .arg(source.join("integration/pages").join(if debian.is_some() { "booted" } else { "machine" }))
            .env("SCRATCH", scratch.path())
            .env("ROLE", role)
            .env("PROGRAM", PROGRAM)
            .env("PACKAGE", package())
            .env("SOURCE", source)
            .env("NETWORK", network.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(root) = &debian {
            command.env("BASE", root);
        }
        let mut unshare = network.background(command);
        let alive = unshare.0.stdin.take().unwrap();
        let mut said = String::new();
        BufReader::new(unshare.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the machine of {role} did not get ready");
        let shell = *children(unshare.0.id()).first().expect("a child");
        let init = if debian.is_some() { booted_by(shell) } else { shell };
        Self { init, _scratch: scratch, _alive: alive, _unshare: unshare }
    }

    /// A path of it, as seen from here; `~` is root's home.
    pub fn path(&self, inside: &str) -> PathBuf {
        let whole = inside.strip_prefix('~').map_or_else(|| inside.to_owned(), |rest| format!("/root{rest}"));
        PathBuf::from(format!("/proc/{}/root{whole}", self.init))
    }

    /// Types lines at a shell of it, in the folder where the last ones ended; the first line that fails ends it.
    pub fn shell(&self, text: &str) -> Done {
        self.script(text, "block");
        let done = finish(self.enter("block"), b"", LIMIT);
        let printed = fs::read(self.path("/run/page/block.out")).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed).into_owned() + &done.text() + &done.stderr;
        Done { code: done.code, printed }
    }

    /// The same, where it has to succeed.
    #[track_caller]
    pub fn does(&self, text: &str) -> String {
        let done = self.shell(text);
        assert_eq!(done.code, Some(0), "`{text}` printed\n{}", done.printed);
        done.printed
    }

    /// Types lines at a terminal, where questions come; comes back with all that was seen.
    #[track_caller]
    pub fn terminal(&self, text: &str, talk: &[(String, String)]) -> String {
        let script = format!("cd \"$(cat /run/page/folder)\"\nset -e\n{text}");
        fs::write(self.path("/run/page/typed"), script).unwrap();
        let talk: Vec<_> = talk.iter().map(|(asked, typed)| json!([asked, format!("{typed}\n")])).collect();
        let mut command = self.inside(&["SSH_CONNECTION=203.0.113.2 50122 203.0.113.1 22"]);
        command.args(["/root/knock-agent/integration/lib/at-terminal", "bash", "/run/page/typed"]);
        let done = finish(command, json!(talk).to_string().as_bytes(), LIMIT);
        assert_eq!(done.code, Some(0), "`{text}` showed\n{}{}", done.text(), done.stderr);
        done.text()
    }

    /// Ctrl-C to what goes on, and waits for its end.
    pub fn interrupt(&self, number: usize) {
        self.does(&format!(
            "shell=$(cat /run/page/background{number}.pid); pkill -INT -P $shell\n\
             while kill -0 $shell 2>/dev/null; do sleep 0.05; done"
        ));
    }

    /// Types lines at a shell that goes on.
    pub fn background(&self, text: &str, number: usize) -> Background {
        let name = format!("background{number}");
        self.script(text, &name);
        let mut command = self.enter(&name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Background(command.spawn().unwrap())
    }

    /// Waits until a TCP port of it listens.
    #[track_caller]
    pub fn await_listener(&self, port: u16) {
        let end = Instant::now() + LIMIT;
        let listening = |table: &str| {
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", self.init)).unwrap();
            text.lines().any(|line| {
                let mut words = line.split_whitespace().skip(1);
                words.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
                    && words.nth(1) == Some("0A")
            })
        };
        while !listening("tcp") && !listening("tcp6") {
            assert!(Instant::now() < end, "nobody listens on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn script(&self, text: &str, name: &str) {
        let script = format!(
            "exec >/run/page/{name}.out 2>&1 </dev/null\ncd \"$(cat /run/page/folder)\"\n\
             trap 'pwd >/run/page/folder' EXIT\necho $$ >/run/page/{name}.pid\nset -e -o pipefail\n{text}"
        );
        fs::write(self.path(&format!("/run/page/{name}")), script).unwrap();
    }

    fn enter(&self, name: &str) -> Command {
        let mut command = self.inside(&[]);
        command.args(["bash", &format!("/run/page/{name}")]);
        command
    }

    fn inside(&self, environment: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-n", "-u", "-i", "-p", "-C", "--"])
            .args(["env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "TERM=dumb", "LANG=C.UTF-8"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(environment);
        command
    }

    /// What the services that it runs have logged.
    pub fn logs(&self) -> String {
        self.shell(
            "tail -n 30 /run/systemctl/*.log 2>/dev/null || journalctl -q -n 40 --no-pager 2>/dev/null || true",
        )
        .printed
    }
}
