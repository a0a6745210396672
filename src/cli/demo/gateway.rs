//! The gateway: the real agent with a configuration of its own, and a service to guard.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::interrupt::Ward;
use super::namespaces::Namespace;
use crate::sys::process;

/// The app of the story.
pub(super) const APP: &str = "greeting";
/// The port of the guarded service.
pub(super) const SERVICE_PORT: u16 = 2222;
/// The port of step 1.
pub(super) const HTTP_PORT: u16 = 80;
/// The port of step 2.
pub(super) const HTTPS_PORT: u16 = 443;
/// The name in the certificate.
pub(super) const SERVER_NAME: &str = "gateway.example";
/// How long a grant lasts.
pub(super) const GRANT: Duration = Duration::from_secs(6);
/// How long step 2 is open.
pub(super) const STEP2: Duration = Duration::from_secs(5);

/// What the service says first.
pub(super) const GREETING: &str = "you have knocked well";
/// How often it says something afterwards.
const TICK: Duration = Duration::from_millis(50);

const READY_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 12;

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatewayError {
    /// A file or process.
    #[error("could not {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A verb of this program failed.
    #[error("`knock-agent {verb}` failed ({status}):\n{output}")]
    Verb {
        /// With its flags.
        verb: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// It did not say that it was ready.
    #[error("the agent was not ready within {} s; it said:\n{log}", READY_WITHIN.as_secs())]
    NotReady {
        /// The last lines of its log.
        log: String,
    },
    /// No random numbers for keys and paths.
    #[error("the kernel gives no random numbers")]
    Random,
}

fn system(what: &'static str) -> impl Fn(io::Error) -> GatewayError {
    move |source| GatewayError::System { what, source }
}

/// Secrets made up for this one story.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) http_path: String,
    pub(super) https_path: String,
    pub(super) http_key: String,
    pub(super) https_key: String,
}

impl Secrets {
    fn new() -> Result<Self, GatewayError> {
        let random = || -> Result<String, GatewayError> {
            let mut bytes = [0_u8; 12];
            SystemRandom::new().fill(&mut bytes).map_err(|_| GatewayError::Random)?;
            Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        };
        Ok(Self {
            http_path: format!("/{}", random()?),
            https_path: format!("/{}", random()?),
            http_key: random()?,
            https_key: random()?,
        })
    }
}

