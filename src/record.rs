//! The lines of the files in a run's folder, and where the files are.

use crate::data::Normalisation;
use crate::latency::Latency;
use crate::search::{Constraint, Unit};
use crate::space::Layer;
use nas_exporters::Precision;
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// What the search keeps within limits, at the epoch's end.
    pub constraints: Vec<Expected>,
    /// In what the latency table differs from the device's own, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
    /// Architecture weights at the epoch's end: a row for each layer that has several choices, a value for each of
    /// them.
    pub alpha: Vec<Vec<f64>>,
    /// The names of these choices.
    pub choices: Vec<Vec<String>>,
    pub seconds: f64,
}

/// A constraint, and what the networks cost under softmax(alpha).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// As `latency on host with ort`.
    pub cost: String,
    pub unit: Unit,
    pub expected: f64,
    pub limit: f64,
}

impl Expected {
    /// `probabilities` are those of each layer's choices.
    pub fn of(constraint: &Constraint, probabilities: &[Vec<f64>]) -> Expected {
        let Constraint { cost, limit } = constraint;
        let expected = cost.polynomial.expected(probabilities);
        Expected { cost: cost.name.clone(), unit: cost.unit, expected, limit: *limit }
    }
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
    /// Share of the test images; nothing is chosen by it.
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
    pub providers: Vec<String>,
    pub threads: usize,
    pub precision: Precision,
    /// What latency tables and predictions mean by a latency: [`crate::table::Estimate`] of the rounds.
    pub latency_ns: Latency,
    /// Median of all samples.
    pub median_ns: Latency,
    pub p5_ns: Latency,
    pub p95_ns: Latency,
    /// Number of timed samples.
    pub samples: usize,
    /// Rounds that throttling or other programs disturbed.
    pub disturbed_rounds: usize,
    /// The peak memory of a process that only runs this model.
    pub peak_bytes: u64,
    /// What a latency table of this device and runtime predicts, for networks of its space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// What a latency table says of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub latency_ns: Latency,
    /// The sum of its isolated layers, where the table has all of them.
    pub isolated_ns: Option<Latency>,
    /// The layers that the output depends on.
    pub layers: Vec<LayerLatency>,
    /// How layers of the space change each other's latency.
    pub interactions: Vec<String>,
    /// How many times slower the device was than when the table was measured, as the table's anchor shows; absent where
    /// it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowness: Option<f64>,
    /// In what the table differs from this measurement, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
}

/// A layer's part in a network's latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLatency {
    pub layer: Layer,
    /// What it adds to the networks that hold it; absent for layers that all networks have, since that is part of
    /// the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adds_ns: Option<Latency>,
    /// What it takes as a model of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Latency>,
}

impl BenchRow {
    /// The error of the prediction, a share of the measured latency at the speed that the device had when the table was
    /// measured: slowness · predicted / measured − 1.
    pub fn error(&self) -> Option<f64> {
        let prediction = self.prediction.as_ref()?;
        Some(prediction.slowness.unwrap_or(1.0) * prediction.latency_ns.ns() / self.latency_ns.ns() - 1.0)
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

    /// Where the found network is stored: the run's folder itself.
    pub fn found(&self) -> ModelDir {
        ModelDir(self.0.clone())
    }

    /// Where the baseline is stored.
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
