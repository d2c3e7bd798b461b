//! The wire between host and probe: JSON lines on the probe's stdin ([`Request`]) and stdout
//! ([`Reply`]). Logs go to stderr. The first line that a probe writes is [`Reply::Hello`].
//!
//! Models do not travel on the wire: the host lays the ONNX file in a folder of the device,
//! under the name of its content, and a request names that file.
//!
//! With default features off this crate is these types alone.

use serde::{Deserialize, Serialize};

/// Raised whenever a line changes its meaning; host and probe refuse each other on a difference.
pub const PROTOCOL: u32 = 1;

/// An inference runtime that the probe can measure with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// tract (crate tract-onnx), compiled into the probe.
    Tract,
    /// ONNX Runtime (crate ort), loaded from a shared library at the probe's start.
    Ort,
}

impl Runtime {
    pub const ALL: [Runtime; 2] = [Runtime::Tract, Runtime::Ort];

    /// The name used in files, flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Tract => "tract",
            Runtime::Ort => "ort",
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Runtime {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Runtime::ALL
            .into_iter()
            .find(|r| r.name() == s)
            .ok_or_else(|| format!("unknown runtime `{s}`; there are tract and ort"))
    }
}

/// What the host asks. Every request carries an `id` that its reply repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Time a model: answered by [`Reply::Samples`] or [`Reply::Failed`].
    Measure { id: u64, model: ModelRef, plan: MeasurePlan },
    /// Run inputs through a model: answered by [`Reply::Outputs`] or [`Reply::Failed`].
    Infer { id: u64, model: ModelRef, inputs: Vec<TensorData> },
}

/// A model as one runtime is to run it. A probe keeps the models that it has loaded, so that a
/// second request for the same one costs no load.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// Path of the ONNX file on the device.
    pub path: String,
    pub runtime: Runtime,
    /// Intra-op threads.
    pub threads: usize,
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasurePlan {
    /// Run untimed for at least so long first, nanoseconds.
    pub warmup_ns: u64,
    /// A timed sample lasts at least so long: an op shorter than this is run several times a
    /// sample, so that the clock's resolution does not show. Nanoseconds.
    pub min_sample_ns: u64,
    /// Number of samples to take.
    pub samples: usize,
    /// Stop sampling after so long, with at least 5 samples taken. Nanoseconds.
    pub limit_ns: u64,
}

/// A dense f32 tensor, row-major, its values as base64 of little-endian bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorData {
    /// With the batch dimension: NCHW for an image, NC for logits.
    pub shape: Vec<usize>,
    #[serde(with = "base64_f32")]
    pub values: Vec<f32>,
}

/// What the probe answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    Hello(Hello),
    Samples {
        id: u64,
        /// Inferences in each sample.
        batch: u64,
        /// Nanoseconds for one inference, a sample: the sample's time divided by `batch`.
        ns: Vec<f64>,
        /// Right before the first sample, the warm-up done.
        before: Conditions,
        after: Conditions,
    },
    Outputs {
        id: u64,
        outputs: Vec<TensorData>,
    },
    /// The request could not be served; the probe goes on.
    Failed {
        id: u64,
        error: String,
    },
}

/// What the probe says of itself and of the device that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The probe's own version.
    pub probe: String,
    /// Runtimes that this probe can run here, with their versions.
    pub runtimes: Vec<RuntimeInfo>,
    /// Why each runtime that is not in `runtimes` is not there, a line each.
    pub unavailable: Vec<String>,
    /// CPU architecture, as Rust names it: x86_64, aarch64.
    pub arch: String,
    pub os: String,
    /// `glibc 2.36` or `musl`.
    pub libc: String,
    /// Model name of the CPU as /proc/cpuinfo has it; on arm64, which has none there, the
    /// implementer and part number of each kind of core (`0x41/0xd08`).
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    pub conditions: Conditions,
}

