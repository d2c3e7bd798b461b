use super::{Certificate, Evaluation, SearchEpoch, SearchedOn, TrainEpoch, TrainedOn};
use crate::artifact::{self, ArtifactError, Digest, Lock};
use crate::bounded::Name;
use crate::space::{Genotype, Network};
use nas_exporters::onnx::{self, Inspected};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The metadata key in an ONNX file whose value is the digest of the exported weights.
pub const WEIGHTS: &str = "edge-nas.weights";

/// The metadata key whose value is the JSON of the [`super::Interface`].
pub const INTERFACE: &str = "edge-nas.interface";

/// The folder of a run that contains a folder for each of several targets.
const TARGETS: &str = "targets";

/// The folder of a run, with the files of the search and a [`ModelDir`] for each network.
#[derive(Clone, Debug)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    pub fn genotype(&self) -> PathBuf {
        self.0.join("genotype.json")
    }

    pub fn search_log(&self) -> PathBuf {
        self.0.join("search.jsonl")
    }

    /// Returns the folder of the network for one of several targets. It is itself the folder of a run, except that the
    /// log of the search is in the run that contains it.
    pub fn target(&self, name: &str) -> RunDir {
        RunDir(self.0.join(TARGETS).join(name))
    }

    /// Path of the names of the targets of the last search, if it had several.
    pub fn target_names(&self) -> PathBuf {
        self.0.join("targets.json")
    }

    /// Returns the names and folders of the targets of the last search. There are none if it had a single target.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn targets(&self) -> Result<Vec<(String, RunDir)>, ArtifactError> {
        let names: Vec<Name> = artifact::read_json_if_any(&self.target_names())?.unwrap_or_default();
        let folders = names.into_iter().map(|name| (name.to_string(), self.target(&name)));
        Ok(folders.filter(|(_, dir)| dir.genotype().is_file()).collect())
    }

    /// Returns the run that contains this folder, if this is the folder of a target.
    pub fn of_several(&self) -> Option<RunDir> {
        let targets = self.0.parent().filter(|dir| dir.ends_with(TARGETS));
        targets.and_then(Path::parent).map(|run| RunDir(run.into()))
    }

    /// Returns the log of the search that found the genotype: the run's own log, or that of the search for several
    /// targets.
    fn log_of_search(&self) -> PathBuf {
        match self.of_several() {
            Some(run) if !self.search_log().is_file() => run.search_log(),
            _ => self.search_log(),
        }
    }

    /// Path of a [`SearchedOn`].
    pub fn searched_on(&self) -> PathBuf {
        self.0.join("search.json")
    }

    /// Path of [`super::CandidateRow`] lines.
    pub fn candidates(&self) -> PathBuf {
        self.0.join("candidates.jsonl")
    }

    /// Returns where an unfinished search is stored.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished { dir: self.0.join("checkpoint"), stage: "search" }
    }

    /// Path of a [`super::BegunFiles`], which exists until the search has ended.
    pub fn begun_files(&self) -> PathBuf {
        self.0.join("checkpoint/begun.json")
    }

    /// Path of the experiment as it was run, including all defaults.
    pub fn experiment(&self) -> PathBuf {
        self.0.join("experiment.toml")
    }

    pub fn bench(&self) -> PathBuf {
        self.0.join("bench.jsonl")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// Returns the folder of the network that was found, which is that of the run.
    pub fn found(&self) -> ModelDir {
        ModelDir(self.0.clone())
    }

    /// Returns the folder of the baseline.
    pub fn baseline(&self) -> ModelDir {
        ModelDir(self.0.join("baseline"))
    }

    /// Returns the folders of the run's networks, whether trained or not. If the last search had several targets, its
    /// networks are in their folders, and the run's own folder has only a baseline.
    ///
    /// # Errors
    /// Fails if the names of the targets cannot be read.
    pub fn models(&self) -> Result<Vec<ModelDir>, ArtifactError> {
        Ok(match self.targets()?.is_empty() {
            true => vec![self.found(), self.baseline()],
            false => vec![self.baseline()],
        })
    }

    /// Returns a sentence about a network that was trained in the run's own folder and is not one of
    /// [`RunDir::models`].
    ///
    /// # Errors
    /// Fails if the names of the targets cannot be read.
    pub fn left_out(&self) -> Result<Option<String>, ArtifactError> {
        let is_left_out = self.found().trained_on().is_file() && !self.targets()?.is_empty();
        let dir = self.0.display();
        let why = || format!("the network in {dir} itself is left out, since the last search had several targets");
        Ok(is_left_out.then(why))
    }
}

/// The folder of one network.
#[derive(Clone, Debug)]
pub struct ModelDir(pub PathBuf);

impl ModelDir {
    /// Path of a [`crate::space::Network`].
    pub fn network(&self) -> PathBuf {
        self.0.join("network.json")
    }

    /// Path of a [`TrainedOn`].
    pub fn trained_on(&self) -> PathBuf {
        self.0.join("data.json")
    }

    pub fn weights(&self) -> PathBuf {
        self.0.join("weights.safetensors")
    }

