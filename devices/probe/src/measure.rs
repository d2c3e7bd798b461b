//! Timing a loaded model.

use crate::{
    busy::Busy,
    deadline::Deadline,
    noise::feed,
    runtime::{Error, Model},
    sensors::Watch,
    watchdog::Watchdog,
};
use nas_probe::{MeasurePlan, Samples};
use std::time::{Duration, Instant};

/// How a deadline names the first run of a model, in which a runtime may still allocate and compile.
pub const FIRST: &str = "the first inference";
const FEWEST_WARMUP_RUNS: usize = 3;
const FEWEST_SAMPLES: usize = 5;
/// The model is not warm yet if the median run of a block is faster than that of the block before by more
/// than this fraction.
const STILL_WARMING: f64 = 0.01;
/// The median of a block is taken over this number of its last runs.
const RECENT: usize = 1024;

/// Times a model on fixed pseudo-random inputs in [-1, 1]. `cores` holds the cores that the process may use, and is empty
/// if it may use all.
///
/// # Errors
/// The errors of the model; [`Error::Late`] if the first inference or the measurement takes longer than `watchdog`
/// allows.
pub fn measure(
    model: &mut dyn Model,
    plan: &MeasurePlan,
    watch: &mut Watch,
    cores: &[usize],
    watchdog: &Watchdog,
) -> Result<Samples, Error> {
    if plan.samples == 0 {
        return Err(Error::NoSamples);
    }
    feed(model)?;
    time(model, 1, watchdog.part(FIRST, Duration::ZERO))?;
    let deadline = watchdog.part("the measurement", plan.longest());
    // This includes the warm-up, since sampling alone may be too short for an estimate.
    let busy = Busy::now();
    let half = Duration::from_nanos(plan.warmup_ns.div_ceil(2));
    // If the clock is too coarse for a single run, the batch must still be finite.
    let one = warm_up(|| block(model, half, deadline))?.max(1.0);
    let batch = (plan.min_sample_ns as f64 / one).ceil().max(1.0) as u64;

    let before = watch.read();
    let mut ns = Vec::with_capacity(plan.samples.min(RECENT));
    let mut sample_until = |samples: usize, fewest: usize| -> Result<(), Error> {
        if ns.len() < samples {
            // The first run after a pause is not recorded, since other programs may have filled the caches.
            time(model, batch, deadline)?;
        }
        let (start, limit) = (Instant::now(), Duration::from_nanos(plan.limit_ns / 2));
        while ns.len() < samples && (ns.len() < fewest || start.elapsed() < limit) {
            ns.push(time(model, batch, deadline)? / batch as f64);
        }
        Ok(())
    };
    sample_until(plan.samples.div_ceil(2), FEWEST_SAMPLES.div_ceil(2))?;
    let during = watch.read();
    sample_until(plan.samples, FEWEST_SAMPLES)?;
    let others = busy.others(cores);
    Ok(Samples { batch, ns, before, during, after: watch.read(), others })
}

/// Runs blocks until the model is warm. `block` returns the median of its runs, in nanoseconds, and their
/// number. Returns the median of the last block.
fn warm_up(mut block: impl FnMut() -> Result<(f64, usize), Error>) -> Result<f64, Error> {
    let (mut last, mut runs) = block()?;
    for _ in 1..MeasurePlan::MOST_BLOCKS {
        let (median, more) = block()?;
        runs += more;
        let warm = median >= last * (1.0 - STILL_WARMING);
        last = median;
        if warm && runs >= FEWEST_WARMUP_RUNS {
            break;
        }
    }
    Ok(last)
}

