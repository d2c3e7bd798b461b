//! The report of a run's folder: a short table, and a page with figures.
//!
//! It shows only what the files of the run contain. In place of a part whose file is missing, it names the command that
//! writes that file.

mod chart;
mod evaluation;
mod figures;
mod page;
mod scatter;
mod search;
mod summary;

pub use evaluation::{METRICS, confusion, metrics_row};
pub use scatter::scatter;
pub use search::Search;
pub use summary::{SummaryLatency, SummaryRow, counted, signed};

use crate::artifact::{self, ArtifactError, Digest};
use crate::bounded::Share;
use crate::latency::Latency;
use crate::record::{
    Begun, BenchRow, Certificate, Evaluation, Exported, Held, LayerLatency, Matched, Prediction, RunDir, TrainEpoch,
    Trained,
};
use crate::search::{Unit, latency_name};
use crate::space::{Genotype, Layer, Network};
use nas_exporters::{GraphCost, Precision};
use nas_probe::Runtime;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("there is nothing to report in {path}: give the folder of a run, or start a run with `nas run` or `nas search`", path = .0.display())]
    Empty(PathBuf),
    #[error(
        "cannot draw the figure `{figure}`: {reason}; the files of the run are not damaged, so this is a bug in nas"
    )]
    Draw { figure: &'static str, reason: String },
}

/// The content of a run's folder. Whatever is missing there is empty here.
#[derive(Clone, Debug)]
pub struct Run {
    pub genotype: Option<Genotype>,
    /// Why the search chose the genotype.
    pub certificate: Option<Certificate>,
    /// The search that found the genotype.
    pub search: Search,
    /// A later search that has not finished.
    pub begun: Option<Begun>,
    /// The folders of several targets, in ascending order of the targets.
    pub targets: Vec<TargetRun>,
    /// The found network, then the baseline.
    pub models: Vec<Model>,
    /// The newest row of each network and [`Setting`].
    pub bench: Vec<BenchRow>,
    /// What was left out because it belongs to something else, and what has not finished.
    pub notes: Vec<String>,
}

/// One of several targets of a run, with its folder.
#[derive(Clone, Debug)]
pub struct TargetRun {
    /// Name of its folder, such as `0.5ms`.
    pub name: String,
    pub run: Run,
}

/// A network of a run.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    /// `conv_3x3,skip,…`, for a network of a search space.
    pub ops: Option<String>,
    pub cost: GraphCost,
    /// Name of the data set that it was trained on.
    pub data: Option<String>,
    pub train: Vec<TrainEpoch>,
    pub evaluation: Option<Evaluation>,
    /// Digest of its ONNX file.
    digest: Option<Digest>,
}

/// What a latency was measured with. Latencies of different settings cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub device: String,
    pub runtime: Runtime,
    pub threads: usize,
    pub precision: Precision,
}

/// A layer of the found network, with its latencies by the table of each setting.
struct LayerRow {
    name: String,
    layer: Layer,
    predicted: Vec<Option<Latency>>,
    isolated: Vec<Option<Latency>>,
}

impl Run {
    /// Reads the folder of a run and those of its targets. Results that do not belong to the present networks are left
    /// out, with a note.
    ///
    /// # Errors
    /// Fails if a file is damaged, or if there is none at all.
    pub fn load(dir: &RunDir) -> Result<Run, ReportError> {
        let mut run = Run::of_folder(dir)?;
        let targets = dir.targets()?.into_iter().map(|(name, dir)| Ok(TargetRun { name, run: Run::of_folder(&dir)? }));
        run.targets = targets.collect::<Result<_, ReportError>>()?;
        run.keep_last_targets();
        run.begun = dir.of_several().unwrap_or_else(|| dir.clone()).begun()?;
        if let Some(begun) = &run.begun {
            run.notes.insert(0, search::so_far(begun, run.genotype.is_some() || !run.targets.is_empty()));
        }
        let empty = run.models.is_empty() && run.bench.is_empty() && run.targets.is_empty();
        if empty && run.notes.is_empty() {
            return Err(ReportError::Empty(dir.0.clone()));
        }
        Ok(run)
    }

