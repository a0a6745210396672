//! The command line: one file per verb, and the only place that prints.

#[cfg(feature = "gateway")]
pub mod allow;
#[cfg(feature = "gateway")]
mod as_root;
#[cfg(feature = "gateway")]
mod beside;
#[cfg(feature = "gateway")]
pub mod cert;
#[cfg(feature = "gateway")]
pub mod check_config;
#[cfg(feature = "gateway")]
pub mod check_ruleset;
#[cfg(feature = "gateway")]
mod companions;
#[cfg(feature = "gateway")]
pub mod confirm;
#[cfg(feature = "client")]
pub mod connect;
#[cfg(feature = "gateway")]
mod consent;
#[cfg(feature = "gateway")]
pub mod demo;
#[cfg(feature = "gateway")]
pub mod enroll;
mod exit;
#[cfg(feature = "gateway")]
pub mod explain;
#[cfg(feature = "gateway")]
mod flags;
#[cfg(feature = "generate")]
pub mod generate;
#[cfg(feature = "gateway")]
pub mod grant;
#[cfg(feature = "gateway")]
pub mod guard;
#[cfg(feature = "gateway")]
pub mod hash_key;
#[cfg(feature = "gateway")]
pub mod health;
#[cfg(feature = "gateway")]
mod host_flags;
#[cfg(feature = "gateway")]
mod host_name;
#[cfg(all(feature = "gateway", feature = "client"))]
pub mod init;
#[cfg(feature = "gateway")]
mod installed;
#[cfg(feature = "client")]
pub mod knock;
#[cfg(feature = "client")]
mod knock_sequence;
#[cfg(feature = "client")]
mod knock_timed;
mod knock_watch;
#[cfg(feature = "gateway")]
pub mod load;
#[cfg(feature = "gateway")]
pub mod log;
#[cfg(feature = "gateway")]
mod logging;
#[cfg(feature = "gateway")]
mod operate;
mod output;
#[cfg(feature = "gateway")]
mod outside;
#[cfg(feature = "client")]
mod person;
#[cfg(feature = "gateway")]
mod proxy_flags;
#[cfg(feature = "gateway")]
pub mod quick;
#[cfg(feature = "gateway")]
mod readable;
#[cfg(feature = "gateway")]
pub mod revoke;
#[cfg(feature = "gateway")]
pub mod run;
#[cfg(feature = "gateway")]
pub mod status;
#[cfg(feature = "gateway")]
pub mod teardown;
#[cfg(feature = "gateway")]
pub mod unblock;

pub use exit::Exit;
#[cfg(feature = "gateway")]
pub use flags::{ConfigArg, DaemonArgs, FirewallType};
#[cfg(feature = "gateway")]
pub use host_flags::HostArgs;
#[cfg(feature = "gateway")]
pub use logging::LogFormat;
pub use output::{Printer, Tone, plain};
#[cfg(feature = "gateway")]
pub use proxy_flags::{ProxyArgs, Steps};

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "gateway")]
use crate::backend::iptables::as_root::ROLE as AS_ROOT;
#[cfg(feature = "gateway")]
use crate::service::{front, herald, launcher, trial};

#[cfg(feature = "gateway")]
const EXAMPLES: &str = "\
Examples:
  sudo knock-agent init                            set it up, with a few questions
  knock-agent demo                                 see it work, nothing of this host is touched
  knock-agent check-config -c config.yaml          is the configuration right?
  sudo knock-agent check-ruleset                   what would change in this host's firewall?
  sudo knock-agent run --cert cert.pem --key key.pem
  sudo knock-agent status                          who is in, and for how long?
  sudo knock-agent explain 203.0.113.7 ssh         why is that address not let through?
  sudo knock-agent grant ssh 203.0.113.7 --for 2h  let somebody in by hand
  knock-agent knock home                           knock, as the profile `home` says

Exit codes:
  0 done   1 something was found   2 wrong usage   3 `explain` cannot tell
  69 daemon or kernel unreachable   70 a bug   74 input or output failed   77 no permission   78 bad configuration";

/// What is built is the client alone.
#[cfg(not(feature = "gateway"))]
const EXAMPLES: &str = "\
Examples:
  knock-agent knock home                           open what the profile `home` says
  knock-agent knock home --watch --for 1h          keep it open
  ssh -o 'ProxyCommand=knock-agent connect home %h %p' gate.example.com

`knock-agent knock --help` lists the exit codes.";

