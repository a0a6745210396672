//! Many measurements of one thing, and what is said of them.

use std::time::Duration;

/// Times of one thing, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which that part of them lies; zero without any.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len().saturating_sub(1)) as f64 * part;
        sorted.get(place.round() as usize).copied().unwrap_or_default()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `12.3 µs (11.0-14.9)`: the median, and from where to where eight of ten lie.
    pub fn text(&self) -> String {
        if self.is_empty() {
            return "not measured".to_owned();
        }
        let median = self.median();
        let (unit, scale) = match median {
            below if below < 1_000.0 => ("µs", 1.0),
            below if below < 1_000_000.0 => ("ms", 1_000.0),
            _ => ("s", 1_000_000.0),
        };
        let show = |value: f64| significant(value / scale);
        match self.len() {
            1 => format!("{} {unit}", show(median)),
            _ => {
                format!("{} {unit} ({}-{})", show(median), show(self.quantile(0.1)), show(self.quantile(0.9)))
            }
        }
    }
}

/// Three digits that say something.
pub fn significant(value: f64) -> String {
    match value.abs() {
        below if below < 10.0 => format!("{value:.2}"),
        below if below < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// `1,000,000`.
pub fn thousands(number: u64) -> String {
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
