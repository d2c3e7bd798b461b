//! The report of a run's folder: a short table, and a page with figures.
//!
//! It shows only what the files of the run contain. In place of a part whose file is missing, it names the command that
//! writes the file.

mod chart;
mod figures;
mod page;
mod scatter;
mod summary;

pub use scatter::scatter;
pub use summary::{SummaryLatency, SummaryRow};

use crate::artifact::{self, ArtifactError};
use crate::latency::Latency;
use crate::record::{BenchRow, LayerLatency, ModelDir, Prediction, RunDir, SearchEpoch, TrainEpoch, TrainedOn};
use crate::space::{Genotype, Layer, Network};
use nas_exporters::{Cost, Precision};
use nas_probe::Runtime;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

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

/// The content of a run's folder; what is missing there is empty here.
#[derive(Clone, Debug)]
pub struct Run {
    pub genotype: Option<Genotype>,
    pub search: Vec<SearchEpoch>,
    /// The found network, then the baseline.
    pub models: Vec<Model>,
    /// The newest row of each network and [`Setting`].
    pub bench: Vec<BenchRow>,
}

/// A network of a run.
#[derive(Clone, Debug)]
pub struct Model {
    /// As in [`BenchRow::model`].
    pub name: String,
    /// `conv_3x3,skip,…`, for a network of a search space.
    pub ops: Option<String>,
    pub cost: Cost,
    /// Name of the data set that it was trained on.
    pub data: Option<String>,
    pub train: Vec<TrainEpoch>,
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

/// Writes the page of a run and returns its path.
///
/// # Errors
/// If a file of the run is damaged, if there is none at all, or if the page cannot be written.
pub fn write(dir: &RunDir) -> Result<PathBuf, ReportError> {
    let page = page::html(&Run::load(dir)?)?;
    let path = dir.report();
    artifact::write(&path, page.as_bytes())?;
    Ok(path)
}

impl Run {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// If a file is damaged, or if there is none at all.
    pub fn load(dir: &RunDir) -> Result<Run, ReportError> {
        let found: Option<Network> = optional(&dir.found().network())?;
        let genotype = match (optional(&dir.genotype())?, &found) {
            (None, Some(Network::Genotype(genotype))) => Some(genotype.clone()),
            (genotype, _) => genotype,
        };
        let found = found.or_else(|| genotype.clone().map(Network::Genotype));
        let baseline = optional(&dir.baseline().network())?;
        let mut models = vec![];
        for (network, dir) in [(found, dir.found()), (baseline, dir.baseline())] {
            if let Some(network) = network {
                models.push(Model::load(network, &dir)?);
            }
        }
        let search = artifact::read_lines(&dir.search_log())?;
        let mut bench: Vec<BenchRow> = vec![];
        for row in artifact::read_lines::<BenchRow>(&dir.bench())? {
            match bench.iter_mut().find(|b| b.model == row.model && b.setting() == row.setting()) {
                Some(old) => *old = row,
                None => bench.push(row),
            }
        }
        if models.is_empty() && search.is_empty() && bench.is_empty() {
            return Err(ReportError::Empty(dir.0.clone()));
        }
        Ok(Run { genotype, search, models, bench })
    }

    /// The settings that were measured, in the order of the rows.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = vec![];
        for setting in self.bench.iter().map(BenchRow::setting) {
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        settings
    }

    fn bench_row(&self, model: &str, setting: &Setting) -> Option<&BenchRow> {
        self.bench.iter().find(|r| r.model == model && r.setting() == *setting)
    }

    /// The rows of the found network that have a prediction.
    fn by_layer(&self) -> Vec<(&BenchRow, &Prediction)> {
        let name = self.genotype.clone().map(|g| Network::Genotype(g).name());
        let found = self.bench.iter().filter(|row| name.as_ref() == Some(&row.model));
        found.filter_map(|row| Some((row, row.prediction.as_ref()?))).collect()
    }

    /// The layers of the found network; `predicted` is in the order of [`Run::by_layer`].
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

/// The prediction of each layer. A prediction has only the live layers, which are the last ones.
fn align<'r>(layers: &[Layer], prediction: &'r Prediction) -> Vec<Option<&'r LayerLatency>> {
    let mut rest = prediction.layers.iter().rev().peekable();
    let mut aligned: Vec<_> = layers.iter().rev().map(|layer| rest.next_if(|p| p.layer == *layer)).collect();
    aligned.reverse();
    aligned
}

impl Model {
    fn load(network: Network, dir: &ModelDir) -> Result<Model, ArtifactError> {
        let ops = network.genotype().map(Genotype::to_string);
        let data = optional::<TrainedOn>(&dir.trained_on())?.map(|on| on.data);
        let train = artifact::read_lines(&dir.train_log())?;
        Ok(Model { name: network.name(), ops, cost: network.graph().cost(), data, train })
    }

    /// Share of the test images that are classified correctly after the last epoch.
    pub fn test_accuracy(&self) -> Option<f64> {
        self.train.last().map(|epoch| epoch.test_accuracy)
    }
}

impl BenchRow {
    pub fn setting(&self) -> Setting {
        let BenchRow { device, runtime, threads, precision, .. } = self;
        Setting { device: device.clone(), runtime: *runtime, threads: *threads, precision: *precision }
    }
}

impl Setting {
    /// The parts of the name that follow the runtime.
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

/// The shortest names that distinguish the settings: a detail that all of them share is left out.
fn labels(settings: &[Setting]) -> Vec<String> {
    let details: Vec<[String; 3]> = settings.iter().map(Setting::details).collect();
    let differs = |d: usize| details.iter().any(|other| other[d] != details[0][d]);
    let label = |(setting, details): (&Setting, &[String; 3])| {
        let distinct: String = (0..3).filter(|&d| differs(d)).map(|d| details[d].as_str()).collect();
        format!("{}{distinct}", setting.runtime)
    };
    settings.iter().zip(&details).map(label).collect()
}

/// Reads a JSON file if it exists.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ArtifactError> {
    match artifact::read_json(path, "nas search") {
        Err(ArtifactError::Missing { .. }) => Ok(None),
        other => other.map(Some),
    }
}
