//! The questions themselves, each with what is usual on this host.

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use super::InitArgs;
use super::answers::{Answers, Service, protocol_word};
use super::host::{self as here, Listening};
use super::questions::{Question, Questions};
use super::{named, write};
use crate::cli::Exit;
use crate::cli::consent::own_session;
use crate::cli::host_name::host;
use crate::config::{Destination, parse_destination};
use crate::sys::files;
use crate::units::{AppName, IfName, Lifetime, Network, Protocols, UserName};

/// Networks, or none.
#[derive(Clone, Debug)]
pub struct Networks(Vec<Network>);

/// A user, or nobody.
#[derive(Clone, Debug)]
pub struct User(Option<UserName>);

/// The word for nothing.
const NONE: &str = "none";

/// `PORT`, `PORT/tcp`, `PORT/udp` or `PORT/both`, or the name of a service that is known.
pub fn service(text: &str) -> Result<Service, String> {
    let hint = || "write a port from 1 to 65535, alone or as 22/tcp, 51820/udp or 3389/both".to_owned();
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return named::service(text)?.ok_or_else(|| format!("no service `{text}` is known here: {}", hint()));
    }
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocols::Tcp,
        "udp" => Protocols::Udp,
        "both" => Protocols::Both,
        _ => return Err(hint()),
    };
    let port = port.parse::<NonZeroU16>().map_err(|_| hint())?;
    Ok(Service { port, protocol })
}

/// As `destination` of an app.
pub fn destination(text: &str) -> Result<Destination, String> {
    parse_destination(text)
        .ok_or_else(|| "write local, or the address of a LAN host: 192.168.0.42, 192.168.0.42:22, fd00::42, [fd00::42]:22".to_owned())
}

/// Networks with commas between them, or none.
pub fn networks(text: &str) -> Result<Networks, String> {
    if text == NONE {
        return Ok(Networks(Vec::new()));
    }
    let read = |part: &str| {
        let network = part.trim().parse::<Network>().map_err(|error| error.to_string())?;
        match network.prefix_len() {
            0 => Err("that would let everybody in without a knock".to_owned()),
            _ => Ok(network),
        }
    };
    text.split(',').map(read).collect::<Result<Vec<_>, _>>().map(Networks)
}

/// A user's name, or none.
pub fn user(text: &str) -> Result<User, String> {
    if text == NONE {
        return Ok(User(None));
    }
    text.parse().map(|name| User(Some(name))).map_err(|error: crate::units::UserNameError| error.to_string())
}

/// Asks everything.
///
/// # Errors
/// The exit code, after its reason was printed.
pub fn all(args: &InitArgs, questions: &mut Questions<'_>) -> Result<Answers, Exit> {
    let found = here::services();
    let service = ask_service(args, &found, questions)?;
    let app = ask_app(args, service, &found, questions)?;
    let destination = questions.ask(
        Question {
            flag: "--destination HOST",
            text: "Where is it? local, or the address of a LAN host",
            usual: Some("local".to_owned()),
        },
        args.destination,
        destination,
    )?;
    if destination == Destination::Local {
        remark(service, &found, questions);
    }
    let ext = ask_ext(args, questions)?;
    let int = match destination.host() {
        None => None,
        Some(lan) => Some(ask_int(args, lan, questions)?),
    };
    let hosts = ask_hosts(args, &ext, questions)?;
    let duration = questions.ask(
        Question {
            flag: "--duration DURATION",
            text: "How long shall it stay open after a knock? Such as 30m, 8h, 24h",
            usual: Some("24h".to_owned()),
        },
        args.duration,
        |text| text.parse::<Lifetime>().map_err(|error| error.to_string()),
    )?;
    let Networks(allow) = ask_allow(args, questions)?;
    let tls = ask_tls(args, questions)?;
    let User(user) = questions.ask(
        Question {
            flag: "--two-factor USER",
            text: "Shall a one-time code of an authenticator app be needed, too? The user's name, or none",
            usual: Some(NONE.to_owned()),
        },
        args.two_factor.clone(),
        user,
    )?;
    let folder = args.file.config.parent().unwrap_or(Path::new(".")).to_owned();
    let codes = user.map(|user| {
        let file = folder.join(format!("{user}.json"));
        (user, file)
    });
    let ports = match args.http_port.zip(args.https_port).or_else(|| here::step_ports(service)) {
        Some(ports) => ports,
        None => {
            questions.err().line("error: no pair of usual ports is free for the two steps");
            questions.err().line("  fix: say which with --http-port and --https-port");
            return Err(Exit::Usage);
        }
    };
    Ok(Answers { app, service, destination, ext, int, hosts, duration, allow, codes, ports, tls })
}

