//! Who is let in, what passed, and who is kept out, as tables.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{Printer, plain};
use crate::service::status::{Kind, Row, Service, Status};
use crate::units::Timestamp;

/// Prints who is let in: the first ones, and how many more there are.
pub(super) fn print(status: &Status, listed: usize, now: SystemTime, out: &mut Printer) {
    if status.grants.is_empty() {
        out.line("nobody is let in");
        return;
    }
    // What matters most first, as narrow terminals cut the rest.
    let head = ["APP", "ADDRESS", "TIME LEFT", "MAY REACH", "ENDS", "BY", "HOW"];
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(chosen(status, listed).into_iter().map(|row| cells(row, now)))
        .collect();
    out.table(&rows);
    let counts = match &status.open {
        Some(open) => open.clone(),
        None if status.grants.len() > listed => by_app(&status.grants),
        None => return,
    };
    let all = grouped(counts.values().sum());
    out.line(format!("  the newest of {all} ({}); --all lists them", words(&counts)));
}

/// All rows, or the newest where there are more: of those whose time runs.
fn chosen(status: &Status, listed: usize) -> Vec<&Row> {
    let mut rows: Vec<&Row> = status.grants.iter().collect();
    if rows.len() > listed && status.open.is_none() {
        rows.sort_by(|a, b| age(a).total_cmp(&age(b)));
        rows.truncate(listed);
    }
    rows
}

/// Seconds since somebody was let in; what has no end is as old as can be.
fn age(row: &Row) -> f64 {
    match (row.lifetime_s, row.expires_in_s) {
        (Some(given), Some(left)) => u32::try_from(given).map_or(f64::MAX, f64::from) - left,
        (_, None) | (None, _) => f64::MAX,
    }
}

fn cells(row: &Row, now: SystemTime) -> [String; 7] {
    [
        row.app.clone(),
        row.address.clone(),
        row.expires_in_s.map_or("for ever".to_owned(), time_left),
        match row.kind {
            Kind::Step2 => "step 2".to_owned(),
            Kind::Service | Kind::Allow => services(&row.services),
            Kind::Once => format!("{} (once)", services(&row.services)),
        },
        row.expires_in_s.map_or("-".to_owned(), |left| moment(now, left)),
        // What others put into the kernel can say anything.
        if row.by.is_empty() { "-".to_owned() } else { plain(&row.by) },
        row.how.clone(),
    ]
}

fn by_app(rows: &[Row]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.app).or_default() += 1;
    }
    counts.into_iter().map(|(app, count)| (app.to_owned(), count)).collect()
}

fn words(counts: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> = counts.iter().map(|(app, count)| format!("{app} {}", grouped(*count))).collect();
    words.join(", ")
}

/// What passed for each app.
pub(super) fn print_traffic(status: &Status, out: &mut Printer) {
    if status.traffic.is_empty() {
        if status.traffic_unknown {
            out.line("");
            out.line("traffic: not told here, as programs of the firewall are run through sudo");
        }
        return;
    }
    out.line("");
    let mut rows = vec![["APP", "FROM CLIENTS", "", "TO CLIENTS", "", "DROPPED"].map(str::to_owned)];
    rows.extend(status.traffic.iter().map(|app| {
        [
            app.app.clone(),
            packets(app.packets_in),
            bytes(app.bytes_in),
            packets(app.packets_out),
            bytes(app.bytes_out),
            packets(app.packets_dropped),
        ]
    }));
    out.table(&rows);
}

/// Who is locked out, and what was refused.
pub(super) fn print_strangers(status: &Status, out: &mut Printer) {
    if !status.locked_out.is_empty() {
        out.line("");
        let mut rows = vec![["LOCKED OUT", "TIME LEFT", "OF", "TIMES"].map(str::to_owned)];
        rows.extend(status.locked_out.iter().map(|locked| {
            let whole = u32::try_from(locked.lifetime_s).unwrap_or(u32::MAX);
            let (left, whole) = (time_left(locked.expires_in_s), time_left(f64::from(whole)));
            [locked.address.clone(), left, whole, locked.times.to_string()]
        }));
        out.table(&rows);
    }
    if !status.refused.is_empty() {
        out.line("");
        let words: Vec<String> = status.refused.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        out.line(format!("refused since the start: {}", words.join(", ")));
    }
}

