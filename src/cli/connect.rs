//! `knock-agent connect`, for ssh's `ProxyCommand`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::knock::SecretArgs;
use crate::cli::knock_sequence;
use crate::cli::person::{Person, exit_of, farthest, profile};
use crate::cli::{Exit, Printer};
use crate::client::{Client, Failure, Stream, open, pipe, resolve};
use crate::config::Way;
use crate::knock::Action;

/// How long it may take after one.
const AFTER: Duration = Duration::from_secs(10);

/// The arguments of `connect`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Standard input and output are the connection. Where the port is open already, nothing is knocked.\nKeys and codes are asked for at the terminal, never from standard input.\n\nIn ~/.ssh/config:\n  Host home\n      HostName gate.example.com\n      ProxyCommand knock-agent connect home %h %p\n\nExit codes: those of `knock-agent knock`; 1 where the port stays closed after a knock."
)]
pub struct ConnectArgs {
    /// A profile's name, or a path with a slash in it
    #[arg(value_name = "PROFILE")]
    pub profile: String,

    /// The host of the service
    #[arg(value_name = "HOST")]
    pub host: String,

    /// The TCP port of the service
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// What does not belong here.
    #[command(flatten)]
    pub secrets: SecretArgs,
}

/// Connects to the service, knocking if need be.
#[must_use]
pub fn run(args: ConnectArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = match connect(&args, &mut err) {
        Ok(stream) => match pipe(&stream) {
            Ok(()) => Exit::Done,
            Err(error) => {
                err.line(format!("error: the connection broke: {error}"));
                Exit::Io
            }
        },
        Err(exit) => exit,
    };
    err.finish(exit)
}

fn connect(args: &ConnectArgs, err: &mut Printer) -> Result<Stream, Exit> {
    args.secrets.vet(err)?;
    let profile = profile(Some(&args.profile), err)?;
    let told = |failure: Failure, err: &mut Printer| {
        err.line(format!("error: {failure}"));
        exit_of(&failure)
    };
    let addresses = resolve(&args.host, profile.families())
        .map_err(|source| told(Failure::Unresolved { host: args.host.clone(), source }, err))?;
    // One try: an open port answers at once.
    if let Some(stream) = open(&addresses, args.port, Instant::now()) {
        return Ok(stream);
    }
    let person = Person { stdin_is_free: false };
    let profile = match profile {
        Way::Steps(profile) => *profile,
        Way::Knocks(profile) => {
            knock_sequence::knock(&profile, &person, err)?;
            return reach(&addresses, args, err);
        }
    };
    let duration = profile.duration;
    let client = Client::new(profile, &person).map_err(|failure| told(failure, err))?;
    let gateway = client.addresses().map_err(|failure| told(failure, err))?;
    let attempts = client.knock(&gateway, Action::Open, duration);
    if attempts.iter().all(|attempt| attempt.outcome.is_err()) {
        let failures: Vec<&Failure> = attempts.iter().filter_map(|a| a.outcome.as_ref().err()).collect();
        for failure in &failures {
            err.line(format!("error: {failure}"));
        }
        return Err(farthest(&failures));
    }
    reach(&addresses, args, err)
}

fn reach(addresses: &[IpAddr], args: &ConnectArgs, err: &mut Printer) -> Result<Stream, Exit> {
    open(addresses, args.port, Instant::now() + AFTER).ok_or_else(|| {
        err.line(format!("error: knocked, but port {} of {} stays closed", args.port, args.host));
        Exit::Found
    })
}
