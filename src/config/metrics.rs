//! `global.metrics`: where figures for Prometheus are shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::app::AppDraft;
use crate::config::global::absolute_file;
use crate::config::report::Report;
use crate::config::section::{Field, Section};
use crate::config::shared_keys::Said;
use crate::units::{Lifetime, Protocol};

pub(super) const KEYS: &[&str] = &["listen", "open_to_network", "textfile", "textfile_every"];

const EVERY_SECS: u64 = 15;
const LONGEST_EVERY_SECS: u64 = 3_600;
/// Where figures are shown unless another port is written; nobody else has it in Prometheus' list of ports.
const EXAMPLE: &str = "127.0.0.1:9469";
/// The longest path of a socket (`unix(7)`), in bytes.
const SOCKET_PATH: usize = 107;

/// Where figures are shown; nowhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where they can be fetched by HTTP.
    pub listen: Option<MetricsAddress>,
    /// The file they are written to.
    pub textfile: Option<Textfile>,
}

impl Metrics {
    /// Whether nobody is shown anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listen.is_none() && self.textfile.is_none()
    }
}

/// Where figures can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// At an address of this host, over TCP.
    Tcp(SocketAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A file for the textfile collector of a node exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Textfile {
    /// Where; its name ends in `.prom`.
    pub path: PathBuf,
    /// How often it is written: 1 s to 1 h.
    pub every: Lifetime,
}

/// What is said, and where the port is, so that nobody else takes it.
pub(super) struct MetricsDraft<'n> {
    settings: Option<Metrics>,
    listen: Option<(SocketAddr, Field<'n>)>,
}

impl MetricsDraft<'_> {
    /// What is shown and where, if the port is nobody else's; `taken` are the ports of the steps.
    pub fn settle(
        self,
        apps: &[AppDraft<'_>],
        taken: &[(u16, &'static str)],
        report: &mut Report,
    ) -> Option<Metrics> {
        let Some((addr, field)) = &self.listen else { return self.settings };
        let port = addr.port();
        let fix = format!("choose another port, such as {EXAMPLE}");
        let mut free = true;
        if let Some((_, flag)) = taken.iter().find(|(taken, _)| *taken == port) {
            let message = format!("tcp port {port} belongs to knock-agent itself ({flag})");
            report.error_fix(field.spot(), message, fix.clone());
            free = false;
        }
        let tcp = |app: &&AppDraft<'_>| app.protocol.is_some_and(|p| p.each().contains(&Protocol::Tcp));
        for app in apps.iter().filter(tcp) {
            if let Some((_, spot)) = app.ports.iter().find(|(range, _)| range.contains(port)) {
                let message = format!("tcp port {port} is a service's: `{}`", app.name);
                report.conflict(field.spot(), spot, message, fix.clone());
                free = false;
            }
        }
        if free { self.settings } else { None }
    }
}

/// Reads `metrics`.
pub(super) fn read<'n>(field: Option<Field<'n>>, report: &mut Report) -> MetricsDraft<'n> {
    let nothing = |settings| MetricsDraft { settings, listen: None };
    let Some(field) = field else { return nothing(Some(Metrics::default())) };
    let Some(section) = field.section(report) else { return nothing(None) };
    section.refuse_unknown(KEYS, crate::config::global::KEYS, "the section global", report);
    let anywhere = Said::read(section.get("open_to_network"), |field| field.switch(report)).or(false);
    let listen_field = section.get("listen");
    let listen = Said::read(listen_field.clone(), |field| listen(field, anywhere, report).map(Some)).or(None);
    let textfile = textfile(&section, report);
    if listen_field.is_none() && section.get("textfile").is_none() {
        report.error_fix(
            section.spot(),
            "this shows no figures to anybody",
            format!("add `listen: {EXAMPLE}`, or `textfile: /path/of/knock-agent.prom`"),
        );
        return nothing(None);
    }
    let tcp = match &listen {
        Some(Some(MetricsAddress::Tcp(addr))) => listen_field.map(|field| (*addr, field)),
        Some(Some(MetricsAddress::Unix(_)) | None) | None => None,
    };
    let settings = match (listen, textfile, anywhere) {
        (Some(listen), Some(textfile), Some(_)) => Some(Metrics { listen, textfile }),
        _ => None,
    };
    MetricsDraft { settings, listen: tcp }
}

fn listen(field: &Field<'_>, anywhere: Option<bool>, report: &mut Report) -> Option<MetricsAddress> {
    let text = field.text(report)?;
    if text.starts_with('/') {
        let path = absolute_file(field, report)?;
        if path.as_os_str().len() > SOCKET_PATH {
            report.error(field.spot(), format!("the path of a socket has at most {SOCKET_PATH} bytes"));
            return None;
        }
        return Some(MetricsAddress::Unix(path));
    }
    let Some(addr) = text.parse::<SocketAddr>().ok().filter(|addr| addr.port() > 0) else {
        report.error_fix(
            field.spot(),
            "this is neither an address with a port nor the whole path of a socket",
            format!("write {EXAMPLE}, [::1]:9469, or /run/knock-agent/metrics.sock"),
        );
        return None;
    };
    if !addr.ip().is_loopback() && anywhere == Some(false) {
        report.error_fix(
            field.spot(),
            "other hosts could read the figures: nothing is asked of who fetches them",
            format!("write `listen: {EXAMPLE}`, or add `open_to_network: true`"),
        );
        return None;
    }
    Some(MetricsAddress::Tcp(addr))
}

/// The file, if one is named; the outer option tells whether all is right.
fn textfile(section: &Section<'_>, report: &mut Report) -> Option<Option<Textfile>> {
    let every_field = section.get("textfile_every");
    let every = match &every_field {
        None => Lifetime::from_secs(EVERY_SECS).ok(),
        Some(field) => field.lifetime(report).and_then(|every| {
            if every.as_secs() > LONGEST_EVERY_SECS {
                report.error(field.spot(), format!("at most {LONGEST_EVERY_SECS} seconds"));
                return None;
            }
            Some(every)
        }),
    };
    let Some(field) = section.get("textfile") else {
        if let Some(field) = every_field {
            report.error_fix(field.key(), "there is no file to write", "add `textfile`, or remove this line");
            return None;
        }
        return Some(None);
    };
    let path = absolute_file(&field, report)?;
    if path.extension().is_none_or(|extension| extension != "prom") {
        report.error_fix(
            field.spot(),
            "a node exporter reads files only whose names end in .prom",
            "write a name such as knock-agent.prom",
        );
        return None;
    }
    Some(Some(Textfile { path, every: every? }))
}
