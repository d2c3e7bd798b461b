//! Timing a loaded model.

use crate::{
    busy::Busy,
    noise::feed,
    runtime::{Error, Model},
    sensors::Watch,
};
use nas_probe::{FEWEST_SETTLED, MeasurePlan, Samples, settled};
use std::time::{Duration, Instant};

const FEWEST_WARMUP_RUNS: usize = 3;
const FEWEST_SAMPLES: usize = 5;
/// A block whose median run is faster than that of the block before by more than this share shows that
/// the model is not warm yet.
const STILL_WARMING: f64 = 0.01;
/// Runs of a block that its median is taken of, the last ones.
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
    feed(model)?;
    // From the warm-up on: sampling alone may end too soon to tell.
    let busy = Busy::now();
    let batch = (plan.min_sample_ns as f64 / warm_up(model, plan)?).ceil().max(1.0) as u64;

    let before = watch.read();
    let mut ns = Vec::with_capacity(plan.samples.min(RECENT));
    let start = Instant::now();
    let mut look_at = FEWEST_SETTLED;
    let mut sample_until = |samples: usize, fewest: usize, limit_ns: u64| -> Result<(), Error> {
        if ns.len() < samples {
            // The first run after a pause finds the caches as others left them.
            time(model, batch)?;
        }
        let limit = Duration::from_nanos(limit_ns);
        while ns.len() < samples && (ns.len() < fewest || start.elapsed() < limit) {
            ns.push(time(model, batch)? / batch as f64);
            if ns.len() == look_at && plan.precision > 0.0 {
                if settled(&ns, plan.precision) {
                    break;
                }
                look_at += (look_at / 10).max(FEWEST_SETTLED);
            }
        }
        Ok(())
    };
    let half = plan.samples.div_ceil(2);
    let half = if plan.precision > 0.0 { half.min(FEWEST_SETTLED / 2) } else { half };
    sample_until(half, FEWEST_SAMPLES.div_ceil(2), plan.limit_ns / 2)?;
    let during = watch.read();
    sample_until(plan.samples, FEWEST_SAMPLES, plan.limit_ns)?;
    let others = busy.others(pinned);
    Ok(Samples { batch, ns, before, during, after: watch.read(), others })
}

/// Runs the model until it is warm, as the plan says, and returns the median run of the last block,
/// nanoseconds.
fn warm_up(model: &mut dyn Model, plan: &MeasurePlan) -> Result<f64, Error> {
    let least = Duration::from_nanos(plan.warmup_ns.div_ceil(2));
    let (mut last, mut runs) = block(model, least)?;
    for _ in 1..MeasurePlan::MOST_BLOCKS {
        let (median, more) = block(model, least)?;
        runs += more;
        let warm = median >= last * (1.0 - STILL_WARMING);
        last = median;
        if warm && runs >= FEWEST_WARMUP_RUNS {
            break;
        }
    }
    // A clock too coarse to see one run must not make a batch of infinitely many.
    Ok(last.max(1.0))
}

/// Runs the model for at least so long, and at least once: the median of the last runs, nanoseconds,
/// and how many there were.
fn block(model: &mut dyn Model, least: Duration) -> Result<(f64, usize), Error> {
    let mut recent = Vec::new();
    let mut runs = 0;
    let start = Instant::now();
    while runs == 0 || start.elapsed() < least {
        let ns = time(model, 1)?;
        match recent.get_mut(runs % RECENT) {
            Some(oldest) => *oldest = ns,
            None => recent.push(ns),
        }
        runs += 1;
    }
    recent.sort_by(f64::total_cmp);
    Ok((recent[recent.len() / 2], runs))
}

