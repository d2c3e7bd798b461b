//! Timing a loaded model.

use crate::{
    busy::Busy,
    runtime::{Error, Model},
    sensors::Watch,
};
use nas_probe::{MeasurePlan, Samples, TensorData};
use std::time::{Duration, Instant};

const FEWEST_WARMUP_RUNS: usize = 3;
const FEWEST_SAMPLES: usize = 5;
/// Warm-up runs whose median tells how long an inference takes; earlier ones may be cold.
const RECENT: usize = 1024;

/// Times a model on fixed pseudo-random inputs in [-1, 1]; `pinned` are the cores that the process is
/// pinned to, if it is.
pub fn measure(
    model: &mut dyn Model,
    plan: &MeasurePlan,
    watch: &mut Watch,
    pinned: &[usize],
) -> Result<Samples, Error> {
    if plan.samples == 0 {
        return Err(Error::NoSamples);
    }
    model.set_inputs(model.input_shapes()?.into_iter().map(noise).collect())?;
    let batch = (plan.min_sample_ns as f64 / warm_up(model, plan)?).ceil().max(1.0) as u64;

    let before = watch.read();
    let busy = Busy::now();
    let mut ns = Vec::with_capacity(plan.samples.min(RECENT));
    let start = Instant::now();
    let mut sample_until = |samples: usize, fewest: usize, limit_ns: u64| -> Result<(), Error> {
        if ns.len() < samples {
            // The first run after a pause finds the caches as others left them.
            time(model, batch)?;
        }
        let limit = Duration::from_nanos(limit_ns);
        while ns.len() < samples && (ns.len() < fewest || start.elapsed() < limit) {
            ns.push(time(model, batch)? / batch as f64);
        }
        Ok(())
    };
    sample_until(plan.samples.div_ceil(2), FEWEST_SAMPLES.div_ceil(2), plan.limit_ns / 2)?;
    let during = watch.read();
    sample_until(plan.samples, FEWEST_SAMPLES, plan.limit_ns)?;
    let others = busy.others(pinned);
    Ok(Samples { batch, ns, before, during, after: watch.read(), others })
}

/// Runs the model as long as the plan says and returns the median of the last runs, nanoseconds.
fn warm_up(model: &mut dyn Model, plan: &MeasurePlan) -> Result<f64, Error> {
    let least = Duration::from_nanos(plan.warmup_ns);
    let mut recent = Vec::new();
    let mut runs = 0;
    let start = Instant::now();
    while runs < FEWEST_WARMUP_RUNS || start.elapsed() < least {
        let ns = time(model, 1)?;
        match recent.get_mut(runs % RECENT) {
            Some(oldest) => *oldest = ns,
            None => recent.push(ns),
        }
        runs += 1;
    }
    recent.sort_by(f64::total_cmp);
    // A clock too coarse to see one run must not make a batch of infinitely many.
    Ok(recent[recent.len() / 2].max(1.0))
}

/// Nanoseconds for `batch` inferences.
fn time(model: &mut dyn Model, batch: u64) -> Result<f64, Error> {
    let start = Instant::now();
    for _ in 0..batch {
        model.run()?;
    }
    Ok(start.elapsed().as_nanos() as f64)
}

/// A tensor of a fixed sequence, uniform in [-1, 1]: the top 24 bits of a linear congruential
/// generator with the constants of Numerical Recipes.
fn noise(shape: Vec<usize>) -> TensorData {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    TensorData { shape, values }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nas_probe::Sensors;
    use std::path::Path;

    /// Spins for so long.
    struct Spins(Duration);

    impl Model for Spins {
        fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
            Ok(vec![])
        }
        fn set_inputs(&mut self, _: Vec<TensorData>) -> Result<(), Error> {
            Ok(())
        }
        fn run(&mut self) -> Result<(), Error> {
            let start = Instant::now();
            while start.elapsed() < self.0 {}
            Ok(())
        }
        fn infer(&mut self) -> Result<Vec<TensorData>, Error> {
            Ok(vec![])
        }
    }

    const PLAN: MeasurePlan =
        MeasurePlan { warmup_ns: 2_000_000, min_sample_ns: 500_000, samples: 20, limit_ns: 5_000_000_000 };

    fn measure(model: &mut dyn Model, plan: &MeasurePlan) -> Result<Samples, Error> {
        let mut watch = Watch::new(Path::new("/"), &Sensors::default(), &[]).unwrap();
        super::measure(model, plan, &mut watch, &[])
    }

    #[test]
    fn a_sample_of_a_short_op_batches_runs_and_tells_the_time_of_one() {
        let samples = measure(&mut Spins(Duration::from_micros(20)), &PLAN).unwrap();
        assert!((5..=25).contains(&samples.batch), "batch {}", samples.batch);
        assert_eq!(samples.ns.len(), 20);
        assert!(samples.ns.iter().all(|ns| *ns >= 20_000.0), "{:?}", samples.ns);
        assert_eq!(samples.others, None, "10 ms tell nothing of others");
    }

    #[test]
    fn the_limit_stops_sampling_but_not_before_five_samples() {
        let plan = MeasurePlan { limit_ns: 0, ..PLAN };
        let samples = measure(&mut Spins(Duration::from_millis(1)), &plan).unwrap();
        assert_eq!((samples.batch, samples.ns.len()), (1, FEWEST_SAMPLES));
        let one = MeasurePlan { samples: 1, ..PLAN };
        assert_eq!(measure(&mut Spins(Duration::ZERO), &one).unwrap().ns.len(), 1);
        assert!(measure(&mut Spins(Duration::ZERO), &MeasurePlan { samples: 0, ..PLAN }).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn others_are_told_of_a_sampling_that_is_long_enough() {
        let plan = MeasurePlan { min_sample_ns: 10_000_000, ..PLAN };
        let samples = measure(&mut Spins(Duration::from_millis(1)), &plan).unwrap();
        assert!(samples.others.is_some_and(|others| others >= 0.0), "{:?}", samples.others);
    }

    #[test]
    fn noise_fills_minus_one_to_one_and_is_always_the_same() {
        let a = noise(vec![1, 10, 100]);
        assert_eq!(a, noise(vec![1, 10, 100]));
        assert!(a.values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(a.values.iter().sum::<f32>().abs() < 60.0);
        assert!(a.values.iter().any(|v| *v < -0.9) && a.values.iter().any(|v| *v > 0.9));
    }
}