/// Opens closed ports to those who knock: two secret requests, one address, a limited time
///
/// Ports of this host, or of hosts behind it, are closed with nftables. A client sends a secret to a port that never
/// answers (step 1), then a second one over HTTPS (step 2); the kernel opens the service for that address and closes
/// it by itself when the time is over.
#[derive(Debug, Parser)]
#[command(name = "knock-agent", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set it up: a few questions, a configuration, and the commands that open it
    #[cfg(all(feature = "gateway", feature = "client"))]
    Init(init::InitArgs),
    /// Guard the ports and let in who knocks (the daemon)
    #[cfg(feature = "gateway")]
    Run(run::RunArgs),
    /// Close the ports and exit (early boot); with a bad configuration, as the last good one said
    #[cfg(feature = "gateway")]
    Guard(guard::GuardArgs),
    /// Check the configuration file, and nothing else
    #[cfg(feature = "gateway")]
    CheckConfig(check_config::CheckConfigArgs),
    /// Show what would change in the firewall and what stands in its way; changes nothing
    #[cfg(feature = "gateway")]
    CheckRuleset(check_ruleset::CheckRulesetArgs),
    /// Keep what `run --confirm` put in force
    #[cfg(feature = "gateway")]
    Confirm(confirm::ConfirmArgs),
    /// Show who is let in and for how long
    #[cfg(feature = "gateway")]
    Status(status::StatusArgs),
    /// Show what happened: who was let in, refused, locked out; repairs and reloads
    #[cfg(feature = "gateway")]
    Log(log::LogArgs),
    /// Tell whether all is well, for scripts and monitors
    #[cfg(feature = "gateway")]
    Health(health::HealthArgs),
    /// Say why an address is or is not let through right now, and what to try
    #[cfg(feature = "gateway")]
    Explain(Box<explain::ExplainArgs>),
    /// Let an address in by hand
    #[cfg(feature = "gateway")]
    Grant(grant::GrantArgs),
    /// Take back what was granted
    #[cfg(feature = "gateway")]
    Revoke(revoke::RevokeArgs),
    /// Let a network in without a knock
    #[cfg(feature = "gateway")]
    Allow(allow::AllowArgs),
    /// Lift the lock-out of an address that failed too often
    #[cfg(feature = "gateway")]
    Unblock(unblock::UnblockArgs),
    /// Remove everything of knock-agent from the firewall; guarded ports are open afterwards
    #[cfg(feature = "gateway")]
    Teardown(teardown::TeardownArgs),
    /// Make a self-signed certificate and key for step 2
    #[cfg(feature = "gateway")]
    Cert(cert::CertArgs),
    /// Print what the configuration stores instead of a key, or make a new one
    #[cfg(feature = "gateway")]
    HashKey(hash_key::HashKeyArgs),
    /// Make a secret for one-time codes: QR code, files, one code checked
    #[cfg(feature = "gateway")]
    Enroll(enroll::EnrollArgs),
    /// Knock: open what a profile says, keep it open, or close it (the client)
    #[cfg(feature = "client")]
    Knock(knock::KnockArgs),
    /// Connect to a port that opens to a knock, for ssh's ProxyCommand (the client)
    #[cfg(feature = "client")]
    Connect(connect::ConnectArgs),
    /// Show the whole story in private namespaces; nothing of this host is touched
    #[cfg(feature = "gateway")]
    Demo(demo::DemoArgs),
    /// Write manual pages, completions for shells, or JSON schemas
    #[cfg(feature = "generate")]
    Generate(generate::GenerateArgs),
}

/// Does what the command line of this process says.
#[must_use]
pub fn main() -> ExitCode {
    // The default hook has printed where it happened; the code tells a bug from everything else.
    let outcome = std::panic::catch_unwind(|| {
        #[cfg(feature = "gateway")]
        if let Some(exit) = other_role() {
            return exit;
        }
        run_with(std::env::args_os())
    });
    outcome.unwrap_or(Exit::Bug).into()
}

/// Plays the part that this process was started for by the daemon, if it was.
#[cfg(feature = "gateway")]
fn other_role() -> Option<Exit> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    if role == AS_ROOT {
        let words: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
        return Some(as_root::run(&words));
    }
    let style = args.next().map(|style| style.to_string_lossy().into_owned()).unwrap_or_default();
    let log = || style.parse::<logging::LogStyle>();
    let done = if role == trial::WATCHER {
        trial::watch()
    } else if role == launcher::LAUNCHER {
        launcher::launch(&style)
    } else if role == front::FRONT {
        let Ok(()) = log().map(logging::LogStyle::begin_in_pipe);
        front::front()
    } else if role == herald::TELLER {
        let Ok(()) = log().map(logging::LogStyle::begin);
        herald::tell()
    } else {
        return None;
    };
    Some(if done { Exit::Done } else { Exit::Unavailable })
}

fn run_with(args: impl Iterator<Item = OsString>) -> Exit {
    match Cli::try_parse_from(args) {
        Ok(cli) => dispatch(cli.verb),
        Err(error) => {
            let printed = error.print();
            match printed {
                Err(fault) if fault.kind() != ErrorKind::BrokenPipe => Exit::Io,
                Ok(()) | Err(_) if error.exit_code() == 0 => Exit::Done,
                Ok(()) | Err(_) => Exit::Usage,
            }
        }
    }
}