/// Runs the model for at least the time `least`, and at least once. Returns the median of the last runs, in
/// nanoseconds, and the number of all runs.
fn block(model: &mut dyn Model, least: Duration, deadline: Deadline) -> Result<(f64, usize), Error> {
    let mut recent = Vec::new();
    let mut runs = 0;
    let start = Instant::now();
    while runs == 0 || start.elapsed() < least {
        let ns = time(model, 1, deadline)?;
        match recent.get_mut(runs % RECENT) {
            Some(oldest) => *oldest = ns,
            None => recent.push(ns),
        }
        runs += 1;
    }
    recent.sort_by(f64::total_cmp);
    Ok((recent[recent.len() / 2], runs))
}

/// Nanoseconds that `batch` inferences take together.
fn time(model: &mut dyn Model, batch: u64, deadline: Deadline) -> Result<f64, Error> {
    let start = Instant::now();
    for _ in 0..batch {
        model.run()?;
    }
    let elapsed = start.elapsed();
    deadline.check(start + elapsed)?;
    Ok(elapsed.as_nanos() as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use nas_probe::{Rail, Sensors, TensorData};
    use std::path::Path;

    /// A model that spins for the time that the function returns for the number of the run.
    pub struct Spins<F>(u32, F);

    pub fn spins(time: Duration) -> Spins<impl Fn(u32) -> Duration> {
        Spins(0, move |_| time)
    }

    impl<F: Fn(u32) -> Duration> Model for Spins<F> {
        fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
            Ok(vec![])
        }
        fn set_inputs(&mut self, _: Vec<TensorData>) -> Result<(), Error> {
            Ok(())
        }
        fn run(&mut self) -> Result<(), Error> {
            let start = Instant::now();
            let Spins(run, time) = self;
            while start.elapsed() < time(*run) {}
            *run += 1;
            Ok(())
        }
        fn infer(&mut self) -> Result<Vec<TensorData>, Error> {
            Ok(vec![])
        }
    }

    const PLAN: MeasurePlan =
        MeasurePlan { warmup_ns: 20_000_000, min_sample_ns: 500_000, samples: 20, limit_ns: 5_000_000_000 };

    fn measure(model: &mut dyn Model, plan: &MeasurePlan) -> Result<Samples, Error> {
        let mut watch = Watch::new(Path::new("/"), &Sensors::default(), &[]).unwrap();
        super::measure(model, plan, &mut watch, &[], &Watchdog::default())
    }

    #[test]
    fn short_ops_are_batched_and_reported_per_run() {
        let samples = measure(&mut spins(Duration::from_micros(20)), &PLAN).unwrap();
        assert!((5..=25).contains(&samples.batch), "batch {}", samples.batch);
        assert_eq!(samples.ns.len(), 20);
        assert!(samples.ns.iter().all(|ns| *ns >= 20_000.0), "{:?}", samples.ns);
    }

    #[test]
    fn the_limit_stops_sampling_but_not_before_five_samples() {
        let plan = MeasurePlan { limit_ns: 0, ..PLAN };
        let samples = measure(&mut spins(Duration::from_millis(1)), &plan).unwrap();
        assert_eq!((samples.batch, samples.ns.len()), (1, FEWEST_SAMPLES));
        let one = MeasurePlan { samples: 1, ..PLAN };
        assert_eq!(measure(&mut spins(Duration::ZERO), &one).unwrap().ns.len(), 1);
        assert!(measure(&mut spins(Duration::ZERO), &MeasurePlan { samples: 0, ..PLAN }).is_err());
    }

    /// A power sensor that is a program takes longer than half of the time for the samples.
    #[test]
    fn a_slow_sensor_takes_no_time_from_the_samples() {
        let samples = |sensors: &Sensors| {
            let mut watch = Watch::new(Path::new("/"), sensors, &[]).unwrap();
            let plan = MeasurePlan { warmup_ns: 0, min_sample_ns: 0, samples: 1000, limit_ns: 40_000_000 };
            super::measure(&mut spins(Duration::from_micros(500)), &plan, &mut watch, &[], &Watchdog::default())
        };
        let command = ["sh", "-c", "sleep 0.03; echo 1"].map(str::to_owned).to_vec();
        let rail =
            Rail { name: "slow".into(), milliwatts: None, millivolts: None, milliamps: None, command: Some(command) };
        let slow = Sensors { power: vec![rail], ..Sensors::default() };
        // Other programs may take the core from either measurement.
        let as_many = || {
            let [with, without] = [&slow, &Sensors::default()].map(|sensors| samples(sensors).unwrap().ns.len());
            with as f64 > 0.75 * without as f64
        };
        assert!((0..5).any(|_| as_many()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn others_are_reported_if_sampling_takes_long_enough() {
        let plan = MeasurePlan { min_sample_ns: 10_000_000, ..PLAN };
        let samples = measure(&mut spins(Duration::from_millis(1)), &plan).unwrap();
        assert!(samples.others.is_some_and(|others| others >= 0.0), "{:?}", samples.others);
    }

    /// The number of blocks until the warm-up ends, and the median it returns, if blocks have these medians
    /// and this number of runs each.
    fn warmed(medians: &[f64], runs: usize) -> (usize, f64) {
        let mut blocks = 0;
        let block = || {
            blocks += 1;
            Ok((medians[blocks - 1], runs))
        };
        let ns = warm_up(block).unwrap();
        (blocks, ns)
    }

    #[test]
    fn warm_up_continues_until_the_runs_get_no_faster() {
        assert_eq!(warmed(&[100.0, 100.0], 50), (2, 100.0), "steady");
        assert_eq!(warmed(&[100.0, 130.0], 50), (2, 130.0), "slower, as with a throttled clock");
        assert_eq!(warmed(&[800.0, 400.0, 200.0, 100.0, 99.5], 50), (5, 99.5));
        let faster: Vec<f64> = (0..20).map(|i| 100.0 * 0.9_f64.powi(i)).collect();
        let most = MeasurePlan::MOST_BLOCKS as usize;
        assert_eq!(warmed(&faster, 50), (most, faster[most - 1]), "limit of blocks");
        assert_eq!(warmed(&[100.0; 3], 1), (FEWEST_WARMUP_RUNS, 100.0), "minimum of runs");
        assert!(warm_up(|| Err(Error::NoSamples)).is_err());
    }

    #[test]
    fn a_model_that_is_too_slow_is_late_at_its_first_run_or_later() {
        let watchdog = Watchdog::default();
        watchdog.set_timeout(Duration::from_millis(50));
        let late = |first: u64, later: u64| {
            let time = move |run| Duration::from_millis(if run == 0 { first } else { later });
            let mut watch = Watch::new(Path::new("/"), &Sensors::default(), &[]).unwrap();
            let plan = MeasurePlan { warmup_ns: 0, min_sample_ns: 0, samples: 1, limit_ns: 0 };
            super::measure(&mut Spins(0, time), &plan, &mut watch, &[], &watchdog).map_err(|e| e.to_string())
        };
        assert!(late(60, 1).unwrap_err().starts_with(FIRST));
        assert!(late(1, 60).unwrap_err().starts_with("the measurement took longer"));
        assert!(late(1, 1).is_ok());
    }

    #[test]
    fn a_block_has_its_minimum_duration_and_at_least_one_run() {
        let deadline = Deadline::new("the test", Duration::from_secs(60));
        let start = Instant::now();
        let (median, runs) = block(&mut spins(Duration::from_micros(100)), Duration::from_millis(5), deadline).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(5) && median >= 100_000.0);
        assert!((1..=50).contains(&runs), "{runs}");
        assert_eq!(block(&mut spins(Duration::from_millis(1)), Duration::ZERO, deadline).unwrap().1, 1);
        // If a model gets faster, only the last runs count.
        let mut faster = Spins(0, |run| Duration::from_micros(if run < RECENT as u32 { 20 } else { 2 }));
        let (median, _) = block(&mut faster, Duration::from_millis(100), deadline).unwrap();
        assert!((2_000.0..20_000.0).contains(&median), "{median}");
    }
}
