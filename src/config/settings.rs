use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::knock_log::KnockLog;
use crate::config::metrics::Metrics;
use crate::config::notify::Notify;
use crate::config::proxy::Proxy;
use crate::config::sequence::KnockSequence;
use crate::config::time_sequence::TimeSequence;
use crate::units::{
    AccessKey, AppName, Automaton, Family, HttpPath, IfName, Lifetime, Mark, Network, PathRotation,
    PortRange, Protocols, Timestamp, TotpSecret, UserName,
};

/// A whole configuration that has been checked; made by [`crate::config::parse`] only.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all apps share.
    pub global: Global,
    /// The apps, in the order of the file.
    pub apps: Vec<App>,
    /// The users, those of the file first.
    pub users: Vec<User>,
    /// Who else is told of what happens.
    pub notify: Notify,
    /// Where figures are shown.
    pub metrics: Metrics,
    /// The knock sequences, those of the global section first.
    pub sequences: Vec<KnockSequence>,
    /// What tells them apart; it numbers them by their places.
    pub automaton: Automaton,
    /// The knocks that change with time, if there are any.
    pub time_sequence: Option<TimeSequence>,
}

impl Settings {
    /// Has step 1 take the paths of a moment; false where they are the same as before.
    pub fn follow_time(&mut self, wall: SystemTime) -> bool {
        let Some(rotation) = &self.global.path_rotation else { return false };
        let paths = rotation.taken(&self.global.http_post_path, wall);
        let changed = paths != self.global.step1_paths;
        self.global.step1_paths = paths;
        changed
    }
}

/// Somebody with keys of their own.
#[derive(Clone, Debug)]
pub struct User {
    /// Who.
    pub name: UserName,
    /// Whether nothing opens until somebody changes that.
    pub disabled: bool,
    /// From when on nothing opens any more.
    pub expires: Option<Timestamp>,
    /// The secret of their one-time codes, if they need one.
    pub totp: Option<TotpSecret>,
    /// What they may open.
    pub apps: Vec<UserApp>,
    /// Whether they have a file of their own.
    pub of_file: bool,
}

/// What a user has with one app.
#[derive(Clone, Debug)]
pub struct UserApp {
    /// The app.
    pub app: AppName,
    /// The user's keys of step 1; at least one.
    pub http: Vec<AccessKey>,
    /// The user's keys of step 2; at least one.
    pub https: Vec<AccessKey>,
    /// How long a grant lasts.
    pub duration: Lifetime,
    /// The longest grant the user may ask for; at most the app's.
    pub max_duration: Lifetime,
    /// From when on this app does not open any more.
    pub expires: Option<Timestamp>,
    /// Whether this app does not open until somebody changes that.
    pub disabled: bool,
}

/// The `global` section.
#[derive(Clone, Debug)]
pub struct Global {
    /// The secret path of step 1, or the beginning of all of them where they change with time.
    pub http_post_path: HttpPath,
    /// How the path changes with time, if it does.
    pub path_rotation: Option<PathRotation>,
    /// The paths that step 1 takes now. Where they change with time, none before [`Settings::follow_time`].
    pub step1_paths: Vec<HttpPath>,
    /// The secret path of step 2.
    pub https_post_path: HttpPath,
    /// Requests per client address and minute that either step judges.
    pub step1_2_rate_limit_per_minute: u32,
    /// The interfaces towards the world; at least one.
    pub interface_ext: Vec<IfName>,
    /// The interfaces towards LAN hosts.
    pub interface_int: Vec<IfName>,
    /// Where the 2FA files of access keys are.
    pub two_factor_folder: Option<PathBuf>,
    /// At which step a 2FA code is asked for, unless the app says otherwise.
    pub two_factor_step: TwoFactorStep,
    /// How long step 2 stays open for a person who has to type a code.
    pub token_window: Lifetime,
    /// The app name by which a monitor asks whether the daemon lives; opens nothing.
    pub healthcheck_app_name: Option<String>,
    /// The folder with a file for each user.
    pub users_folder: Option<PathBuf>,
    /// Whether step 1 takes keys, or only proofs of them.
    pub step1_proof: Step1Proof,
    /// When addresses are locked out; none: never.
    pub lockout: Option<LockoutRule>,
    /// Whether there are the two steps at all, or knock sequences only; without them, their paths mean nothing.
    pub steps: bool,
    /// What of knocks is written into a log.
    pub knock_log: KnockLog,
    /// Whether step 1 answers.
    pub step1_reply: Step1Reply,
    /// The longest step-1 packet (IP length, bytes) and connection (TCP payload, bytes).
    pub step1_max_bytes: u16,
    /// Packets of one step-1 connection that may carry data, 1 to 16.
    pub step1_segments: u8,
    /// The mark on what is let through; none: packets are not marked.
    pub mark: Option<Mark>,
    /// How many leading bits of an IPv6 address a grant covers, 32 to 128.
    pub ipv6_prefix: u8,
    /// Where grants are kept across a reboot.
    pub state_file: Option<PathBuf>,
    /// Whether flows live on that were there before their port was guarded.
    pub adopt_established: bool,
    /// What becomes of other new connections to this host from outside.
    pub default_input: DefaultInput,
    /// Networks that may always reach every app.
    pub allow: Vec<Network>,
    /// The proxy in front, if the command line names one.
    pub proxy: Option<Proxy>,
}

