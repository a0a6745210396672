use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::client::codes::{CodeError, Codes};
use crate::client::proof_address::seen_as;
use crate::client::reach;
use crate::client::request::{FormText, post};
use crate::client::secrets::{self, Ask, SecretError};
use crate::client::steps::{self, Step1};
use crate::client::tls::{self, TlsError};
use crate::config::{Profile, Step1Form, TwoFactorStep};
use crate::knock::{Action, Claim, Proof};
use crate::sys::random;
use crate::units::{AccessKey, AccessKeyError, Lifetime, PathRotation, PathRotationError, Secret, Verifier};

/// Why a knock opened nothing, as far as a client can know; tells no secret.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name leads nowhere.
    #[error("{host} cannot be resolved: {source}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// The profile's host is no name for a certificate.
    #[error("{0} is not a name or address that a certificate can have")]
    Name(String),
    /// A key or code cannot be had.
    #[error("{what}: {source}")]
    Secret {
        /// Which.
        what: &'static str,
        /// Why.
        source: SecretError,
    },
    /// A key is none.
    #[error("{what}: {source}")]
    Key {
        /// Which.
        what: &'static str,
        /// Why.
        source: AccessKeyError,
    },
    /// It is what the gateway has instead of the key.
    #[error("{0}: this is what the gateway stores; the client needs the key itself")]
    Stored(&'static str),
    /// The path cannot change as the profile says.
    #[error("http_post_path_secret, http_post_path_every: {0}")]
    Rotation(#[from] PathRotationError),
    /// There is no room behind the path.
    #[error("http_post_path is too long for what is put behind it: it may have 67 characters")]
    Path,
    /// Certificates cannot be verified.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(io::Error),
    /// Step 1 was not sent.
    #[error(
        "step 1: nothing answers at {to} ({source}): is it the right host and port, and is the gateway running?"
    )]
    NoGateway {
        /// Where.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Step 1 may have been sent in part.
    #[error("step 1: {to} took the connection and broke it ({source})")]
    Broken {
        /// Where.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Step 2 stayed closed.
    #[error(
        "step 2: {to} did not open ({source}): step 1 was not accepted (app, key, path, code, clock or rate limit), or something between drops it; the gateway tells nobody which"
    )]
    NoStep2 {
        /// Where.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It is somebody else, or may be.
    #[error("step 2: the certificate of {to} is not trusted: {reason}; no key was sent to it")]
    Untrusted {
        /// Where.
        to: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Step 2 took the connection and said nothing.
    #[error("step 2: {to} took the connection and did not answer ({source})")]
    NoAnswer {
        /// Where.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something answers that does not speak TLS.
    #[error(
        "step 2: what {to} answers is not TLS: is `https_port` right, or does something in between answer?"
    )]
    NotTls {
        /// Where.
        to: SocketAddr,
    },
    /// Step 2 answered something else than HTTP.
    #[error("step 2: what {to} answers is not HTTP")]
    NotHttp {
        /// Where.
        to: SocketAddr,
    },
    /// 403.
    #[error("step 2: refused (403): the app, the user, the key of step 2 or the code is not right")]
    Refused,
    /// 401, or a code for step 1.
    #[error("a one-time code is needed: {0}")]
    NoCode(CodeError),
    /// 429.
    #[error("step 2: too many requests (429): wait a minute")]
    TooMany,
    /// 404 or another status.
    #[error("step 2: answered with {0}: {what}", what = if *.0 == 404 { "the path of step 2 is not right" } else { "see the gateway's log" })]
    Status(u16),
}

/// What a knock at one address came to.
#[derive(Debug)]
pub struct Attempted {
    /// Which address of the gateway.
    pub address: IpAddr,
    /// Whether it was opened, or closed, as asked; opened for how long, where the gateway says so.
    pub outcome: Result<Option<Lifetime>, Failure>,
    /// When that was known: what is open was opened shortly before.
    pub at: Instant,
}

/// The codes that are given unasked.
struct Given {
    step1: Option<Secret>,
    step2: Option<Secret>,
}

