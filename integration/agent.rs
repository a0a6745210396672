use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::backend::Backend;
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::process::{Background, Finished, finish, wait};
use crate::recent;
use crate::temporary::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_knock-agent");

const READY_LIMIT: Duration = Duration::from_secs(30);

/// The files of one installation: configuration, certificate, runtime folder, log.
pub struct Installation {
    folder: TempDir,
    /// The program to start; a copy where the original is out of reach for the user.
    program: PathBuf,
    /// What comes before the program, such as `setpriv ...`.
    wrapper: Vec<String>,
    /// More flags for `run`.
    flags: Vec<String>,
    /// Variables of the environment of `run`.
    environment: Vec<(String, String)>,
    with_certificate: bool,
}

impl Installation {
    pub fn new(config: &Config) -> Self {
        Self::with_text(config.text())
    }

    pub fn with_text(config: &str) -> Self {
        let folder = TempDir::new();
        folder.write("config.yaml", config);
        let (certificate, key) = certificate();
        folder.write("cert.pem", certificate);
        folder.write("key.pem", key);
        for name in ["run", "state"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            program: PROGRAM.into(),
            wrapper: Vec::new(),
            flags: Backend::current().flags().iter().map(|&flag| flag.to_owned()).collect(),
            environment: Vec::new(),
            with_certificate: true,
        }
    }

    /// Starts `run` without a certificate.
    pub fn without_certificate(mut self) -> Self {
        self.with_certificate = false;
        self
    }

