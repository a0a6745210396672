//! The section of one app.

use crate::config::destination;
use crate::config::global::{GlobalDraft, refuse_later};
use crate::config::keys::{self, Keys, bare};
use crate::config::outside::Outside;
use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::config::sequence::{self, KnockEffect, SequenceDraft};
use crate::config::settings::{App, Destination, Established};
use crate::config::shared_keys::{MAX_ITEMS, Said, TWO_FACTOR_STEPS, allow, interfaces};
use crate::units::{AppName, AppNameError, Family, KeyCheck, Lifetime, PortRange, Protocols, form_bytes};

/// The keys this version knows.
pub(super) const KEYS: &[&str] = &[
    "port",
    "protocol",
    "access_key_http",
    "access_key_https",
    "destination",
    "duration",
    "max_duration",
    "step2_https_duration",
    "interface_ext",
    "interface_int",
    "established",
    "masquerade",
    "once",
    "allow",
    "2fa_step",
    "sequence",
];
const LATER: &[&str] = &["users"];

const STEP2_DURATION_SECS: u64 = 5;
const PROTOCOLS: &[(&str, Protocols)] =
    &[("tcp", Protocols::Tcp), ("udp", Protocols::Udp), ("both", Protocols::Both)];
const ESTABLISHED: &[(&str, Established)] = &[("cut", Established::Cut), ("keep", Established::Keep)];

/// What the section of an app says, with the places that other checks need.
pub(super) struct AppDraft<'n> {
    /// The app, if everything in its section is right.
    pub settings: Option<App>,
    /// Its name as written.
    pub name: &'n str,
    /// Where its name is.
    pub spot: Spot,
    /// Its name in nftables, if the name is right.
    pub slug: Option<String>,
    /// Its ports as written.
    pub ports: Vec<(PortRange, Spot)>,
    /// Its protocols, if they are right.
    pub protocol: Option<Protocols>,
    /// The sequences that open or close it.
    pub sequences: Vec<SequenceDraft>,
    /// Whether it has a sequence, be it a wrong one.
    pub with_sequence: bool,
    /// What becomes of its connections, if that is right.
    pub established: Option<Established>,
    /// The longest step-1 key and the longest name, as a form carries them, in bytes.
    pub form_bytes: usize,
}

impl<'n> AppDraft<'n> {
    /// An app that is in force, as far as users and clients ask for it.
    pub fn again(app: &'n App) -> Self {
        Self {
            settings: Some(app.clone()),
            name: app.name.as_str(),
            spot: Spot::elsewhere(app.name.as_str()),
            slug: Some(app.slug.clone()),
            ports: Vec::new(),
            protocol: Some(app.protocol),
            sequences: Vec::new(),
            with_sequence: false,
            established: Some(app.established),
            form_bytes: 0,
        }
    }
}

