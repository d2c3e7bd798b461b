use super::{Runtime, Sensors, base64};
use nas_exporters::{Graph, Precision};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::time::Duration;

/// A request of the host. Every request has an `id`, which its reply repeats. Any request may be answered by
/// [`super::Reply::Failed`] instead of the reply that is named here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Names the files that report the state of the device, and sets the device up for measuring; answered by
    /// [`super::Reply::Ready`]. A later setup replaces an earlier one. If a setup fails, the probe is not
    /// pinned, and the governor is as it was before the first setup.
    Setup {
        id: u64,
        sensors: Sensors,
        /// Cores to pin the probe to; empty for all that it may use.
        pin: Vec<usize>,
        /// Scaling governor that is written to every file of `sensors.governor`; `None` leaves it unchanged.
        /// The previous one is restored when the probe ends, or, if the probe is killed, by the next probe.
        governor: Option<String>,
        /// How long each part of a later request may take, beyond the time that was planned for it, in nanoseconds:
        /// loading a model, its first inference, and the rest.
        timeout_ns: u64,
        /// Whether no other probe with the same folder of models may be set up like this at the same time.
        alone: bool,
    },
    /// Passes untrained networks as graphs, which the probe keeps until it ends; answered by
    /// [`super::Reply::Known`]. The ONNX file of a graph exists only while a request needs it.
    Graphs { id: u64, graphs: Vec<DeployedGraph> },
    /// Asks which of these models (digests) the device does not have as files; answered by
    /// [`super::Reply::Missing`].
    Have { id: u64, models: Vec<String> },
    /// Stores a model on the device as a file; answered by [`super::Reply::Stored`].
    Put {
        id: u64,
        /// SHA-256 of the bytes, 64 lowercase hex digits.
        model: String,
        /// The ONNX file, as base64.
        #[serde(with = "base64::bytes")]
        bytes: Vec<u8>,
    },
    /// Times a model; answered by [`super::Reply::Samples`].
    Measure { id: u64, model: ModelRef, plan: MeasurePlan },
    /// Runs inputs through a model; answered by [`super::Reply::Outputs`].
    Infer { id: u64, model: ModelRef, inputs: Vec<TensorData> },
    /// Loads a model in a new process to measure its peak memory; answered by [`super::Reply::Memory`].
    Memory { id: u64, model: ModelRef },
}

impl Request {
    pub fn id(&self) -> u64 {
        match self {
            Request::Setup { id, .. }
            | Request::Graphs { id, .. }
            | Request::Have { id, .. }
            | Request::Put { id, .. }
            | Request::Measure { id, .. }
            | Request::Infer { id, .. }
            | Request::Memory { id, .. } => *id,
        }
    }
}

/// An untrained network as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployedGraph {
    /// SHA-256 of the network's ONNX file ([`nas_exporters::onnx::untrained`]), 64 lowercase hex digits.
    pub model: String,
    pub graph: Graph,
    pub precision: Precision,
}

/// A model and how to run it. The probe keeps loaded models, so a second request for the same model does not load it
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// SHA-256 of the ONNX file, 64 lowercase hex digits.
    pub model: String,
    pub runtime: Runtime,
    /// Intra-op threads.
    pub threads: usize,
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurePlan {
    /// Minimum duration of the warm-up, in nanoseconds. The model is run untimed in blocks of half of this,
    /// until the median run of a block is not more than 1 % faster than that of the block before; at most
    /// [`MeasurePlan::MOST_BLOCKS`] blocks, and at least 3 runs.
    pub warmup_ns: u64,
    /// Minimum duration of a sample, in nanoseconds. A shorter model is run several times per sample, so that
    /// the resolution of the clock does not matter.
    pub min_sample_ns: u64,
    /// Maximum number of samples, at most [`MeasurePlan::MOST_SAMPLES`].
    #[serde(deserialize_with = "most_samples")]
    pub samples: usize,
    /// Duration after which sampling stops, but not before 5 samples, in nanoseconds.
    pub limit_ns: u64,
}

impl MeasurePlan {
    /// Maximum number of warm-up blocks, which take `warmup_ns / 2` each.
    pub const MOST_BLOCKS: u32 = 8;
    /// Maximum number of samples of a plan.
    pub const MOST_SAMPLES: usize = 1 << 20;

    /// The time after which no further run starts, apart from the minimum number of runs.
    pub fn longest(&self) -> Duration {
        let blocks = Duration::from_nanos(self.warmup_ns / 2).saturating_mul(Self::MOST_BLOCKS);
        blocks.saturating_add(Duration::from_nanos(self.limit_ns))
    }
}

fn most_samples<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    match usize::deserialize(d)? {
        samples @ 0..=MeasurePlan::MOST_SAMPLES => Ok(samples),
        samples => Err(D::Error::custom(format_args!(
            "{samples} samples are too many; ask for {} at most",
            MeasurePlan::MOST_SAMPLES
        ))),
    }
}

/// A dense f32 tensor, row-major. In JSON its values are little-endian bytes in base64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorData {
    /// With the batch dimension: NCHW for an image, NC for logits.
    pub shape: Vec<usize>,
    #[serde(with = "base64::f32s")]
    pub values: Vec<f32>,
}