    /// Adds flags to `run`.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&f| f.to_owned()));
        self
    }

    /// Takes a flag away from `run`.
    pub fn without_flag(mut self, flag: &str) -> Self {
        self.flags.retain(|have| have != flag);
        self
    }

    /// Adds a variable to the environment of `run`.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts `run` through this command.
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Gives every file to `nobody` and uses a copy of the program that `nobody` can reach.
    pub fn for_nobody(mut self) -> Self {
        let copy = self.folder.path().join("knock-agent");
        // By a process of its own: a copy that this one writes may still be open in a child that another test
        // is just starting, and what is open for writing cannot be run (ETXTBSY).
        let copied = Command::new("cp").arg(PROGRAM).arg(&copy).status().unwrap();
        assert!(copied.success(), "cannot copy {PROGRAM}");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        self.program = copy;
        for name in ["", "config.yaml", "cert.pem", "key.pem", "run", "state"] {
            std::os::unix::fs::chown(self.path(name), Some(65534), Some(65534)).unwrap();
        }
        self
    }

    pub fn folder(&self) -> &TempDir {
        &self.folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn rewrite_config(&self, text: &str) {
        self.folder.write("config.yaml", text);
    }

    /// What a reboot does to `/run`.
    pub fn lose_runtime_folder(&self) {
        fs::remove_dir_all(self.path("run")).unwrap();
        fs::create_dir(self.path("run")).unwrap();
    }

    /// The command line of `run`.
    pub fn run_command(&self) -> Command {
        let mut words: Vec<&std::ffi::OsStr> = self.wrapper.iter().map(AsRef::as_ref).collect();
        words.push(self.program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("run").arg("--config").arg(self.path("config.yaml"));
        if self.with_certificate {
            command.arg("--cert").arg(self.path("cert.pem")).arg("--key").arg(self.path("key.pem"));
        }
        command.arg("--runtime-dir").arg(self.path("run"));
        command.arg("--state-dir").arg(self.path("state")).args(&self.flags);
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs `run` where it is expected to give up by itself.
    pub fn run_in_vain(&self, host: &Namespace) -> Finished {
        host.finish(self.run_command(), b"", Duration::from_secs(10))
    }

    /// The same with more flags.
    pub fn run_in_vain_with(&self, host: &Namespace, flags: &[&str]) -> Finished {
        let mut command = self.run_command();
        command.args(flags);
        host.finish(command, b"", Duration::from_secs(20))
    }

    /// Starts the daemon and waits until it says that it is ready.
    #[track_caller]
    pub fn start(&self, host: &Namespace) -> Agent {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let log = File::options().create(true).append(true).open(self.path("agent.log")).unwrap();
        let mut command = self.run_command();
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut process = host.background(command);
        let end = Instant::now() + READY_LIMIT;
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = socket.recv(&mut message)
                && message[..length].split(|&b| b == b'\n').any(|line| line == b"READY=1")
            {
                if Backend::current().is_recent() {
                    recent::ticks_per_second(host);
                }
                return Agent { process, notify: socket };
            }
            let alive = process.is_alive();
            assert!(alive && Instant::now() < end, "the agent did not get ready:\n{}", self.log());
        }
    }

    /// Everything the daemon has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// The same without the times, of which any digits may be part.
    pub fn log_without_times(&self) -> String {
        let log = self.log();
        let lines = log.lines().map(|line| match line.split_once(' ') {
            Some((time, rest)) if time.starts_with("20") && time.ends_with('Z') => rest,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Runs a verb with this installation's configuration and runtime folder.
    pub fn verb(&self, host: &Namespace, words: &[&str]) -> Finished {
        self.verb_with(host, words, &["--config", path_text(&self.path("config.yaml"))])
    }

    /// Runs a verb that takes the flags of `run`, among them those of this installation.
    pub fn check(&self, host: &Namespace, words: &[&str]) -> Finished {
        let config = self.path("config.yaml");
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let mut more =
            vec!["--config", path_text(&config), "--cert", path_text(&cert), "--key", path_text(&key)];
        more.extend(self.flags.iter().map(String::as_str));
        self.verb_with(host, words, &more)
    }

    /// Runs `guard`.
    pub fn guard(&self, host: &Namespace) -> Finished {
        host.finish(self.guard_command(&[]), b"", Duration::from_secs(20))
    }

    /// The command line of `guard`, through another command.
    pub fn guard_command(&self, through: &[&str]) -> Command {
        let mut words = through.to_vec();
        words.extend([path_text(&self.program), "guard"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(self.path("config.yaml"));
        command.arg("--runtime-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        command.args(Backend::current().flags());
        command
    }

    fn verb_with(&self, host: &Namespace, words: &[&str], more: &[&str]) -> Finished {
        let mut command = Command::new(&self.program);
        command.args(words).args(more).arg("--runtime-dir").arg(self.path("run"));
        host.finish(command, b"", Duration::from_secs(20))
    }

    /// Opens an app for an address as an operator does, for so many seconds.
    #[track_caller]
    pub fn grant(&self, host: &Namespace, app: &str, address: impl ToString, seconds: u32) {
        let (address, lifetime) = (address.to_string(), format!("{seconds}s"));
        self.verb(host, &["grant", app, &address, "--for", &lifetime]).success();
    }
}

impl Drop for Installation {
    #[expect(clippy::print_stderr, reason = "shown with a test that failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("what the agent of {} said last:\n{last}", self.folder.path().display());
        }
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A certificate and its key, made once by the program itself.
pub fn certificate() -> &'static (Vec<u8>, Vec<u8>) {
    static MADE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = TempDir::new();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let mut command = Command::new(PROGRAM);
        command.arg("cert").arg("--cert").arg(&cert).arg("--key").arg(&key);
        finish(command, b"", Duration::from_secs(20)).success();
        (fs::read(&cert).unwrap(), fs::read(&key).unwrap())
    })
}

/// A running daemon; killed when dropped.
pub struct Agent {
    process: Background,
    notify: UnixDatagram,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Has it reload as systemd does, waits until it says that it is done, and returns all that it said.
    #[track_caller]
    pub fn reload(&self) -> String {
        self.process.signal(Signal::SIGHUP);
        let end = Instant::now() + READY_LIMIT;
        let (mut said, mut message) = (String::new(), [0; 4096]);
        loop {
            if let Ok(length) = self.notify.recv(&mut message) {
                said += &String::from_utf8_lossy(&message[..length]);
                said.push('\n');
            }
            if said.contains("RELOADING=1") && said.contains("READY=1") {
                return said;
            }
            assert!(Instant::now() < end, "the agent did not finish its reload; it said {said:?}");
        }
    }

    /// What it tells systemd from now on.
    pub fn notifications(&self) -> UnixDatagram {
        self.notify.try_clone().unwrap()
    }

    /// The process itself, for whoever wants to see how it ends.
    pub fn into_process(self) -> Background {
        self.process
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Ends it as systemd does.
    #[track_caller]
    pub fn terminate(mut self) {
        self.process.signal(Signal::SIGTERM);
        let status = wait(&mut self.process.0, Duration::from_secs(10));
        let code = status.expect("the agent ends within 10 s of SIGTERM").code();
        assert_eq!(code, Some(0), "exit code after SIGTERM");
    }
}
