//! Settings to tables and sets, or why iptables cannot do what they want.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::gate::SPOKEN;
use super::model::{Chain, Hook, Table, Tables};
use super::path;
pub use super::path::Matcher;
use super::phrase::{Phrase, Side, rule};
use super::{adopted, behind, forward, gate, knock, marks, names, recent, replies, sets, step1};
use crate::config::{App, DefaultInput, Settings, Step1Reply};
use crate::ruleset::layout::{Layout, Options, Segment};
use crate::ruleset::plan::{allow_set, app_set, request_line_starts};
use crate::units::{Family, IfName, Lifetime, PortRange, Protocol};

/// The longest time of an element of an ipset, in seconds (`IPSET_MAX_TIMEOUT`): 24 days and 20 hours.
pub const MAX_SECS: u64 = 2_147_483;

/// What these settings want and iptables cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Longer than an ipset counts.
    #[error(
        "{what} of {app} is {secs} s: with iptables, at most {MAX_SECS} s (24 days); choose less, or nftables"
    )]
    TooLong {
        /// The app.
        app: String,
        /// The key of the configuration.
        what: &'static str,
        /// What it says, in seconds.
        secs: u64,
    },
    /// A name that means something else to iptables.
    #[error(
        "interface_ext {0}: with iptables, a name has letters, digits and . _ - @ only, and begins with none of the latter"
    )]
    Interface(IfName),
    /// A packet that ends a grant.
    #[error("once of {0}: with iptables, a connection does not end a grant: remove it, or use nftables")]
    Once(String),
    /// More than lists of `-m recent` are good for.
    #[error(
        "sequence: with iptables, all sequences together may have {most} knocks (those counted once that begin alike), and these have {have}: use fewer, or use nftables (--firewall-type nftables)"
    )]
    ManySequences {
        /// Knocks that there are.
        have: usize,
        /// Knocks that there may be.
        most: usize,
    },
    /// Nothing is told of knocks.
    #[error("log_knocks: with iptables, no knock is logged: remove it, or use nftables")]
    KnockLog,
    /// Knocks that change with time are swapped in maps of nftables.
    #[error(
        "time_sequence: with iptables, knocks cannot change with time: use sequences that stay as they are (sequence), or use nftables (--firewall-type nftables)"
    )]
    TimeSequence,
    /// The kernel cannot remember who has knocked.
    #[error(
        "sequence: this kernel has not what iptables needs for knock sequences: load it (modprobe -a xt_recent xt_hashlimit xt_multiport), or use nftables (--firewall-type nftables)"
    )]
    NoKnocks,
    /// Too long for the matches there are.
    #[error(
        "http_post_path is too long for what this kernel has (xt_u32: 33 characters): shorten it, or load the module xt_bpf"
    )]
    Path,
    /// Cannot be told without the packet filter's programs.
    #[error(
        "step1_reply: http needs the kernel module xt_bpf with iptables: load it, or leave step 1 silent"
    )]
    Answers,
    /// A proxy in front.
    #[error(
        "--waf-http-port and --waf-https-port are for nftables only: with iptables, the ports behind the proxy would not be guarded"
    )]
    Proxy,
    /// The whole host closed.
    #[error(
        "default_input: drop is for nftables only: with iptables, set the policy of its INPUT chains yourself"
    )]
    DefaultInput,
    /// A list of `-m recent` has one time for all.
    #[error(
        "without ipset every grant of {app} lasts {only} (duration): leave other durations of users out, or install ipset (apt-get install ipset)"
    )]
    OneTime {
        /// The app.
        app: String,
        /// How long it is open.
        only: Lifetime,
    },
    /// Two apps whose names are one where they are cut.
    #[error("two apps have names that iptables cannot tell apart ({0}): rename one of them")]
    Names(String),
}

/// Where it is kept who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In ipsets.
    Ipset,
    /// In lists of `-m recent`.
    Recent,
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) layout: Layout<'a>,
    pub(super) matcher: Matcher,
    pub(super) keeping: Keeping,
}

/// What these settings want, in iptables' words.
///
/// # Errors
/// [`Impossible`] where it cannot be had: it is refused rather than done differently.
pub fn plan(
    settings: &Settings,
    options: Options,
    matcher: Matcher,
    keeping: Keeping,
) -> Result<Tables, Impossible> {
    let draft = Draft { layout: Layout::new(settings, options), matcher, keeping };
    refuse(&draft)?;
    let [ipv4, ipv6] = Family::BOTH.map(|family| tables(&draft, family));
    let tables = Tables { ipsets: sets::sets(&draft), ipv4, ipv6 };
    let meanings = tables.ipsets.iter().map(|set| set.meaning.as_str());
    if let Some(name) = names::clash(meanings, names::set) {
        return Err(Impossible::Names(name));
    }
    for table in tables.ipv4.iter().chain(&tables.ipv6) {
        let mut seen = BTreeSet::new();
        if let Some(chain) = table.chains.iter().find(|chain| !seen.insert(&chain.name)) {
            return Err(Impossible::Names(chain.name.clone()));
        }
    }
    Ok(tables)
}