    /// Reads a single folder, without those of its targets.
    fn of_folder(dir: &RunDir) -> Result<Run, ReportError> {
        let (mut notes, mut models) = (vec![], vec![]);
        let mut genotype: Option<Genotype> = artifact::read_json_if_any(&dir.genotype())?;
        for folder in dir.models()? {
            let is_own = folder.0 == dir.0;
            let ended = folder.trained()?;
            let unfinished = if ended.is_none() { folder.unfinished().newest_log() } else { None };
            let mut trained = kept(ended, &mut notes);
            let found = genotype.clone().filter(|_| is_own).map(Network::Genotype);
            if let (Some(found), Some(other)) = (&found, &trained)
                && *found != other.network
            {
                let ops = other.network.described();
                notes.push(format!(
                    "the network that was trained, {ops}, is not the one that was found: `nas train` trains that one"
                ));
                trained = None;
            }
            let unfinished: Option<Vec<TrainEpoch>> = unfinished.map(|log| artifact::read_lines(&log)).transpose()?;
            if let Some(epochs) = unfinished {
                let done = counted(epochs.len(), "epoch");
                notes.push(format!("a training in {} has not ended: {done} so far", folder.0.display()));
            }
            let Some(network) = found.or_else(|| trained.as_ref().map(|trained| trained.network.clone())) else {
                continue;
            };
            let (mut exported, mut evaluation) = (None, None);
            if let Some(trained) = &trained {
                exported = kept(folder.exported(trained)?, &mut notes);
                evaluation = kept(folder.evaluated(trained, exported.as_ref())?, &mut notes);
            }
            if is_own && genotype.is_none() {
                genotype = network.genotype().cloned();
            }
            models.push(Model { evaluation, ..Model::new(network, trained, exported) });
        }
        notes.extend(dir.left_out()?);
        let certificate = dir.certificate()?;
        let search = match &genotype {
            Some(genotype) => Search::of(dir, genotype, &mut notes)?,
            None => Search::default(),
        };
        let bench = bench(dir, &models, &mut notes)?;
        Ok(Run { genotype, certificate, search, begun: None, targets: vec![], models, bench, notes })
    }

    /// Removes the targets of earlier searches, and sorts the others.
    fn keep_last_targets(&mut self) {
        let of_other = |target: &TargetRun| target.run.search.is_of_other;
        for target in self.targets.iter().filter(|target| of_other(target)) {
            self.notes.push(format!("the network for {} was found by an earlier search, and is left out", target.name));
        }
        self.targets.retain(|target| !of_other(target));
        let asked = |target: &TargetRun| Some(target.run.certificate.as_ref()?.constraints.first()?.target);
        self.targets.sort_by(|a, b| asked(a).unwrap_or(0.0).total_cmp(&asked(b).unwrap_or(0.0)));
        if let (None, Some(target)) = (&self.genotype, self.targets.first()) {
            self.search.log = target.run.search.log.clone();
            self.search.foreign_table = target.run.search.foreign_table.clone();
        }
        for target in &self.targets {
            self.notes.extend(target.run.notes.iter().map(|note| format!("{}: {note}", target.name)));
        }
    }

    /// Writes the page and returns its path.
    ///
    /// # Errors
    /// Fails if the page cannot be drawn or written.
    pub fn write(&self, dir: &RunDir) -> Result<PathBuf, ReportError> {
        let page = page::html(self)?;
        let path = dir.report();
        artifact::write(&path, page.as_bytes())?;
        Ok(path)
    }

    /// Returns whether the content of a file is the page of a report.
    pub fn is_page(bytes: &[u8]) -> bool {
        String::from_utf8_lossy(bytes).contains(page::GENERATOR)
    }

    /// Returns the evaluations of the run's networks.
    fn evaluations(&self) -> impl Iterator<Item = &Evaluation> {
        self.models.iter().filter_map(|model| model.evaluation.as_ref())
    }

    /// Returns the settings that were measured, in the order of the rows.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = vec![];
        for setting in self.bench_rows().map(BenchRow::setting) {
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        settings
    }

    /// Returns the measurements of all networks, those for several targets included.
    fn bench_rows(&self) -> impl Iterator<Item = &BenchRow> {
        self.targets.iter().flat_map(|target| &target.run.bench).chain(&self.bench)
    }

    fn bench_row(&self, model: &Model, setting: &Setting) -> Option<&BenchRow> {
        self.bench.iter().find(|row| model.is_of(row) && row.setting() == *setting)
    }

    /// Returns the rows of the found network that have a prediction.
    fn by_layer(&self) -> Vec<(&BenchRow, &Prediction)> {
        let found = self.models.iter().find(|model| model.ops.is_some());
        let rows = self.bench.iter().filter(|row| found.is_some_and(|model| model.is_of(row)));
        rows.filter_map(|row| Some((row, row.prediction.as_ref()?))).collect()
    }

