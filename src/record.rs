//! Lines of the JSON-lines files in a run's folder, and where the files lie.

use crate::data::Normalisation;
use crate::latency::{Latency, LayerLatency};
use crate::space::{CandidateOp, Genotype};
use nas_exporters::{Graph, Shape};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A network that can be trained and exported: what `network.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "snake_case")]
pub enum Network {
    Genotype(Genotype),
    /// The baseline.
    MobilenetV2 {
        width: f64,
        input: Shape,
        classes: usize,
    },
}

impl Network {
    /// `genotype`, or `mobilenet_v2_x0.5`.
    pub fn name(&self) -> String {
        match self {
            Network::Genotype(_) => "genotype".into(),
            Network::MobilenetV2 { width, .. } => format!("mobilenet_v2_x{width}"),
        }
    }

    pub fn graph(&self) -> Graph {
        match self {
            Network::Genotype(genotype) => genotype.graph(),
            Network::MobilenetV2 { width, input, classes } => {
                crate::space::mobilenet_v2(*width, *input, *classes)
            }
        }
    }
}

/// What a network was trained on, and how its input is to be prepared: what `data.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// The data set's name.
    pub data: String,
    /// Names of the classes, by logit.
    pub classes: Vec<String>,
    /// Of the network's input: (pixel / 255 − mean) / std, by channel.
    pub normalisation: Normalisation,
}

/// An epoch of the search: a line of `search.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchEpoch {
    /// From 1.
    pub epoch: usize,
    pub learning_rate: f64,
    /// Mean cross-entropy of the weight steps, on the training split.
    pub train_loss: f64,
    /// Mean cross-entropy of the alpha steps, on the held-out split; absent while only weights are
    /// trained.
    pub validation_loss: Option<f64>,
    pub validation_accuracy: Option<f64>,
    /// Expected latency under softmax(alpha) at the epoch's end.
    pub expected_ns: Latency,
    pub target_ns: Latency,
    /// In what the latency table differs from the device's own, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
    /// Architecture weights at the epoch's end: a row a layer, a value a candidate.
    pub alpha: Vec<Vec<f64>>,
    pub candidates: Vec<CandidateOp>,
    pub seconds: f64,
}

/// An epoch of training: a line of `train.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainEpoch {
    /// From 1.
    pub epoch: usize,
    pub learning_rate: f64,
    pub train_loss: f64,
    /// Share of the training images, as augmented, that were classified right.
    pub train_accuracy: f64,
    /// Share of the test images. Nothing is chosen by it.
    pub test_accuracy: f64,
    pub seconds: f64,
}

/// A network measured on a device: a line of `bench.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    pub model: String,
    pub device: String,
    pub runtime: Runtime,
    pub runtime_version: String,
    /// ONNX Runtime's execution providers, the preferred one first; none for tract.
    #[serde(default)]
    pub providers: Vec<String>,
    pub threads: usize,
    pub precision: String,
    pub median_ns: Latency,
    /// What a prediction is of: the undisturbed device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fastest_ns: Option<Latency>,
    /// Most memory that a process took which did nothing but run this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    pub p5_ns: Latency,
    pub p95_ns: Latency,
    /// Number of timed samples.
    pub samples: usize,
    /// Rounds that throttling or other programs disturbed.
    #[serde(default)]
    pub disturbed_rounds: usize,
    /// What the latency table of this device and runtime says, for networks of the space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_ns: Option<Latency>,
    /// What the sum of isolated layers would say, where the table has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Latency>,
    /// In what the latency table differs from this measurement, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
    /// The prediction by layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted_layers: Vec<LayerLatency>,
    /// What the latency table found of how layers of its space act on each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interactions: Vec<String>,
}

impl BenchRow {
    /// What the network takes where nothing disturbs it; of a row of old, which has no fastest sample,
    /// the median.
    pub fn undisturbed(&self) -> Latency {
        self.fastest_ns.unwrap_or(self.median_ns)
    }
}

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

    pub fn search_checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint/search.safetensors")
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

    /// Where the found network lies: the run's folder itself.
    pub fn found(&self) -> ModelDir {
        ModelDir(self.0.clone())
    }

    /// Where the baseline lies.
    pub fn baseline(&self) -> ModelDir {
        ModelDir(self.0.join("baseline"))
    }

    /// The folders of the networks that were trained in this run.
    pub fn trained(&self) -> Vec<ModelDir> {
        [self.found(), self.baseline()].into_iter().filter(|m| m.weights().is_file()).collect()
    }
}

/// The folder of one network.
#[derive(Clone, Debug)]
pub struct ModelDir(pub PathBuf);

impl ModelDir {
    /// A [`Network`]
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

    /// [`TrainEpoch`] lines.
    pub fn train_log(&self) -> PathBuf {
        self.0.join("train.jsonl")
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint/train.safetensors")
    }

    pub fn onnx(&self) -> PathBuf {
        self.0.join("model.onnx")
    }
}
