//! `global.metrics`.

use super::*;
use crate::config::{Metrics, MetricsAddress};

fn with(metrics: &str) -> Result<Checked, Problems> {
    let text = GLOBAL.replace('}', &format!(", metrics: {metrics}}}"));
    read(&format!("{text}{APP}}}"))
}

fn good(metrics: &str) -> Metrics {
    with(metrics).unwrap_or_else(|problems| panic!("{problems}\n{metrics}")).settings.metrics
}

#[test]
fn nothing_is_shown_unless_it_is_said_where() {
    assert!(loads(&format!("{GLOBAL}{APP}}}")).settings.metrics.is_empty());
}

#[test]
fn addresses_sockets_and_files_are_read() {
    for (metrics, shown) in [
        ("{listen: '127.0.0.1:9469'}", "127.0.0.1:9469"),
        ("{listen: '127.8.9.1:1'}", "127.8.9.1:1"),
        ("{listen: '[::1]:9469'}", "[::1]:9469"),
        ("{listen: /run/knock-agent/metrics.sock}", "/run/knock-agent/metrics.sock"),
        ("{listen: '0.0.0.0:9469', open_to_network: true}", "0.0.0.0:9469"),
        ("{listen: '[2001:db8::1]:9469', open_to_network: true}", "[2001:db8::1]:9469"),
    ] {
        let read = good(metrics);
        assert_eq!(read.listen.as_ref().map(ToString::to_string).as_deref(), Some(shown));
        assert_eq!(read.textfile, None);
        assert_eq!(matches!(read.listen, Some(MetricsAddress::Unix(_))), shown.starts_with('/'));
    }
    let file = good("{textfile: /var/lib/x/knock-agent.prom}").textfile.unwrap();
    assert_eq!((file.path.to_str(), file.every.as_secs()), (Some("/var/lib/x/knock-agent.prom"), 15));
    let both = good("{listen: '127.0.0.1:9469', textfile: /x/y.prom, textfile_every: 1m}");
    assert_eq!(both.textfile.unwrap().every.as_secs(), 60);
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (metrics, path, part) in [
        ("{}", "global.metrics", "no figures to anybody"),
        ("{textfile_every: 5s}", "global.metrics.textfile_every", "no file to write"),
        ("on", "global.metrics", "must be a section"),
        ("{port: 9469}", "global.metrics.port", "no such key"),
        ("{listen: 9469}", "global.metrics.listen", "must be text"),
        ("{listen: '127.0.0.1'}", "global.metrics.listen", "neither an address"),
        ("{listen: '127.0.0.1:0'}", "global.metrics.listen", "neither an address"),
        ("{listen: 'localhost:9469'}", "global.metrics.listen", "neither an address"),
        ("{listen: '0.0.0.0:9469'}", "global.metrics.listen", "other hosts"),
        ("{listen: '[::]:9469', open_to_network: false}", "global.metrics.listen", "other hosts"),
        ("{listen: '[::ffff:127.0.0.1]:9469'}", "global.metrics.listen", "other hosts"),
        (
            "{listen: '127.0.0.1:9469', open_to_network: maybe}",
            "global.metrics.open_to_network",
            "true or false",
        ),
        ("{listen: '127.0.0.1:8080'}", "global.metrics.listen", "--http-port"),
        ("{listen: '127.0.0.1:8443'}", "global.metrics.listen", "--https-port"),
        ("{listen: '127.0.0.1:22'}", "global.metrics.listen", "`ssh`"),
        ("{listen: /}", "global.metrics.listen", "whole path"),
        ("{textfile: x.prom}", "global.metrics.textfile", "whole path"),
        ("{textfile: /x/y.txt}", "global.metrics.textfile", ".prom"),
        ("{textfile: /x/y.prom, textfile_every: 0}", "global.metrics.textfile_every", "0"),
        ("{textfile: /x/y.prom, textfile_every: 2h}", "global.metrics.textfile_every", "at most"),
    ] {
        let problems = with(metrics).expect_err(metrics);
        let found = problems.list.iter().any(|problem| {
            let text = format!("{} {}", problem.message, problem.fix.clone().unwrap_or_default());
            problem.path == path && text.contains(part)
        });
        assert!(found, "{metrics}: {problems}");
        assert!(problems.list.iter().all(|problem| problem.place.is_some()), "{metrics}: {problems}");
    }
    let long = format!("{{listen: /{}}}", "x".repeat(200));
    assert!(with(&long).unwrap_err().to_string().contains("at most 107 bytes"));
}
