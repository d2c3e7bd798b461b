//! What the files of a run contain, where they are, and which of them belong together.
//!
//! Each result identifies by digests what it was made from: a training identifies its network, its log and its weights
//! ([`TrainedOn`]), an exported model the weights ([`WEIGHTS`]), a benchmark the model, an evaluation the weights or
//! the model, and a search the genotype ([`SearchedOn`]). A result whose digests do not match was made from something
//! else and is not used.

mod begun;
mod certificate;
mod evaluation;
mod folder;

pub use begun::{Begun, BegunFiles};
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

/// What a genotype was searched with: the content of `search.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedOn {
    /// The data set's name.
    pub data: String,
    pub data_digest: Digest,
    /// Digests of the latency tables, that of the first limit first.
    pub tables: Vec<Digest>,
    /// Digest of the derived genotype.
    pub genotype: Digest,
    /// Digest of `search.jsonl`.
    pub log: Digest,
    /// How a latency table differs from the device's own, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// What a network was trained on, and how its input is to be prepared: the content of `data.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// The data set's name.
    pub data: String,
    pub data_digest: Digest,
    /// Digest of the trained network.
    pub network: Digest,
    /// Digest of `train.jsonl`.
    pub log: Digest,
    /// Digest of the file with the weights.
    pub weights: Digest,
    /// Names of the classes, by logit.
    pub classes: Vec<String>,
    /// Normalisation of the network's input: (pixel / 255 − mean) / std, by channel.
    pub normalisation: Normalisation,
    /// The number formats in which the convolutions were trained.
    #[serde(default)]
    pub arithmetic: Floats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// How an artifact was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Version of edge-nas.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    pub seed: u64,
    /// The processor that trained: `cpu` or `cuda`.
    pub processor: String,
}

impl Made {
    /// Returns how this process makes an artifact.
    pub fn here(seed: u64, processor: impl Into<String>) -> Made {
        let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Made { version: env!("CARGO_PKG_VERSION").into(), command, seed, processor: processor.into() }
    }
}

/// How an image becomes the input of a network, and what its logits mean. Both are the same as in [`TrainedOn`].
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

/// The number formats in which convolutions are trained, by kind. Everything else, including their parameters and
/// inference, uses 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floats {
    /// Kernels larger than 1×1.
    pub dense: Float,
    /// Kernels of 1×1.
    pub pointwise: Float,
    /// Grouped convolutions.
    pub depthwise: Float,
}

/// A number format.
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
    /// Counted from 1.
    pub epoch: usize,
    pub learning_rate: f64,
    /// Mean cross-entropy of the weight steps, on the training split.
    pub train_loss: f64,
    /// Mean cross-entropy of the alpha steps, on the held-out split. Absent while only weights are trained.
    pub held_out_loss: Option<f64>,
    pub held_out_accuracy: Option<Share>,
    /// What the search keeps within limits, at the end of the epoch. Empty if the supernet is trained without limits.
    pub constraints: Vec<Expected>,
    /// By constraint, the factor of its excess in the loss, if that factor changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multipliers: Vec<f64>,
    /// Architecture weights at the end of the epoch, with a row for each layer that has several choices and a value for
    /// each of them. Empty if there are none.
    pub alpha: Vec<Vec<f64>>,
    /// Entropies of softmax(alpha), by the same layers, in nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entropies: Vec<f64>,
    /// The names of these choices, by layer.
    pub choices: Vec<Vec<String>>,
    /// The names of these layers, such as `stem` or `layer1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    pub seconds: f64,
}

impl SearchEpoch {
    /// Returns the name of a layer that has several choices.
    pub fn layer(&self, number: usize) -> String {
        self.layers.get(number).cloned().unwrap_or_else(|| format!("layer {}", number + 1))
    }
}

/// What a search found out about one network: a line of `candidates.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// The names of the choices of the layers that have several.
    pub ops: Vec<String>,
    /// Epochs for which it was trained from scratch. 0 if it uses the weights of the supernet.
    pub epochs: usize,
    /// With the weights of the supernet, the cross-entropy on held-out images. If trained from scratch, the
    /// cross-entropy on training images in the last epoch. `None` if the training diverged.
    pub loss: Option<f64>,
    /// Share of the held-out images that are classified correctly.
    pub accuracy: Option<Share>,
    pub seconds: f64,
}