fn dispatch(verb: Verb) -> Exit {
    match verb {
        #[cfg(all(feature = "gateway", feature = "client"))]
        Verb::Init(args) => init::run(args),
        #[cfg(feature = "gateway")]
        Verb::Run(args) => run::run(args),
        #[cfg(feature = "gateway")]
        Verb::Guard(args) => guard::run(args),
        #[cfg(feature = "gateway")]
        Verb::CheckConfig(args) => check_config::run(args),
        #[cfg(feature = "gateway")]
        Verb::CheckRuleset(args) => check_ruleset::run(args),
        #[cfg(feature = "gateway")]
        Verb::Confirm(args) => confirm::run(args),
        #[cfg(feature = "gateway")]
        Verb::Status(args) => status::run(args),
        #[cfg(feature = "gateway")]
        Verb::Log(args) => log::run(args),
        #[cfg(feature = "gateway")]
        Verb::Health(args) => health::run(args),
        #[cfg(feature = "gateway")]
        Verb::Explain(args) => explain::run(*args),
        #[cfg(feature = "gateway")]
        Verb::Grant(args) => grant::run(args),
        #[cfg(feature = "gateway")]
        Verb::Revoke(args) => revoke::run(args),
        #[cfg(feature = "gateway")]
        Verb::Allow(args) => allow::run(args),
        #[cfg(feature = "gateway")]
        Verb::Unblock(args) => unblock::run(args),
        #[cfg(feature = "gateway")]
        Verb::Teardown(args) => teardown::run(args),
        #[cfg(feature = "gateway")]
        Verb::Cert(args) => cert::run(args),
        #[cfg(feature = "gateway")]
        Verb::HashKey(args) => hash_key::run(args),
        #[cfg(feature = "gateway")]
        Verb::Enroll(args) => enroll::run(args),
        #[cfg(feature = "client")]
        Verb::Knock(args) => knock::run(args),
        #[cfg(feature = "client")]
        Verb::Connect(args) => connect::run(args),
        #[cfg(feature = "gateway")]
        Verb::Demo(args) => demo::run(args),
        #[cfg(feature = "generate")]
        Verb::Generate(args) => generate::run(args),
    }
}

