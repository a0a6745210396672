//! Configurations, files of users and of clients, profiles.

use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use crate::config::{Behind, Outside, Problems, SecretFrom, Settings, StepPorts, UserFile, parse_behind};
use crate::knock::Gatekeeper;
use crate::ruleset::diff::diff;
use crate::ruleset::layout::Options;
use crate::ruleset::{plan, text};
use crate::units::{Now, Secret};

use super::choices::Choices;
use super::table::apply;

/// Processor time that is enough whatever the text is.
const PATIENCE: Duration = Duration::from_secs(8);
/// Where the parts of an input end: what no text of a file has.
const END: char = '\0';

/// What lies outside a configuration.
struct Files<'a> {
    secret: &'a str,
    users: Vec<&'a str>,
}

impl Outside for Files<'_> {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Ok(Secret::new(self.secret.to_owned()))
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let file = |(at, text): (usize, &&str)| UserFile {
            name: ["alice", "bob", "carol", "dora"][at % 4].to_owned(),
            file: format!("{at}.yaml"),
            text: (*text).to_owned().into(),
        };
        Ok(self.users.iter().enumerate().map(file).collect())
    }
}

/// What this thread has worked: a machine that is busy with other things makes nothing slower by that.
fn worked() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).expect("a clock that is always there").into()
}

/// The first byte says where the ports are and whether a proxy is in front; then comes a configuration, a secret in
/// another file, and files of users, parted by zero bytes.
///
/// It is read within a bounded time. A problem has a place in the text. What is accepted can be planned, and the plan
/// put in force.
pub fn configuration(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (known, proxied) = (choices.flag(), choices.rarely(4));
    let text = String::from_utf8_lossy(choices.rest());
    let mut parts = text.split(END);
    let (text, secret) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let files = Files { secret, users: parts.take(4).collect() };
    let port = |number| NonZeroU16::new(number).unwrap();
    let ports = known.then_some(StepPorts { http: 8_080, https: 8_443 });
    let behind = (known && proxied).then(|| Behind {
        http: port(8_081),
        https: port(8_444),
        trusted: "127.0.0.1".parse().unwrap(),
    });
    let start = worked();
    let read = || parse_behind("config.yaml", text, ports, behind.as_ref(), &files);
    let checked = read();
    let took = worked() - start;
    assert!(took < PATIENCE, "{} bytes took {took:?}", text.len());
    match checked {
        Ok(checked) => {
            assert!(checked.warnings.len() <= 2_000, "{} warnings", checked.warnings.len());
            can_be_in_force(checked.settings);
        }
        Err(problems) => have_places(&problems, text, &files.users),
    }
}

fn have_places(problems: &Problems, text: &str, users: &[&str]) {
    assert!(problems.errors() > 0, "refused without an error");
    let lines = |text: &str| text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    let most = users.iter().map(|text| lines(text)).chain([lines(text)]).max().unwrap_or_default();
    for problem in &problems.list {
        if let Some(place) = problem.place {
            assert!(place.line >= 1 && place.column >= 1 && place.line <= most + 1, "{problem}");
        }
        let shown = problem.to_string();
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\0']), "what a terminal obeys: {shown:?}");
    }
}

fn can_be_in_force(mut settings: Settings) {
    settings.follow_time(Now::at_secs(0).wall);
    assert!(settings.apps.iter().all(|app| !app.ports.is_empty()));
    let mut slugs: Vec<&str> = settings.apps.iter().map(|app| app.slug.as_str()).collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), settings.apps.len(), "two apps with one name in nftables");
    let _ = Gatekeeper::new(&settings, &[], [7; 16]);
    let port = |number| NonZeroU16::new(number).unwrap();
    let options = Options { http_port: port(8_080), https_port: port(8_443), inner_header: true, log: true };
    let ruleset = plan::plan(&settings, options);
    // Thousands of ports are planned and not put in force here: that takes long with a model as simple as ours.
    if ruleset.chains.iter().map(|chain| chain.rules.len()).sum::<usize>() > 400 {
        return;
    }
    text::render(&settings, options).expect("the same as text");
    let live = apply(None, &diff(None, &ruleset)).unwrap();
    assert_eq!(diff(Some(&live), &ruleset), vec![]);
}

/// A client's profile: read in a bounded time, every problem with a place.
#[cfg(feature = "client")]
pub fn profile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let start = worked();
    let read = crate::config::parse_profile("home.yaml", &text, Some(Path::new("/home/alice")));
    let took = worked() - start;
    assert!(took < PATIENCE, "{} bytes took {took:?}", text.len());
    if let Err(problems) = read {
        have_places(&problems, &text, &[]);
    }
}
