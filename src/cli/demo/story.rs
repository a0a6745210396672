//! The story: each step does something real and says what came of it.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::client::{
    Outcome, first_refusal, form_request, heard_last, knock_on, read_greeting, request_over_tls,
    send_and_hear_nothing, trust,
};
use super::gateway::{
    APP, Agent, GRANT, GREETING, Gateway, HTTP_PORT, HTTPS_PORT, SERVER_NAME, SERVICE_PORT,
};
use super::namespaces::{Namespace, program};
use super::report::{Found, Report};
use super::wire::Witness;
use crate::units::Family;

/// How long an answer may take; a SYN is repeated after a second only.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);
/// How far from its time a port may close, either way.
pub(super) const TOLERANCE: Duration = Duration::from_millis(500);

/// Who takes part, in one address family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) gateway: IpAddr,
    pub(super) client: IpAddr,
    /// Somebody on the same network who does not knock.
    pub(super) neighbour: IpAddr,
}

/// Everything the story needs.
pub(super) struct Stage<'a> {
    pub(super) outside: &'a Namespace,
    pub(super) gateway: &'a Gateway<'a>,
    pub(super) witness: Witness,
    /// IPv4 and IPv6.
    pub(super) casts: [Cast; 2],
}

/// An open service and since when it is.
struct Opened {
    at: Instant,
    stream: TcpStream,
}