/// The gate first, then what marks and what keeps untracked, and last what forwards: what opens anything comes
/// after what closes.
fn tables(draft: &Draft<'_>, family: Family) -> Vec<Table> {
    let mut mangle = gate::chains(draft, family);
    mangle.extend(behind::chains(draft, family));
    mangle.extend(replies::chains(draft, family));
    mangle.extend(marks::chains(draft, family));
    mangle.extend(adopted::chains(draft, family));
    if draft.keeping == Keeping::Recent {
        mangle.push(recent::chain(&draft.layout, family));
    }
    let hooks = vec![
        step1::hook("PREROUTING", "gate"),
        step1::hook("INPUT", "in"),
        step1::hook("FORWARD", "forward"),
        step1::hook("FORWARD", "back"),
        step1::hook("OUTPUT", "out"),
    ];
    let mut out = vec![table("mangle", hooks, mangle)];
    out.extend(marks::filter(draft, family));
    out.extend(step1::raw(draft, family).filter(|_| draft.layout.settings.global.steps));
    out.extend(forward::nat(draft, family));
    out
}

pub(super) fn table(name: &str, hooks: Vec<Hook>, chains: Vec<Chain>) -> Table {
    Table { name: name.to_owned(), hooks, chains }
}

fn refuse(draft: &Draft<'_>) -> Result<(), Impossible> {
    if !draft.layout.backend_ports().is_empty() {
        return Err(Impossible::Proxy);
    }
    let settings = draft.layout.settings;
    if settings.global.default_input != DefaultInput::Accept {
        return Err(Impossible::DefaultInput);
    }
    if !settings.global.knock_log.events.is_empty() {
        return Err(Impossible::KnockLog);
    }
    if let Some(app) = settings.apps.iter().find(|app| app.once) {
        return Err(Impossible::Once(app.name.to_string()));
    }
    if settings.time_sequence.is_some() {
        return Err(Impossible::TimeSequence);
    }
    knock::refuse(draft)?;
    if draft.keeping == Keeping::Recent {
        recent::refuse(settings)?;
    }
    for app in &settings.apps {
        let times = [
            ("duration", app.duration),
            ("max_duration", app.max_duration),
            ("step2_https_duration", app.step2_https_duration),
        ];
        for (what, long) in times {
            if long.as_secs() > MAX_SECS {
                return Err(Impossible::TooLong { app: app.name.to_string(), what, secs: long.as_secs() });
            }
        }
    }
    let odd = |name: &IfName| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".@_-".contains(c);
        !name.as_str().starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.as_str().chars().all(plain)
    };
    if let Some(name) = draft.layout.ext.iter().find(|name| odd(name)) {
        return Err(Impossible::Interface((*name).clone()));
    }
    for wanted in request_line_starts(&draft.layout).into_iter().filter(|_| settings.global.steps) {
        if Family::BOTH.iter().any(|&family| path::begins(draft.matcher, family, &wanted).is_none()) {
            return Err(Impossible::Path);
        }
    }
    if settings.global.steps
        && draft.reply() == Step1Reply::Http
        && path::has_data(draft.matcher, Family::V4).is_none()
    {
        return Err(Impossible::Answers);
    }
    Ok(())
}

