//! Why an address is or is not let through, as codes that stay the same over releases.

/// A cause; `docs/explain.md` lists them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It knocked, or an operator let it in.
    Granted,
    /// It is in a network that need not knock.
    Allowed,
    /// It comes in by an interface that is not guarded.
    OtherInterface,
    /// No app guards that port.
    NotGuarded,
    /// The rules in force do not guard a port that the configuration does.
    NotInForce,
    /// The configuration was changed and is not in force.
    NotReloaded,
    /// There are no rules of ours.
    NoGuard,
    /// It is an address of this host.
    OwnAddress,
    /// It has not knocked.
    NotKnocked,
    /// Its grant's time is over.
    GrantExpired,
    /// Its grant was taken back.
    GrantRevoked,
    /// Its one connection was made.
    OnceUsed,
    /// Step 1 was right and step 2 did not follow.
    Step2Missing,
    /// What it sent to step 2 after its step 1 was no step 2.
    Step2Unheard,
    /// It came to step 1 with something else than step 1.
    Step1Unheard,
    /// Somebody else did step 1, perhaps the same client.
    Step1Elsewhere,
    /// Step 2 came and there was no step 1 of this address.
    Step1Missing,
    /// A one-time code is missing.
    CodeMissing,
    /// Its knock was refused.
    KnockRefused,
    /// It knocks too often.
    RateLimited,
    /// It failed too often.
    LockedOut,
    /// Its knock was right and the grant could not be made.
    GrantFailed,
    /// It is in the middle of a knock sequence.
    SequenceUnfinished,
    /// It is let in for something else.
    GrantedOtherApp,
    /// Somebody is let in by the other IP version.
    GrantedOtherFamily,
    /// A neighbour of its network is let in.
    GrantedOtherAddress,
    /// The service is of the other IP version.
    WrongFamily,
    /// It is the address of the proxy in front.
    ProxyAddress,
    /// It is one that does not come from the internet.
    PrivateAddress,
    /// No daemon runs who could hear a knock.
    DaemonNotRunning,
    /// Nobody listens at a step's port.
    StepNotListening,
    /// The host's rules keep knocks away.
    KnockBlocked,
    /// The certificate of step 2 has ended.
    CertificateExpired,
    /// The host's rules drop it.
    HostDrops,
    /// The host's rules drop it because of its address.
    HostBans,
    /// The host's rules drop the answers to it.
    HostDropsReply,
    /// Another rule of ours drops it.
    OurRuleDrops,
    /// Nothing listens on the port.
    NothingListens,
    /// What listens does so on the loopback address only.
    ListensLoopback,
    /// What listens does so at another address.
    ListensElsewhere,
    /// What listens speaks the other IP version only.
    ListensOtherFamily,
    /// There is no route to where it is to go.
    NoRoute,
    /// There is no route back to it.
    NoRouteBack,
    /// This host forwards nothing.
    ForwardingOff,
    /// Routing expects it at another interface.
    ReversePath,
    /// A route forbids it.
    RouteForbids,
    /// The answer leaves by another interface.
    AsymmetricRoute,
    /// Nothing goes through the interface.
    InterfaceDown,
    /// A rule drops it when it comes too fast.
    RateRule,
    /// The interface has no address of that IP version.
    NoAddress,
    /// The LAN host is not there.
    LanHostDown,
    /// The LAN host refuses connections.
    LanRefuses,
    /// The LAN host does not answer.
    LanSilent,
    /// Its packets arrive, and no answer comes back.
    NoAnswer,
    /// Without masquerading, the LAN host needs a route back.
    NoMasquerade,
    /// Connection tracking takes no more.
    ConntrackFull,
    /// An open connection outlives its grant.
    EstablishedLives,
    /// A connection is taken past all rules.
    Flowtable,
    /// The host's rules drop what finds hardware addresses.
    NeighbourDrops,
    /// A rule may drop it, and that cannot be told.
    CannotTell,
    /// Rules of iptables-legacy cannot be read.
    LegacyRules,
    /// A program sees packets before all rules.
    Xdp,
    /// A rule sends it elsewhere.
    Redirected,
    /// The daemon does not say what it knows.
    DaemonMute,
    /// The configuration cannot be used.
    BadConfiguration,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 65] = [
        Self::Granted,
        Self::Allowed,
        Self::OtherInterface,
        Self::NotGuarded,
        Self::NotInForce,
        Self::NotReloaded,
        Self::NoGuard,
        Self::OwnAddress,
        Self::NotKnocked,
        Self::GrantExpired,
        Self::GrantRevoked,
        Self::OnceUsed,
        Self::Step2Missing,
        Self::Step2Unheard,
        Self::Step1Unheard,
        Self::Step1Elsewhere,
        Self::Step1Missing,
        Self::CodeMissing,
        Self::KnockRefused,
        Self::RateLimited,
        Self::LockedOut,
        Self::GrantFailed,
        Self::SequenceUnfinished,
        Self::GrantedOtherApp,
        Self::GrantedOtherFamily,
        Self::GrantedOtherAddress,
        Self::WrongFamily,
        Self::ProxyAddress,
        Self::PrivateAddress,
        Self::DaemonNotRunning,
        Self::StepNotListening,
        Self::KnockBlocked,
        Self::CertificateExpired,
        Self::HostDrops,
        Self::HostBans,
        Self::HostDropsReply,
        Self::OurRuleDrops,
        Self::NothingListens,
        Self::ListensLoopback,
        Self::ListensElsewhere,
        Self::ListensOtherFamily,
        Self::NoRoute,
        Self::NoRouteBack,
        Self::ForwardingOff,
        Self::ReversePath,
        Self::RouteForbids,
        Self::AsymmetricRoute,
        Self::InterfaceDown,
        Self::RateRule,
        Self::NoAddress,
        Self::LanHostDown,
        Self::LanRefuses,
        Self::LanSilent,
        Self::NoAnswer,
        Self::NoMasquerade,
        Self::ConntrackFull,
        Self::EstablishedLives,
        Self::Flowtable,
        Self::NeighbourDrops,
        Self::CannotTell,
        Self::LegacyRules,
        Self::Xdp,
        Self::Redirected,
        Self::DaemonMute,
        Self::BadConfiguration,
    ];

    /// Its code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Allowed => "allowed",
            Self::OtherInterface => "other-interface",
            Self::NotGuarded => "not-guarded",
            Self::NotInForce => "not-in-force",
            Self::NotReloaded => "not-reloaded",
            Self::NoGuard => "no-guard",
            Self::OwnAddress => "own-address",
            Self::NotKnocked => "not-knocked",
            Self::GrantExpired => "grant-expired",
            Self::GrantRevoked => "grant-revoked",
            Self::OnceUsed => "once-used",
            Self::Step2Missing => "step2-missing",
            Self::Step2Unheard => "step2-unheard",
            Self::Step1Unheard => "step1-unheard",
            Self::Step1Elsewhere => "step1-elsewhere",
            Self::Step1Missing => "step1-missing",
            Self::CodeMissing => "code-missing",
            Self::KnockRefused => "knock-refused",
            Self::RateLimited => "rate-limited",
            Self::LockedOut => "locked-out",
            Self::GrantFailed => "grant-failed",
            Self::SequenceUnfinished => "sequence-unfinished",
            Self::GrantedOtherApp => "granted-other-app",
            Self::GrantedOtherFamily => "granted-other-family",
            Self::GrantedOtherAddress => "granted-other-address",
            Self::WrongFamily => "wrong-family",
            Self::ProxyAddress => "proxy-address",
            Self::PrivateAddress => "private-address",
            Self::DaemonNotRunning => "daemon-not-running",
            Self::StepNotListening => "step-not-listening",
            Self::KnockBlocked => "knock-blocked",
            Self::CertificateExpired => "certificate-expired",
            Self::HostDrops => "host-drops",
            Self::HostBans => "host-bans",
            Self::HostDropsReply => "host-drops-reply",
            Self::OurRuleDrops => "our-rule-drops",
            Self::NothingListens => "nothing-listens",
            Self::ListensLoopback => "listens-loopback",
            Self::ListensElsewhere => "listens-elsewhere",
            Self::ListensOtherFamily => "listens-other-family",
            Self::NoRoute => "no-route",
            Self::NoRouteBack => "no-route-back",
            Self::ForwardingOff => "forwarding-off",
            Self::ReversePath => "reverse-path",
            Self::RouteForbids => "route-forbids",
            Self::AsymmetricRoute => "asymmetric-route",
            Self::InterfaceDown => "interface-down",
            Self::RateRule => "rate-rule",
            Self::NoAddress => "no-address",
            Self::LanHostDown => "lan-host-down",
            Self::LanRefuses => "lan-refuses",
            Self::LanSilent => "lan-silent",
            Self::NoAnswer => "no-answer",
            Self::NoMasquerade => "no-masquerade",
            Self::ConntrackFull => "conntrack-full",
            Self::EstablishedLives => "established-lives",
            Self::Flowtable => "flowtable",
            Self::NeighbourDrops => "neighbour-drops",
            Self::CannotTell => "cannot-tell",
            Self::LegacyRules => "legacy-rules",
            Self::Xdp => "xdp",
            Self::Redirected => "redirected",
            Self::DaemonMute => "daemon-mute",
            Self::BadConfiguration => "bad-configuration",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_manual_lists_every_cause_and_no_other() {
        let manual = include_str!("../../../docs/explain.md");
        let (_, manual) = manual.split_once("\n## Causes\n").unwrap();
        let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let listed: BTreeSet<&str> = rows.collect();
        let known: BTreeSet<&str> = Cause::ALL.into_iter().map(Cause::code).collect();
        assert_eq!(known.len(), Cause::ALL.len());
        assert_eq!(listed, known);
    }
}