fn ask_service(args: &InitArgs, found: &[Listening], questions: &mut Questions<'_>) -> Result<Service, Exit> {
    let shown = |one: &Listening| format!("{}/{}", one.service.port, protocol_word(one.service.protocol));
    if args.service.is_none() {
        questions.say(match found {
            [] => "Which service shall be closed until somebody knocks? Nothing that others can reach listens on this host.",
            _ => "Which service shall be closed until somebody knocks? These listen on this host:",
        });
        for (n, one) in found.iter().enumerate() {
            let program = one.program.as_deref().unwrap_or("");
            questions.say(&format!("  {:>2}  {:<10} {program}", n + 1, shown(one)));
        }
    }
    questions.ask(
        Question {
            flag: "--service PORT",
            text: match found {
                [] => "A port such as 22/tcp or 51820/udp",
                _ => "A number of the list, or a port such as 22/tcp or 51820/udp",
            },
            usual: Some(found.first().map_or_else(|| "22/tcp".to_owned(), shown)),
        },
        args.service,
        |text| chosen(text, found),
    )
}

/// Says so where nothing listens there: the port may be a wrong one.
fn remark(service: Service, found: &[Listening], questions: &mut Questions<'_>) {
    let of = service.protocol.each();
    let same = |one: &&Listening| one.service.port == service.port;
    let listens =
        found.iter().filter(same).flat_map(|one| one.service.protocol.each()).any(|p| of.contains(p));
    if !listens {
        let shown = format!("{}/{}", service.port, protocol_word(service.protocol));
        questions.note(&format!("nothing that others can reach listens on {shown} of this host now"));
    }
}

/// A bare number below this is hardly meant as a port.
const SMALL: usize = 20;

/// What somebody chose who sees this list.
fn chosen(text: &str, found: &[Listening]) -> Result<Service, String> {
    let at_port = |n: usize| found.iter().position(|one| usize::from(one.service.port.get()) == n);
    let Ok(n) = text.parse::<usize>() else {
        let by_program = found.iter().find(|one| one.program.as_deref() == Some(text));
        return by_program.map_or_else(|| service(text), |one| Ok(one.service));
    };
    match n.checked_sub(1).and_then(|at| Some((at, found.get(at)?))) {
        Some((at, one)) if at_port(n).is_none_or(|other| other == at) => Ok(one.service),
        Some(_) => {
            Err(format!("{n} is a number of the list and a port: write {n}/tcp or {n}/udp for the port"))
        }
        None if (1..SMALL).contains(&n) => {
            Err(format!("there is no {n} in the list; for port {n} write {n}/tcp or {n}/udp"))
        }
        None => service(text),
    }
}

fn ask_app(
    args: &InitArgs,
    service: Service,
    found: &[Listening],
    questions: &mut Questions<'_>,
) -> Result<AppName, Exit> {
    let known = found.iter().find(|one| one.service == service).and_then(Listening::app);
    let usual =
        known.map(|app| app.to_string()).or_else(|| here::usual_name(service.port.get()).map(str::to_owned));
    questions.ask(
        Question {
            flag: "--app NAME",
            text: "What shall it be called?",
            usual: Some(usual.unwrap_or_else(|| format!("port-{}", service.port))),
        },
        args.app.clone(),
        |text| text.parse::<AppName>().map_err(|error| error.to_string()),
    )
}

/// Interfaces, as they are typed.
#[derive(Default)]
struct Interfaces {
    /// What was not there when it was typed last.
    doubted: RefCell<String>,
}

impl Interfaces {
    /// Those that are there, or that are typed again: they may come later.
    fn judge<'t>(&self, typed: impl Iterator<Item = &'t str> + Clone) -> Result<Vec<IfName>, String> {
        let there = here::names();
        let list = if there.is_empty() { "there is none but lo".to_owned() } else { there.join(", ") };
        let strange = |name: &str| format!("`{name}` is no interface of this host: {list}");
        let typed = typed.map(str::trim);
        let names = typed.clone().map(|name| name.parse::<IfName>().map_err(|_| strange(name)));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let whole: Vec<&str> = typed.clone().collect();
        let absent = typed.clone().find(|name| !there.iter().any(|known| known == name));
        match absent.filter(|_| self.doubted.replace(whole.join(",")) != whole.join(",")) {
            Some(name) => Err(format!("{}; type it again if it comes later", strange(name))),
            None => Ok(names),
        }
    }
}

fn ask_ext(args: &InitArgs, questions: &mut Questions<'_>) -> Result<Vec<IfName>, Exit> {
    let outside = here::outside();
    if outside.is_empty() && args.interface_ext.is_empty() {
        questions.say("No route leads to the internet, so that the interface towards it is not known.");
        questions.say(&match here::names().as_slice() {
            [] => "  there is none but lo; one that comes later can be named".to_owned(),
            names => format!("  there are: {}", names.join(", ")),
        });
    }
    let names: Vec<&str> = outside.iter().map(IfName::as_str).collect();
    let given = (!args.interface_ext.is_empty()).then(|| args.interface_ext.clone());
    let typed = Interfaces::default();
    questions.ask(
        Question {
            flag: "--interface-ext NAME",
            text: "Which interface leads to the internet?",
            usual: (!names.is_empty()).then(|| names.join(",")),
        },
        given,
        |text| typed.judge(text.split(',')),
    )
}

