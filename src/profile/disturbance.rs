use crate::table::Disturbance;
use nas_probe::Samples;

/// The number of cores that other programs may keep busy without counting as a disturbance: the noise of a kernel and a
/// desktop.
const LOAD: f64 = 0.1;
/// If a clock falls by more than this share during a measurement, it was throttled.
const CLOCK_DROP: f64 = 0.03;

/// Returns what disturbed a measurement with `threads` threads, by a probe that may use `cores` cores.
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
        let of = |khz, throttled| super::of(&measured(khz, throttled, None), 1, 4);
        assert_eq!(of([1500; 3], false), []);
        assert_eq!(of([1500; 3], true), [Disturbance::Throttled]);
        assert_eq!(of([1500, 1500, 1000], false), [Disturbance::Throttled]);
        // A clock that rises was idle before.
        assert_eq!(of([600, 1500, 1500], false), []);
    }

    #[test]
    fn others_disturb_only_where_they_take_a_core_that_is_needed() {
        let of = |others, threads, cores| super::of(&measured([1; 3], false, Some(others)), threads, cores);
        assert_eq!(of(0.9, 1, 2), []);
        assert_eq!(of(1.2, 1, 2), [Disturbance::Load]);
        assert_eq!(of(0.5, 2, 2), [Disturbance::Load]);
        // Pinned to one core.
        assert_eq!(of(0.05, 1, 1), []);
        assert_eq!(of(0.2, 1, 1), [Disturbance::Load]);
    }
}
