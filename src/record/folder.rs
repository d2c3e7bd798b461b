use super::{Certificate, Evaluation, SearchEpoch, SearchedOn, TrainEpoch, TrainedOn};
use crate::artifact::{self, ArtifactError, Digest, Lock};
use crate::space::{Genotype, Network};
use nas_exporters::onnx::{self, Inspected};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The key of an ONNX file's metadata whose value is the digest of the weights that were exported.
pub const WEIGHTS: &str = "edge-nas.weights";

/// The key whose value is the JSON of the [`super::Interface`].
pub const INTERFACE: &str = "edge-nas.interface";

/// The folder of a run that has a folder for each of several targets.
const TARGETS: &str = "targets";

/// A run's folder: the search's files, and a [`ModelDir`] for each network.
#[derive(Clone, Debug)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    pub fn genotype(&self) -> PathBuf {
        self.0.join("genotype.json")
    }

    pub fn search_log(&self) -> PathBuf {
        self.0.join("search.jsonl")
    }

    /// Where the network for one of several targets is stored: a run's folder of its own, of whose search the log is
    /// beside the other folders.
    pub fn target(&self, name: &str) -> RunDir {
        RunDir(self.0.join(TARGETS).join(name))
    }

    /// The folders of its targets that a network was found for, with their names.
    pub fn targets(&self) -> Vec<(String, RunDir)> {
        let entries = std::fs::read_dir(self.0.join(TARGETS)).into_iter().flatten();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let folders = entries.filter_map(name).map(|name| (name.clone(), self.target(&name)));
        let mut folders: Vec<_> = folders.filter(|(_, dir)| dir.genotype().is_file()).collect();
        folders.sort_by(|a, b| a.0.cmp(&b.0));
        folders
    }

    /// The run that this is the folder of a target of.
    pub fn of_several(&self) -> Option<RunDir> {
        let targets = self.0.parent().filter(|dir| dir.ends_with(TARGETS));
        targets.and_then(Path::parent).map(|run| RunDir(run.into()))
    }

    /// The log of the search that found the genotype, its own or that of several targets.
    fn log_of_search(&self) -> PathBuf {
        match self.of_several() {
            Some(run) if !self.search_log().is_file() => run.search_log(),
            _ => self.search_log(),
        }
    }

    /// A [`SearchedOn`]
    pub fn searched_on(&self) -> PathBuf {
        self.0.join("search.json")
    }

    /// [`super::CandidateRow`] lines.
    pub fn candidates(&self) -> PathBuf {
        self.0.join("candidates.jsonl")
    }

    /// Where an unfinished search is stored.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished { dir: self.0.join("checkpoint"), stage: "search" }
    }

    /// The experiment as it was run, with all that its file left to defaults.
    pub fn experiment(&self) -> PathBuf {
        self.0.join("experiment.toml")
    }

    pub fn bench(&self) -> PathBuf {
        self.0.join("bench.jsonl")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// Where the found network is stored: the run's folder itself.
    pub fn found(&self) -> ModelDir {
        ModelDir(self.0.clone())
    }

    /// Where the baseline is stored.
    pub fn baseline(&self) -> ModelDir {
        ModelDir(self.0.join("baseline"))
    }

    /// The folders of its networks, whether they were trained or not.
    pub fn models(&self) -> [ModelDir; 2] {
        [self.found(), self.baseline()]
    }
}

/// The folder of one network.
#[derive(Clone, Debug)]
pub struct ModelDir(pub PathBuf);

impl ModelDir {
    /// A [`crate::space::Network`]
    pub fn network(&self) -> PathBuf {
        self.0.join("network.json")
    }

    /// A [`TrainedOn`]
    pub fn trained_on(&self) -> PathBuf {
        self.0.join("data.json")
    }

    pub fn weights(&self) -> PathBuf {
        self.0.join("weights.safetensors")
    }