/// Nanoseconds for `batch` inferences.
fn time(model: &mut dyn Model, batch: u64) -> Result<f64, Error> {
    let start = Instant::now();
    for _ in 0..batch {
        model.run()?;
    }
    Ok(start.elapsed().as_nanos() as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use nas_probe::{Sensors, TensorData};
    use std::path::Path;

    /// Spins for as long as a run of this number lasts.
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

    const PLAN: MeasurePlan = MeasurePlan {
        warmup_ns: 2_000_000,
        min_sample_ns: 500_000,
        samples: 20,
        limit_ns: 5_000_000_000,
        precision: 0.0,
    };

    fn measure(model: &mut dyn Model, plan: &MeasurePlan) -> Result<Samples, Error> {
        let mut watch = Watch::new(Path::new("/"), &Sensors::default(), &[]).unwrap();
        super::measure(model, plan, &mut watch, &[])
    }

    #[test]
    fn a_sample_of_a_short_op_batches_runs_and_tells_the_time_of_one() {
        let samples = measure(&mut spins(Duration::from_micros(20)), &PLAN).unwrap();
        assert!((5..=25).contains(&samples.batch), "batch {}", samples.batch);
        assert_eq!(samples.ns.len(), 20);
        assert!(samples.ns.iter().all(|ns| *ns >= 20_000.0), "{:?}", samples.ns);
        assert_eq!(samples.others, None, "10 ms tell nothing of others");
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

    #[test]
    #[cfg(target_os = "linux")]
    fn others_are_told_of_a_sampling_that_is_long_enough() {
        let plan = MeasurePlan { min_sample_ns: 10_000_000, ..PLAN };
        let samples = measure(&mut spins(Duration::from_millis(1)), &plan).unwrap();
        assert!(samples.others.is_some_and(|others| others >= 0.0), "{:?}", samples.others);
    }

    #[test]
    fn sampling_ends_early_where_the_precision_is_reached_and_only_there() {
        let plan = MeasurePlan { samples: 60, min_sample_ns: 0, precision: 0.05, ..PLAN };
        let taken = |model: &mut dyn Model, plan| measure(model, &plan).unwrap().ns.len();
        let steady = || spins(Duration::from_micros(500));
        let few = taken(&mut steady(), plan);
        assert!(few < 60 && few.is_multiple_of(10), "{few}");
        assert_eq!(taken(&mut steady(), MeasurePlan { precision: 0.0, ..plan }), 60);
        assert_eq!(taken(&mut steady(), MeasurePlan { samples: 8, ..plan }), 8, "`samples` is the most");
        // Runs of 200 to 600 µs, evenly: 60 of them tell the median to ±10 %.
        let mut noisy = Spins(0, |run| Duration::from_micros(200 + u64::from(run * 7 % 11) * 40));
        assert_eq!(taken(&mut noisy, plan), 60);
    }

    #[test]
    fn a_model_that_still_gets_faster_is_warmed_up_further() {
        let runs = |time: &dyn Fn(u32) -> Duration, plan: &MeasurePlan| {
            let mut model = Spins(0, time);
            let median = warm_up(&mut model, plan).unwrap();
            (model.0, median)
        };
        let plan = MeasurePlan { warmup_ns: 8_000_000, ..PLAN };
        // 2 blocks of 4 ms do for one that is steady; a busy machine may make that more.
        let (steady, _) = runs(&|_| Duration::from_millis(2), &plan);
        assert!((4..=16).contains(&steady), "{steady} runs");
        // 8 ms, twice 4, four times 2, then 1: each of the first blocks of 8 ms is half of the one before.
        let plan = MeasurePlan { warmup_ns: 16_000_000, ..PLAN };
        let (warmed, median) = runs(&|run| Duration::from_millis(8 >> (run + 1).ilog2().min(3)), &plan);
        assert!(warmed > 10, "{warmed} runs");
        assert!((1e6..1.9e6).contains(&median), "{median}");
        // One that gets faster for ever is given up.
        let plan = MeasurePlan { warmup_ns: 0, ..PLAN };
        let (given_up, _) = runs(&|run| Duration::from_secs_f64(0.1 * 0.7_f64.powi(run as i32)), &plan);
        assert_eq!(given_up, MeasurePlan::MOST_BLOCKS);
        // The fewest runs, whatever the time.
        let (fewest, _) = runs(&|run| Duration::from_millis(5) * (run + 1), &plan);
        assert_eq!(fewest as usize, FEWEST_WARMUP_RUNS);
    }
}
