use super::{ROW, disturbance};
use crate::device::{DeviceError, Session, Source};
use crate::progress;
use crate::table::{Estimate, Summary, Timing};
use nas_probe::{Runtime, Samples};

/// The result of a benchmark for one model with one runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmarked {
    /// Index of the model.
    pub model: usize,
    pub runtime: Runtime,
    /// Estimated from the rounds, as a latency table estimates a subject from its rows.
    pub estimate: Estimate,
    /// Statistics of all samples.
    pub summary: Summary,
    pub disturbed_rounds: usize,
    /// The peak memory of a process that runs only this model.
    pub peak_bytes: u64,
}

/// The results of a benchmark, and what it could not measure.
#[derive(Debug, Default)]
pub struct Benchmark {
    pub found: Vec<Benchmarked>,
    /// The reasons why models have no result with a runtime.
    pub failed: Vec<DeviceError>,
    /// Whether the probe ended before the last round.
    pub broke_off: bool,
}

/// A model with a runtime, while it is being measured.
struct Case {
    runtime: Runtime,
    model: usize,
    peak_bytes: u64,
    timings: Vec<Timing>,
    samples: Vec<f64>,
    failed: Option<DeviceError>,
}

/// Measures the `cases`, each of which is a runtime and the index of one of the `models`, in turn for `rounds` rounds,
/// so that whatever else happens on the device affects all of them alike. A round corresponds to a row of a latency
/// table. Results are in the order of the cases. A model that fails, or whose process needs too much memory, is not
/// measured any further. If the probe ends, the results are those until then.
///
/// # Errors
/// Fails if a runtime is not available, or a model cannot be sent.
pub fn bench(
    session: &mut Session,
    models: &[(String, Source)],
    cases: &[(Runtime, usize)],
    threads: usize,
    rounds: usize,
) -> Result<Benchmark, DeviceError> {
    for (runtime, _) in cases {
        session.require(*runtime)?;
    }
    let placed = session.place(models)?;
    let bar = progress::bar("bench", session.board(), rounds * cases.len());
    let (mut timed, mut benchmark) = (vec![], Benchmark::default());
    for &(runtime, model) in cases {
        match session.memory(&placed[model], runtime, threads) {
            Ok(peak_bytes) => {
                timed.push(Case { runtime, model, peak_bytes, timings: vec![], samples: vec![], failed: None });
            }
            Err(error) if error.is_of_model() => benchmark.failed.push(error),
            Err(fatal) => return Err(fatal),
        }
    }
    let cores = session.cores();
    'rounds: for _ in 0..rounds {
        for case in timed.iter_mut().filter(|case| case.failed.is_none()) {
            match session.measure(&placed[case.model], case.runtime, threads, ROW) {
                Ok(measured) => case.add(measured, threads, cores),
                Err(error) if error.is_of_model() => case.failed = Some(error),
                Err(fatal) => {
                    benchmark.failed.push(fatal);
                    benchmark.broke_off = true;
                    break 'rounds;
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for case in timed {
        match case.result() {
            Ok(found) => benchmark.found.extend(found),
            Err(failed) => benchmark.failed.push(failed),
        }
    }
    Ok(benchmark)
}

impl Case {
    fn add(&mut self, measured: Samples, threads: usize, cores: usize) {
        let disturbed = !disturbance::of(&measured, threads, cores).is_empty();
        self.timings.extend(Timing::of_samples(&measured.ns, disturbed));
        self.samples.extend(measured.ns);
    }

    /// Returns `None` if the model was not measured because the probe ended.
    fn result(self) -> Result<Option<Benchmarked>, DeviceError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let of = |(estimate, summary)| Benchmarked {
            model: self.model,
            runtime: self.runtime,
            estimate,
            summary,
            disturbed_rounds: self.timings.iter().filter(|timing| timing.disturbed).count(),
            peak_bytes: self.peak_bytes,
        };
        Ok(Estimate::of(self.timings.iter().copied()).zip(Summary::of(&self.samples)).map(of))
    }
}