impl Draft<'_> {
    pub(super) fn reply(&self) -> Step1Reply {
        self.layout.settings.global.step1_reply
    }

    pub(super) fn segments(&self) -> u8 {
        match self.keeping {
            Keeping::Ipset => self.layout.settings.global.step1_segments,
            // Nothing remembers a connection: the strict form.
            Keeping::Recent => 1,
        }
    }

    /// That the client is in the set, in one phrase for each way to be there.
    pub(super) fn asked(&self, text: &Phrase, set: &str, family: Family, side: Side) -> Vec<Phrase> {
        match self.keeping {
            Keeping::Ipset => vec![text.clone().in_set(set, side)],
            Keeping::Recent => recent::asked(self, text, set, family, side),
        }
    }

    /// That the client's end is remembered, or the client where there was no room for its ports; where nothing can be,
    /// every end counts as remembered, which closes more.
    pub(super) fn remembered(&self, text: Phrase, stem: &str, family: Family, side: Side) -> Vec<Phrase> {
        let digit = family.digit();
        match self.keeping {
            Keeping::Ipset => vec![
                text.clone().end_in_set(&format!("{stem}_{digit}"), side),
                text.in_set(&format!("{stem}_by_{digit}"), side),
            ],
            Keeping::Recent => vec![text],
        }
    }

    /// The outside interfaces of an app where they are not simply all of them.
    pub(super) fn own_interfaces<'s>(&'s self, app: &'s App) -> Option<&'s [IfName]> {
        self.layout.own_interfaces(app).map(|_| app.interface_ext.as_slice())
    }

    /// One rule per set that lets clients in, with what it does left to `finish`.
    pub(super) fn for_clients(
        &self,
        segment: &Segment,
        family: Family,
        side: Side,
        finish: impl Fn(Phrase, &str) -> String,
    ) -> Vec<String> {
        let each = self.clients(segment, family, side).into_iter();
        each.map(|(text, what)| finish(text, &what)).collect()
    }

    /// What asks each set that lets clients in, with what rules about it are called.
    pub(super) fn clients(&self, segment: &Segment, family: Family, side: Side) -> Vec<(Phrase, String)> {
        let mut out = Vec::new();
        for app in self.layout.apps(segment).filter(|app| app.families().contains(&family)) {
            let begin: Vec<Phrase> = match self.own_interfaces(app) {
                // By which interface an answer leaves is a matter of routes.
                Some(names) if side == Side::Source => names.iter().map(|name| rule().iif(name)).collect(),
                Some(_) | None => vec![rule()],
            };
            for (set, what) in self.sets_of(app, family) {
                let each = begin.iter().flat_map(|text| self.asked(text, &set, family, side));
                out.extend(each.map(|text| (text, what.clone())));
            }
        }
        if self.layout.families(segment).contains(&family) {
            let each = self.asked(&rule(), &allow_set("all", family), family, side);
            out.extend(each.into_iter().map(|text| (text, "allow:all".to_owned())));
        }
        out
    }

    /// The sets that let clients in to an app, with what rules about them are called.
    pub(super) fn sets_of(&self, app: &App, family: Family) -> Vec<(String, String)> {
        let mut sets = vec![(app_set(&app.slug, family), format!("grant:{}", app.slug))];
        let knocked = self.layout.knocking.of_app(app).filter(|grants| grants.families.contains(&family));
        sets.extend(knocked.map(|grants| (grants.set(family), knock::label(grants))));
        sets.push((allow_set(&app.slug, family), format!("allow:{}", app.slug)));
        sets
    }

    /// The rules that drop what nothing let in: for every interface the segment is guarded on.
    pub(super) fn drop_the_rest(
        &self,
        segment: &Segment,
        family: Family,
        side: Side,
        what: &str,
    ) -> Vec<String> {
        let what = format!("{what}:{}", segment.name());
        let own: Option<Vec<&[IfName]>> =
            self.layout.apps(segment).map(|app| self.own_interfaces(app)).collect();
        match own {
            None => vec![rule().drop(&what)],
            Some(lists) => {
                let names = lists.into_iter().flatten();
                let own = names.map(|name| rule().interface(side, name).drop(&what));
                own.chain(self.spoken_elsewhere(segment, family, side).map(|text| text.drop(&what))).collect()
            }
        }
    }

    /// What a UDP service sends, by another interface than it is guarded on, to where a granted client spoke from: without
    /// memory of that it cannot be told from what is for somebody who came in by that one.
    fn spoken_elsewhere(&self, segment: &Segment, family: Family, side: Side) -> Option<Phrase> {
        let told = segment.protocol == Protocol::Udp && side == Side::Destination;
        let set = format!("{SPOKEN}_{}", family.digit());
        (told && self.keeping == Keeping::Ipset)
            .then(|| rule().protocol(Protocol::Udp).end_in_set(&set, side))
    }

    /// Lets through what was established with a grant, where it may live on.
    pub(super) fn keep(&self, segment: &Segment, finish: impl Fn(Phrase, &str) -> String) -> Option<String> {
        self.layout.keeps_established(segment).then(|| finish(rule().going_on(segment.protocol), "keep"))
    }

    /// The LAN destinations of a family.
    pub(super) fn lan(&self, family: Family) -> impl Iterator<Item = &Segment> {
        self.layout.lan.iter().filter(move |segment| segment.host.map(Family::of) == Some(family))
    }
}

pub(super) fn port(port: NonZeroU16) -> PortRange {
    port.into()
}

/// The stem of a segment's chain: `svc_tcp_22`. An IPv6 host is long, and cut in the name.
pub(super) fn stem(prefix: &str, segment: &Segment) -> String {
    format!("{prefix}_{}", segment.name())
}