impl Stage<'_> {
    /// Tells it all; an error only where there is no way to go on.
    pub(super) fn play(&self, agent: Agent, report: &mut Report) -> Result<(), String> {
        let trust = trust(&self.gateway.certificate)?;

        let title = format!("The service, port {SERVICE_PORT}, before any knock: closed");
        report.step(&title, &self.both(|cast| self.unanswered(cast, cast.client, SERVICE_PORT)));
        report.step(
            "The HTTPS step, port 443, before step 1: closed as well",
            &self.both(|cast| self.unanswered(cast, cast.client, HTTPS_PORT)),
        );
        report.step(
            "A wrong path at step 1: no answer, nothing opens",
            &self.both(|cast| self.wrong_path(cast)),
        );
        report.step(
            "Step 1, POST <path> over HTTP: right, and no answer either",
            &self.both(|cast| self.step1(cast)),
        );
        let opened = self.both(|cast| self.step2(cast, &trust));
        let (opened, found) = split(opened);
        report.step("Step 2, POST <path> over HTTPS: open for this address now, and answered", &found);
        let (talking, found) = split(self.both_with(opened, |cast, at| self.greeted(cast, at)));
        report.step("The service: open", &found);
        report.step(
            "The same service for a neighbour's address: closed",
            &self.both(|cast| self.unanswered(cast, cast.neighbour, SERVICE_PORT)),
        );
        let pid = agent.id();
        let killed = agent.kill().map(|status| format!("process {pid}: {status}")).map_err(|e| e.to_string());
        report.single_step("kill -9: the agent is gone", &killed);
        report.step("The kernel's sets, without an agent", &self.left_in_kernel());
        report.step("The service closes by itself, on time", &self.both_with(talking, closing));
        report.step(
            "The guard still holds: closed to the client as to anybody",
            &self.both(|cast| self.unanswered(cast, cast.client, SERVICE_PORT)),
        );
        Ok(())
    }

    /// Does one thing in both families at once, in the client's namespace.
    pub(super) fn both<T: Send>(
        &self,
        action: impl Fn(Cast) -> Result<T, String> + Sync,
    ) -> [Result<T, String>; 2] {
        self.both_with([Some(()), Some(())], |cast, ()| action(cast))
    }

    /// The same, with what an earlier step left; where it left nothing this one cannot happen.
    pub(super) fn both_with<S: Send, T: Send>(
        &self,
        left: [Option<S>; 2],
        action: impl Fn(Cast, S) -> Result<T, String> + Sync,
    ) -> [Result<T, String>; 2] {
        let act = |cast: Cast, left: Option<S>| match left {
            Some(left) => self.outside.within(|| action(cast, left)),
            None => Err("not tried: a step before it failed".to_owned()),
        };
        let [four, six] = self.casts;
        let [left_four, left_six] = left;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| act(six, left_six));
            let one = act(four, left_four);
            [one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))]
        })
    }

    /// Nothing whatever comes back from that port.
    pub(super) fn unanswered(&self, cast: Cast, from: IpAddr, port: u16) -> Found {
        let (to, begun) = (SocketAddr::new(cast.gateway, port), Instant::now());
        match knock_on(from, to, PATIENCE) {
            Outcome::Silent => {}
            other => return Err(format!("{to} is not silent to {from}: {}", other.describe())),
        }
        match self.witness.seen(to, from, begun).first() {
            None => Ok(format!("{from} -> {to}: no answer in {} ms", PATIENCE.as_millis())),
            Some(packet) => Err(format!("{to} sent {} to {from}", packet.kind())),
        }
    }

    fn wrong_path(&self, cast: Cast) -> Found {
        let request = form_request("/guess", APP, &self.gateway.secrets.http_key);
        let heard = self.say_at_step1(cast, &request)?;
        self.unanswered(cast, cast.client, HTTPS_PORT)?;
        Ok(format!("{heard}; port {HTTPS_PORT} still closed"))
    }

    fn step1(&self, cast: Cast) -> Found {
        let secrets = &self.gateway.secrets;
        self.say_at_step1(cast, &form_request(&secrets.http_path, APP, &secrets.http_key))
    }

    /// Sends a request to step 1, which must be met with a SYN-ACK and then silence.
    fn say_at_step1(&self, cast: Cast, request: &str) -> Found {
        let (to, begun) = (SocketAddr::new(cast.gateway, HTTP_PORT), Instant::now());
        send_and_hear_nothing(cast.client, to, request, PATIENCE)?;
        let seen = self.witness.seen(to, cast.client, begun);
        match seen.iter().find(|packet| !packet.is_syn_ack()) {
            Some(packet) => Err(format!("{to} sent {}", packet.kind())),
            None if seen.is_empty() => Err(format!("{to} sent no SYN-ACK that the witness saw")),
            None => Ok(format!(
                "{to} sent SYN-ACK ({}) and nothing else in {} ms: no data, no FIN, no RST",
                seen.len(),
                PATIENCE.as_millis()
            )),
        }
    }

    /// Asks at step 2; when the service was opened.
    fn step2(&self, cast: Cast, trust: &Arc<ClientConfig>) -> Result<(Instant, String), String> {
        let secrets = &self.gateway.secrets;
        let to = SocketAddr::new(cast.gateway, HTTPS_PORT);
        let begun = Instant::now();
        let stream = match knock_on(cast.client, to, PATIENCE) {
            Outcome::Open(stream) => stream,
            other => return Err(format!("{to}: {}", other.describe())),
        };
        let request = form_request(&secrets.https_path, APP, &secrets.https_key);
        let status = request_over_tls(stream, trust, SERVER_NAME, &request, PATIENCE)?;
        let opened = Instant::now();
        if !status.contains(" 200 ") {
            return Err(format!("{to} answered {status:?}"));
        }
        Ok((opened, format!("{to}: {status}, after {:.1} ms", millis(opened - begun))))
    }

    fn greeted(&self, cast: Cast, at: Instant) -> Result<(Opened, String), String> {
        let to = SocketAddr::new(cast.gateway, SERVICE_PORT);
        let stream = match knock_on(cast.client, to, PATIENCE) {
            Outcome::Open(stream) => stream,
            other => return Err(format!("{to}: {}", other.describe())),
        };
        let text = read_greeting(&stream, PATIENCE)?;
        if text != GREETING {
            return Err(format!("{to} said {text:?}"));
        }
        Ok((Opened { at, stream }, format!("{to} says \"{text}\"")))
    }

    /// What the kernel holds for both clients: as `status` reads it, and as nft lists it where that is installed.
    fn left_in_kernel(&self) -> [Found; 2] {
        let status = match self.gateway.verb(&["status", "--json", "--config", "config.yaml"]) {
            Ok(text) => serde_json::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let nft = program("nft");
        let find = |family: Family, cast: Cast| -> Found {
            let status = status.as_ref().map_err(Clone::clone)?;
            let left = time_left(status, cast.client)
                .ok_or_else(|| format!("status shows no grant for {}", cast.client))?;
            if left <= 0.0 || left > GRANT.as_secs_f64() {
                return Err(format!("status says that {} has {left} s left", cast.client));
            }
            let set = format!("app_{APP}_{}", if family == Family::V4 { 4 } else { 6 });
            let listed = nft
                .as_deref()
                .and_then(|nft| self.gateway.program(nft, &["list", "set", "inet", "knock_agent", &set]))
                .and_then(|text| element_line(&text, cast.client));
            Ok(match listed {
                Some(line) => format!("{set}: {line}"),
                None => format!("{set}: {}, {left:.1} s left", cast.client),
            })
        };
        let [four, six] = self.casts;
        [find(Family::V4, four), find(Family::V6, six)]
    }
}

