use super::{Runtime, Sensors, base64};
use nas_exporters::{Graph, Precision};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the host asks. Every request carries an `id` that its reply repeats; each may be answered by
/// [`super::Reply::Failed`] instead of the reply that is named here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Names the files with the device's state, and how the device is set while measuring; answered by
    /// [`super::Reply::Ready`]. A second one replaces the first; one that fails leaves the probe unpinned and the
    /// governor as it was found.
    Setup {
        id: u64,
        sensors: Sensors,
        /// Cores that the probe shall run on; empty for all that it may use.
        pin: Vec<usize>,
        /// Written to every file of `sensors.governor`. The old one is restored when the probe ends, however it ends.
        governor: Option<String>,
    },
    /// Hands over untrained networks as graphs, for as long as the probe runs; answered by [`super::Reply::Known`].
    /// The probe makes the ONNX file of one when it is needed, and deletes it again.
    Graphs { id: u64, graphs: Vec<DeployedGraph> },
    /// Asks which of these models (digests) the device does not have as files; answered by [`super::Reply::Missing`].
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
    /// Loads a model into a process of its own to measure its peak memory; answered by [`super::Reply::Memory`].
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
    /// SHA-256 of its ONNX file ([`nas_exporters::onnx::untrained`]), 64 lowercase hex digits.
    pub model: String,
    pub graph: Graph,
    pub precision: Precision,
}

/// A model as one runtime shall run it. A probe keeps the models that it has loaded, so that a
/// second request for the same one costs no load.
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
pub struct MeasurePlan {
    /// Run untimed for at least so long first, nanoseconds, until the model is warm: in blocks of half
    /// of this, until the median run of a block is no longer more than 1 % faster than that of the
    /// block before, for at most [`MeasurePlan::MOST_BLOCKS`]; and at least 3 runs.
    pub warmup_ns: u64,
    /// A timed sample lasts at least so long: an op shorter than this is run several times a
    /// sample, so that the clock's resolution does not show. Nanoseconds.
    pub min_sample_ns: u64,
    /// How many samples to take at most.
    pub samples: usize,
    /// Stop sampling after so long, with at least 5 samples taken. Nanoseconds.
    pub limit_ns: u64,
}

impl MeasurePlan {
    /// Of warm-up, `warmup_ns / 2` each.
    pub const MOST_BLOCKS: u32 = 8;

    /// The time after which no further run begins, apart from the fewest runs that are needed.
    pub fn longest(&self) -> Duration {
        let blocks = Duration::from_nanos(self.warmup_ns / 2).saturating_mul(Self::MOST_BLOCKS);
        blocks.saturating_add(Duration::from_nanos(self.limit_ns))
    }
}

/// A dense f32 tensor, row-major, its values as base64 of little-endian bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorData {
    /// With the batch dimension: NCHW for an image, NC for logits.
    pub shape: Vec<usize>,
    #[serde(with = "base64::f32s")]
    pub values: Vec<f32>,
}