/// A folder that only we can read, gone with this.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, GatewayError> {
        // mkdtemp(3) puts random letters in place of the six at the end.
        let template = std::env::temp_dir().join(format!("knock-agent-demo-{}", "X".repeat(6)));
        let path = nix::unistd::mkdtemp(&template)
            .map_err(|errno| system("make a temporary folder")(errno.into()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing sensible is left to do where this fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Which story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Play {
    /// Of the two steps.
    Steps,
    /// Of a knock sequence.
    Sequence,
}

/// A prepared gateway.
#[derive(Debug)]
pub(super) struct Gateway<'a> {
    namespace: &'a Namespace,
    folder: &'a Folder,
    interface: &'a str,
    play: Play,
    /// What a client must know.
    pub(super) secrets: Secrets,
    /// The certificate that a client trusts.
    pub(super) certificate: Vec<u8>,
}

impl<'a> Gateway<'a> {
    /// Makes configuration and certificate, and starts the service.
    pub(super) fn prepare(
        namespace: &'a Namespace,
        folder: &'a Folder,
        interface: &'a str,
        play: Play,
    ) -> Result<Self, GatewayError> {
        let secrets = Secrets::new()?;
        let config = folder.file("config.yaml");
        fs::write(&config, configuration(&secrets, interface)).map_err(system("write a configuration"))?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))
            .map_err(system("protect the configuration"))?;
        let mut gateway = Self { namespace, folder, interface, play, secrets, certificate: Vec::new() };
        gateway.verb(&["check-config", "--config", "config.yaml"])?;
        gateway.verb(&["cert", "--name", SERVER_NAME, "--cert", "cert.pem", "--key", "key.pem"])?;
        gateway.certificate = fs::read(folder.file("cert.pem")).map_err(system("read the certificate"))?;
        let listener = namespace
            .within(|| TcpListener::bind(("::", SERVICE_PORT)))
            .map_err(system("start a service"))?;
        let greeting = match play {
            Play::Steps => GREETING,
            Play::Sequence => super::sequence::GREETING,
        };
        std::thread::spawn(move || greet_everybody(&listener, greeting));
        Ok(gateway)
    }

    /// Starts the agent and waits until it says that it is ready.
    pub(super) fn start(&self, ward: &Ward) -> Result<Agent, GatewayError> {
        let notify = self.folder.file("notify");
        let ready = UnixDatagram::bind(&notify).map_err(system("listen for the agent"))?;
        ready.set_read_timeout(Some(LOOK_EVERY)).map_err(system("listen for the agent"))?;
        let log = File::create(self.folder.file("log")).map_err(system("make a log file"))?;
        let output = log.try_clone().map_err(system("make a log file"))?;
        let (http, https) = (HTTP_PORT.to_string(), HTTPS_PORT.to_string());
        let steps = ["--config", "config.yaml", "--cert", "cert.pem", "--key", "key.pem"];
        let ports = ["--http-port", &http, "--https-port", &https];
        let sequence = ["--sequence", "--interface", self.interface];
        let told: Vec<&str> = match self.play {
            Play::Steps => steps.into_iter().chain(ports).collect(),
            Play::Sequence => sequence.to_vec(),
        };
        let mut command = self.command(&[&["run", "--state-dir", "."], told.as_slice()].concat());
        command.env("NOTIFY_SOCKET", &notify).stdout(output).stderr(log);
        process::end_with_us(&mut command);
        // By this thread, which lasts; it is inside as well.
        let child = command.spawn().map_err(system("start the agent"))?;
        ward.set(child.id());
        let mut agent = Agent { process: child, ward: ward.clone() };
        let deadline = Instant::now() + READY_WITHIN;
        let mut message = [0_u8; 256];
        while Instant::now() < deadline {
            if let Ok(length) = ready.recv(&mut message) {
                let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(agent);
                }
            }
            if let Some(status) = agent.process.try_wait().map_err(system("watch the agent"))? {
                let output = self.log();
                return Err(GatewayError::Verb { verb: "run".to_owned(), status, output });
            }
        }
        Err(GatewayError::NotReady { log: self.log() })
    }

    /// Runs a verb of this program on the gateway; what it printed.
    pub(super) fn verb(&self, arguments: &[&str]) -> Result<String, GatewayError> {
        let mut command = self.command(arguments);
        let output = self.namespace.within(|| command.output()).map_err(system("run knock-agent"))?;
        let Output { status, stdout, stderr } = output;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let output =
            [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).join("\n");
        Err(GatewayError::Verb { verb: arguments.join(" "), status, output })
    }

    /// Runs another program on the gateway; what it printed, or nothing where that fails.
    pub(super) fn program(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let output = self.namespace.within(|| command.output()).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The last lines of what the agent logged.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.file("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let skip = lines.len().saturating_sub(LOG_LINES);
        lines.into_iter().skip(skip).map(|line| format!("    {line}\n")).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(arguments)
            .arg("--runtime-dir")
            .arg(self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }
}

/// The running agent; killed with this.
#[derive(Debug)]
pub(super) struct Agent {
    process: Child,
    ward: Ward,
}

impl Agent {
    /// Ends it as a crash would: no signal handler runs. Tells how it ended.
    pub(super) fn kill(mut self) -> io::Result<ExitStatus> {
        self.process.kill()?;
        self.process.wait()
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be dead already, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.ward.clear();
    }
}

fn configuration(secrets: &Secrets, interface: &str) -> String {
    let Secrets { http_path, https_path, http_key, https_key } = secrets;
    format!(
        "global:\n  http_post_path: {http_path}\n  https_post_path: {https_path}\n  interface_ext: {interface}\n\
         {APP}:\n  port: {SERVICE_PORT}\n  protocol: tcp\n  destination: local\n  access_key_http: [\"{http_key}\"]\n  \
         access_key_https: [\"{https_key}\"]\n  duration: {}\n  step2_https_duration: {}\n",
        GRANT.as_secs(),
        STEP2.as_secs(),
    )
}

/// Greets each client and goes on talking, so that it can be heard when it is cut off.
fn greet_everybody(listener: &TcpListener, greeting: &'static str) {
    for mut client in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut say = |text: &str| client.write_all(text.as_bytes());
            let mut all_well = say(&format!("{greeting}\n"));
            while all_well.is_ok() {
                std::thread::sleep(TICK);
                all_well = say(".");
            }
        });
    }
}