/// Waits for the end of a grant, and hears how both an open connection and new ones fare.
fn closing(cast: Cast, opened: Opened) -> Found {
    let Opened { at, stream } = opened;
    let to = SocketAddr::new(cast.gateway, SERVICE_PORT);
    let deadline = at + GRANT + TOLERANCE * 2;
    let (refused, heard) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| heard_last(stream, deadline));
        let refused = first_refusal(cast.client, to, deadline);
        (refused, listening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let refused = refused
        .ok_or_else(|| format!("{to} was still open {:.1} s after it opened", seconds(deadline - at)))?;
    let heard = heard.ok_or_else(|| format!("{to} fell silent at once"))?;
    let text = format!(
        "{to}: new connections until {:.2} s, the open one until {:.2} s, of {} s",
        seconds(refused - at),
        seconds(heard - at),
        GRANT.as_secs()
    );
    let on_time = |moment: Instant| (moment - at).abs_diff(GRANT) <= TOLERANCE;
    if on_time(refused) && on_time(heard) { Ok(text) } else { Err(text) }
}

/// Seconds that the grant of a client has left, by `status --json`.
fn time_left(status: &serde_json::Value, client: IpAddr) -> Option<f64> {
    let client = client.to_string();
    let grants = status.get("grants")?.as_array()?;
    grants
        .iter()
        .find(|grant| {
            let is = |key: &str, value: &str| grant.get(key).and_then(|v| v.as_str()) == Some(value);
            is("kind", "service") && is("app", APP) && is("address", &client)
        })?
        .get("expires_in_s")?
        .as_f64()
}

/// What nft prints of one element, without the braces and commas around it.
fn element_line(listing: &str, client: IpAddr) -> Option<String> {
    let client = client.to_string();
    let (_, elements) = listing.split_once("elements = {")?;
    elements
        .split([',', '}'])
        .map(str::trim)
        .find(|element| element.split_whitespace().next() == Some(&client))
        .map(str::to_owned)
}

/// Parts what the next step needs from what is said of this one.
pub(super) fn split<T>(results: [Result<(T, String), String>; 2]) -> ([Option<T>; 2], [Found; 2]) {
    let [four, six] = results.map(|result| match result {
        Ok((left, text)) => (Some(left), Ok(text)),
        Err(text) => (None, Err(text)),
    });
    ([four.0, six.0], [four.1, six.1])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_client_and_the_service() {
        let status = serde_json::json!({"grants": [
            {"kind": "step2", "app": APP, "address": "10.0.0.1", "expires_in_s": 1.0},
            {"kind": "service", "app": "other", "address": "10.0.0.1", "expires_in_s": 2.0},
            {"kind": "service", "app": APP, "address": "10.0.0.11", "expires_in_s": 3.0},
            {"kind": "service", "app": APP, "address": "10.0.0.1", "expires_in_s": 4.5},
        ]});
        assert_eq!(time_left(&status, "10.0.0.1".parse().unwrap()), Some(4.5));
        assert_eq!(time_left(&status, "10.0.0.2".parse().unwrap()), None);
    }

    #[test]
    fn an_element_is_found_among_others_by_its_whole_address() {
        let listing = "table inet knock_agent {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.11 timeout 6s \
                       expires 1s, 10.0.0.1 timeout 6s expires 4s200ms comment \"key 1\" }\n\t}\n}\n";
        assert_eq!(
            element_line(listing, "10.0.0.1".parse().unwrap()).as_deref(),
            Some("10.0.0.1 timeout 6s expires 4s200ms comment \"key 1\"")
        );
        assert_eq!(element_line(listing, "10.0.0.2".parse().unwrap()), None);
    }
}