impl Hello {
    /// The version of a runtime; none where this probe cannot run it here.
    pub fn version(&self, runtime: Runtime) -> Option<&str> {
        self.runtimes.iter().find(|r| r.runtime == runtime).map(|r| r.version.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    pub runtime: Runtime,
    pub version: String,
}

/// The state of the device at one moment; absent where the device does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Scaling governor of CPU 0.
    pub governor: Option<String>,
    /// Current clock of CPU 0, kHz.
    pub khz: Option<u64>,
    /// The hottest thermal zone, thousandths of a degree Celsius.
    pub millicelsius: Option<i64>,
    /// Load average of the last minute.
    pub load1: Option<f64>,
}

mod base64_f32 {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(values: &[f32], s: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        s.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
        let bytes = BASE64_STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)?;
        let (words, []) = bytes.as_chunks::<4>() else {
            return Err(D::Error::custom("the bytes of a tensor are not a multiple of four"));
        };
        Ok(words.iter().map(|w| f32::from_le_bytes(*w)).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    /// A golden file holds exactly the lines of these messages, and reads back as them.
    fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, messages: &[T]) {
        let written: String = messages.iter().map(|m| serde_json::to_string(m).unwrap() + "\n").collect();
        assert_eq!(written, file, "the wire changed: raise PROTOCOL and write the golden file anew");
        let read: Vec<T> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, messages);
    }

    fn tensor() -> TensorData {
        TensorData { shape: vec![1, 2, 1, 1], values: vec![1.0, -0.5] }
    }

    #[test]
    fn requests_keep_their_form() {
        let model = |runtime| ModelRef { path: "models/a.onnx".to_owned(), runtime, threads: 1 };
        let plan = MeasurePlan { warmup_ns: 100, min_sample_ns: 200, samples: 50, limit_ns: 300 };
        golden(
            include_str!("../tests/golden/requests.jsonl"),
            &[
                Request::Measure { id: 1, model: model(Runtime::Tract), plan },
                Request::Infer { id: 2, model: model(Runtime::Ort), inputs: vec![tensor()] },
            ],
        );
    }

    #[test]
    fn replies_keep_their_form() {
        let conditions = Conditions {
            governor: Some("performance".to_owned()),
            khz: Some(1_500_000),
            millicelsius: Some(-1_000),
            load1: Some(0.25),
        };
        let hello = Hello {
            protocol: 1,
            probe: "0.1.0".to_owned(),
            runtimes: vec![RuntimeInfo { runtime: Runtime::Tract, version: "0.23.9".to_owned() }],
            unavailable: vec!["ort: no library was named".to_owned()],
            arch: "aarch64".to_owned(),
            os: "linux".to_owned(),
            libc: "glibc 2.27".to_owned(),
            cpu: "0x41/0xd08".to_owned(),
            cores: 4,
            conditions: conditions.clone(),
        };
        golden(
            include_str!("../tests/golden/replies.jsonl"),
            &[
                Reply::Hello(hello),
                Reply::Samples {
                    id: 1,
                    batch: 4,
                    ns: vec![1200.25, 1199.0],
                    before: conditions,
                    after: Conditions::default(),
                },
                Reply::Outputs { id: 2, outputs: vec![tensor()] },
                Reply::Failed { id: 0, error: "not a request".to_owned() },
            ],
        );
    }

    #[test]
    fn floats_cross_the_wire_bit_by_bit() {
        let values = vec![0.1, f32::MIN_POSITIVE, f32::NEG_INFINITY, f32::NAN];
        let sent = TensorData { shape: vec![4], values };
        let got: TensorData = serde_json::from_str(&serde_json::to_string(&sent).unwrap()).unwrap();
        let bits = |t: &TensorData| t.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&sent));
        assert!(serde_json::from_str::<TensorData>(r#"{"shape":[1],"values":"AAA="}"#).is_err());
    }

    #[test]
    fn a_request_with_a_field_that_nobody_knows_is_refused() {
        let line = include_str!("../tests/golden/requests.jsonl").lines().next().unwrap();
        assert!(serde_json::from_str::<Request>(&line.replacen('{', r#"{"repeat":3,"#, 1)).is_err());
    }
}
