//! Pairs of measurements, and what is told of them.

use ::tests::interrupt;
use anyhow::Result;
use serde_json::{Value, json};

/// What a benchmark is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// The ratio is at most this.
    AtMost(f64),
    /// The ratio is at least this.
    AtLeast(f64),
    /// Only reported.
    None,
}

impl Bar {
    /// Whether a ratio meets it; `None` where there is nothing to meet.
    pub fn met(self, ratio: f64) -> Option<bool> {
        match self {
            Bar::AtMost(bar) => Some(ratio <= bar),
            Bar::AtLeast(bar) => Some(ratio >= bar),
            Bar::None => None,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bar::AtMost(bar) => write!(f, "<= {bar}"),
            Bar::AtLeast(bar) => write!(f, ">= {bar}"),
            Bar::None => f.write_str("-"),
        }
    }
}

/// What a figure is a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes a second.
    Rate,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// As bench.json has it.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Rate => "B/s",
            Unit::Bytes => "B",
        }
    }

    /// A figure for people.
    pub fn show(self, figure: f64) -> String {
        match self {
            Unit::Seconds if figure < 1e-3 => format!("{:.0} us", figure * 1e6),
            Unit::Seconds => format!("{figure:.3} s"),
            Unit::Rate if figure < 1e7 => format!("{:.0} kB/s", figure / 1e3),
            Unit::Rate => format!("{:.1} MB/s", figure / 1e6),
            Unit::Bytes if figure < 1e6 => format!("{:.0} KiB", figure / 1024.0),
            Unit::Bytes => format!("{:.2} MiB", figure / f64::from(1 << 20)),
        }
    }
}

/// The samples of one benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What its figures are.
    pub unit: Unit,
    /// Mooring's, in the order of the runs.
    pub ours: Vec<f64>,
    /// The floor's or peer's, each measured right after ours; empty: there is none.
    pub reference: Vec<f64>,
    /// What the ratio is held against.
    pub bar: Bar,
}

impl Row {
    /// One size that is held against another, or against nothing.
    pub fn size(name: &str, bytes: u64, limit: Option<u64>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        Row {
            name: name.to_owned(),
            unit: Unit::Bytes,
            ours: vec![bytes as f64],
            reference: limit.map(|l| l as f64).into_iter().collect(),
            bar: limit.map_or(Bar::None, |_| Bar::AtMost(1.0)),
        }
    }

    /// The same figures of ours, held against something else that was measured beside the reference, and against no
    /// bar; `reference` begins with the pair that warms, if there was one.
    pub fn over(&self, what: &str, mut reference: Vec<f64>) -> Row {
        Row {
            name: format!("{}-over-{what}", self.name),
            reference: reference.split_off(reference.len().saturating_sub(self.ours.len())),
            bar: Bar::None,
            ..self.clone()
        }
    }

    /// The median of the ratios of each pair.
    pub fn ratio(&self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.reference)
            .map(|(o, r)| o / r)
            .collect();
        median(&ratios)
    }

    /// Its entry in bench.json.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "ours": median(&self.ours),
            "reference": median(&self.reference),
            "ratio": self.ratio(),
            "unit": self.unit.name(),
            "runs": self.ours.len(),
        })
    }

    /// Its line in the table.
    pub fn line(&self) -> [String; 9] {
        let show = |figure: Option<f64>| figure.map_or("-".into(), |f| self.unit.show(f));
        let ratio = self.ratio();
        [
            self.name.clone(),
            show(median(&self.ours)),
            show(self.ours.iter().copied().reduce(f64::min)),
            show(self.ours.iter().copied().reduce(f64::max)),
            show(median(&self.reference)),
            ratio.map_or("-".into(), |r| format!("{r:.2}")),
            self.bar.to_string(),
            match ratio.and_then(|r| self.bar.met(r)) {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "-",
            }
            .into(),
            self.ours.len().to_string(),
        ]
    }
}

/// The headings over [`Row::line`].
pub const HEADINGS: [&str; 9] = [
    "name",
    "ours",
    "min",
    "max",
    "reference",
    "ratio",
    "bar",
    "",
    "runs",
];

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::line));
    let mut widths = [0; 9];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        for (n, (width, cell)) in widths.iter().zip(line).enumerate() {
            // Names to the left, figures to the right.
            let cell = if n == 0 {
                format!("{cell:<width$}")
            } else {
                format!("  {cell:>width$}")
            };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The median; `None` of nothing.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    // An even number, and not 0: there is one below the middle.
    sorted.get(middle - 1).map(|lower| (lower + upper) / 2.0)
}

/// One benchmark under way: measures ours and the reference in turns.
#[derive(Debug)]
pub struct Alternate<'a> {
    /// The benchmark's name.
    pub name: &'a str,
    /// What its figures are.
    pub unit: Unit,
    /// What the ratio is held against.
    pub bar: Bar,
    /// Pairs that are measured.
    pub runs: usize,
    /// Whether a pair is measured before those that count, so that caches are as warm for the first as for the last.
    pub warm: bool,
}

impl Alternate<'_> {
    /// Ours, reference, ours, reference, …
    ///
    /// # Errors
    /// The first one that could not be measured.
    pub fn run(
        &self,
        mut ours: impl FnMut() -> Result<f64>,
        mut reference: impl FnMut() -> Result<f64>,
    ) -> Result<Row> {
        let mut row = Row {
            name: self.name.to_owned(),
            unit: self.unit,
            ours: Vec::new(),
            reference: Vec::new(),
            bar: self.bar,
        };
        if self.warm {
            let (o, r) = (ours()?, reference()?);
            self.tell("warm-up", o, r);
        }
        for n in 1..=self.runs {
            interrupt::check()?;
            let (o, r) = (ours()?, reference()?);
            self.tell(&format!("{n}/{}", self.runs), o, r);
            row.ours.push(o);
            row.reference.push(r);
        }
        Ok(row)
    }

    fn tell(&self, which: &str, ours: f64, reference: f64) {
        let show = |f| self.unit.show(f);
        eprintln!(
            "bench: {} {which}: ours {}, reference {}, ratio {:.2}",
            self.name,
            show(ours),
            show(reference),
            ours / reference
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_ratio_is_of_pairs_that_were_measured_together() {
        // The machine was busy during the second pair: both took longer, the ratio stays.
        let mut ours = [1.0, 10.0, 1.0].into_iter();
        let mut reference = [2.0, 20.0, 2.0].into_iter();
        let row = Alternate {
            name: "x",
            unit: Unit::Seconds,
            bar: Bar::AtMost(0.6),
            runs: 3,
            warm: false,
        }
        .run(
            || Ok(ours.next().unwrap()),
            || Ok(reference.next().unwrap()),
        )
        .unwrap();
        assert_eq!(row.ratio(), Some(0.5));
        assert_eq!(
            row.json(),
            json!({"name": "x", "ours": 1.0, "reference": 2.0, "ratio": 0.5, "unit": "s", "runs": 3})
        );
        assert!(row.line().contains(&"met".to_owned()));
    }

    #[test]
    fn a_bar_that_is_missed_is_told() {
        let row = Row::size("tether", 3 << 20, Some(2 << 20));
        assert_eq!(row.ratio(), Some(1.5));
        assert!(table(&[row]).contains("MISSED"));
        assert_eq!(Row::size("iso", 5, None).json()["reference"], Value::Null);
        assert_eq!(Bar::AtLeast(0.6).met(0.59), Some(false));
        assert_eq!(Bar::AtLeast(0.6).met(0.6), Some(true));
    }
}