fn services(services: &[Service]) -> String {
    let words: Vec<String> = services
        .iter()
        .map(|s| {
            if s.first == s.last {
                format!("{}/{}", s.protocol, s.first)
            } else {
                format!("{}/{}-{}", s.protocol, s.first, s.last)
            }
        })
        .collect();
    if words.is_empty() { "every app".to_owned() } else { words.join(" ") }
}

/// `1d 2h`, `3h 04m`, `5m 06s`, `7.8s`.
pub(super) fn time_left(seconds: f64) -> String {
    // Not negative and far below 2^53.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1}s"),
        (0, 0, m) => format!("{m}m {:02}s", whole % 60),
        (0, h, m) => format!("{h}h {m:02}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

/// The moment in so many seconds: `18:00:00` on the same day, else `2027-01-31 18:00`.
pub(super) fn moment(now: SystemTime, seconds: f64) -> String {
    let since = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Not negative and far below 2^53.
    let text = |secs: u64| Timestamp::from_secs(secs).map(|at| at.to_string()).unwrap_or_default();
    let (today, then) = (text(since), text(since.saturating_add(seconds as u64)));
    let (Some((day, _)), Some((date, clock))) = (today.split_once('T'), then.split_once('T')) else {
        return then;
    };
    if day == date {
        return clock.trim_end_matches('Z').to_owned();
    }
    format!("{date} {}", clock.get(..5).unwrap_or_default())
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn packets(number: u64) -> String {
    if number == 1 { "1 packet".to_owned() } else { format!("{} packets", grouped(number)) }
}

/// `1.2 kB`, in thousands.
fn bytes(number: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut whole, mut rest, mut unit) = (number, 0, "B");
    for next in units {
        if whole < 1_000 {
            break;
        }
        (rest, whole, unit) = (whole % 1_000 / 100, whole / 1_000, next);
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{rest} {unit}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_left_is_told_in_two_units() {
        for (seconds, text) in
            [(7.8, "7.8s"), (306.0, "5m 06s"), (11_040.0, "3h 04m"), (93_600.0, "1d 2h"), (0.0, "0.0s")]
        {
            assert_eq!(time_left(seconds), text);
        }
    }

    #[test]
    fn numbers_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0, "0 B"), (999, "999 B"), (1_250, "1.2 kB"), (3_400_000, "3.4 MB")] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn the_end_is_a_time_of_today_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_801_418_400);
        assert_eq!(moment(now, 3_599.9), "18:59:59");
        assert_eq!(moment(now, 6.0 * 3_600.0), "2027-02-01 00:00");
    }

    #[test]
    fn the_newest_are_listed_and_all_are_counted_by_app() {
        let row = |app: &str| Row {
            kind: Kind::Service,
            app: app.to_owned(),
            address: "203.0.113.2".to_owned(),
            services: Vec::new(),
            expires_in_s: Some(1.0),
            lifetime_s: Some(1),
            by: String::new(),
            how: "operator".to_owned(),
        };
        let rows: Vec<Row> = (0..1_500).map(|n| row(if n < 1_200 { "ssh" } else { "web" })).collect();
        assert_eq!(words(&by_app(&rows)), "ssh 1,200, web 300");
        let aged = |app: &str, left| Row { expires_in_s: left, lifetime_s: Some(60), ..row(app) };
        let grants = vec![
            aged("old", Some(5.0)),
            aged("ever", None),
            aged("new", Some(59.0)),
            aged("mid", Some(30.0)),
        ];
        let mut status = Status { grants, ..Status::default() };
        let names = |status: &Status, listed| -> Vec<String> {
            chosen(status, listed).into_iter().map(|row| row.app.clone()).collect()
        };
        assert_eq!(names(&status, 2), ["new", "mid"]);
        assert_eq!(names(&status, 4), ["old", "ever", "new", "mid"], "as they come where all are listed");
        status.open = Some(BTreeMap::new());
        assert_eq!(names(&status, 2).len(), 4, "who chose them knows which are the newest");
    }
}