fn ask_int(args: &InitArgs, lan: IpAddr, questions: &mut Questions<'_>) -> Result<IfName, Exit> {
    let typed = Interfaces::default();
    let one = |text: &str| typed.judge(std::iter::once(text))?.pop().ok_or_else(String::new);
    questions.ask(
        Question {
            flag: "--interface-int NAME",
            text: "Which interface leads to that host?",
            usual: here::towards(lan).map(|name| name.as_str().to_owned()),
        },
        args.interface_int.clone(),
        one,
    )
}

fn ask_hosts(args: &InitArgs, ext: &[IfName], questions: &mut Questions<'_>) -> Result<Vec<String>, Exit> {
    let addresses = here::addresses(ext);
    let behind_nat = addresses.first().is_some_and(|addr| matches!(addr, IpAddr::V4(v4) if v4.is_private()));
    if behind_nat && args.host.is_empty() {
        questions.say("This host has a private address. Clients on the internet need the one that leads to it: that of the");
        questions
            .say("router or the cloud's, which has to forward the ports of both steps and of the service.");
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let given = (!args.host.is_empty()).then(|| args.host.clone());
    questions.ask(
        Question {
            flag: "--host HOST",
            text: "How do clients call this host? A name or addresses",
            usual: (!addresses.is_empty()).then(|| addresses.join(",")),
        },
        given,
        |text| text.split(',').map(|part| host(part.trim())).collect(),
    )
}

fn ask_allow(args: &InitArgs, questions: &mut Questions<'_>) -> Result<Networks, Exit> {
    if args.allow.is_none()
        && let Some((client, port)) = own_session()
    {
        questions.say(&format!(
            "You are connected from {} to port {port}. What is open stays open when the port closes;",
            client.ip()
        ));
        questions.say("to come back you knock, unless your network need not:");
    }
    questions.ask(
        Question {
            flag: "--allow NETWORK,...",
            text: "Which networks shall get in without a knock? Such as 192.0.2.0/24, or none",
            usual: Some(NONE.to_owned()),
        },
        args.allow.clone(),
        networks,
    )
}

/// Where certificate and key are, or will be.
fn ask_tls(args: &InitArgs, questions: &mut Questions<'_>) -> Result<(PathBuf, PathBuf), Exit> {
    const MADE: &str = "self-signed";
    if let Some(given) = args.cert.clone().zip(args.key.clone()) {
        return Ok(given);
    }
    let existing = |text: &str| {
        let path = PathBuf::from(text);
        match path.is_absolute() && files::exists(&path) {
            true => Ok(path),
            false => Err(format!("{text}: there is no such file; write its whole path")),
        }
    };
    let cert = questions.ask(
        Question {
            flag: "--cert FILE --key FILE",
            text: "The certificate that step 2 shows: self-signed, or the file of one that clients trust",
            usual: Some(MADE.to_owned()),
        },
        None,
        |text| match text {
            MADE => Ok(None),
            text => {
                let path = existing(text)?;
                write::has_certificate(&path).map(|()| Some(path))
            }
        },
    )?;
    let Some(cert) = cert else { return Ok(own_tls(args)) };
    let question = Question { flag: "--key FILE", text: "The file of its key", usual: None };
    let key = questions.ask(question, None, |text| {
        let key = existing(text)?;
        write::usable(&cert, &key).map(|_| key)
    })?;
    Ok((cert, key))
}

/// Beside the configuration, where the unit file looks for them.
pub fn own_tls(args: &InitArgs) -> (PathBuf, PathBuf) {
    let folder = args.file.config.parent().unwrap_or(Path::new("."));
    (folder.join("cert.pem"), folder.join("key.pem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(services: &[(&str, &str)]) -> Vec<Listening> {
        let one = |(at, program): &(&str, &str)| Listening {
            service: service(at).unwrap(),
            program: Some((*program).to_owned()),
        };
        services.iter().map(one).collect()
    }

    #[test]
    fn a_small_number_beside_the_list_is_asked_back_and_never_taken_for_a_port() {
        let list = found(&[("22/tcp", "sshd"), ("3389/tcp", "xrdp")]);
        let port = |text: &str| chosen(text, &list).map(|one| one.port.get());
        assert_eq!(
            (port("1"), port("2"), port("3389"), port("8000")),
            (Ok(22), Ok(3389), Ok(3389), Ok(8000))
        );
        assert_eq!((port("7/tcp"), port("xrdp"), port("ssh")), (Ok(7), Ok(3389), Ok(22)));
        assert!(port("3").unwrap_err().contains("no 3 in the list"), "{:?}", port("3"));
        assert!(port("0").is_err() && port("").is_err() && port("70000").is_err());
        assert!(chosen("1", &[]).is_err() && chosen("22", &[]).is_ok());
        let names: Vec<String> =
            (1..=25).map(|n| format!("{}/tcp", if n == 1 { 22 } else { 1_000 + n })).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let hint = chosen("22", &found(&many)).unwrap_err();
        assert!(hint.contains("22/tcp"), "{hint}");
    }
}
