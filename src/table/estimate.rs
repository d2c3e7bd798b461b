use super::drift::{drift, slowness};
use super::{Mean, Row, Subject};
use crate::latency::Latency;
use std::collections::BTreeMap;

/// What the rows of a subject say together: what tables, validations, benchmarks and predictions mean by a latency.
///
/// Other programs, and other machines on the same chip, only ever slow a subject down, so that the fastest sample of
/// a row is the closest to its own latency (Chen and Revels 2016, arXiv 1608.04295). Now and then a shared machine
/// is faster than it usually is, so the fastest eighth of the rows is discarded. Neither depends on how many rows
/// there are. Where the anchor shows that the device itself became slower and faster, and rows have few samples,
/// each row is divided by how slow the device was then, and the mean of the middle half of the rows counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The 12.5th percentile of the rows' fastest samples (of fewer than eight rows, the fastest); or the mean of
    /// their middle half, corrected for the drift. Of a published row, its mean.
    pub latency: Latency,
    /// How far the next value is above it; or half of the 95 % confidence interval of the mean. None of one row.
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
    /// Its fastest sample, corrected for the drift: nanoseconds.
    pub fastest: f64,
    pub median: f64,
    pub disturbed: bool,
    pub corrected: bool,
}

impl Timing {
    /// Of the samples of a row, nanoseconds; none where there are none.
    pub fn of_samples(ns: &[f64], disturbed: bool) -> Option<Timing> {
        let fastest = ns.iter().copied().reduce(f64::min)?;
        Some(Timing { fastest, median: super::median(ns), disturbed, corrected: false })
    }
}

/// By subject, the timings of its rows and these rows. `rows` are in the order in which they were measured.
pub fn by_subject(rows: &[Row]) -> BTreeMap<&Subject, Vec<(Timing, &Row)>> {
    let slowness = drift(rows).filter(|_| are_short(rows)).map(|_| slowness(rows));
    let mut by_subject: BTreeMap<&Subject, Vec<(Timing, &Row)>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        let slowness = slowness.as_ref().map(|slowness| slowness[i]);
        let timing = Timing {
            fastest: row.fastest_ns() / slowness.unwrap_or(1.0),
            median: row.median_ns.ns(),
            disturbed: !row.disturbed.is_empty(),
            corrected: slowness.is_some(),
        };
        by_subject.entry(&row.subject).or_default().push((timing, row));
    }
    by_subject
}

/// Whether most rows have so few samples that the fastest may not have met an undisturbed moment. Where they have
/// more, correcting for the drift makes predictions worse (docs/measurement.md).
fn are_short(rows: &[Row]) -> bool {
    const FEW: usize = 16;
    2 * rows.iter().filter(|row| row.samples_ns.len() < FEW).count() > rows.len()
}

impl Estimate {
    /// None where there are no timings.
    pub fn of(timings: impl IntoIterator<Item = Timing>) -> Option<Estimate> {
        let all: Vec<Timing> = timings.into_iter().collect();
        let calm: Vec<Timing> = all.iter().copied().filter(|timing| !timing.disturbed).collect();
        let disturbed = calm.is_empty();
        let counted = if disturbed { all } else { calm };
        let corrected = counted.first()?.corrected;
        let sorted = |of: fn(&Timing) -> f64| {
            let mut values: Vec<f64> = counted.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (fastest, medians) = (sorted(|t| t.fastest), sorted(|t| t.median));
        let (level, gap) = if corrected { middle_mean(&fastest) } else { octile(&fastest) };
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

/// Mean of the middle half of the sorted values (rounded outwards), and half of the 95 % confidence interval of the
/// mean of all; none of a single one.
fn middle_mean(sorted: &[f64]) -> (f64, Option<f64>) {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let quarter = sorted.len() / 4;
    let middle = mean(&sorted[quarter..sorted.len() - quarter]);
    let free = sorted.len() as f64 - 1.0;
    let variance = sorted.iter().map(|ns| (ns - mean(sorted)).powi(2)).sum::<f64>() / free;
    (middle, (free > 0.0).then(|| 1.96 * (variance / sorted.len() as f64).sqrt()))
}

/// By subject, what its rows say together.
pub fn estimates(rows: &[Row]) -> BTreeMap<&Subject, Estimate> {
    let of = |(subject, rows): (_, Vec<(Timing, &Row)>)| {
        Some((subject, Estimate::of(rows.into_iter().map(|(timing, _)| timing))?))
    };
    by_subject(rows).into_iter().filter_map(of).collect()
}