#[cfg(all(test, feature = "gateway", feature = "client"))]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Verb, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.verb)
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_and_flag_says_what_it_is_and_verbs_about_the_gateway_take_a_configuration() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            let configured = verb.get_arguments().any(|arg| arg.get_short() == Some('c'));
            let others = ["hash-key", "knock", "connect", "log", "generate"].contains(&verb.get_name());
            assert_eq!(configured, !others, "{}", verb.get_name());
            for arg in verb.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn daemon_flags_have_the_reference_s_defaults() {
        let Ok(Verb::Run(args)) = parsed("knock-agent run") else { panic!("run") };
        assert_eq!(args.daemon.file.config.to_str(), Some("/etc/knock-agent/config.yaml"));
        assert_eq!(args.daemon.public_ports(), (8080.try_into().unwrap(), 8443.try_into().unwrap()));
        assert!(args.daemon.steps().behind.is_none());
        assert_eq!(args.daemon.firewall_type, None);
        assert_eq!(args.daemon.kind(), FirewallType::Nftables);
    }

    #[test]
    fn an_enrolment_is_of_a_user_or_of_a_client_with_apps() {
        for line in
            ["enroll", "enroll --sequence x", "enroll alice --app ssh", "enroll alice --sequence x --app ssh"]
        {
            assert!(parsed(&format!("knock-agent {line}")).is_err(), "{line}");
        }
        for line in ["enroll alice --interval 60", "enroll --sequence x --app ssh --app web --no-pin"] {
            assert!(parsed(&format!("knock-agent {line}")).is_ok(), "{line}");
        }
        for line in [
            "--sequence-secret-file x --sequence 1,2",
            "--sequence-code --sequence-kind secret",
            "--ask-pin=1234",
        ] {
            assert!(parsed(&format!("knock-agent knock {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn a_certificate_is_for_names_that_clients_can_ask_for() {
        for name in ["", "a..b", "http://gate/", "203.0.113.1:443"] {
            assert!(parsed(&format!("knock-agent cert --name {name}")).is_err(), "{name}");
        }
        assert!(parsed("knock-agent cert --name *.example.com --name ::1").is_ok());
    }

    #[test]
    fn with_a_proxy_in_front_clients_use_its_ports() {
        let line =
            "knock-agent guard --waf-http-port 80 --waf-https-port 443 --http-port 8081 --https-port 8444";
        let Ok(Verb::Guard(args)) = parsed(line) else { panic!("guard") };
        let steps = args.daemon.steps();
        let behind = steps.behind.unwrap();
        assert_eq!((steps.ports.http, steps.ports.https), (80, 443));
        assert_eq!((behind.http.get(), behind.https.get()), (8081, 8444));
        assert!(behind.trusted.is_loopback());
        let Ok(Verb::Guard(args)) = parsed(&format!("{line} --waf-trusted-ips 10.0.0.5,fd00::/64")) else {
            panic!("guard")
        };
        assert_eq!(args.daemon.steps().behind.unwrap().trusted.networks().len(), 2);
    }

    #[test]
    fn lines_of_the_reference_are_understood() {
        for flags in [
            "--use-sudo --service-rule-cleanup-on-shutdown",
            "--firewall-type iptables --iptables-variant legacy --use-sudo",
            "--firewall-type vyos --nftables-table-filter x --nftables-chain-input x --nftables-chain-forward x",
            "--nftables-chain-default-input x --nftables-chain-default-output x --nftables-chain-default-forward x",
            "--nftables-table-nat x --nftables-chain-default-prerouting x --nftables-chain-default-postrouting x",
        ] {
            assert!(parsed(&format!("knock-agent run {flags}")).is_ok(), "{flags}");
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_usage_errors() {
        for line in [
            "knock-agent",
            "knock-agent fly",
            "knock-agent run --http-port 0",
            "knock-agent run --http-port 65536",
            "knock-agent run --firewall-type pf",
            "knock-agent run --waf-http-port 80",
            "knock-agent run --waf-https-port 443",
            "knock-agent run --waf-trusted-ips 10.0.0.1",
            "knock-agent run --waf-http-port 80 --waf-https-port 443 --waf-trusted-ips 0.0.0.0/0",
            "knock-agent run --waf-http-port 80 --waf-https-port 443 --waf-trusted-ips proxy.example",
            "knock-agent grant ssh",
            "knock-agent grant ssh nowhere",
            "knock-agent grant ssh fe80::1%eth0",
            "knock-agent grant global 10.0.0.1",
            "knock-agent grant ssh 10.0.0.1 --for ever",
            "knock-agent revoke",
            "knock-agent revoke ssh",
            "knock-agent revoke ssh 10.0.0.1 --all",
            "knock-agent revoke ssh 10.0.0.1 --app ssh",
            "knock-agent revoke --app ssh",
            "knock-agent allow",
            "knock-agent allow 10.0.0.0/33",
            "knock-agent allow 10.0.0.0/8 --list",
            "knock-agent allow --list --flush",
            "knock-agent allow --list --for 1h",
            "knock-agent unblock",
            "knock-agent unblock 10.0.0.1 --all",
            "knock-agent check-ruleset --print pf",
            "knock-agent knock home --close --watch",
            "knock-agent knock home --close --for 1h",
            "knock-agent knock home -4 -6",
            "knock-agent connect home gate.example.com",
            "knock-agent enroll ../alice",
            "knock-agent enroll alice --file a --folder b",
            "knock-agent enroll alice --digits 5",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn lines_of_the_manual_are_understood() {
        for line in [
            "knock-agent guard -c x.yaml --http-port 80 --https-port 443",
            "knock-agent check-config --strict --json -c x.yaml",
            "knock-agent check-ruleset --offline --print nft --http-port 80",
            "knock-agent check-ruleset --json --diff-exit",
            "knock-agent run --confirm 60s --yes",
            "knock-agent run --ask",
            "knock-agent confirm",
            "knock-agent status --json",
            "knock-agent health --json --http-port 80 --cert cert.pem",
            "knock-agent explain 10.0.0.1 ssh --json",
            "knock-agent explain 2001:db8::1",
            "knock-agent grant ssh 10.0.0.1 --for 2h",
            "knock-agent grant ssh 2001:db8::1",
            "knock-agent revoke ssh 10.0.0.1",
            "knock-agent revoke --all",
            "knock-agent revoke --all --app ssh",
            "knock-agent allow 10.0.0.0/8",
            "knock-agent allow 2001:db8::/32 --app ssh --for 30d",
            "knock-agent allow --list",
            "knock-agent allow --flush",
            "knock-agent unblock 2001:db8::1",
            "knock-agent unblock --all",
            "knock-agent teardown",
            "knock-agent cert",
            "knock-agent demo",
            "knock-agent enroll alice --png a.png --svg a.svg --uri --force",
            "knock-agent knock",
            "knock-agent knock home --for 2h --wait=10s --port 22 -6",
            "knock-agent knock home --watch --for 1h --then ssh -v home",
            "knock-agent knock home --close",
            "knock-agent connect home gate.example.com 22",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
    }
}