    /// Returns the layers of the found network. `predicted` is in the order of [`Run::by_layer`].
    fn layers(&self) -> Vec<LayerRow> {
        let layers = self.genotype.as_ref().map(Genotype::layers).unwrap_or_default();
        let predicted: Vec<_> = self.by_layer().iter().map(|(_, prediction)| align(&layers, prediction)).collect();
        let row = |(i, &layer): (usize, &Layer)| LayerRow {
            name: self.genotype.as_ref().map_or(String::new(), |genotype| genotype.networks.layer_name(i)),
            layer,
            predicted: predicted.iter().map(|p| p[i]?.adds_ns).collect(),
            isolated: predicted.iter().map(|p| p[i]?.isolated_ns).collect(),
        };
        layers.iter().enumerate().map(row).collect()
    }
}

/// Returns the prediction for each layer. A prediction covers only the live layers, which are the last ones.
fn align<'r>(layers: &[Layer], prediction: &'r Prediction) -> Vec<Option<&'r LayerLatency>> {
    let mut rest = prediction.layers.iter().rev().peekable();
    let mut aligned: Vec<_> = layers.iter().rev().map(|layer| rest.next_if(|p| p.layer == *layer)).collect();
    aligned.reverse();
    aligned
}

/// Reads the newest row of each model and setting. Rows of networks that the run no longer has are left out, with a
/// note.
fn bench(dir: &RunDir, models: &[Model], notes: &mut Vec<String>) -> Result<Vec<BenchRow>, ArtifactError> {
    let mut bench: Vec<BenchRow> = vec![];
    for row in artifact::read_lines::<BenchRow>(&dir.bench())? {
        match bench.iter_mut().find(|b| b.digest == row.digest && b.setting() == row.setting()) {
            Some(old) => *old = row,
            None => bench.push(row),
        }
    }
    let all = bench.len();
    bench.retain(|row| row.network.is_none() || models.iter().any(|model| model.is_of(row)));
    if bench.len() < all {
        let left_out = all - bench.len();
        notes.push(format!(
            "{left_out} rows of bench.jsonl are of models that this run no longer has, and are left out"
        ));
    }
    Ok(bench)
}

/// Returns what belongs together. Otherwise, adds the reason to the notes.
fn kept<T>(found: Option<Matched<T>>, notes: &mut Vec<String>) -> Option<T> {
    match found? {
        Ok(found) => Some(found),
        Err(why) => {
            notes.push(why);
            None
        }
    }
}

impl Model {
    fn new(network: Network, trained: Option<Trained>, exported: Option<Exported>) -> Model {
        let (data, train) = trained.map_or((None, vec![]), |trained| (Some(trained.on.data), trained.log));
        Model {
            name: network.name(),
            ops: network.genotype().map(Genotype::to_string),
            cost: network.graph().cost(),
            data,
            train,
            evaluation: None,
            digest: exported.map(|exported| exported.digest),
        }
    }

    /// Returns whether a row is about this model.
    fn is_of(&self, row: &BenchRow) -> bool {
        self.digest.as_ref() == Some(&row.digest)
    }

    /// Returns the share of the test images that are classified correctly after the last epoch.
    pub fn test_accuracy(&self) -> Option<Share> {
        self.train.last().and_then(|epoch| epoch.test_accuracy)
    }
}

impl BenchRow {
    pub fn setting(&self) -> Setting {
        let BenchRow { device, runtime, threads, precision, .. } = self;
        Setting { device: device.clone(), runtime: *runtime, threads: *threads, precision: *precision }
    }
}

impl Setting {
    /// Returns whether a limit is one on latencies with this setting.
    fn is_of(&self, held: &Held) -> bool {
        let Setting { device, runtime, threads, precision } = self;
        held.unit == Unit::Nanoseconds && held.cost == latency_name(device, *runtime, *threads, *precision)
    }

    /// Returns the parts of the name that follow the runtime.
    fn details(&self) -> [String; 3] {
        let s = if self.threads == 1 { "" } else { "s" };
        [format!(" on {}", self.device), format!(", {} thread{s}", self.threads), format!(", {}", self.precision)]
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.runtime, self.details().concat())
    }
}

/// Returns the shortest names that distinguish the settings. A detail that all settings share is left out.
fn labels(settings: &[Setting]) -> Vec<String> {
    let details: Vec<[String; 3]> = settings.iter().map(Setting::details).collect();
    let differs = |d: usize| details.iter().any(|other| other[d] != details[0][d]);
    let label = |(setting, details): (&Setting, &[String; 3])| {
        let distinct: String = (0..3).filter(|&d| differs(d)).map(|d| details[d].as_str()).collect();
        format!("{}{distinct}", setting.runtime)
    };
    settings.iter().zip(&details).map(label).collect()
}
