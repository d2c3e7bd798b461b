use super::measure::{BoardArgs, MeasureArgs};
use super::output::print;
use super::stages::Stages;
use super::{bench, export, profile, report, search};
use crate::artifact;
use crate::data::{Data, DataSpec};
use crate::latency::Target;
use crate::record::{ModelDir, Network, RunDir};
use crate::report::Run;
use crate::torch::fit::{TrainSettings, fit};
use crate::torch::search::SearchSettings;
use nas_exporters::Shape;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Run all stages of an experiment file: profile, search, train, export, bench, report
///
/// Everything goes to runs/<name>, with the resolved experiment beside the results. Stages whose
/// inputs have not changed are skipped, and a cut stage goes on where it was.
#[derive(clap::Args)]
pub struct Args {
    /// Experiment file; scripts/quickstart.toml is an example
    experiment: PathBuf,
    /// Folder of the run [default: runs/<name of the experiment>]
    #[arg(long)]
    run: Option<PathBuf>,
}

/// An experiment file: what the verbs take as flags, in one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Experiment {
    name: String,
    #[serde(default)]
    data: DataSpec,
    #[serde(default = "chain")]
    space: String,
    /// What the network may take, with the first of the runtimes.
    target_latency: Target,
    #[serde(default)]
    measure: MeasureArgs,
    #[serde(default)]
    board: BoardArgs,
    #[serde(default)]
    profile: Profile,
    #[serde(default)]
    search: SearchSettings,
    #[serde(default)]
    train: TrainSettings,
    #[serde(default)]
    baseline: Baseline,
    #[serde(default)]
    export: Export,
    #[serde(default)]
    bench: Bench,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Profile {
    /// Whole networks that the latency model is fitted to; absent for as many as are usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<u16>,
    isolated: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Baseline {
    /// Scales MobileNetV2's channels.
    width: f64,
    /// How to train it; as the found network where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<TrainSettings>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Export {
    images: NonZeroUsize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Bench {
    rounds: usize,
}

fn chain() -> String {
    "chain".into()
}

impl Default for Baseline {
    fn default() -> Self {
        Baseline { width: 0.5, train: None }
    }
}

impl Default for Export {
    fn default() -> Self {
        Export { images: NonZeroUsize::MIN.saturating_add(31) }
    }
}

impl Default for Bench {
    fn default() -> Self {
        Bench { rounds: 10 }
    }
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let experiment: Experiment = artifact::read_toml(&self.experiment)?;
        let run = RunDir(self.run.unwrap_or_else(|| PathBuf::from("runs").join(&experiment.name)));
        experiment.execute(&run)?;
        let done = Run::load(&run)?;
        print(json, &done.rows(), || format!("{}\n{}", done.table(), run.report().display()))
    }
}

impl Experiment {
    fn execute(&self, run: &RunDir) -> anyhow::Result<()> {
        let dir = run.0.clone();
        let (data, measure) = (self.data.clone(), self.measure.clone());
        let space =
            profile::SpaceArgs { space: self.space.clone(), data: data.clone(), input: None, classes: None };
        let profile = profile::measure::Args {
            space,
            networks: self.profile.networks,
            isolated: self.profile.isolated,
            again: false,
            measure: measure.clone(),
            board: self.board.clone(),
        };
        let search = search::Args {
            run: dir.clone(),
            target_latency: self.target_latency,
            space: self.space.clone(),
            data: data.clone(),
            measure: measure.clone(),
            settings: self.search.clone(),
        };
        let export = export::Args { run: dir.clone(), data, images: self.export.images, runtimes: vec![] };
        let bench = bench::Args {
            run: dir.clone(),
            models: vec![],
            measure,
            board: self.board.clone(),
            rounds: self.bench.rounds,
        };
        let report = report::Args { run: dir };

        artifact::write(&run.experiment(), toml::to_string(self)?.as_bytes())?;
        let mut stages = Stages::open(run)?;
        let data = Data::load(&self.data)?;
        let images = data.fingerprint();
        let (found, baseline) = (run.found(), run.baseline());

        // Only rows that are missing are measured, so this stage is its own check.
        profile.execute()?;

        let searched = search.searched(&data)?;
        let key = (&searched.space, &searched.model, searched.target, &self.search, &images);
        stages.run("search", &key, &[run.genotype()], || search.execute(&searched, &data).map(drop))?;

        let genotype = Network::Genotype(artifact::read_json(&run.genotype(), "nas search")?);
        let key = (&genotype, &self.train, &images);
        stages.run("train", &key, &[found.weights()], || train(&genotype, &data, &self.train, &found))?;

        let (input, classes) = (Shape::from(data.train.shape), data.train.classes.len());
        let network = Network::MobilenetV2 { width: self.baseline.width, input, classes };
        let settings = self.baseline.train.as_ref().unwrap_or(&self.train);
        let key = (&network, settings, &images);
        stages.run("train baseline", &key, &[baseline.weights()], || {
            train(&network, &data, settings, &baseline)
        })?;

        let weights = [artifact::digest_file(&found.weights())?, artifact::digest_file(&baseline.weights())?];
        let outputs = [found.onnx(), baseline.onnx()];
        stages.run("export", &(weights, &self.export), &outputs, || export.execute(&data).map(drop))?;

        let models = [artifact::digest_file(&found.onnx())?, artifact::digest_file(&baseline.onnx())?];
        let key = (models, &self.measure, &self.board, &self.bench, &searched.model);
        stages.run("bench", &key, &[run.bench()], || bench.execute().map(drop))?;

        report.execute().map(drop)
    }
}

fn train(network: &Network, data: &Data, settings: &TrainSettings, dir: &ModelDir) -> anyhow::Result<()> {
    fit(network, data, settings, dir)?;
    Ok(())
}
