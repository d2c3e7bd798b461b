use super::Latency;
use crate::device::DeviceError;
use nas_probe::Runtime;
use statrs::statistics::{Data, OrderStatistics};

/// Order statistics of repeated timings; robust where a busy machine adds a few slow ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: Latency,
    pub p5: Latency,
    pub p95: Latency,
    pub samples: usize,
}

impl Summary {
    /// Of nanoseconds; none where there are none.
    pub fn of(ns: &[f64]) -> Option<Summary> {
        if ns.is_empty() {
            return None;
        }
        let mut data = Data::new(ns.to_vec());
        let mut quantile = |q: f64| Latency::from_ns(data.quantile(q));
        Some(Summary { median: quantile(0.5), p5: quantile(0.05), p95: quantile(0.95), samples: ns.len() })
    }

    /// Of what a device measured.
    ///
    /// # Errors
    /// Where there are no samples.
    pub fn measured(ns: &[f64], model: &str, runtime: Runtime) -> Result<Summary, DeviceError> {
        let reason = "the probe sent no samples";
        Self::of(ns).ok_or_else(|| DeviceError::Failed {
            model: model.into(),
            runtime,
            reason: reason.into(),
        })
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
