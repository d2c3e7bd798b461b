use super::drift::{drift, slowness};
use super::{Latency, Mean, Row, Subject};
use std::collections::BTreeMap;

/// What the rows of a subject say together.
///
/// A device is slowed down by what else goes on, so that a row's fastest sample is the one that tells of
/// the subject alone (Chen and Revels 2016, arXiv 1608.04295). On a busy machine the medians of two days
/// differ by several percent, and these by a fraction of one. Now and then a device is faster than it
/// usually is: an eighth of the rows may be. Where the anchor shows that the device itself got slower and
/// faster, and slow models leave room for few samples a row, the fastest sample tells of the moment:
/// there, every row's fastest sample counts, each divided by how slow the device was then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// What it takes where nothing disturbs it: the lower octile of the rows' fastest samples (of fewer
    /// than eight rows the fastest one), or their mean, corrected for the drift. Of a published row,
    /// which has no samples, the mean.
    pub fastest: Latency,
    /// How well that repeats: how much slower the fastest sample of the next best row was, or half of
    /// the mean's 95 % confidence interval; none of a single row.
    pub gap: Option<Latency>,
    /// Median of the rows' medians: what it took on the device as it was; none of a published row.
    pub median: Option<Latency>,
    /// Rows that it is of: the undisturbed ones, where there are any.
    pub rows: usize,
    pub disturbed: bool,
}

/// A row, and how many times slower than undisturbed the device was then; none of a device that does not
/// drift.
#[derive(Clone, Copy)]
pub(super) struct Reading<'r> {
    pub row: &'r Row,
    slowness: Option<f64>,
}

impl Reading<'_> {
    fn fastest(&self) -> f64 {
        self.row.fastest().ns() / self.slowness.unwrap_or(1.0)
    }
}

/// Rows in the order in which they were measured, each with what all of them say of the device.
pub(super) fn readings(rows: &[Row]) -> Vec<Reading<'_>> {
    let slowness = drift(rows).filter(|_| are_short(rows)).map(|_| slowness(rows));
    let at = |i: usize| slowness.as_ref().map(|slowness| slowness[i]);
    rows.iter().enumerate().map(|(i, row)| Reading { row, slowness: at(i) }).collect()
}

/// Whether most rows have too few samples to meet a moment in which nothing disturbs the device: where
/// they have more, the fastest sample is the better one of the two (docs/measurement.md).
fn are_short(rows: &[Row]) -> bool {
    const FEW: usize = 16;
    2 * rows.iter().filter(|row| row.samples_ns.len() < FEW).count() > rows.len()
}

impl Timing {
    /// None where there are no readings.
    pub(super) fn of<'r>(readings: impl IntoIterator<Item = Reading<'r>>) -> Option<Timing> {
        let readings: Vec<Reading> = readings.into_iter().collect();
        let calm: Vec<Reading> = readings.iter().copied().filter(|r| r.row.disturbed.is_empty()).collect();
        let disturbed = calm.is_empty();
        let readings = if disturbed { readings } else { calm };
        let drifts = readings.first()?.slowness.is_some();
        let sorted = |of: &dyn Fn(&Reading) -> f64| {
            let mut latencies: Vec<f64> = readings.iter().map(of).collect();
            latencies.sort_by(f64::total_cmp);
            latencies
        };
        let (fastest, medians) = (sorted(&|r| r.fastest()), sorted(&|r| r.row.median_ns.ns()));
        let (level, gap) = if drifts { mean(&fastest) } else { octile(&fastest) };
        Some(Timing {
            fastest: Latency::from_ns(level),
            gap: gap.map(Latency::from_ns),
            median: Some(Latency::from_ns(medians[(medians.len() - 1) / 2])),
            rows: readings.len(),
            disturbed,
        })
    }

    pub(super) fn published(mean: Mean) -> Timing {
        Timing { fastest: mean.mean_ns, gap: None, median: None, rows: 1, disturbed: false }
    }

    /// The gap as a share of the fastest.
    pub fn relative_gap(&self) -> Option<f64> {
        self.gap.map(|gap| gap.ns() / self.fastest.ns())
    }
}

/// The value that an eighth of the sorted ones are below, and how far the next one is above it.
fn octile(sorted: &[f64]) -> (f64, Option<f64>) {
    let at = sorted.len() / 8;
    (sorted[at], sorted.get(at + 1).map(|next| next - sorted[at]))
}

/// Mean of the middle half of the sorted values (rounded outwards), and half of the 95 % confidence
/// interval of all their mean; none of a single one.
fn mean(sorted: &[f64]) -> (f64, Option<f64>) {
    let of = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let quarter = sorted.len() / 4;
    let middle = of(&sorted[quarter..sorted.len() - quarter]);
    let free = sorted.len() as f64 - 1.0;
    let variance = sorted.iter().map(|ns| (ns - of(sorted)).powi(2)).sum::<f64>() / free;
    (middle, (free > 0.0).then(|| 1.96 * (variance / sorted.len() as f64).sqrt()))
}

/// By subject, what all rows say.
pub fn timings(rows: &[Row]) -> BTreeMap<&Subject, Timing> {
    let by_subject = by_subject(rows).into_iter();
    by_subject.filter_map(|(subject, readings)| Some((subject, Timing::of(readings)?))).collect()
}

pub(super) fn by_subject(rows: &[Row]) -> BTreeMap<&Subject, Vec<Reading<'_>>> {
    let mut by_subject: BTreeMap<&Subject, Vec<Reading>> = BTreeMap::new();
    for reading in readings(rows) {
        by_subject.entry(&reading.row.subject).or_default().push(reading);
    }
    by_subject
}
