use super::{ROW, disturbance};
use crate::device::{DeviceError, Session, Source};
use crate::progress;
use crate::table::{Estimate, Summary, Timing};
use nas_probe::Runtime;

/// What a benchmark found of one model with one runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmarked {
    /// Index of the model.
    pub model: usize,
    pub runtime: Runtime,
    /// Of the rounds, as a latency table estimates a subject from its rows.
    pub estimate: Estimate,
    /// Of all samples.
    pub summary: Summary,
    pub disturbed_rounds: usize,
    /// The peak memory of a process that only runs this model.
    pub peak_bytes: u64,
}

/// Measures all `models` with each runtime, in turn for `rounds` rounds, so that whatever else happens on the device
/// meets all of them alike. A round is what a row of a latency table is. Results are by runtime, then by model.
///
/// # Errors
/// Where a runtime is not available or rejects a model, or the probe ends.
pub fn bench(
    session: &mut Session,
    models: &[(String, Source)],
    runtimes: &[Runtime],
    threads: usize,
    rounds: usize,
) -> Result<Vec<Benchmarked>, DeviceError> {
    for runtime in runtimes {
        session.require(*runtime)?;
    }
    let placed = session.place(models)?;
    let all: Vec<(Runtime, usize)> =
        runtimes.iter().flat_map(|&runtime| (0..placed.len()).map(move |model| (runtime, model))).collect();
    let memory = |&(runtime, model): &(Runtime, usize)| session.memory(&placed[model], runtime, threads);
    let peaks: Vec<u64> = all.iter().map(memory).collect::<Result<_, DeviceError>>()?;
    let mut timings = vec![vec![]; all.len()];
    let mut samples = vec![vec![]; all.len()];
    let cores = session.cores();
    let bar = progress::bar("bench", session.board(), rounds * all.len());
    for _ in 0..rounds {
        for (i, (runtime, model)) in all.iter().enumerate() {
            let measured = session.measure(&placed[*model], *runtime, threads, ROW)?;
            let disturbed = !disturbance::of(&measured, threads, cores).is_empty();
            timings[i].extend(Timing::of_samples(&measured.ns, disturbed));
            samples[i].extend(measured.ns);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let found = |(i, &(runtime, model)): (usize, &(Runtime, usize))| {
        let no_samples = || DeviceError::Failed {
            model: placed[model].name.clone(),
            runtime,
            reason: "the probe sent no samples".into(),
        };
        Ok(Benchmarked {
            model,
            runtime,
            estimate: Estimate::of(timings[i].iter().copied()).ok_or_else(no_samples)?,
            summary: Summary::of(&samples[i]).ok_or_else(no_samples)?,
            disturbed_rounds: timings[i].iter().filter(|timing| timing.disturbed).count(),
            peak_bytes: peaks[i],
        })
    };
    all.iter().enumerate().map(found).collect()
}
