use super::{BoardSettings, Images, MeasureSettings, RunError};
use crate::artifact;
use crate::device::{Device, Session, Source};
use crate::latency::Latency;
use crate::model::{LatencyModel, ModelError};
use crate::profile::{self, Benchmarked};
use crate::record::{BenchRow, LayerLatency, Prediction, RunDir};
use crate::space::{Genotype, Layer, Network};
use crate::table::{LatencyTable, Subject, TableError};
use nas_exporters::{Precision, onnx};
use nas_probe::Runtime;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Folder of the run, whose exported networks are measured.
    pub run: PathBuf,
    /// Other ONNX files, measured alongside.
    pub models: Vec<PathBuf>,
    /// Rounds in which all networks are measured in turn.
    pub rounds: usize,
    pub measure: MeasureSettings,
    pub board: BoardSettings,
}

/// An ONNX file to measure.
struct File {
    name: String,
    onnx: Vec<u8>,
    precision: Precision,
    /// The network of a space that it is, if any.
    genotype: Option<Genotype>,
}

/// Measures a run's networks and other ONNX files in turn, beside the predictions, and stores that in `bench.jsonl`.
///
/// # Errors
/// Where there is nothing to measure, a file is no ONNX model, or the device does not measure it.
pub fn bench(settings: &Bench) -> Result<Vec<BenchRow>, RunError> {
    let Bench { run, rounds, measure, board, .. } = settings;
    let device = measure.device()?;
    let run = RunDir(run.clone());
    let files = files(&run, &settings.models)?;
    let runtimes = measure.runtimes(&device);
    let mut sessions = board.open(&device, &runtimes)?;
    let [session] = sessions.as_mut_slice() else { return Err(RunError::ManyBoards) };
    let models: Vec<(String, Source)> =
        files.iter().map(|file| (file.name.clone(), Source::File(file.onnx.clone()))).collect();
    let found = profile::bench(session, &models, &runtimes, measure.threads.get(), *rounds)?;
    let mut rows = vec![];
    for found in &found {
        let file = &files[found.model];
        let prediction = match &file.genotype {
            Some(genotype) => predicted(measure, &device, session, genotype, found.runtime)?,
            None => None,
        };
        rows.push(row(&device, session, measure.threads.get(), file, found, prediction)?);
    }
    let disturbed = rows.iter().map(|row| row.disturbed_rounds).max().unwrap_or_default();
    if disturbed > 0 {
        let device = &measure.device;
        log::warn!(
            "up to {disturbed} of {rounds} rounds were disturbed by throttling or load; see `nas devices check {device}`"
        );
    }
    save(&run.bench(), &rows)?;
    Ok(rows)
}

fn files(run: &RunDir, others: &[PathBuf]) -> Result<Vec<File>, RunError> {
    let mut files = vec![];
    for dir in run.trained() {
        let network: Network = artifact::read_json(&dir.network(), "nas train")?;
        let onnx = artifact::read(&dir.onnx(), "nas export")?;
        let genotype = network.genotype().cloned();
        files.push(File { name: network.name(), precision: onnx::precision_of(&onnx)?, onnx, genotype });
    }
    for path in others {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let onnx = artifact::read(path, "nas export")?;
        files.push(File { name, precision: onnx::precision_of(&onnx)?, onnx, genotype: None });
    }
    if files.is_empty() { Err(RunError::NothingExported(run.0.clone())) } else { Ok(files) }
}

fn row(
    device: &Device,
    session: &Session,
    threads: usize,
    file: &File,
    found: &Benchmarked,
    prediction: Option<Prediction>,
) -> Result<BenchRow, RunError> {
    let info = session.require(found.runtime)?;
    Ok(BenchRow {
        model: file.name.clone(),
        device: device.name.clone(),
        runtime: found.runtime,
        runtime_version: info.version.clone(),
        providers: info.providers.clone(),
        threads,
        precision: file.precision,
        latency_ns: found.estimate.latency,
        median_ns: found.summary.median,
        p5_ns: found.summary.p5,
        p95_ns: found.summary.p95,
        samples: found.summary.samples,
        disturbed_rounds: found.disturbed_rounds,
        peak_bytes: found.peak_bytes,
        prediction,
    })
}

/// What the device's own latency table predicts; none, with a warning, where it has no model.
fn predicted(
    measure: &MeasureSettings,
    device: &Device,
    session: &Session,
    genotype: &Genotype,
    runtime: Runtime,
) -> Result<Option<Prediction>, RunError> {
    let networks = &genotype.networks;
    let images = Images::Shape { input: networks.input, classes: networks.classes[0] };
    let table = match measure.load_table(device, networks, (&networks.space.name, &images), runtime) {
        Err(absent @ TableError::Absent { .. }) => {
            log::warn!("no prediction for {runtime}: {absent}");
            return Ok(None);
        }
        table => table?,
    };
    let ours = measure.header(device, std::slice::from_ref(session), runtime, networks)?;
    let foreign_table = measure.foreign(&table, &ours)?.map(|difference| difference.to_string());
    match predict(&table, genotype) {
        Ok(prediction) => Ok(Some(Prediction { foreign_table, ..prediction })),
        Err(error) => {
            log::warn!("no prediction for {runtime}: {error}");
            Ok(None)
        }
    }
}

/// What a latency table says of a network, for the layers that its output depends on.
///
/// # Errors
/// Where the table has no model of the genotype's space.
pub fn predict(table: &LatencyTable, genotype: &Genotype) -> Result<Prediction, ModelError> {
    let model = LatencyModel::new(table, &genotype.networks)?;
    let estimates = table.estimates();
    let first = genotype.networks.first_live(&genotype.choices);
    let layer = |(i, layer): (usize, Layer)| {
        let isolated = estimates.get(&Subject::Layer(layer)).map(|estimate| estimate.latency);
        let searched = genotype.networks.choices()[i].len() > 1;
        LayerLatency {
            layer,
            adds_ns: match model.fit {
                Some(_) => searched.then(|| Latency::from_ns(model.polynomial.row((i, genotype.choices[i])))),
                None => isolated.or(layer.is_identity().then_some(Latency::ZERO)),
            },
            isolated_ns: isolated.or(layer.is_identity().then_some(Latency::ZERO)),
        }
    };
    let layers: Vec<LayerLatency> = genotype.layers().into_iter().enumerate().skip(first).map(layer).collect();
    let interactions = model.fit.iter().flat_map(|fit| &fit.interactions);
    Ok(Prediction {
        latency_ns: model.predict(&genotype.choices),
        isolated_ns: layers.iter().map(|layer| layer.isolated_ns).sum(),
        interactions: interactions.map(|interaction| interaction.gain.interaction.clone()).collect(),
        layers,
        foreign_table: None,
    })
}

impl BenchRow {
    fn same_subject(&self, other: &BenchRow) -> bool {
        let key = |r: &BenchRow| (r.model.clone(), r.device.clone(), r.runtime, r.threads, r.precision);
        key(self) == key(other)
    }
}

/// Writes `rows` in the place of older ones of the same networks, devices, runtimes, threads and precisions.
fn save(path: &Path, rows: &[BenchRow]) -> Result<(), RunError> {
    let mut all: Vec<BenchRow> = artifact::read_lines(path)?;
    all.retain(|old| !rows.iter().any(|new| new.same_subject(old)));
    all.extend_from_slice(rows);
    Ok(artifact::write_lines(path, &all)?)
}