/// A client that has its keys.
pub struct Client<'a> {
    profile: Profile,
    name: ServerName<'static>,
    key_http: Secret,
    key_https: Secret,
    rotation: Option<PathRotation>,
    tls: Arc<ClientConfig>,
    ask: &'a dyn Ask,
    codes: Mutex<Codes>,
}

impl<'a> Client<'a> {
    /// Gets everything that a knock needs, asking for keys where the profile says so.
    ///
    /// # Errors
    /// [`Failure`] for what is missing.
    pub fn new(profile: Profile, ask: &'a dyn Ask) -> Result<Self, Failure> {
        let name = ServerName::try_from(profile.host.clone())
            .map_err(|_| Failure::Name(profile.host.clone()))?
            .to_owned();
        let tls = tls::config(&profile.trust)?;
        let key = |source, what: &'static str| -> Result<Secret, Failure> {
            let key = secrets::fetch(source, what, ask).map_err(|source| Failure::Secret { what, source })?;
            let parsed: AccessKey = key.expose().parse().map_err(|source| Failure::Key { what, source })?;
            if parsed.plain().is_none() { Err(Failure::Stored(what)) } else { Ok(key) }
        };
        let key_http = key(&profile.key_http, "key of step 1")?;
        let key_https = key(&profile.key_https, "key of step 2")?;
        let rotation = rotation(&profile, ask)?;
        let codes = Mutex::new(Codes::new(profile.codes.clone()));
        Ok(Self { profile, name, key_http, key_https, rotation, tls, ask, codes })
    }

    /// The gateway's addresses, a few of each wanted family at most.
    ///
    /// # Errors
    /// [`Failure::Unresolved`].
    pub fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let host = &self.profile.host;
        reach::resolve(host, self.profile.families)
            .map_err(|source| Failure::Unresolved { host: host.clone(), source })
    }

    /// From which addresses this host reaches these of the gateway now. Sends nothing, and asks for no name.
    #[must_use]
    pub fn ways(addresses: &[IpAddr]) -> Vec<Option<IpAddr>> {
        reach::own_addresses(&reach::firsts(addresses))
    }

    /// Both steps in each family of these addresses: at the same time, or one after the other where codes are needed. In a
    /// family, the next address is tried only where at those before it nothing listened.
    #[must_use]
    pub fn knock(&self, addresses: &[IpAddr], action: Action, duration: Option<Lifetime>) -> Vec<Attempted> {
        let in_turn = {
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            // Each of the two steps wants a code of its own.
            codes.begin(if self.profile.code_step == Some(TwoFactorStep::Both) { 2 } else { 1 });
            codes.are_expected() || self.profile.code_step.is_some()
        };
        let of_family = |first: IpAddr| -> Vec<Attempted> { self.family(first, addresses, action, duration) };
        let families = reach::firsts(addresses);
        if in_turn {
            return families.into_iter().flat_map(of_family).collect();
        }
        thread::scope(|scope| {
            let running: Vec<_> =
                families.into_iter().map(|first| scope.spawn(move || of_family(first))).collect();
            let done = running.into_iter().map(thread::ScopedJoinHandle::join);
            done.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// Both steps at the first of these addresses, of one family, where something listens.
    fn family(
        &self,
        first: IpAddr,
        all: &[IpAddr],
        action: Action,
        duration: Option<Lifetime>,
    ) -> Vec<Attempted> {
        // The same for all of them: they are sent to one at most.
        let given = match self.given() {
            Ok(given) => given,
            Err(failure) => {
                return vec![Attempted { address: first, outcome: Err(failure), at: Instant::now() }];
            }
        };
        let mut attempts = Vec::new();
        for address in all.iter().copied().filter(|address| address.is_ipv4() == first.is_ipv4()) {
            let outcome = self.one(address, all, &given, action, duration);
            let was_sent = !matches!(outcome, Err(Failure::NoGateway { .. }));
            attempts.push(Attempted { address, outcome, at: Instant::now() });
            if was_sent {
                break;
            }
        }
        attempts
    }

    fn one(
        &self,
        address: IpAddr,
        all: &[IpAddr],
        given: &Given,
        action: Action,
        duration: Option<Lifetime>,
    ) -> Result<Option<Lifetime>, Failure> {
        let to = SocketAddr::new(address, self.profile.http_port);
        let seen = |own| seen_as(self.profile.proof_address, own, address, all);
        let step1: Step1 = steps::step1(to, |own| self.request1(seen(own), given.step1.as_ref()))?;
        let mut code = given.step2.clone();
        let to = SocketAddr::new(address, self.profile.https_port);
        loop {
            let request = self.request2(code.as_ref(), action, duration);
            let answer = steps::step2(to, &self.name, &self.tls, &step1, &request)?;
            match answer.status {
                200 => return Ok(answer.lifetime),
                // Asked once: whoever is asked again gave a wrong one.
                401 if answer.wants_code && code.is_none() => code = Some(self.code()?),
                401 | 403 => return Err(Failure::Refused),
                429 => return Err(Failure::TooMany),
                other => return Err(Failure::Status(other)),
            }
        }
    }

    /// All codes that will be wanted, before the first step: step 2 closes again while somebody looks for one.
    fn given(&self) -> Result<Given, Failure> {
        let at = |step| -> Result<Option<Secret>, Failure> {
            let unasked = [Some(step), Some(TwoFactorStep::Both)].contains(&self.profile.code_step);
            unasked.then(|| self.code()).transpose()
        };
        Ok(Given { step1: at(TwoFactorStep::Http)?, step2: at(TwoFactorStep::Https)? })
    }

    fn code(&self) -> Result<Secret, Failure> {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.next(self.ask).map_err(Failure::NoCode)
    }

    fn request1(&self, seen: Option<IpAddr>, code: Option<&Secret>) -> Result<Secret, Failure> {
        let (app, profile) = (self.profile.app.as_str(), &self.profile);
        let mut form = FormText::new();
        form.add("app", app);
        if let Some(user) = &profile.user {
            form.add("user", user.as_str());
        }
        match (profile.step1, &profile.user) {
            (Step1Form::Proof, Some(user)) => {
                let nonce = random::bytes::<16>().map_err(Failure::Random)?;
                let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
                let claim = Claim { app, user: user.as_str() };
                let key = Verifier::of(&self.key_http);
                let proof = Proof::make(&key, &claim, seen, &nonce, SystemTime::now());
                form.add("proof", proof.text().expose());
            }
            (Step1Form::Proof | Step1Form::Key, _) => form.add("access_key", self.key_http.expose()),
        }
        if let Some(code) = code {
            form.add("token", code.expose());
        }
        let path = match &self.rotation {
            None => profile.http_path.clone(),
            Some(rotation) => rotation.path(&profile.http_path, SystemTime::now()),
        };
        Ok(post(&profile.host, &path, &form))
    }

    fn request2(&self, code: Option<&Secret>, action: Action, duration: Option<Lifetime>) -> Secret {
        let mut form = FormText::new();
        form.add("app", self.profile.app.as_str());
        form.add("access_key", self.key_https.expose());
        if let Some(user) = &self.profile.user {
            form.add("user", user.as_str());
        }
        if let Some(code) = code {
            form.add("token", code.expose());
        }
        if let (Some(duration), Action::Open) = (duration, action) {
            form.add("duration", &duration.to_string());
        }
        if action == Action::Close {
            form.add("action", "close");
        }
        post(&self.profile.host, &self.profile.https_path, &form)
    }
}

/// How the path of step 1 changes, if it does.
fn rotation(profile: &Profile, ask: &dyn Ask) -> Result<Option<PathRotation>, Failure> {
    let Some((source, every)) = &profile.path_rotation else { return Ok(None) };
    let what = "secret of the path";
    let secret = secrets::fetch(source, what, ask).map_err(|source| Failure::Secret { what, source })?;
    if !PathRotation::fits(&profile.http_path) {
        return Err(Failure::Path);
    }
    Ok(Some(PathRotation::new(secret, *every)?))
}
