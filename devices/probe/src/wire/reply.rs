use super::{Conditions, Hello, TensorData};
use serde::{Deserialize, Serialize};

/// What the probe answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    Hello(Hello),
    Ready {
        id: u64,
        conditions: Conditions,
        /// The cores that the probe runs on now; empty where it is not pinned.
        pinned: Vec<usize>,
        /// The governor before this session set one; absent where none was asked for.
        governor_was: Option<String>,
        /// Files that [`super::Sensors`] name and the device does not have, a line each.
        notes: Vec<String>,
    },
    Known {
        id: u64,
        /// Bytes of ONNX files that the probe keeps loaded at a time: what exceeds them is made and loaded anew.
        room_bytes: u64,
    },
    Missing {
        id: u64,
        /// Digests of the models that are not there in full.
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
        /// The most that was resident, at any time, in a process that loaded the model and ran it 3 times, bytes; with
        /// the program, the runtime's code and all else that a process has.
        peak_bytes: u64,
    },
    /// The request could not be served; the probe serves the next one. `id` is 0 where the line was no request.
    Failed {
        id: u64,
        error: String,
    },
}

impl Reply {
    /// That of the request; none for a hello.
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
    pub batch: u64,
    /// Nanoseconds for one inference, a sample: the sample's time divided by `batch`.
    pub ns: Vec<f64>,
    /// Right before the first sample, the warm-up done.
    pub before: Conditions,
    /// Half way, between two samples.
    pub during: Conditions,
    /// Right after the last sample.
    pub after: Conditions,
    /// Cores that other processes kept busy while the model was warmed up and sampled, of those that the
    /// probe is pinned to, else of all; absent where the device does not report it, or where that took less
    /// than 50 ms.
    pub others: Option<f64>,
}