    /// The weights after the epoch that was the best on the images that were kept back; absent where none were.
    pub fn best_weights(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// The logits of this network, as a teacher, for all views of the training images.
    pub fn answers(&self, key: &Digest) -> PathBuf {
        self.0.join(format!("answers-{}.safetensors", &key.as_str()[..12]))
    }

    /// [`TrainEpoch`] lines.
    pub fn train_log(&self) -> PathBuf {
        self.0.join("train.jsonl")
    }

    /// Where an unfinished training is stored.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished { dir: self.0.join("checkpoint"), stage: "train" }
    }

    pub fn onnx(&self) -> PathBuf {
        self.0.join("model.onnx")
    }

    /// An [`Evaluation`]
    pub fn eval(&self) -> PathBuf {
        self.0.join("eval.json")
    }

    /// The figure of its confusion matrix.
    pub fn confusion(&self) -> PathBuf {
        self.0.join("confusion.svg")
    }
}

/// The files of trainings and searches that have not ended, beside the results of earlier ones. Their names hold the
/// first digits of a digest of all that the result depends on, so that one with other settings does not replace them.
#[derive(Clone, Debug)]
pub struct Unfinished {
    dir: PathBuf,
    stage: &'static str,
}

impl Unfinished {
    pub fn checkpoint(&self, key: &Digest) -> PathBuf {
        self.file(key, "safetensors")
    }

    /// The best weights so far.
    pub fn best(&self, key: &Digest) -> PathBuf {
        self.file(key, "best.safetensors")
    }

    /// A line for each epoch that has ended.
    pub fn log(&self, key: &Digest) -> PathBuf {
        self.file(key, "jsonl")
    }

    /// What was found out about networks so far: [`super::CandidateRow`] lines.
    pub fn candidates(&self, key: &Digest) -> PathBuf {
        self.compared().file(key, "jsonl")
    }

    /// Where an unfinished short training is stored.
    pub fn trial(&self) -> Unfinished {
        Unfinished { stage: "trial", ..self.clone() }
    }

    /// A copy of the latency table of this digest, with the rows that the search has added so far.
    pub fn measured(&self, table: &Digest) -> PathBuf {
        Unfinished { stage: "measured", ..self.clone() }.file(table, "jsonl")
    }

    /// What the convolutions are trained in: [`super::Floats`], where a measurement decided it.
    pub fn arithmetic(&self, key: &Digest) -> PathBuf {
        self.file(key, "json")
    }

    fn file(&self, key: &Digest, extension: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.{extension}", self.stage, &key.as_str()[..12]))
    }

    /// The log that was written last; none where there is none.
    pub fn newest_log(&self) -> Option<PathBuf> {
        self.written().pop().map(|(_, path)| path)
    }

    /// The logs, and when they were written last, in this order.
    pub(super) fn written(&self) -> Vec<(SystemTime, PathBuf)> {
        let paths = std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let is_log = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{}-", self.stage)) && name.ends_with(".jsonl")
        };
        let mut logs: Vec<_> = paths.filter(is_log).filter_map(|path| Some((modified(&path)?, path))).collect();
        logs.sort();
        logs
    }

    /// The same folder, for the lines about networks.
    pub(super) fn compared(&self) -> Unfinished {
        Unfinished { stage: "candidates", ..self.clone() }
    }
}

/// A search that has ended.
#[derive(Clone, Debug)]
pub struct EndedSearch {
    pub on: SearchedOn,
    /// Empty for algorithms without a supernet.
    pub log: Vec<SearchEpoch>,
}

/// A network that was trained.
#[derive(Clone, Debug)]
pub struct Trained {
    pub network: Network,
    pub on: TrainedOn,
    pub log: Vec<TrainEpoch>,
}

/// A network that was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    pub onnx: Vec<u8>,
    pub digest: Digest,
    pub model: Inspected,
}

/// Files that belong together, or in a sentence why they do not.
pub type Matched<T> = Result<T, String>;

