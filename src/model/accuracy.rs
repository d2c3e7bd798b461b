//! How well predicted latencies agree with measured ones.

use crate::latency::Latency;
use crate::table::spearman;
use serde::{Deserialize, Serialize};

/// How predicted latencies of networks compare with measured ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    pub networks: usize,
    /// Mean absolute error, as a share of the measured latency.
    pub mape: f64,
    /// Mean error, as a share of the measured latency. It is positive if predictions are too high.
    pub bias: f64,
    /// Share of the networks whose prediction is within 5 % of the measured latency.
    pub within_5: f64,
    pub within_10: f64,
    pub rmse_ns: Latency,
    /// Spearman's rank correlation. This and Kendall's tau are `None` if all latencies of one kind are equal.
    pub spearman: Option<f64>,
    /// Kendall's tau-b: agreeing minus disagreeing pairs, adjusted for ties (Kendall 1945, Biometrika 33:239).
    pub kendall: Option<f64>,
}

impl Accuracy {
    /// Compares pairs of predicted and measured latency. Returns `None` if there are none.
    pub fn of(pairs: &[(Latency, Latency)]) -> Option<Accuracy> {
        let n = pairs.len() as f64;
        let mean = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|(p, m)| of(p.ns(), m.ns())).sum::<f64>() / n;
        let within = |share: f64| mean(&|p, m| f64::from((p - m).abs() <= share * m));
        let column = |of: fn(&(Latency, Latency)) -> Latency| pairs.iter().map(|pair| of(pair).ns()).collect();
        let [predicted, measured]: [Vec<f64>; 2] = [column(|pair| pair.0), column(|pair| pair.1)];
        (!pairs.is_empty()).then(|| Accuracy {
            networks: pairs.len(),
            mape: mean(&|p, m| (p / m - 1.0).abs()),
            bias: mean(&|p, m| p / m - 1.0),
            within_5: within(0.05),
            within_10: within(0.1),
            rmse_ns: Latency::from_ns(mean(&|p, m| (p - m).powi(2)).sqrt()),
            spearman: spearman(&predicted, &measured),
            kendall: kendall(&predicted, &measured),
        })
    }
}

fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mut agree, mut apart_a, mut apart_b) = (0.0, 0.0, 0.0);
    let order = |values: &[f64], i: usize, j: usize| match values[i].total_cmp(&values[j]) {
        std::cmp::Ordering::Less => -1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => 1.0f64,
    };
    for i in 0..a.len() {
        for j in 0..i {
            let (a, b) = (order(a, i, j), order(b, i, j));
            agree += a * b;
            apart_a += a.abs();
            apart_b += b.abs();
        }
    }
    let pairs = apart_a * apart_b;
    (pairs > 0.0).then(|| agree / pairs.sqrt())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn accuracy(predicted: &[f64], measured: &[f64]) -> Accuracy {
        let pairs = predicted.iter().zip(measured).map(|(&p, &m)| (Latency::from_ns(p), Latency::from_ns(m)));
        Accuracy::of(&pairs.collect::<Vec<_>>()).unwrap()
    }

    /// Worked out by hand: ranks 1, 2, 3½, 3½, 5 and 1, 2, 4, 3, 5.
    #[test]
    fn of_five_networks() {
        let accuracy = accuracy(&[104.0, 190.0, 300.0, 300.0, 550.0], &[100.0, 200.0, 400.0, 300.0, 500.0]);
        assert_eq!(accuracy.networks, 5);
        assert!((accuracy.mape - 0.088).abs() < 1e-12);
        assert!((accuracy.bias - (0.04 - 0.05 - 0.25 + 0.0 + 0.1) / 5.0).abs() < 1e-12);
        assert!((accuracy.within_5 - 0.6).abs() < 1e-12 && (accuracy.within_10 - 0.8).abs() < 1e-12, "{accuracy:?}");
        assert!((accuracy.rmse_ns.ns() - (12616f64 / 5.0).sqrt()).abs() < 1e-9);
        assert!((accuracy.spearman.unwrap() - (9.5f64 / 10.0).sqrt()).abs() < 1e-12);
        assert!((accuracy.kendall.unwrap() - (9f64 / 10.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn orders() {
        let up = [1.0, 2.0, 3.0, 4.0];
        let down = [4.0, 3.0, 2.0, 1.0];
        assert_eq!((accuracy(&up, &up).spearman, accuracy(&up, &up).kendall), (Some(1.0), Some(1.0)));
        assert_eq!((accuracy(&up, &down).spearman, accuracy(&up, &down).kendall), (Some(-1.0), Some(-1.0)));
        assert_eq!((accuracy(&[2.0; 4], &up).spearman, accuracy(&[2.0; 4], &up).kendall), (None, None));
        assert_eq!(Accuracy::of(&[]), None);
    }
}
