use super::{Latency, Row, Subject, drift};
use statrs::statistics::{Data, OrderStatistics, Statistics};
use std::collections::BTreeMap;

/// What the rows of a subject say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The median of the rows' medians, the device's drift taken off.
    pub median: Latency,
    /// Of the median, told from how the rows differ; none of a single row.
    pub standard_error: Option<Latency>,
    /// Rows that it is of: the undisturbed ones, where there are any.
    pub rows: usize,
    pub disturbed: bool,
}

/// How much wider a median scatters than a mean, of values that are normal.
const MEDIAN_TO_MEAN: f64 = 1.253_314;
/// 95 % of a normal distribution are within so many standard deviations.
pub const NORMAL_95: f64 = 1.96;

impl Timing {
    /// Of a subject's rows and the levels that the device was at; none where there are none.
    fn of(rows: &[(&Row, f64)]) -> Option<Timing> {
        let calm: Vec<_> = rows.iter().filter(|(row, _)| row.disturbed.is_empty()).collect();
        let disturbed = calm.is_empty();
        let counted = if disturbed { rows.iter().collect() } else { calm };
        let medians: Vec<f64> = counted.iter().map(|(row, level)| row.median_ns.ns() / level).collect();
        let rows = medians.len();
        let median = Data::new(medians.clone()).median();
        let error = MEDIAN_TO_MEAN * medians.std_dev() / (rows as f64).sqrt();
        (rows > 0).then(|| Timing {
            median: Latency::from_ns(median),
            standard_error: (rows > 1).then(|| Latency::from_ns(error)),
            rows,
            disturbed,
        })
    }

    /// Half of the 95 % confidence interval of the median, as a share of it; none of a single row.
    pub fn interval(&self) -> Option<f64> {
        self.standard_error.map(|error| NORMAL_95 * error.ns() / self.median.ns())
    }
}

/// By subject, what all rows say.
pub fn timings(rows: &[Row]) -> BTreeMap<&Subject, Timing> {
    let mut by_subject: BTreeMap<&Subject, Vec<(&Row, f64)>> = BTreeMap::new();
    for (row, level) in rows.iter().zip(drift::levels(rows)) {
        by_subject.entry(&row.subject).or_default().push((row, level));
    }
    by_subject.into_iter().filter_map(|(subject, rows)| Some((subject, Timing::of(&rows)?))).collect()
}
