use nas_probe::Samples;
use serde::{Deserialize, Serialize};

/// What else went on while a row was measured, so that its latency may be too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    /// The device held its clock down.
    Throttled,
    /// Other programs kept cores busy that the runtime was to run on.
    Load,
}

/// Cores' worth of other programs that is taken for noise: a kernel's and a desktop's own business.
const LOAD: f64 = 0.1;
/// A clock that fell by more than this share in mid-measurement was held down, whoever says so.
const CLOCK_DROP: f64 = 0.03;

impl Disturbance {
    /// Those of a measurement with `threads` threads, on a probe that may use `cores` cores and is the
    /// only one meant to.
    pub fn of(samples: &Samples, threads: usize, cores: usize) -> Vec<Disturbance> {
        let Samples { before, during, after, others, .. } = samples;
        let said = [before, during, after].iter().any(|c| c.throttled == Some(true));
        let fell = |khz: Option<u64>| match (before.khz, khz) {
            (Some(before), Some(later)) => (later as f64) < (1.0 - CLOCK_DROP) * before as f64,
            _ => false,
        };
        let throttled = said || fell(during.khz) || fell(after.khz);
        let free = cores.saturating_sub(threads) as f64;
        let load = others.is_some_and(|others| others > free + LOAD);
        let found = [(throttled, Disturbance::Throttled), (load, Disturbance::Load)];
        found.into_iter().filter(|(is, _)| *is).map(|(_, disturbance)| disturbance).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nas_probe::Conditions;

    fn measured(khz: [u64; 3], throttled: bool, others: Option<f64>) -> Samples {
        let [before, during, after] = khz.map(|khz| Conditions { khz: Some(khz), ..Default::default() });
        let during = Conditions { throttled: Some(throttled), ..during };
        Samples { ns: vec![1.0], batch: 1, before, during, after, others }
    }

    #[test]
    fn throttling_is_taken_from_the_device_or_from_its_clock() {
        let of = |khz, throttled| Disturbance::of(&measured(khz, throttled, None), 1, 4);
        assert_eq!(of([1500; 3], false), []);
        assert_eq!(of([1500; 3], true), [Disturbance::Throttled]);
        assert_eq!(of([1500, 1500, 1000], false), [Disturbance::Throttled]);
        // A clock that rises was at rest before.
        assert_eq!(of([600, 1500, 1500], false), []);
    }

    #[test]
    fn others_disturb_only_where_they_take_a_core_that_is_needed() {
        let of =
            |others, threads, cores| Disturbance::of(&measured([1; 3], false, Some(others)), threads, cores);
        assert_eq!(of(0.9, 1, 2), []);
        assert_eq!(of(1.2, 1, 2), [Disturbance::Load]);
        assert_eq!(of(0.5, 2, 2), [Disturbance::Load]);
        // Pinned to one core.
        assert_eq!(of(0.05, 1, 1), []);
        assert_eq!(of(0.2, 1, 1), [Disturbance::Load]);
    }
}
