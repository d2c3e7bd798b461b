use super::statistics::{median, spearman};
use crate::latency::Latency;
use serde::Serialize;

/// How well two tables, A and B, agree on what both have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs in which both latencies are positive. The others have no ratio.
    pub compared: usize,
    /// Median of |B / A - 1|.
    pub median_difference: f64,
    /// Median of B / A.
    pub median_ratio: f64,
    /// Spearman's rank correlation, or `None` if all of A or all of B are equal.
    pub spearman: Option<f64>,
}

impl Agreement {
    /// Compares pairs of A and B. Returns `None` if there are none to compare.
    pub fn of(pairs: impl IntoIterator<Item = (Latency, Latency)>) -> Option<Agreement> {
        let pairs: Vec<(Latency, Latency)> = pairs.into_iter().filter(|(a, b)| Self::ratio(*a, *b).is_some()).collect();
        let ratios: Vec<f64> = pairs.iter().filter_map(|(a, b)| Self::ratio(*a, *b)).collect();
        let column =
            |of: fn(&(Latency, Latency)) -> Latency| -> Vec<f64> { pairs.iter().map(|pair| of(pair).ns()).collect() };
        (!pairs.is_empty()).then(|| Agreement {
            compared: pairs.len(),
            median_difference: median(ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect::<Vec<_>>()),
            median_ratio: median(ratios),
            spearman: spearman(&column(|pair| pair.0), &column(|pair| pair.1)),
        })
    }

    /// Returns B / A, or `None` if either is not positive.
    pub fn ratio(a: Latency, b: Latency) -> Option<f64> {
        (a > Latency::ZERO && b > Latency::ZERO).then(|| b.ns() / a.ns())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Ratios 1.1, 0.9, 2 and 1; a pair with a zero is left out.
    #[test]
    fn of_four_pairs() {
        let pairs = [(10.0, 11.0), (20.0, 18.0), (30.0, 60.0), (40.0, 40.0), (0.0, 5.0)];
        let agreement = Agreement::of(pairs.map(|(a, b)| (Latency::from_ns(a), Latency::from_ns(b)))).unwrap();
        assert_eq!(agreement.compared, 4);
        assert!((agreement.median_difference - 0.1).abs() < 1e-12, "{agreement:?}");
        assert!((agreement.median_ratio - 1.05).abs() < 1e-12, "{agreement:?}");
        assert!((agreement.spearman.unwrap() - 0.8).abs() < 1e-12, "{agreement:?}");
        assert_eq!(Agreement::of([]), None);
    }
}
