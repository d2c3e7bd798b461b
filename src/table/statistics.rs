use crate::latency::Latency;
use statrs::statistics::{Data, OrderStatistics, RankTieBreaker};

/// The standard deviation of a normal distribution, in units of its median absolute deviation.
pub const MAD_TO_SIGMA: f64 = 1.4826;

/// Returns the median, or NaN if there are no values.
pub fn median(values: impl Into<Vec<f64>>) -> f64 {
    Data::new(values.into()).median()
}

/// Returns Spearman's rank correlation, or `None` if all of `a` or all of `b` are equal.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let [a, b] = [a, b].map(|values| Data::new(values.to_vec()).ranks(RankTieBreaker::Average));
    let middle = (a.len() as f64 + 1.0) / 2.0;
    let covariance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let variances = covariance(&a, &a) * covariance(&b, &b);
    (variances > 0.0).then(|| covariance(&a, &b) / variances.sqrt())
}

/// Order statistics of repeated timings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: Latency,
    pub p5: Latency,
    pub p95: Latency,
    pub samples: usize,
}

impl Summary {
    /// Summarises nanoseconds. Returns `None` if there are none.
    pub fn of(ns: &[f64]) -> Option<Summary> {
        if ns.is_empty() {
            return None;
        }
        let mut data = Data::new(ns.to_vec());
        let mut quantile = |q: f64| Latency::from_ns(data.quantile(q));
        Some(Summary { median: quantile(0.5), p5: quantile(0.05), p95: quantile(0.95), samples: ns.len() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_sample_does_not_move_the_median() {
        let mut ns: Vec<f64> = (1..=100).map(f64::from).collect();
        ns[99] = 1e9;
        let summary = Summary::of(&ns).unwrap();
        assert!((summary.median.ns() - 50.5).abs() < 1.0, "{summary:?}");
        assert!((summary.p5.ns() - 5.5).abs() < 1.0 && (summary.p95.ns() - 95.5).abs() < 1.0, "{summary:?}");
        assert_eq!(summary.samples, 100);
        assert_eq!(Summary::of(&[]), None);
    }
}
