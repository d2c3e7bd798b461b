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
    let mut models: Vec<(String, Source)> =
        files.iter().map(|file| (file.name.clone(), Source::File(file.onnx.clone()))).collect();
    let mut tables = tables(measure, &device, session, &files, &runtimes)?;
    tables.iter_mut().for_each(|table| table.add_anchor(&mut models));
    let found = profile::bench(session, &models, &runtimes, measure.threads.get(), *rounds)?;
    let mut rows = vec![];
    for found_of_file in found.iter().filter(|found| found.model < files.len()) {
        let file = &files[found_of_file.model];
        let table = tables.iter().find(|table| table.runtime == found_of_file.runtime);
        let prediction =
            file.genotype.as_ref().zip(table).and_then(|(genotype, table)| table.predict(genotype, &found));
        rows.push(row(&device, session, measure.threads.get(), file, found_of_file, prediction)?);
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

/// A latency table of the device, beside which a network is measured.
struct Table {
    runtime: Runtime,
    table: LatencyTable,
    /// In what it differs from this measurement, where that is allowed.
    foreign: Option<String>,
    /// Index of its anchor among the models that are measured.
    anchor: Option<usize>,
}

/// The tables of the space of the run's genotype, before anything is measured; a runtime without one has a warning.
fn tables(
    measure: &MeasureSettings,
    device: &Device,
    session: &Session,
    files: &[File],
    runtimes: &[Runtime],
) -> Result<Vec<Table>, RunError> {
    let Some(genotype) = files.iter().find_map(|file| file.genotype.as_ref()) else { return Ok(vec![]) };
    let networks = &genotype.networks;
    let images = Images::Shape { input: networks.input, classes: networks.classes[0] };
    let mut tables = vec![];
    for &runtime in runtimes {
        let table = match measure.load_table(device, networks, (&networks.space.name, &images), runtime) {
            Err(absent @ TableError::Absent { .. }) => {
                log::warn!("no prediction for {runtime}: {absent}");
                continue;
            }
            table => table?,
        };
        let ours = measure.header(device, std::slice::from_ref(session), runtime, networks)?;
        let foreign = measure.foreign(&table, &ours)?.map(|difference| difference.to_string());
        tables.push(Table { runtime, table, foreign, anchor: None });
    }
    Ok(tables)
}

impl Table {
    /// Has the anchor measured as well: it shows how fast the device is now. That of another machine shows nothing.
    fn add_anchor(&mut self, models: &mut Vec<(String, Source)>) {
        if let (None, Some(anchor)) = (&self.foreign, self.table.anchor()) {
            self.anchor = Some(models.len());
            let source = Source::Graph { graph: anchor.graph(), precision: self.table.header.precision };
            models.push((format!("the anchor of {}", self.table.path().display()), source));
        }
    }

    /// None, with a warning, where it has no model.
    fn predict(&self, genotype: &Genotype, found: &[Benchmarked]) -> Option<Prediction> {
        let prediction = predict(&self.table, genotype);
        if let Err(error) = &prediction {
            log::warn!("no prediction for {}: {error}", self.runtime);
        }
        let slowness = || {
            let now = found.iter().find(|found| Some(found.model) == self.anchor && found.runtime == self.runtime)?;
            let then = self.table.estimates().get(self.table.anchor()?)?.latency;
            Some(now.estimate.latency.ns() / then.ns())
        };
        Some(Prediction { foreign_table: self.foreign.clone(), slowness: slowness(), ..prediction.ok()? })
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
        slowness: None,
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