impl CandidateRow {
    /// Returns minus the loss, or minus infinity if the training diverged.
    pub fn score(&self) -> f64 {
        self.loss.map_or(f64::NEG_INFINITY, |loss| -loss)
    }
}

/// A constraint, and the expected cost under softmax(alpha).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// For example `latency on host with ort`.
    pub cost: String,
    pub unit: Unit,
    pub expected: f64,
    pub limit: f64,
}

impl Expected {
    /// Computes the expected cost from the probabilities of each layer's choices.
    pub fn of(constraint: &Constraint, probabilities: &[Vec<f64>]) -> Expected {
        let Constraint { cost, limit, .. } = constraint;
        let expected = cost.polynomial.expected(probabilities);
        Expected { cost: cost.name.clone(), unit: cost.unit, expected, limit: *limit }
    }
}

/// An epoch of training: a line of `train.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainEpoch {
    /// Counted from 1.
    pub epoch: usize,
    pub learning_rate: f64,
    pub train_loss: f64,
    /// Share of the augmented training images that were classified correctly.
    pub train_accuracy: Share,
    /// Accuracy on the test images, by which nothing is chosen. If images are held out, only the last epoch has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy: Option<Share>,
    /// Accuracy on the training images that are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_accuracy: Option<Share>,
    pub seconds: f64,
}

/// A network measured on a device: a line of `bench.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// A human-readable name, unique among the models of a benchmark.
    pub model: String,
    /// Digest of the ONNX file.
    pub digest: Digest,
    /// Digest of the network, if it is one of the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Digest>,
    pub device: String,
    pub runtime: Runtime,
    pub runtime_version: String,
    /// ONNX Runtime's execution providers, the preferred one first. Empty for tract.
    pub providers: Vec<String>,
    pub threads: usize,
    pub precision: Precision,
    /// Images per inference. Latencies are those of the whole batch.
    pub images: usize,
    /// The latency in the sense of latency tables and predictions: the [`crate::table::Estimate`] of the rounds.
    pub latency_ns: Latency,
    /// Median of all samples.
    pub median_ns: Latency,
    pub p5_ns: Latency,
    pub p95_ns: Latency,
    /// Number of timed samples.
    pub samples: usize,
    /// The number of rounds that throttling or other programs disturbed.
    pub disturbed_rounds: usize,
    /// The peak memory of a process that runs only this model.
    pub peak_bytes: u64,
    /// What a latency table of this device and runtime predicts, if the network belongs to its space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// What a latency table says about one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub latency_ns: Latency,
    /// Digest of the latency table.
    pub table: Digest,
    /// The sum of the isolated layers, if the table has all of them.
    pub isolated_ns: Option<Latency>,
    /// The layers that the output depends on.
    pub layers: Vec<LayerLatency>,
    /// Names of the interactions between layers of the space.
    pub interactions: Vec<String>,
    /// How many times slower the device was than when the table was measured, as seen by the table's anchor. Absent if
    /// this was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowness: Option<f64>,
    /// How the table differs from this measurement, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<String>,
}

/// The share of a layer in a network's latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLatency {
    pub layer: Layer,
    /// What it adds to the networks that contain it. Absent for layers that all networks contain, since those are part
    /// of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adds_ns: Option<Latency>,
    /// Its latency as a model of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Latency>,
}

impl BenchRow {
    /// Returns the model's name, with the number of images if it takes several at once.
    pub fn title(&self) -> String {
        if self.images == 1 { self.model.clone() } else { format!("{} ({} images at once)", self.model, self.images) }
    }

    /// Returns by which share the device was slower than when the table of the prediction was measured.
    pub fn slower_by(&self) -> Option<f64> {
        Some(self.prediction.as_ref()?.slowness? - 1.0)
    }

    /// Returns the error of the prediction as a share of the measured latency, at the speed that the device had when
    /// the table was measured: slowness · predicted / measured − 1.
    pub fn error(&self) -> Option<f64> {
        let prediction = self.prediction.as_ref()?;
        Some(prediction.slowness.unwrap_or(1.0) * prediction.latency_ns.ns() / self.latency_ns.ns() - 1.0)
    }
}
