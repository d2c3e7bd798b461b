use super::drift::slowness;
use super::{Mean, Row, Subject};
use crate::latency::Latency;
use std::collections::BTreeMap;

/// What all rows of a subject say about its latency. This is what tables, validations, benchmarks and predictions call
/// a latency.
///
/// Other programs, and other machines on the same chip, only ever slow a subject down, so the fastest sample of a row
/// is the closest to the subject's own latency (Chen and Revels 2016, arXiv 1608.04295). Only rows that were timed
/// while the device had its usual speed, as seen by the anchor, count. If a subject has fewer than two of them, all its
/// rows count, each divided by how much slower the device was. A shared machine is now and then faster than usual, so
/// the fastest eighth of the rows is discarded. Neither rule depends on how many rows there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The 12.5th percentile of the rows' fastest samples (with fewer than eight rows, the fastest), corrected for
    /// drift where needed. For a published row, its mean.
    pub latency: Latency,
    /// How far the next value is above the latency; `None` for a single row.
    pub gap: Option<Latency>,
    /// Median of the rows' medians; `None` for a published row.
    pub median: Option<Latency>,
    /// The number of rows that count: the undisturbed ones, if there are any.
    pub rows: usize,
    /// Whether all rows were disturbed.
    pub disturbed: bool,
}

/// What a row contributes to an estimate.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Its fastest sample, nanoseconds.
    pub fastest: f64,
    /// How many times slower the device was at that time than at its usual top speed.
    pub slowness: f64,
    /// Whether the device had its usual speed.
    pub at_speed: bool,
    pub median: f64,
    pub disturbed: bool,
}

impl Timing {
    /// Creates the timing of a row from its samples, in nanoseconds. Returns `None` if there are none.
    pub fn of_samples(ns: &[f64], disturbed: bool) -> Option<Timing> {
        let fastest = ns.iter().copied().reduce(f64::min)?;
        Some(Timing { fastest, slowness: 1.0, at_speed: true, median: super::median(ns), disturbed })
    }
}

/// A device counts as having its usual speed if it is slower by no more than this factor.
const AT_SPEED: f64 = 1.01;

/// Groups rows, with their timings, by subject. `rows` are in the order in which they were measured.
pub fn by_subject(rows: &[Row]) -> BTreeMap<&Subject, Vec<(Timing, &Row)>> {
    let slowness = slowness(rows);
    let mut by_subject: BTreeMap<&Subject, Vec<(Timing, &Row)>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        let timing = Timing {
            fastest: row.fastest_ns(),
            slowness: slowness[i].around,
            at_speed: slowness[i].either_side <= AT_SPEED,
            median: row.median_ns.ns(),
            disturbed: !row.disturbed.is_empty(),
        };
        by_subject.entry(&row.subject).or_default().push((timing, row));
    }
    by_subject
}

impl Estimate {
    /// Returns `None` if there are no timings.
    pub fn of(timings: impl IntoIterator<Item = Timing>) -> Option<Estimate> {
        let all: Vec<Timing> = timings.into_iter().collect();
        let calm: Vec<Timing> = all.iter().copied().filter(|timing| !timing.disturbed).collect();
        let disturbed = calm.is_empty();
        let counted = if disturbed { all } else { calm };
        counted.first()?;
        let sorted = |timings: &[Timing], of: fn(&Timing) -> f64| {
            let mut values: Vec<f64> = timings.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let mut at_speed = counted.clone();
        at_speed.retain(|timing| timing.at_speed);
        let fastest = match at_speed.len() {
            0 | 1 => sorted(&counted, |t| t.fastest / t.slowness),
            _ => sorted(&at_speed, |t| t.fastest),
        };
        let medians = sorted(&counted, |t| t.median);
        let (level, gap) = octile(&fastest);
        Some(Estimate {
            latency: Latency::from_ns(level),
            gap: gap.map(Latency::from_ns),
            median: Some(Latency::from_ns(medians[(medians.len() - 1) / 2])),
            rows: counted.len(),
            disturbed,
        })
    }

    pub(super) fn published(mean: Mean) -> Estimate {
        Estimate { latency: mean.mean_ns, gap: None, median: None, rows: 1, disturbed: false }
    }

    /// Returns the gap as a share of the latency.
    pub fn relative_gap(&self) -> Option<f64> {
        self.gap.map(|gap| gap.ns() / self.latency.ns())
    }
}

/// Returns the value that an eighth of the sorted values are below, and how far the next value is above it.
fn octile(sorted: &[f64]) -> (f64, Option<f64>) {
    let at = sorted.len() / 8;
    (sorted[at], sorted.get(at + 1).map(|next| next - sorted[at]))
}

/// Estimates each subject without a correction for drift, so that an estimate does not depend on the rows of other
/// subjects.
pub fn uncorrected(rows: &[Row]) -> BTreeMap<&Subject, Estimate> {
    let mut by_subject: BTreeMap<&Subject, Vec<Timing>> = BTreeMap::new();
    for row in rows {
        let timing = Timing::of_samples(&row.samples_ns, !row.disturbed.is_empty());
        by_subject.entry(&row.subject).or_default().extend(timing);
    }
    by_subject.into_iter().filter_map(|(subject, timings)| Some((subject, Estimate::of(timings)?))).collect()
}

/// Estimates each subject from all its rows.
pub fn estimates(rows: &[Row]) -> BTreeMap<&Subject, Estimate> {
    let of = |(subject, rows): (_, Vec<(Timing, &Row)>)| {
        Some((subject, Estimate::of(rows.into_iter().map(|(timing, _)| timing))?))
    };
    by_subject(rows).into_iter().filter_map(of).collect()
}
