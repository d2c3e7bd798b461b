use super::drift::slowness;
use super::{Mean, Row, Subject};
use crate::latency::Latency;
use std::collections::BTreeMap;

/// What the rows of a subject say together: what tables, validations, benchmarks and predictions mean by a latency.
///
/// Other programs, and other machines on the same chip, only ever slow a subject down, so that the fastest sample of
/// a row is the closest to its own latency (Chen and Revels 2016, arXiv 1608.04295). Rows count that were timed while
/// the device had its usual speed, as the anchor shows; those of a subject that has fewer than two of them are divided
/// by how much slower the device was. Now and then a shared machine is faster than it usually is, so the fastest eighth
/// of the rows is discarded. Neither depends on how many rows there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The 12.5th percentile of the rows' fastest samples (of fewer than eight rows, the fastest), corrected for the
    /// drift where needed. Of a published row, its mean.
    pub latency: Latency,
    /// How far the next value is above it; none of one row.
    pub gap: Option<Latency>,
    /// Median of the rows' medians; none of a published row.
    pub median: Option<Latency>,
    /// The rows that it is of: the undisturbed ones, where there are any.
    pub rows: usize,
    /// Whether all of them were disturbed.
    pub disturbed: bool,
}

/// What a row contributes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Its fastest sample, nanoseconds.
    pub fastest: f64,
    /// How many times slower the device was then than it usually is at its fastest.
    pub slowness: f64,
    /// Whether the device had its usual speed.
    pub at_speed: bool,
    pub median: f64,
    pub disturbed: bool,
}

impl Timing {
    /// Of the samples of a row, nanoseconds; none where there are none.
    pub fn of_samples(ns: &[f64], disturbed: bool) -> Option<Timing> {
        let fastest = ns.iter().copied().reduce(f64::min)?;
        Some(Timing { fastest, slowness: 1.0, at_speed: true, median: super::median(ns), disturbed })
    }
}

/// A device that is slower by no more than this is at its usual speed.
const AT_SPEED: f64 = 1.01;

/// By subject, the timings of its rows and these rows. `rows` are in the order in which they were measured.
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
    /// None where there are no timings.
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

    /// The gap as a share of the latency.
    pub fn relative_gap(&self) -> Option<f64> {
        self.gap.map(|gap| gap.ns() / self.latency.ns())
    }
}

/// The value that an eighth of the sorted ones are below, and how far the next one is above it.
fn octile(sorted: &[f64]) -> (f64, Option<f64>) {
    let at = sorted.len() / 8;
    (sorted[at], sorted.get(at + 1).map(|next| next - sorted[at]))
}

/// By subject, what its rows say without a correction for the drift, so that it does not depend on the rows of others.
pub fn uncorrected(rows: &[Row]) -> BTreeMap<&Subject, Estimate> {
    let mut by_subject: BTreeMap<&Subject, Vec<Timing>> = BTreeMap::new();
    for row in rows {
        let timing = Timing::of_samples(&row.samples_ns, !row.disturbed.is_empty());
        by_subject.entry(&row.subject).or_default().extend(timing);
    }
    by_subject.into_iter().filter_map(|(subject, timings)| Some((subject, Estimate::of(timings)?))).collect()
}

/// By subject, what its rows say together.
pub fn estimates(rows: &[Row]) -> BTreeMap<&Subject, Estimate> {
    let of = |(subject, rows): (_, Vec<(Timing, &Row)>)| {
        Some((subject, Estimate::of(rows.into_iter().map(|(timing, _)| timing))?))
    };
    by_subject(rows).into_iter().filter_map(of).collect()
}
