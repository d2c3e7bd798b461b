use super::models::{exported, models, nothing, trained, warn_of_other};
use super::{BoardSettings, Images, MeasureSettings, RunError};
use crate::artifact::{self, Digest};
use crate::device::{Device, Session, Source};
use crate::latency::Latency;
use crate::model::{LatencyModel, ModelError};
use crate::profile::{self, Benchmark, Benchmarked};
use crate::record::{BenchRow, Exported, LayerLatency, ModelDir, Prediction, RunDir};
use crate::space::{Genotype, Layer, Network, SearchSpace};
use crate::table::{LatencyTable, Subject, TableError};
use nas_exporters::onnx::{self, Inspected};
use nas_probe::Runtime;
use std::path::PathBuf;

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
    /// Distinct from the names of all other files.
    name: String,
    onnx: Vec<u8>,
    digest: Digest,
    model: Inspected,
    /// The network that was exported, if it is one of the run's own.
    network: Option<Network>,
}

/// What a benchmark measured and stored, and what it could not measure.
#[derive(Debug)]
pub struct Benched {
    pub rows: Vec<BenchRow>,
    pub failed: Vec<RunError>,
}

impl Benched {
    /// Returns the rows if everything could be measured.
    ///
    /// # Errors
    /// Fails if something could not be measured.
    pub fn complete(self) -> Result<Vec<BenchRow>, RunError> {
        let reasons: Vec<String> = self.failed.iter().map(RunError::to_string).collect();
        if reasons.is_empty() { Ok(self.rows) } else { Err(RunError::Unmeasured { reasons: reasons.join("; ") }) }
    }
}

/// Measures a run's networks and other ONNX files in turn, with predictions for them, and stores the results in
/// `bench.jsonl`. All files are checked before the first is measured. A model that fails does not prevent the others
/// from being measured.
///
/// # Errors
/// Fails if there is nothing to measure, if the device cannot be reached, or if a latency table cannot be used.
pub fn bench(settings: &Bench) -> Result<Benched, RunError> {
    let Bench { run, rounds, measure, board, .. } = settings;
    let device = measure.device()?;
    let run = RunDir(run.clone());
    let (files, mut failed) = files(&run, &settings.models)?;
    if files.is_empty() {
        return Err(failed.into_iter().next().unwrap_or_else(|| nothing(&run, RunError::NothingExported)));
    }
    let mut old: Vec<BenchRow> = artifact::read_lines(&run.bench())?;
    let runtimes = measure.runtimes(&device);
    let mut sessions = board.open(&device, &runtimes)?;
    let [session] = sessions.as_mut_slice() else { return Err(RunError::ManyBoards) };
    let mut models: Vec<(String, Source)> =
        files.iter().map(|file| (file.name.clone(), Source::File(file.onnx.clone()))).collect();
    let mut tables = tables(measure, &device, session, &files, &runtimes)?;
    tables.iter_mut().for_each(|table| table.add_anchor(&mut models));
    let of_runtime = |&runtime: &Runtime| {
        let anchor = tables.iter().find(|table| table.runtime == runtime).and_then(|table| table.anchor);
        (0..files.len()).chain(anchor).map(move |model| (runtime, model))
    };
    let cases: Vec<(Runtime, usize)> = runtimes.iter().flat_map(of_runtime).collect();
    let Benchmark { found, failed: unmeasured, broke_off } =
        profile::bench(session, &models, &cases, measure.threads.get(), *rounds)?;
    failed.extend(unmeasured.into_iter().map(RunError::from));
    let mut rows = vec![];
    for found_of_file in found.iter().filter(|found| found.model < files.len()) {
        let file = &files[found_of_file.model];
        let table = tables.iter().find(|table| table.runtime == found_of_file.runtime);
        let genotype = file.network.as_ref().and_then(Network::genotype);
        let prediction = genotype.zip(table).and_then(|(genotype, table)| table.predict(genotype, &found));
        rows.push(row(&device, session, measure.threads.get(), file, found_of_file, prediction)?);
    }
    // Newer rows replace older ones of the same subject, which had all their rounds.
    if broke_off {
        rows.retain(|new| !old.iter().any(|old| new.is_of(old)));
    }
    old.retain(|old| !rows.iter().any(|new| new.is_of(old)));
    old.extend_from_slice(&rows);
    artifact::write_lines(&run.bench(), &old)?;
    let disturbed = rows.iter().map(|row| row.disturbed_rounds).max().unwrap_or_default();
    if disturbed > 0 {
        let device = &measure.device;
        log::warn!(
            "up to {disturbed} of {rounds} rounds were disturbed by throttling or load; `nas devices check {device}` shows what disturbs it"
        );
    }
    Ok(Benched { rows, failed })
}