/// Reads the section of an app.
pub(super) fn read<'n>(
    name_text: &'n str,
    section: &Section<'n>,
    global: &GlobalDraft<'_>,
    outside: &dyn Outside,
    report: &mut Report,
) -> AppDraft<'n> {
    for key in LATER {
        refuse_later(section, key, report);
    }
    let with_sequence = section.get("sequence").is_some();
    let known: Vec<&str> = KEYS.iter().chain(LATER).copied().collect();
    section.refuse_unknown(&known, crate::config::global::KEYS, "`global`", report);

    let name = name(name_text, section, report);
    let ports = ports(section, report);
    let protocol = Said::read(section.get("protocol"), |f| f.choice(PROTOCOLS, report)).or(Protocols::Tcp);
    let optional = with_sequence || global.with_users || global.timed || global.without_steps.is_some();
    let http = keys(section, "access_key_http", optional, outside, report);
    let https = keys(section, "access_key_https", optional, outside, report);
    if let Some(http) = http.as_ref().filter(|_| global.proofs_only) {
        keys::warn_of_unprovable(http, false, report);
    }
    if let (Some(http), Some(https)) = (&http, &https) {
        keys::refuse_shared(http, https, report);
        if http.is_empty() != https.is_empty() {
            let missing = if http.is_empty() { "access_key_http" } else { "access_key_https" };
            section.missing(missing, "[a-key-of-10-to-50-characters]", report);
        }
    }
    let destination_field = section.get("destination");
    let destination = Said::read(destination_field.clone(), |f| destination::read(f, report));
    let destination = destination.or(Destination::Local);
    let said = section.get("duration").map(|field| (field.lifetime(report), Some(field)));
    let own = said.as_ref().and_then(|(duration, _)| *duration);
    let sequences = sequence::read(section, true, own, report);
    let by_keys = |keys: &Option<Keys<'_>>| keys.as_ref().is_none_or(|keys| !keys.is_empty());
    let by_others = global.with_users || global.timed || by_keys(&http) || by_keys(&https);
    let duration = said.unwrap_or_else(|| {
        let alone = sequences.as_deref().filter(|_| with_sequence && !by_others);
        (longest(section, alone, with_sequence && sequences.is_none(), report), None)
    });
    let duration = duration.0.map(|lifetime| (lifetime, duration.1));
    let max_duration = max_duration(section, duration.as_ref(), report);
    warn_of_longer(section, max_duration, sequences.as_deref().unwrap_or_default(), report);
    let step2 = match section.get("step2_https_duration") {
        Some(field) => field.lifetime(report),
        None => Lifetime::from_secs(STEP2_DURATION_SECS).ok(),
    };
    let interface_ext = match interfaces(section, "interface_ext", report) {
        Said::Nothing => global.interface_ext.clone(),
        said => said.or(Vec::new()),
    };
    let interface_int = match interfaces(section, "interface_int", report) {
        Said::Nothing => global.interface_int.clone(),
        said => said.or(Vec::new()),
    };
    if let (Some(destination), Some(field)) = (destination, &destination_field) {
        let forwarded = destination.host().is_some();
        if forwarded && interface_int.as_ref().is_some_and(Vec::is_empty) {
            report.error_fix(
                field.spot().about(&section.path_of("interface_int")),
                "a service on a LAN host needs the interface towards it",
                "add `interface_int: eth1` here or in `global`",
            );
        }
        if let Some((host, port)) = destination::as_if_with_port(field)
            && ports.iter().any(|(range, _)| range.contains(port))
        {
            report.warning(
                field.spot(),
                "this is taken as an address without a port",
                format!("write \"[{host}]:{port}\" for that port, or the address in brackets if it is one"),
            );
        }
        if destination.port().is_some() && ports.iter().any(|(range, _)| !range.is_single()) {
            report.warning(
                field.spot(),
                "all ports of the range lead to this one port",
                "leave the port out of `destination` to keep each port as it is",
            );
        }
    }
    let established = Said::read(section.get("established"), |f| f.choice(ESTABLISHED, report));
    let established = established.or(Established::Cut);
    let masquerade = Said::read(section.get("masquerade"), |f| f.switch(report)).or(true);
    if let (Some(false), Some(Destination::Local), Some(field)) =
        (masquerade, destination, section.get("masquerade"))
    {
        report.warning(
            field.spot(),
            "a service on this host sees the client's address anyway",
            "remove it, or name the LAN host in `destination`",
        );
    }
    let once = Said::read(section.get("once"), |f| f.switch(report)).or(false);
    let allow = allow(section, report).or(Vec::new());
    if let (Some(host), Some(networks), Some(field)) =
        (destination.and_then(Destination::host), &allow, section.get("allow"))
        && let Some(other) = networks.iter().find(|network| network.family() != Family::of(host))
    {
        report.warning(
            field.spot(),
            format!("{other} cannot reach {host}: they are of different address families"),
            "remove it here, or name a destination of its family",
        );
    }
    let two_factor_step = Said::read(section.get("2fa_step"), |f| f.choice(TWO_FACTOR_STEPS, report));
    let two_factor_step = two_factor_step.or(global.two_factor_step);

    let longest = http.iter().flatten().map(|(key, _)| key.form_bytes()).max().unwrap_or_default();
    let slug = name.as_ref().map(AppName::slug);
    let settings = (|| {
        sequences.as_ref()?;
        Some(App {
            name: name?,
            slug: slug.clone()?,
            ports: joined(&ports),
            protocol: protocol?,
            access_key_http: bare(http?),
            access_key_https: bare(https?),
            destination: destination?,
            duration: duration?.0,
            max_duration: max_duration?,
            step2_https_duration: step2?,
            interface_ext: interface_ext?,
            interface_int: interface_int?,
            established: established?,
            masquerade: masquerade?,
            once: once?,
            allow: allow?,
            two_factor_step: two_factor_step?,
        })
    })();
    AppDraft {
        settings,
        name: name_text,
        spot: section.spot(),
        slug,
        ports: ports.iter().map(|(range, field)| (*range, field.spot())).collect(),
        protocol,
        sequences: sequences.unwrap_or_default(),
        with_sequence,
        established,
        form_bytes: longest + form_bytes(name_text),
    }
}

fn name(text: &str, section: &Section<'_>, report: &mut Report) -> Option<AppName> {
    match text.parse() {
        Ok(name) => Some(name),
        Err(error @ (AppNameError::Length | AppNameError::Control | AppNameError::Global)) => {
            report.error_fix(section.spot(), error.to_string(), "rename the section");
            None
        }
    }
}

