//! `knock-agent demo`: the whole story with real packets, in namespaces that end with it.

mod client;
mod gateway;
mod interrupt;
mod namespaces;
mod report;
mod sequence;
mod story;
mod wire;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};

use gateway::{Folder, Gateway, GatewayError, Play};
use interrupt::Ward;
use namespaces::{End, Namespace, NamespaceError, connect};
use report::Report;
use story::{Cast, Stage};
use wire::Witness;

/// The gateway's interface towards the world.
const OUTSIDE: &str = "outside";

/// The arguments of `demo`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Needs the program `ip` (package iproute2), and no root: where unprivileged user namespaces are \
                  forbidden it says so and works with sudo."
)]
pub struct DemoArgs {
    /// Not read: the demo makes a configuration of its own.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Tell of a knock sequence instead, with the defaults of `run --sequence`; takes half a minute
    #[arg(long)]
    pub sequence: bool,
}

/// Why the story could not be told.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// There is no place to tell it in.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no gateway to tell it of.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Something else that it needs.
    #[error("could not {0}")]
    Other(String),
}

impl DemoError {
    fn exit(&self) -> Exit {
        match self {
            Self::Namespace(NamespaceError::Forbidden { .. }) => Exit::NoPermission,
            Self::Namespace(NamespaceError::Missing(_)) => Exit::Unavailable,
            Self::Gateway(GatewayError::Verb { .. } | GatewayError::NotReady { .. }) => Exit::Found,
            Self::Namespace(NamespaceError::System { .. } | NamespaceError::Ip { .. })
            | Self::Gateway(GatewayError::System { .. } | GatewayError::Random)
            | Self::Other(_) => Exit::Io,
        }
    }
}

/// Tells the whole story on standard output: [`Exit::Done`] only if all of it happened.
///
/// Must be called while the process has one thread, because it moves the process into namespaces of its own.
#[must_use]
pub fn run(args: DemoArgs) -> Exit {
    let play = if args.sequence { Play::Sequence } else { Play::Steps };
    match tell(play) {
        Ok(exit) => exit,
        Err(error) => {
            let mut err = Printer::stderr();
            err.line(format!("error: {error}"));
            let mut cause = error.source();
            while let Some(inner) = cause {
                err.line(format!("  because: {inner}"));
                cause = inner.source();
            }
            err.finish(error.exit())
        }
    }
}

fn tell(play: Play) -> Result<Exit, DemoError> {
    let begun = Instant::now();
    let router = Namespace::enter_private()?;
    let world = Namespace::another()?;
    let folder = Folder::new()?;
    let ward = Ward::default();
    interrupt::watch(&ward, folder.path())
        .map_err(|errno| DemoError::Other(format!("watch signals: {errno}")))?;

    let casts = casts();
    let ours = casts.map(|cast| with_prefix(cast.gateway));
    let theirs = casts.map(|cast| [with_prefix(cast.client), with_prefix(cast.neighbour)]).concat();
    connect(
        &End { namespace: &router, interface: OUTSIDE, addresses: &ours },
        &End { namespace: &world, interface: "client", addresses: &theirs },
    )?;
    let gateway = Gateway::prepare(&router, &folder, OUTSIDE, play)?;
    let witness =
        world.within(Witness::watch).map_err(|errno| DemoError::Other(format!("watch the wire: {errno}")))?;

    let mut report = Report::new();
    report.say("A client and a gateway in network namespaces of their own. Nothing of this host is touched.");
    for cast in casts {
        report.say(&format!("    client {}  ───  {} gateway", cast.client, cast.gateway));
    }
    report.say("");
    let agent = gateway.start(&ward)?;
    let stage = Stage { outside: &world, gateway: &gateway, witness, casts };
    let played = match play {
        Play::Steps => stage.play(agent, &mut report),
        Play::Sequence => stage.play_sequence(agent, &mut report),
    };
    played.map_err(DemoError::Other)?;
    Ok(report.finish(begun.elapsed(), || gateway.log()))
}

/// Addresses that are reserved for documentation.
fn casts() -> [Cast; 2] {
    let four = |last| Ipv4Addr::new(203, 0, 113, last).into();
    let six = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
    [
        Cast { gateway: four(1), client: four(7), neighbour: four(66) },
        Cast { gateway: six(1), client: six(7), neighbour: six(0x66) },
    ]
}

fn with_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}