impl RunDir {
    /// Keeps other processes from changing the run.
    ///
    /// # Errors
    /// Where another process changes it.
    pub fn lock(&self) -> Result<Lock, ArtifactError> {
        Lock::of_folder(&self.0)
    }

    /// The certificate of the genotype; none where no search found it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn certificate(&self) -> Result<Option<Certificate>, ArtifactError> {
        #[derive(Deserialize)]
        struct OfGenotype {
            #[serde(default)]
            certificate: Option<Certificate>,
        }
        Ok(optional::<OfGenotype>(&self.genotype())?.and_then(|genotype| genotype.certificate))
    }

    /// The search that found `genotype`; none where it was not found by one.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn searched(&self, genotype: &Genotype) -> Result<Option<Matched<EndedSearch>>, ArtifactError> {
        let log = artifact::read_lines(&self.log_of_search())?;
        let Some(on) = optional::<SearchedOn>(&self.searched_on())? else {
            return Ok((!log.is_empty()).then(|| Err("search.jsonl is of an unknown search".into())));
        };
        let same = on.genotype == Digest::of(genotype) && on.log == Digest::of_lines(&log);
        let other = "genotype.json and search.jsonl are of different searches: `nas search` writes them together";
        Ok(Some(if same { Ok(EndedSearch { on, log }) } else { Err(other.into()) }))
    }
}

impl ModelDir {
    /// The network that was trained; none where there is none.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn trained(&self) -> Result<Option<Matched<Trained>>, ArtifactError> {
        let Some(on) = optional::<TrainedOn>(&self.trained_on())? else { return Ok(None) };
        let Some(network) = optional::<Network>(&self.network())? else { return Ok(None) };
        let log: Vec<TrainEpoch> = artifact::read_lines(&self.train_log())?;
        let parts = [
            ("network.json", on.network == Digest::of(&network)),
            ("train.jsonl", on.log == Digest::of_lines(&log)),
            ("weights.safetensors", Digest::of_file(&self.weights())?.as_ref() == Some(&on.weights)),
        ];
        if let Some((part, _)) = parts.iter().find(|(_, same)| !same) {
            let dir = self.0.display();
            return Ok(Some(Err(format!("{part} in {dir} is not of the training that data.json describes"))));
        }
        Ok(Some(Ok(Trained { network, on, log })))
    }

    /// The ONNX file of `trained`; none where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn exported(&self, trained: &Trained) -> Result<Option<Matched<Exported>>, ArtifactError> {
        let path = self.onnx();
        if !path.is_file() {
            return Ok(None);
        }
        let onnx = artifact::read(&path, "nas export")?;
        Ok(Some(match onnx::inspect(&onnx) {
            Ok(model) if model.metadata.get(WEIGHTS).map(String::as_str) == Some(trained.on.weights.as_str()) => {
                Ok(Exported { digest: Digest::of_bytes(&onnx), onnx, model })
            }
            _ => Err(format!("{} is not of the weights beside it", path.display())),
        }))
    }

    /// The evaluation of `trained`, or of its export; none where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn evaluated(
        &self,
        trained: &Trained,
        exported: Option<&Exported>,
    ) -> Result<Option<Matched<Evaluation>>, ArtifactError> {
        let path = self.eval();
        let Some(evaluation) = optional::<Evaluation>(&path)? else { return Ok(None) };
        let of_export = exported.is_some_and(|exported| exported.digest == evaluation.digest);
        Ok(Some(match of_export || evaluation.digest == trained.on.weights {
            true => Ok(evaluation),
            false => Err(format!(
                "{} is of neither the weights nor the model beside it: `nas eval` evaluates the present ones",
                path.display()
            )),
        }))
    }
}

/// When a file was written last; none where there is none.
pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|found| found.modified()).ok()
}

/// Reads a JSON file if it exists.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ArtifactError> {
    match artifact::read_json(path, "nas search") {
        Err(ArtifactError::Missing { .. }) => Ok(None),
        other => other.map(Some),
    }
}