/// When an address is locked out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutRule {
    /// After how many failures, 1 to 1,000.
    pub after: u32,
    /// The first time.
    pub first: Lifetime,
    /// The longest time; each lock-out is twice as long as the one before.
    pub longest: Lifetime,
}

impl LockoutRule {
    /// The rule where none is given: after 5 failures, a minute at first and a day at most.
    #[must_use]
    pub fn usual() -> Option<Self> {
        let (first, longest) = (Lifetime::from_secs(60).ok()?, Lifetime::from_secs(86_400).ok()?);
        Some(Self { after: 5, first, longest })
    }
}

/// What becomes of new connections to this host from outside that concern no app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultInput {
    /// They are none of our business.
    Accept,
    /// They are dropped, but for what a network needs.
    Drop,
}

/// One app: a guarded service and how it is opened.
#[derive(Clone, Debug)]
pub struct App {
    /// The name of its section.
    pub name: AppName,
    /// Its name in nftables, unique among the apps.
    pub slug: String,
    /// The guarded ports: sorted, not overlapping or adjoining, at least one.
    pub ports: Vec<PortRange>,
    /// TCP, UDP or both.
    pub protocol: Protocols,
    /// The keys of step 1.
    pub access_key_http: Vec<AccessKey>,
    /// The keys of step 2.
    pub access_key_https: Vec<AccessKey>,
    /// Where the service is.
    pub destination: Destination,
    /// How long a grant lasts.
    pub duration: Lifetime,
    /// The longest grant a client or operator may ask for; `duration` unless configured.
    pub max_duration: Lifetime,
    /// How long step 2 stays open after step 1.
    pub step2_https_duration: Lifetime,
    /// The interfaces this app is guarded on; those of `global` unless configured.
    pub interface_ext: Vec<IfName>,
    /// The interfaces towards its LAN host; those of `global` unless configured.
    pub interface_int: Vec<IfName>,
    /// What happens to open connections when a grant ends.
    pub established: Established,
    /// Whether a LAN host sees the router's address instead of the client's.
    pub masquerade: bool,
    /// Whether a grant ends with the first connection that is made by it; that one goes on.
    pub once: bool,
    /// Networks that may always reach this app.
    pub allow: Vec<Network>,
    /// At which step a 2FA code is asked for.
    pub two_factor_step: TwoFactorStep,
}

impl App {
    /// The guarded ports, such as `tcp/22` or `udp/6000-6010`.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let of = |protocol: &crate::units::Protocol| {
            let protocol = *protocol;
            self.ports.iter().map(move |ports| format!("{protocol}/{ports}"))
        };
        self.protocol.each().iter().flat_map(of).collect()
    }

    /// The families in which the service can be reached at all: both for a local one, that of its address for a LAN host.
    #[must_use]
    pub fn families(&self) -> &'static [Family] {
        match self.destination.host() {
            None => &Family::BOTH,
            Some(IpAddr::V4(_)) => &[Family::V4],
            Some(IpAddr::V6(_)) => &[Family::V6],
        }
    }
}

/// Where a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// On this host, or wherever somebody else's rules forward its port to.
    Local,
    /// On a LAN host, at the same port.
    Host(IpAddr),
    /// On a LAN host, at another port.
    HostPort(SocketAddr),
}

impl Destination {
    /// The LAN host, if there is one.
    #[must_use]
    pub fn host(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Host(ip) => Some(ip),
            Self::HostPort(at) => Some(at.ip()),
        }
    }

    /// The port on the LAN host where it differs from the guarded one.
    #[must_use]
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Local | Self::Host(_) => None,
            Self::HostPort(at) => Some(at.port()),
        }
    }
}

/// What happens to open connections when a grant ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// They are cut: every packet needs a grant.
    Cut,
    /// They live on; only new ones need a grant.
    Keep,
}

/// Whether step 1 takes keys, or only proofs of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step1Proof {
    /// Both.
    Accept,
    /// Proofs only.
    Require,
    /// Only proofs that name the address they come from.
    RequireAddress,
}

/// Whether step 1 answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step1Reply {
    /// Never, to anybody.
    Silent,
    /// With an HTTP status, to those who know the path.
    Http,
}

/// At which step a 2FA code is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwoFactorStep {
    /// At step 1, as knock-port does.
    Http,
    /// At step 2.
    Https,
    /// At both steps, each with a code of its own.
    Both,
}

impl TwoFactorStep {
    /// Whether step 1 wants a code.
    #[must_use]
    pub fn at_http(self) -> bool {
        matches!(self, Self::Http | Self::Both)
    }

    /// Whether step 2 wants a code.
    #[must_use]
    pub fn at_https(self) -> bool {
        matches!(self, Self::Https | Self::Both)
    }
}
