use super::{Conditions, Hello, TensorData, bounds};
use serde::{Deserialize, Serialize};

/// A reply of the probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    Hello(Hello),
    Ready {
        id: u64,
        conditions: Conditions,
        /// The cores that the probe is pinned to. If empty, it is not pinned.
        pinned: Vec<usize>,
        /// The governor before the request set one; `None` if the request sets none.
        #[serde(default, deserialize_with = "bounds::some_text")]
        governor_was: Option<String>,
        /// Files that [`super::Sensors`] names and the device does not have, one line each.
        #[serde(deserialize_with = "bounds::texts")]
        notes: Vec<String>,
    },
    Known {
        id: u64,
        /// Total size of the ONNX files whose models the probe keeps loaded, in bytes. Beyond that, models
        /// are loaded again when they are needed.
        room_bytes: u64,
    },
    Missing {
        id: u64,
        /// Digests of the models that are not stored completely.
        #[serde(deserialize_with = "bounds::texts")]
        models: Vec<String>,
    },
    Stored {
        id: u64,
    },
    Samples {
        id: u64,
        #[serde(flatten)]
        samples: Samples,
    },
    Outputs {
        id: u64,
        outputs: Vec<TensorData>,
    },
    Memory {
        id: u64,
        /// Peak resident memory, in bytes, of a process that loaded the model and ran it three times. It
        /// includes the program and the code of the runtime.
        #[serde(deserialize_with = "bounds::positive")]
        peak_bytes: u64,
    },
    /// The request could not be served. The probe continues with the next one, or ends if it says so. `id` is 0 if the
    /// line has none.
    Failed {
        id: u64,
        #[serde(deserialize_with = "bounds::text")]
        error: String,
    },
}

impl Reply {
    /// Returns the id of the request, or `None` for a hello.
    pub fn id(&self) -> Option<u64> {
        match self {
            Reply::Hello(_) => None,
            Reply::Ready { id, .. }
            | Reply::Known { id, .. }
            | Reply::Missing { id, .. }
            | Reply::Stored { id }
            | Reply::Samples { id, .. }
            | Reply::Outputs { id, .. }
            | Reply::Memory { id, .. }
            | Reply::Failed { id, .. } => Some(*id),
        }
    }
}

/// Raw timings of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Inferences in each sample.
    #[serde(deserialize_with = "bounds::positive")]
    pub batch: u64,
    /// Nanoseconds of one inference, by sample: the duration of the sample divided by `batch`.
    #[serde(deserialize_with = "bounds::durations")]
    pub ns: Vec<f64>,
    /// Right before the first sample, after the warm-up.
    pub before: Conditions,
    /// Halfway, between two samples.
    pub during: Conditions,
    /// Right after the last sample.
    pub after: Conditions,
    /// How many cores other processes kept busy during warm-up and sampling, of those that the probe may use. `None` if
    /// the device does not report it, or if less than 50 ms elapsed.
    #[serde(default, deserialize_with = "bounds::load")]
    pub others: Option<f64>,
}