    /// Path of the weights after the epoch with the best accuracy on held-out images. The file is absent if no images
    /// were held out.
    pub fn best_weights(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// Path of the logits of this network, as a teacher, for all views of the training images.
    pub fn answers(&self, key: &Digest) -> PathBuf {
        self.0.join(format!("answers-{}.safetensors", &key.as_str()[..12]))
    }

    /// Path of the logits for one view, until those for all views are complete.
    pub fn answers_of_view(&self, key: &Digest, view: usize) -> PathBuf {
        self.0.join(format!("checkpoint/answers-{}-{view}.safetensors", &key.as_str()[..12]))
    }

    /// Path of [`TrainEpoch`] lines.
    pub fn train_log(&self) -> PathBuf {
        self.0.join("train.jsonl")
    }

    /// Returns where an unfinished training is stored.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished { dir: self.0.join("checkpoint"), stage: "train" }
    }

    pub fn onnx(&self) -> PathBuf {
        self.0.join("model.onnx")
    }

    /// Path of an [`Evaluation`].
    pub fn eval(&self) -> PathBuf {
        self.0.join("eval.json")
    }

    /// Path of the figure of the confusion matrix.
    pub fn confusion(&self) -> PathBuf {
        self.0.join("confusion.svg")
    }
}

/// The files of unfinished training runs and searches, which lie beside the results of earlier ones. Their names contain
/// the first digits of a digest of everything that the result depends on, so a run with other settings does not replace
/// them.
#[derive(Clone, Debug)]
pub struct Unfinished {
    dir: PathBuf,
    stage: &'static str,
}

impl Unfinished {
    pub fn checkpoint(&self, key: &Digest) -> PathBuf {
        self.file(key, "safetensors")
    }

    /// Path of the best weights so far.
    pub fn best(&self, key: &Digest) -> PathBuf {
        self.file(key, "best.safetensors")
    }

    /// Path of the log, with a line for each finished epoch.
    pub fn log(&self, key: &Digest) -> PathBuf {
        self.file(key, "jsonl")
    }

    /// Path of what was found out so far about networks: [`super::CandidateRow`] lines.
    pub fn candidates(&self, key: &Digest) -> PathBuf {
        Unfinished { stage: "candidates", ..self.clone() }.file(key, "jsonl")
    }

    /// Returns where an unfinished short training is stored.
    pub fn trial(&self) -> Unfinished {
        Unfinished { stage: "trial", ..self.clone() }
    }

    /// Path of a copy of the latency table with this digest, with the rows that the search has added so far.
    pub fn measured(&self, table: &Digest) -> PathBuf {
        Unfinished { stage: "measured", ..self.clone() }.file(table, "jsonl")
    }

    /// Path of the number formats of the convolutions ([`super::Floats`]), if a measurement decided on them.
    pub fn arithmetic(&self, key: &Digest) -> PathBuf {
        self.file(key, "json")
    }

    fn file(&self, key: &Digest, extension: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.{extension}", self.stage, &key.as_str()[..12]))
    }

    /// Returns the log that was written last, or `None` if there is none.
    pub fn newest_log(&self) -> Option<PathBuf> {
        let paths = std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let is_log = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{}-", self.stage)) && name.ends_with(".jsonl")
        };
        paths.filter(is_log).max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok())
    }
}

/// A finished search.
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

/// Files that belong together, or a sentence that says why they do not.
pub type Matched<T> = Result<T, String>;

impl RunDir {
    /// Prevents other processes from changing the run, with the folders of all its targets.
    ///
    /// # Errors
    /// Fails if another process is changing it.
    pub fn lock(&self) -> Result<Lock, ArtifactError> {
        Lock::of_folder(&self.of_several().unwrap_or_else(|| self.clone()).0)
    }

    /// Returns the certificate of the genotype, or `None` if no search found the genotype.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn certificate(&self) -> Result<Option<Certificate>, ArtifactError> {
        #[derive(Deserialize)]
        struct OfGenotype {
            #[serde(default)]
            certificate: Option<Certificate>,
        }
        Ok(artifact::read_json_if_any::<OfGenotype>(&self.genotype())?.and_then(|genotype| genotype.certificate))
    }

    /// Returns the search that found `genotype`, or `None` if no search did.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn searched(&self, genotype: &Genotype) -> Result<Option<Matched<EndedSearch>>, ArtifactError> {
        let log = artifact::read_lines(&self.log_of_search())?;
        let Some(on) = artifact::read_json_if_any::<SearchedOn>(&self.searched_on())? else {
            return Ok((!log.is_empty()).then(|| Err("search.jsonl is of an unknown search".into())));
        };
        let same = on.genotype == Digest::of(genotype) && on.log == Digest::of_lines(&log);
        let other = "genotype.json and search.jsonl are of different searches: `nas search` writes them together";
        Ok(Some(if same { Ok(EndedSearch { on, log }) } else { Err(other.into()) }))
    }
}

impl ModelDir {
    /// Returns the network that was trained, or `None` if there is none.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn trained(&self) -> Result<Option<Matched<Trained>>, ArtifactError> {
        let Some(on) = artifact::read_json_if_any::<TrainedOn>(&self.trained_on())? else { return Ok(None) };
        let Some(network) = artifact::read_json_if_any::<Network>(&self.network())? else { return Ok(None) };
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

    /// Returns the ONNX file of `trained`, or `None` if there is none.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
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

    /// Returns the evaluation of `trained` or of its export, or `None` if there is none.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn evaluated(
        &self,
        trained: &Trained,
        exported: Option<&Exported>,
    ) -> Result<Option<Matched<Evaluation>>, ArtifactError> {
        let path = self.eval();
        let Some(evaluation) = artifact::read_json_if_any::<Evaluation>(&path)? else { return Ok(None) };
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