fn ports<'n>(section: &Section<'n>, report: &mut Report) -> Vec<(PortRange, Field<'n>)> {
    let Some(field) = section.get("port") else {
        section.missing("port", "22", report);
        return Vec::new();
    };
    let ports = field.each(MAX_ITEMS, report, |item, report| item.parse_with(str::parse, report));
    let ports = ports.unwrap_or_default();
    warn_of_repeats(&ports, report);
    ports
}

/// Warns of each that is among the ones before it.
fn warn_of_repeats(ports: &[(PortRange, Field<'_>)], report: &mut Report) {
    let touch = |a: &PortRange, b: &PortRange| a.first() <= b.last() && b.first() <= a.last();
    for (n, (range, field)) in ports.iter().enumerate() {
        if ports.iter().take(n).any(|(earlier, _)| touch(earlier, range)) {
            let message = format!("`{range}` names what is in this list already");
            report.warning(field.spot(), message, "name each port once; perhaps another one was meant");
        }
    }
}

/// The longest time that sequences open it for, where nothing else does and each of them says a time of its own.
fn longest(
    section: &Section<'_>,
    alone: Option<&[SequenceDraft]>,
    unknown: bool,
    report: &mut Report,
) -> Option<Lifetime> {
    let drafts = alone.unwrap_or_default();
    let opens = |draft: &&SequenceDraft| draft.sequence.effect == KnockEffect::Service;
    let found = drafts.iter().filter(opens).map(|draft| draft.sequence.duration).max();
    let found = found.filter(|_| drafts.iter().all(|draft| draft.own_duration));
    // What is wrong in a sequence is told of the sequence.
    if found.is_none() && !unknown {
        section.missing("duration", "24h", report);
    }
    found
}

/// Warns of sequences that open it for longer than the longest time that is said.
fn warn_of_longer(
    section: &Section<'_>,
    most: Option<Lifetime>,
    drafts: &[SequenceDraft],
    report: &mut Report,
) {
    let Some(most) = most.filter(|_| section.get("max_duration").is_some()) else { return };
    for draft in drafts.iter().filter(|draft| draft.sequence.effect == KnockEffect::Service) {
        let opens_for = draft.sequence.duration;
        if opens_for > most {
            let message = format!(
                "it opens the service for {opens_for}, although max_duration is {most}: that does not bound sequences"
            );
            report.warning(
                draft.spot.clone(),
                message,
                "make its `duration` shorter, or max_duration longer",
            );
        }
    }
}

/// The ranges sorted, those that overlap or adjoin made one.
fn joined(ports: &[(PortRange, Field<'_>)]) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ports.iter().map(|(range, _)| *range).collect();
    sorted.sort_unstable();
    let mut out: Vec<PortRange> = Vec::new();
    for next in sorted {
        match out.last_mut() {
            Some(last) if u32::from(next.first()) <= u32::from(last.last()) + 1 => {
                if let Ok(wider) = PortRange::new(last.first(), last.last().max(next.last())) {
                    *last = wider;
                }
            }
            Some(_) | None => out.push(next),
        }
    }
    out
}

/// The keys of a step; none where users or a sequence make up for them.
fn keys<'n>(
    section: &Section<'n>,
    key: &str,
    optional: bool,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<Keys<'n>> {
    match section.secret(key) {
        Some(field) => {
            let found = keys::keys(&field, outside, report)?;
            for (_, field) in found.iter().filter(|(key, _)| matches!(key.check, KeyCheck::Slow(_))) {
                report.error_fix(
                    field.spot(),
                    "a key that is stored as argon2id is found by its user's name, and here is none",
                    "give it to a user in `global.users`, or generate one (`knock-agent hash-key --generate`)",
                );
            }
            Some(found)
        }
        None if optional => Some(Vec::new()),
        None => {
            section.missing(key, "[a-key-of-10-to-50-characters]", report);
            None
        }
    }
}

fn max_duration(
    section: &Section<'_>,
    duration: Option<&(Lifetime, Option<Field<'_>>)>,
    report: &mut Report,
) -> Option<Lifetime> {
    let Some(field) = section.get("max_duration") else {
        return duration.map(|(duration, _)| *duration);
    };
    let most = field.lifetime(report)?;
    if let Some((duration, at)) = duration
        && most < *duration
    {
        let fix = "make max_duration at least as long";
        match at {
            Some(at) => {
                let message = format!("{most} is shorter than `duration`, {duration}");
                report.conflict(field.spot(), &at.spot(), message, fix);
            }
            None => {
                let message = format!("{most} is shorter than `duration` of a sequence, {duration}");
                report.error_fix(field.spot(), message, fix);
            }
        }
        return None;
    }
    Some(most)
}
