use super::{Latency, Mean, Row, Subject};
use std::collections::BTreeMap;

/// What the rows of a subject say together.
///
/// A device is only ever slowed down by what else goes on, so that the fastest timing is the one that
/// tells of the subject alone (Chen and Revels 2016, arXiv 1608.04295). On a busy machine the medians of
/// two days differ by several percent, and these by a fraction of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The fastest sample of all rows: what it takes where nothing disturbs it. Of a published row, which
    /// has no samples, the mean.
    pub fastest: Latency,
    /// How much slower the fastest sample of the second best row was, that is how well the first one
    /// repeats; none of a single row.
    pub gap: Option<Latency>,
    /// Median of the rows' medians: what it took on the device as it was; none of a published row.
    pub median: Option<Latency>,
    /// Rows that it is of: the undisturbed ones, where there are any.
    pub rows: usize,
    pub disturbed: bool,
}

impl Timing {
    /// None where there are no rows.
    pub fn of<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Option<Timing> {
        let rows: Vec<&Row> = rows.into_iter().collect();
        let calm: Vec<&Row> = rows.iter().copied().filter(|row| row.disturbed.is_empty()).collect();
        let disturbed = calm.is_empty();
        let rows = if disturbed { rows } else { calm };
        let sorted = |of: fn(&Row) -> Latency| {
            let mut latencies: Vec<Latency> = rows.iter().map(|row| of(row)).collect();
            latencies.sort_by(|a, b| a.ns().total_cmp(&b.ns()));
            latencies
        };
        let (fastest, medians) = (sorted(Row::fastest), sorted(|row| row.median_ns));
        Some(Timing {
            fastest: *fastest.first()?,
            gap: fastest.get(1).map(|second| *second + -1.0 * fastest[0]),
            median: Some(medians[(medians.len() - 1) / 2]),
            rows: rows.len(),
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

/// By subject, what all rows say.
pub fn timings(rows: &[Row]) -> BTreeMap<&Subject, Timing> {
    let mut by_subject: BTreeMap<&Subject, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_subject.entry(&row.subject).or_default().push(row);
    }
    by_subject.into_iter().filter_map(|(subject, rows)| Some((subject, Timing::of(rows)?))).collect()
}
