//! What the files of a run hold, where they are, and which of them belong together.
//!
//! Each result names what it is of by digests: a training its network, its log and its weights ([`TrainedOn`]), an
//! exported model the weights ([`WEIGHTS`]), a benchmark the model, an evaluation the weights or the model, and a search
//! the genotype ([`SearchedOn`]). What does not match was made of something else, and is not used.

mod begun;
mod certificate;
mod evaluation;
mod folder;

pub use begun::Begun;
pub use certificate::{Certificate, Certified, Held, NearestBelow, Unconstrained};
pub use evaluation::{Confusion, Evaluation, Metrics, OfClass};
pub use folder::{EndedSearch, Exported, INTERFACE, Matched, ModelDir, RunDir, Trained, Unfinished, WEIGHTS};

use crate::artifact::Digest;
use crate::bounded::Share;
use crate::data::Normalisation;
use crate::latency::Latency;
use crate::search::{Constraint, Unit};
use crate::space::Layer;
use nas_exporters::Precision;
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a genotype was searched with: what `search.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedOn {
    /// The data set's name.
    pub data: String,
    pub data_digest: String,
    /// Of the latency tables, that of the first limit first.
    pub tables: Vec<Digest>,
    /// Of the genotype that was derived.
    pub genotype: Digest,
    /// Of `search.jsonl`.
    pub log: Digest,
    /// In what a latency table differs from the device's own, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// What a network was trained on, and how its input is to be prepared: what `data.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// The data set's name.
    pub data: String,
    pub data_digest: String,
    /// Of the network that was trained.
    pub network: Digest,
    /// Of `train.jsonl`.
    pub log: Digest,
    /// Of the file of the weights.
    pub weights: Digest,
    /// Names of the classes, by logit.
    pub classes: Vec<String>,
    /// Of the network's input: (pixel / 255 − mean) / std, by channel.
    pub normalisation: Normalisation,
    /// What its convolutions were trained in.
    #[serde(default)]
    pub arithmetic: Floats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// How an artifact was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Of edge-nas.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    pub seed: u64,
    /// The processor that trained: `cpu` or `cuda`.
    pub processor: String,
}

impl Made {
    /// By this process.
    pub fn here(seed: u64, processor: impl Into<String>) -> Made {
        let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Made { version: env!("CARGO_PKG_VERSION").into(), command, seed, processor: processor.into() }
    }
}

/// How an image becomes the input of a network, and what its logits mean; both as in [`TrainedOn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub classes: Vec<String>,
    pub normalisation: Normalisation,
}

impl TrainedOn {
    pub fn interface(&self) -> Interface {
        Interface { classes: self.classes.clone(), normalisation: self.normalisation.clone() }
    }
}

/// What convolutions are trained in, by kind. All else, their parameters and inference are in 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floats {
    /// Larger than 1×1.
    pub dense: Float,
    /// 1×1.
    pub pointwise: Float,
    /// In groups.
    pub depthwise: Float,
}

/// A kind of number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Float {
    #[default]
    Fp32,
    Bf16,
}

impl fmt::Display for Floats {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kinds = [("k×k", self.dense), ("1×1", self.pointwise), ("depthwise", self.depthwise)];
        let bf16: Vec<&str> = kinds.iter().filter(|(_, float)| *float == Float::Bf16).map(|(kind, _)| *kind).collect();
        match bf16.len() {
            0 => write!(f, "fp32"),
            3 => write!(f, "bf16"),
            _ => write!(f, "bf16 for {} convolutions, fp32 for others", bf16.join(" and ")),
        }
    }
}

/// An epoch of the search: a line of `search.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchEpoch {
    /// From 1.
    pub epoch: usize,
    pub learning_rate: f64,
    /// Mean cross-entropy of the weight steps, on the training split.
    pub train_loss: f64,
    /// Mean cross-entropy of the alpha steps, on the held-out split; absent while only weights are
    /// trained.
    pub validation_loss: Option<f64>,
    pub validation_accuracy: Option<Share>,
    /// What the search keeps within limits, at the epoch's end; empty where the supernet is trained without them.
    pub constraints: Vec<Expected>,
    /// By constraint, by what its excess is multiplied in the loss, where that changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multipliers: Vec<f64>,
    /// Architecture weights at the epoch's end: a row for each layer that has several choices, a value for each of
    /// them. Empty where there are none.
    pub alpha: Vec<Vec<f64>>,
    /// Of softmax(alpha), by the same layers, in nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entropies: Vec<f64>,
    /// The names of these choices.
    pub choices: Vec<Vec<String>>,
    pub seconds: f64,
}

/// What a search found out about one network: a line of `candidates.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// The names of the choices of the layers that have several.
    pub ops: Vec<String>,
    /// That it was trained from scratch; 0 where it has the weights of the supernet.
    pub epochs: usize,
    /// Cross-entropy on held-out images with the weights of the supernet; the mean over the epochs of that on training
    /// images, where it was trained from scratch.
    pub loss: f64,
    /// Share of held-out images that are classified right.
    pub accuracy: Option<Share>,
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
        let Constraint { cost, limit, .. } = constraint;
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
    pub train_accuracy: Share,
    /// Share of the test images; nothing is chosen by it. Where images are kept back, only the last epoch has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy: Option<Share>,
    /// Share of the training images that are kept back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_accuracy: Option<Share>,
    pub seconds: f64,
}

impl TrainEpoch {
    /// The accuracy that can be followed from epoch to epoch: on images that are kept back, or else on test images.
    pub fn shown(&self) -> Option<Share> {
        self.held_out_accuracy.or(self.test_accuracy)
    }
}

/// A network measured on a device: a line of `bench.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// For people; no two models of a benchmark have the same.
    pub model: String,
    /// Of the ONNX file.
    pub digest: Digest,
    /// Of the network, for one of the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Digest>,
    pub device: String,
    pub runtime: Runtime,
    pub runtime_version: String,
    /// ONNX Runtime's execution providers, the preferred one first; none for tract.
    pub providers: Vec<String>,
    pub threads: usize,
    pub precision: Precision,
    /// Images in an inference; latencies are those of the whole batch.
    pub images: usize,
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
    /// Of the latency table.
    pub table: Digest,
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
    /// The model's name, with the number of images where it takes several at once.
    pub fn title(&self) -> String {
        if self.images == 1 { self.model.clone() } else { format!("{} ({} images at once)", self.model, self.images) }
    }

    /// The error of the prediction, a share of the measured latency at the speed that the device had when the table was
    /// measured: slowness · predicted / measured − 1.
    pub fn error(&self) -> Option<f64> {
        let prediction = self.prediction.as_ref()?;
        Some(prediction.slowness.unwrap_or(1.0) * prediction.latency_ns.ns() / self.latency_ns.ns() - 1.0)
    }
}
