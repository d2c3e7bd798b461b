use super::measure::networks_for;
use super::stages::Stages;
use super::{
    Bench, BoardSettings, Images, MeasureSettings, Profile, RunError, Search, bench, export, profile, search, searched,
};
use crate::artifact::{self, Digest};
use crate::bounded::{FittedNetworks, Name, Rounds, Width};
use crate::data::{Data, DataSpec};
use crate::latency::Target;
use crate::profile::Wanted;
use crate::record::{ModelDir, RunDir};
use crate::report;
use crate::space::{Baseline, Network, SearchSpace};
use crate::train::fit::{TrainSettings, fit};
use crate::train::search::SearchSettings;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// An experiment file: what the verbs take as flags, in one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub name: Name,
    #[serde(default)]
    data: DataSpec,
    #[serde(default = "chain")]
    space: String,
    /// What the network may take, with the first of the runtimes.
    target_latency: Target,
    #[serde(default)]
    measure: MeasureSettings,
    #[serde(default)]
    board: BoardSettings,
    #[serde(default)]
    profile: ProfileKeys,
    #[serde(default)]
    search: SearchSettings,
    #[serde(default)]
    train: TrainSettings,
    #[serde(default)]
    baseline: BaselineKeys,
    #[serde(default)]
    export: ExportKeys,
    #[serde(default)]
    bench: BenchKeys,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProfileKeys {
    /// Whole networks that the latency model is fitted to; absent for as many as are usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<FittedNetworks>,
    isolated: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BaselineKeys {
    architecture: String,
    /// Scales its channels.
    width: Width,
    /// How to train it; as the found network where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<TrainSettings>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExportKeys {
    images: NonZeroUsize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BenchKeys {
    rounds: Rounds,
}

fn chain() -> String {
    "chain".into()
}

impl Default for BaselineKeys {
    fn default() -> Self {
        BaselineKeys { architecture: "mobilenet_v2".into(), width: Width::of(0.5), train: None }
    }
}

impl Default for ExportKeys {
    fn default() -> Self {
        ExportKeys { images: NonZeroUsize::MIN.saturating_add(31) }
    }
}

impl Default for BenchKeys {
    fn default() -> Self {
        BenchKeys { rounds: Rounds::of(10) }
    }
}

impl Experiment {
    /// Does all stages, and writes the experiment with all defaults filled in, the results and the report to `run`. A
    /// stage whose inputs have not changed is skipped; one that was interrupted resumes.
    ///
    /// # Errors
    /// Those of the stages.
    pub fn execute(&self, run: &RunDir) -> Result<(), RunError> {
        let data = Data::load(&self.data)?;
        let images = Images::Data(self.data.clone());
        let wanted =
            Wanted { networks: self.profile.networks.map(FittedNetworks::get), isolated: self.profile.isolated };
        let (measure, board) = (self.measure.clone(), self.board.clone());
        let space = self.space.clone();
        let networks = networks_for(SearchSpace::load(&self.space)?, &data)?;
        let sizes = Baseline { width: self.baseline.width, input: networks.input, classes: networks.classes[0] };
        // What cannot be done is reported before hours are spent on other stages.
        let baseline_network = Network::baseline(&self.baseline.architecture, sizes)?;
        self.search.check()?;
        self.search.augment(&data)?;
        [Some(&self.train), self.baseline.train.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|s| s.augment(&data).map(drop))?;
        let toml = toml::to_string(self).map_err(|e| RunError::Toml(e.to_string()))?;
        artifact::write(&run.experiment(), toml.as_bytes())?;
        let mut stages = Stages::open(run)?;
        let fingerprint = data.fingerprint();
        let (found, baseline) = (run.found(), run.baseline());

        // Only rows that are missing are measured, so this stage checks itself. A given table is used as it is.
        if self.measure.table.is_none() {
            profile(&Profile { space, images, wanted, again: false, measure: measure.clone(), board: board.clone() })?;
        }

        let settings = Search {
            run: run.0.clone(),
            target_latency: self.target_latency,
            space: self.space.clone(),
            data: self.data.clone(),
            measure: measure.clone(),
            settings: self.search.clone(),
        };
        let searched = searched(&settings, &data)?;
        let key = (&searched.networks.space, &searched.constraints, &self.search, &fingerprint);
        stages.run("search", &key, &[run.genotype(), run.search_log(), run.searched_on()], || {
            search(&run.0, &searched, &data, &self.search).map(drop)
        })?;

        let genotype = Network::Genotype(artifact::read_json(&run.genotype(), "nas search")?);
        let key = (&genotype, &self.train, &fingerprint);
        stages.run("train", &key, &trained(&found), || train(&genotype, &data, &self.train, &found))?;

        let settings = self.baseline.train.as_ref().unwrap_or(&self.train);
        let key = (&baseline_network, settings, &fingerprint);
        stages.run("train baseline", &key, &trained(&baseline), || {
            train(&baseline_network, &data, settings, &baseline)
        })?;

        let weights = [Digest::of_file(&found.weights())?, Digest::of_file(&baseline.weights())?];
        let outputs = [found.onnx(), baseline.onnx()];
        stages.run("export", &(weights, &self.export), &outputs, || {
            export(&run.0, &data, &[], self.export.images).map(drop)
        })?;

        let models = [Digest::of_file(&found.onnx())?, Digest::of_file(&baseline.onnx())?];
        let key = (models, &measure, &board, &self.bench, &searched.constraints);
        let settings = Bench {
            run: run.0.clone(),
            models: vec![],
            rounds: self.bench.rounds.get(),
            measure: measure.clone(),
            board: board.clone(),
        };
        stages.run("bench", &key, &[run.bench()], || bench(&settings)?.complete().map(drop))?;

        report::Run::load(run)?.write(run)?;
        Ok(())
    }

    /// Where it writes to, unless another folder is named.
    pub fn default_run(&self) -> RunDir {
        RunDir(PathBuf::from("runs").join(&*self.name))
    }
}

/// What a training writes.
fn trained(dir: &ModelDir) -> [PathBuf; 4] {
    [dir.network(), dir.train_log(), dir.weights(), dir.trained_on()]
}

fn train(network: &Network, data: &Data, settings: &TrainSettings, dir: &ModelDir) -> Result<(), RunError> {
    fit(network, data, settings, dir)?;
    Ok(())
}
