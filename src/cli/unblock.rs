//! `knock-agent unblock`.

use std::net::IpAddr;

use clap::Args;

use crate::cli::operate::tell_daemon;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;
use crate::units::{Family, Network};

/// An IPv6 network that a lock-out is for: bits.
const LOCKED_V6: u8 = 64;

/// The arguments of `unblock`.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "knock-agent unblock [OPTIONS] ADDR\n       knock-agent unblock [OPTIONS] --all")]
#[command(
    after_help = "For root, the user that the daemon runs as, and members of the group knock-agent.\nWho is locked out is in `knock-agent status`. Any IPv6 address stands for its /64.\n\nExamples:\n  sudo knock-agent unblock 203.0.113.7\n  sudo knock-agent unblock --all"
)]
pub struct UnblockArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The address that may knock again, or its /64
    #[arg(value_name = "ADDR", required_unless_present = "all", conflicts_with = "all", value_parser = locked_out)]
    pub address: Option<IpAddr>,

    /// Lift every lock-out
    #[arg(long)]
    pub all: bool,
}

/// An address, or a network as `status` shows it.
fn locked_out(text: &str) -> Result<IpAddr, String> {
    let network: Network = text.parse().map_err(|error: crate::units::NetworkError| error.to_string())?;
    let widest = if network.family() == Family::V6 { LOCKED_V6 } else { Family::V4.bits() };
    if network.prefix_len() < widest {
        return Err(format!("lock-outs are of a /{widest} each: name each of them, or --all"));
    }
    Ok(network.first())
}

/// Has the daemon lift lock-outs.
#[must_use]
pub fn run(args: UnblockArgs) -> Exit {
    let nobody = ["error: no daemon runs here: nobody is locked out, as nobody can knock"];
    tell_daemon(&args.file, Request::Unblock { address: args.address }, &nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_status_shows_can_be_named() {
        let first: IpAddr = "2001:db8:1::".parse().unwrap();
        assert_eq!(locked_out("2001:db8:1::/64"), Ok(first));
        assert_eq!(locked_out("203.0.113.7"), Ok("203.0.113.7".parse().unwrap()));
        for (wrong, why) in [
            ("2001:db8::/48", "/64 each"),
            ("203.0.113.0/24", "/32 each"),
            ("2001:db8:1::5/64", "2001:db8:1::/64?"),
        ] {
            let error = locked_out(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
