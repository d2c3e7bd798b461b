//! Benchmark of whole ONNX files on a device.

use crate::artifact::{self, ArtifactError};
use crate::device::{Device, DeviceError, Session};
use crate::latency::{Disturbance, Latency, Prediction, Summary};
use crate::progress;
use crate::record::BenchRow;
use nas_probe::{MeasurePlan, Runtime};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// A network to measure.
pub struct Subject {
    pub name: String,
    /// ONNX
    pub model: Vec<u8>,
}

/// Measures all `subjects` with each runtime, in turn for `rounds` rounds, so that whatever else the
/// device does meets all of them alike. Rows come by runtime, then by subject, without predictions.
///
/// # Errors
/// Where a runtime is not to be had or rejects a model, or the probe ends.
pub fn bench(
    session: &mut Session,
    device: &Device,
    runtimes: &[Runtime],
    threads: usize,
    subjects: &[Subject],
    rounds: usize,
    plan: MeasurePlan,
) -> Result<Vec<BenchRow>, BenchError> {
    for runtime in runtimes {
        session.require(*runtime)?;
    }
    let models: Vec<_> = subjects.iter().map(|s| (s.name.clone(), s.model.clone())).collect();
    let models = session.put(&models)?;
    let places: Vec<(Runtime, usize)> =
        runtimes.iter().flat_map(|&runtime| (0..models.len()).map(move |m| (runtime, m))).collect();
    let memory =
        |&(runtime, m): &(Runtime, usize)| Ok(session.memory(&models[m], runtime, threads)?.peak_bytes);
    let peaks: Vec<u64> = places.iter().map(memory).collect::<Result<_, DeviceError>>()?;
    let mut samples = vec![vec![]; places.len()];
    let mut disturbed = vec![0; places.len()];
    let cores = session.cores();
    let bar = progress::bar("bench", &device.name, rounds * places.len());
    for _ in 0..rounds {
        for (i, (runtime, m)) in places.iter().enumerate() {
            let measured = session.measure(&models[*m], *runtime, threads, plan)?;
            disturbed[i] += usize::from(!Disturbance::of(&measured, threads, cores).is_empty());
            samples[i].extend(measured.ns);
            bar.inc(1);
        }
    }
    bar.finish();
    let row = |i: usize| {
        let ((runtime, m), ns) = (places[i], &samples[i]);
        let info = session.require(runtime)?;
        let summary = Summary::measured(ns, &models[m].name, runtime)?;
        Ok(BenchRow {
            model: models[m].name.clone(),
            device: device.name.clone(),
            runtime,
            runtime_version: info.version.clone(),
            providers: info.providers.clone(),
            threads,
            precision: "fp32".into(),
            median_ns: summary.median,
            fastest_ns: ns.iter().copied().reduce(f64::min).map(Latency::from_ns),
            peak_bytes: Some(peaks[i]),
            p5_ns: summary.p5,
            p95_ns: summary.p95,
            samples: summary.samples,
            disturbed_rounds: disturbed[i],
            predicted_ns: None,
            isolated_ns: None,
            foreign_table: None,
            predicted_layers: vec![],
            interactions: vec![],
        })
    };
    (0..places.len()).map(row).collect()
}

impl BenchRow {
    /// Adds what a latency table predicted.
    pub fn predict(&mut self, prediction: Prediction) {
        self.predicted_ns = Some(prediction.latency);
        self.isolated_ns = prediction.isolated;
        self.predicted_layers = prediction.layers;
        self.interactions = prediction.interactions;
    }

    fn same_subject(&self, other: &BenchRow) -> bool {
        let key =
            |r: &BenchRow| (r.model.clone(), r.device.clone(), r.runtime, r.threads, r.precision.clone());
        key(self) == key(other)
    }
}

/// Writes `rows` to a `bench.jsonl`, in the place of older ones of the same networks, devices,
/// runtimes, threads and precisions.
///
/// # Errors
/// Where the file cannot be read or written.
pub fn save(path: &Path, rows: &[BenchRow]) -> Result<(), BenchError> {
    let mut all: Vec<BenchRow> = artifact::read_lines(path)?;
    all.retain(|old| !rows.iter().any(|new| new.same_subject(old)));
    all.extend_from_slice(rows);
    Ok(artifact::write_lines(path, &all)?)
}