/// Returns the files that can be measured, each content once, and the reasons why others cannot.
///
/// # Errors
/// Fails if the run cannot be read.
fn files(run: &RunDir, others: &[PathBuf]) -> Result<(Vec<File>, Vec<RunError>), RunError> {
    let (mut files, mut failed): (Vec<File>, Vec<RunError>) = (vec![], vec![]);
    for dir in models(run)? {
        match own(run, &dir) {
            Ok(own) => files.extend(own),
            Err(error) => failed.push(error),
        }
    }
    let own: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    for (path, name) in others.iter().zip(distinct(others, &own)) {
        let read = || -> Result<File, RunError> {
            if !path.is_file() {
                return Err(RunError::NoFile(path.clone()));
            }
            let onnx = artifact::read(path, "nas export")?;
            let unfit = |reason| RunError::Model { path: path.clone(), reason };
            let model = onnx::inspect(&onnx).map_err(unfit)?;
            Ok(File { name, digest: Digest::of_bytes(&onnx), model, onnx, network: None })
        };
        match read() {
            Ok(file) => match files.iter().find(|known| known.digest == file.digest) {
                Some(known) => log::info!("{} is the same model as {}", path.display(), known.name),
                None => files.push(file),
            },
            Err(error) => failed.push(error),
        }
    }
    Ok((files, failed))
}

/// Returns the export of one of the run's networks, or `None` if nothing was trained.
fn own(run: &RunDir, dir: &ModelDir) -> Result<Option<File>, RunError> {
    let Some(trained) = trained(run, dir)? else { return Ok(None) };
    warn_of_other(run, dir, &trained)?;
    let Exported { onnx, digest, model } = exported(run, dir, &trained)?;
    let (name, network) = (trained.network.name(), Some(trained.network));
    Ok(Some(File { name, model, onnx, digest, network }))
}

