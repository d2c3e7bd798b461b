use super::measure::networks_for;
use super::stages::Stages;
use super::{
    Bench, BoardSettings, Images, MeasureSettings, MeasureTop, Profile, RunError, Search, Targets, bench, export,
    folders, profile, search, searched, taught,
};
use crate::artifact::{self, Digest};
use crate::bounded::{Bytes, Count, FittedNetworks, Name, NetworkCount, Percent, Rounds, Width};
use crate::data::{Data, DataSpec};
use crate::latency::{Target, TargetFor};
use crate::profile::Wanted;
use crate::record::{ModelDir, RunDir};
use crate::report;
use crate::search::{Goal, Searched};
use crate::space::{Network, SearchSpace};
use crate::train::search::SearchSettings;
use crate::train::{Taught, TrainSettings, fit::fit};
use serde::{Deserialize, Serialize, Serializer};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// An experiment file: everything that the verbs take as flags, in one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub name: Name,
    #[serde(default)]
    data: DataSpec,
    #[serde(default = "chain")]
    space: String,
    /// A run whose network, usually a larger one, is distilled into the found network and into the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teacher: Option<PathBuf>,
    /// The latency that the network may have: on the device, with the first of its runtimes, unless a target names
    /// others.
    #[serde(
        default,
        deserialize_with = "crate::named::one_or_more",
        serialize_with = "list_or_one",
        skip_serializing_if = "Vec::is_empty"
    )]
    target_latency: Vec<TargetFor>,
    /// Targets that each get a network of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_params: Option<Count>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_macs: Option<Count>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_memory: Option<Bytes>,
    #[serde(default)]
    band: Percent,
    /// How many of the best networks are measured before one is chosen. Absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measure_top: Option<NetworkCount>,
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
    /// Whole networks that the latency model is fitted to. Absent for the usual number.
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<FittedNetworks>,
    isolated: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BaselineKeys {
    architecture: String,
    /// Width multiplier, which scales the channels of the baseline. Absent for the usual width.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<Width>,
    /// How to train the baseline. Absent to train it like the found network.
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

/// Writes a list, or its only element.
fn list_or_one<S: Serializer>(targets: &[TargetFor], serializer: S) -> Result<S::Ok, S::Error> {
    match targets {
        [one] => one.serialize(serializer),
        more => more.serialize(serializer),
    }
}

fn chain() -> String {
    "chain".into()
}

impl Default for BaselineKeys {
    fn default() -> Self {
        BaselineKeys { architecture: "mobilenet_v2".into(), width: None, train: None }
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
    /// Runs all stages. Writes the experiment with all defaults filled in, the results and the report to `run`. A stage
    /// whose inputs have not changed is skipped, and an interrupted one resumes.
    ///
    /// # Errors
    /// The errors of the stages.
    pub fn execute(&self, run: &RunDir) -> Result<(), RunError> {
        let data = Data::load(&self.data)?;
        let baseline_network = self.check(&data)?;
        let taught = self.teacher.clone().map(|teacher| taught(&RunDir(teacher), run)).transpose()?;
        let data_digest = data.digest();
        taught.as_ref().map_or(Ok(()), |taught| taught.check(&data_digest))?;
        let toml = toml::to_string(self).map_err(|e| RunError::Toml(e.to_string()))?;
        artifact::write(&run.experiment(), toml.as_bytes())?;
        let mut stages = Stages::open(run)?;

        // Only missing rows are measured, so this stage itself finds out what is left to do. A given table is used as
        // it is.
        if self.measure.table.is_none() {
            let ProfileKeys { networks, isolated } = self.profile;
            profile(&self.profiling(), Wanted { networks, isolated, again: false })?;
        }

        let searched = self.find(&mut stages, run, &data, &data_digest)?;
        let folders = folders(&run.0, &searched);
        let teacher_weights = taught.as_ref().map(|taught| &taught.trained.on.weights);
        for dir in &folders {
            let genotype = Network::Genotype(artifact::read_json(&dir.genotype(), "nas search")?);
            let key = (&genotype, &self.train, &data_digest, &teacher_weights);
            let found = dir.found();
            stages.run(&stage("train", run, dir), &key, &trained(&found), || {
                train(&genotype, &data, &self.train, taught.as_ref(), &found)
            })?;
        }

        let settings = self.baseline.train.as_ref().unwrap_or(&self.train);
        let (key, baseline) = ((&baseline_network, settings, &data_digest, &teacher_weights), run.baseline());
        stages.run("train baseline", &key, &trained(&baseline), || {
            train(&baseline_network, &data, settings, taught.as_ref(), &baseline)
        })?;

        // With several targets, the run's own folder contains only the baseline, and a report that compares all
        // networks.
        let others = folders.iter().filter(|dir| dir.0 != run.0);
        for dir in others.chain([run]) {
            self.deploy(&mut stages, run, dir, &data, &searched.goals)?;
            report::Run::load(dir)?.write(dir)?;
        }
        Ok(())
    }

    /// Searches, and returns what was searched.
    fn find(&self, stages: &mut Stages, run: &RunDir, data: &Data, data_digest: &Digest) -> Result<Searched, RunError> {
        let settings = Search {
            run: run.0.clone(),
            targets: self.targets(),
            space: self.space.clone(),
            data: self.data.clone(),
            measure: self.measure.clone(),
            settings: self.search.clone(),
            measure_top: self
                .measure_top
                .map(|networks| MeasureTop { networks: networks.into(), board: self.board.clone() }),
        };
        let mut by = searched(&settings, data)?;
        let key =
            |by: &Searched| Digest::of(&(&by.networks.space, &by.goals, &self.search, self.measure_top, data_digest));
        let folders = folders(&run.0, &by);
        let outputs = folders.iter().flat_map(|dir| [dir.genotype(), dir.candidates(), dir.searched_on()]);
        let outputs: Vec<PathBuf> = outputs.chain([run.search_log(), run.target_names()]).collect();
        let mut ran = false;
        stages.run("search", &key(&by), &outputs, || {
            ran = true;
            search(&settings, &by, data)?.complete().map(drop)
        })?;
        if ran && self.measure_top.is_some() {
            // The search added rows to its latency table, which must not make it start again.
            by = searched(&settings, data)?;
            stages.restate("search", &key(&by))?;
        }
        Ok(by)
    }

    /// Checks what can be checked before hours are spent on the first stages. Returns the baseline.
    fn check(&self, data: &Data) -> Result<Network, RunError> {
        self.targets().check()?;
        let networks = networks_for(SearchSpace::load(&self.space)?, data)?;
        let BaselineKeys { architecture, width, train } = &self.baseline;
        let baseline = Network::baseline(architecture, *width, networks.input, networks.classes[0])?;
        self.search.check_with(data)?;
        self.train.check(data)?;
        train.as_ref().map_or(Ok(()), |train| train.check(data))?;
        Ok(baseline)
    }

    fn profiling(&self) -> Profile {
        Profile {
            space: self.space.clone(),
            images: Images::Data(self.data.clone()),
            measure: self.measure.clone(),
            board: self.board.clone(),
        }
    }

    /// Exports the networks of a folder and measures them.
    fn deploy(
        &self,
        stages: &mut Stages,
        run: &RunDir,
        dir: &RunDir,
        data: &Data,
        goals: &[Goal],
    ) -> Result<(), RunError> {
        let models = dir.models()?;
        let onnx: Vec<PathBuf> = models.iter().map(ModelDir::onnx).collect();
        let weights: Vec<PathBuf> = models.iter().map(ModelDir::weights).collect();
        let key = (digests(&weights)?, &self.export);
        let export = || export(&dir.0, data, &[], self.export.images).map(drop);
        stages.run(&stage("export", run, dir), &key, &onnx, export)?;

        let key = (digests(&onnx)?, &self.measure, &self.board, &self.bench, goals);
        let settings = Bench {
            run: dir.0.clone(),
            models: vec![],
            rounds: self.bench.rounds.get(),
            measure: self.measure.clone(),
            board: self.board.clone(),
        };
        stages.run(&stage("bench", run, dir), &key, &[dir.bench()], || bench(&settings)?.complete().map(drop))
    }

    fn targets(&self) -> Targets {
        Targets {
            target_latency: self.target_latency.clone(),
            targets: self.targets.clone(),
            max_params: self.max_params,
            max_macs: self.max_macs,
            max_memory: self.max_memory,
            band: self.band,
        }
    }

    /// Returns the folder to write to, unless another one is named.
    pub fn default_run(&self) -> RunDir {
        RunDir(PathBuf::from("runs").join(&*self.name))
    }
}

/// Returns the name of a stage, with that of the target if there are several.
fn stage(name: &str, run: &RunDir, dir: &RunDir) -> String {
    match dir.0.file_name() {
        Some(target) if dir.0 != run.0 => format!("{name} {}", target.display()),
        _ => name.into(),
    }
}

/// Returns the digest of each file, or `None` for one that is missing.
fn digests(files: &[PathBuf]) -> Result<Vec<Option<Digest>>, RunError> {
    Ok(files.iter().map(|file| Digest::of_file(file)).collect::<Result<_, _>>()?)
}

/// Returns the files that a training writes.
fn trained(dir: &ModelDir) -> [PathBuf; 4] {
    [dir.network(), dir.train_log(), dir.weights(), dir.trained_on()]
}

fn train(
    network: &Network,
    data: &Data,
    settings: &TrainSettings,
    taught: Option<&Taught>,
    dir: &ModelDir,
) -> Result<(), RunError> {
    fit(network, data, settings, taught, dir)?;
    Ok(())
}
