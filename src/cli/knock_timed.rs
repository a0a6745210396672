//! The flags of `knock-agent knock` for knocks that change with time.

use std::path::PathBuf;

use clap::Args;

use crate::config::{SecretSource, TimedKnocks};
use crate::units::{KnockKind, KnockShape, Lifetime, PortRange, Protocol};

/// The flags; secrets come from files, descriptors and the terminal only.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "timed")]
pub struct TimedArgs {
    /// Knock at ports that change with time, by the secret in the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sequence", "sequence_secret_fd", "sequence_code", "app", "duration", "close", "watch"])]
    pub sequence_secret_file: Option<PathBuf>,

    /// The same, by the secret that comes out of this file descriptor
    #[arg(long, value_name = "FD", conflicts_with_all = ["sequence", "sequence_code", "app", "duration", "close", "watch"])]
    pub sequence_secret_fd: Option<u32>,

    /// The same, by the code of an authenticator app, which is asked for (the kind knock-knock)
    #[arg(long, conflicts_with_all = ["sequence", "sequence_kind", "app", "duration", "close", "watch"])]
    pub sequence_code: bool,

    /// Also ask for the PIN
    #[arg(long, conflicts_with = "pin_file")]
    pub ask_pin: bool,

    /// Also take the PIN from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,

    /// By which rule knocks change: secret, or knock-knock as that program's
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub sequence_kind: Option<KnockKind>,

    /// How many knocks there are, 1 to 8 [default: 4; with knock-knock 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub knocks: Option<u8>,

    /// The ports they are at [default: 20000-31999]
    #[arg(long, value_name = "PORTS")]
    pub knock_ports: Option<PortRange>,

    /// The lengths of datagrams count
    #[arg(long)]
    pub knock_lengths: bool,

    /// Knock at TCP ports
    #[arg(long, conflicts_with = "knock_lengths")]
    pub knock_tcp: bool,

    /// How often they change [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub knock_every: Option<Lifetime>,
}

fn kind(text: &str) -> Result<KnockKind, &'static str> {
    match text {
        "secret" => Ok(KnockKind::Secret),
        "knock-knock" => Ok(KnockKind::KnockKnock),
        _ => Err("write secret or knock-knock"),
    }
}

impl TimedArgs {
    /// What is wrong with the flags together, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let ours =
            self.knock_ports.is_some() || self.knock_lengths || self.knock_tcp || self.knock_every.is_some();
        let more = ours
            || self.ask_pin
            || self.pin_file.is_some()
            || self.sequence_kind.is_some()
            || self.knocks.is_some();
        let Some(timed) = self.knocks() else {
            let fault = "these flags are for knocks that change with time: say where the secret is, by --sequence-secret-file, --sequence-secret-fd or --sequence-code";
            return more.then_some(fault);
        };
        let theirs = timed.shape.kind == KnockKind::KnockKnock;
        (theirs && ours).then_some("with the kind knock-knock, ports, lengths and times are always the same")
    }

    /// What the flags say, if they say where the secret is.
    pub(super) fn knocks(&self) -> Option<TimedKnocks> {
        let file = self.sequence_secret_file.clone().map(SecretSource::File);
        let secret = file.or(self.sequence_secret_fd.map(SecretSource::Descriptor));
        if secret.is_none() && !self.sequence_code {
            return None;
        }
        let typed = self.ask_pin.then_some(SecretSource::Prompt);
        let pin = self.pin_file.clone().map(SecretSource::File).or(typed);
        let usual = if self.sequence_code { KnockKind::KnockKnock } else { KnockKind::Secret };
        let usual = TimedKnocks::usual(self.sequence_kind.unwrap_or(usual), secret, pin)?;
        let shape = KnockShape {
            count: self.knocks.unwrap_or(usual.shape.count),
            ports: self.knock_ports.unwrap_or(usual.shape.ports),
            lengths: self.knock_lengths || usual.shape.lengths,
            protocol: if self.knock_tcp { Protocol::Tcp } else { usual.shape.protocol },
            ..usual.shape
        };
        Some(TimedKnocks { shape, every: self.knock_every.unwrap_or(usual.every), ..usual })
    }
}