/// Returns a name for each path that differs from all others and from `taken`: as few of the last components of the
/// path as are needed, without the extension.
fn distinct(paths: &[PathBuf], taken: &[String]) -> Vec<String> {
    let last = |path: &PathBuf, parts: usize| {
        let path = path.with_extension("");
        let all: Vec<_> = path.iter().collect();
        all[all.len().saturating_sub(parts)..].iter().collect::<PathBuf>().display().to_string()
    };
    let name = |(i, path): (usize, &PathBuf)| {
        let is_free = |name: &String, parts: usize| {
            let others = paths.iter().enumerate().filter(|(j, _)| *j != i);
            !taken.contains(name) && others.into_iter().all(|(_, other)| last(other, parts) != *name)
        };
        let names = (1..=path.iter().count()).map(|parts| (last(path, parts), parts));
        let free = names.into_iter().find(|(name, parts)| is_free(name, *parts));
        free.map_or_else(|| path.display().to_string(), |(name, _)| name)
    };
    paths.iter().enumerate().map(name).collect()
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
        digest: file.digest.clone(),
        network: file.network.as_ref().map(Digest::of),
        device: device.name.clone(),
        runtime: found.runtime,
        runtime_version: info.version.clone(),
        providers: info.providers.clone(),
        threads,
        precision: file.model.precision,
        images: file.model.images(),
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

/// A latency table of the device, whose predictions are compared with the measurements.
struct Table {
    runtime: Runtime,
    table: LatencyTable,
    /// How it differs from this measurement, where that is allowed.
    foreign: Option<String>,
    /// Index of its anchor among the measured models.
    anchor: Option<usize>,
}

/// Loads the tables for the space of the run's genotype, before anything is measured. Warns about runtimes without a
/// table.
fn tables(
    measure: &MeasureSettings,
    device: &Device,
    session: &Session,
    files: &[File],
    runtimes: &[Runtime],
) -> Result<Vec<Table>, RunError> {
    let Some(genotype) = files.iter().find_map(|file| file.network.as_ref()?.genotype()) else { return Ok(vec![]) };
    let networks = &genotype.networks;
    let images = Images::Shape { input: networks.input, classes: networks.classes[0] };
    let is_built_in = SearchSpace::load(&networks.space.name).is_ok_and(|space| space == networks.space);
    let space = if is_built_in { &networks.space.name } else { "FILE" };
    let mut tables = vec![];
    for &runtime in runtimes {
        let table = match measure.load_table(device, networks, (space, &images), runtime) {
            Err(absent @ TableError::Absent { .. }) if measure.table.is_none() => {
                log::warn!("no prediction for {runtime}: {absent}");
                continue;
            }
            table => table?,
        };
        if let Ok(other) = table.header.runtime.parse::<Runtime>()
            && other != runtime
            && runtimes.contains(&other)
        {
            log::warn!("no prediction for {runtime}: {} is for {other}", table.path().display());
            continue;
        }
        let ours = measure.header(device, std::slice::from_ref(session), runtime, networks)?;
        let foreign = measure.foreign(&table, &ours)?.map(|difference| difference.to_string());
        tables.push(Table { runtime, table, foreign, anchor: None });
    }
    Ok(tables)
}

impl Table {
    /// Has the anchor measured as well, which shows how fast the device is now. The anchor of another machine shows
    /// nothing.
    fn add_anchor(&mut self, models: &mut Vec<(String, Source)>) {
        if let (None, Some(anchor)) = (&self.foreign, self.table.anchor()) {
            self.anchor = Some(models.len());
            let source = Source::Graph { graph: anchor.graph(), precision: self.table.header.precision };
            models.push((format!("the anchor of {}", self.table.path().display()), source));
        }
    }

    /// Predicts the latency of a network. Returns `None`, with a warning, if the table has no model.
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

/// Returns what a latency table says about a network, for the layers that the output of the network depends on.
///
/// # Errors
/// Fails if the table has no model of the genotype's space.
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
                Some(_) => searched.then(|| model.contribution(i, &genotype.choices)),
                None => isolated.or(layer.is_identity().then_some(Latency::ZERO)),
            },
            isolated_ns: isolated.or(layer.is_identity().then_some(Latency::ZERO)),
        }
    };
    let layers: Vec<LayerLatency> = genotype.layers().into_iter().enumerate().skip(first).map(layer).collect();
    let interactions = model.fit.iter().flat_map(|fit| &fit.interactions);
    Ok(Prediction {
        latency_ns: model.predict(&genotype.choices),
        table: table.digest(),
        isolated_ns: layers.iter().map(|layer| layer.isolated_ns).sum(),
        interactions: interactions.map(|interaction| interaction.gain.interaction.clone()).collect(),
        layers,
        slowness: None,
        foreign_table: None,
    })
}

impl BenchRow {
    /// Returns whether both rows are about the same model, on the same kind of device, with the same runtime and number
    /// of threads.
    fn is_of(&self, other: &BenchRow) -> bool {
        let subject = |r: &BenchRow| (r.digest.clone(), r.device.clone(), r.runtime, r.threads);
        subject(self) == subject(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let names = |paths: &[&str], taken: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            distinct(&paths, &taken.iter().map(|name| name.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(names(&["x/net.onnx", "y.onnx"], &[]), ["net", "y"]);
        assert_eq!(names(&["a/model.onnx", "b/model.onnx"], &[]), ["a/model", "b/model"]);
        assert_eq!(names(&["other/genotype.onnx"], &["genotype"]), ["other/genotype"]);
        assert_eq!(names(&["genotype.onnx"], &["genotype"]), ["genotype.onnx"]);
    }
}
