use crate::space::SearchSpace;
use nas_exporters::{Precision, Shape};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};

/// Version of the file format.
pub const FORMAT: u32 = 3;

const UNKNOWN: &str = "unknown";

/// The first line of a table, which never changes: what all rows share. A table never mixes rows that differ in any of
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the file format.
    pub latency_table: u32,
    /// Name of the device file.
    pub device: String,
    pub cpu: String,
    pub arch: String,
    pub libc: String,
    /// What ran the models: a runtime of the probe, or the one that a published table names.
    pub runtime: String,
    pub runtime_version: String,
    /// Threads of the runtime. Absent from a published table that does not say.
    pub threads: Option<usize>,
    /// Precision of weights and activations.
    pub precision: Precision,
    /// ONNX Runtime's execution providers, the preferred one first. Empty for tract.
    pub providers: Vec<String>,
    /// Cores that the probe was pinned to. Empty if it could use all.
    pub pinned: Vec<usize>,
    /// The space whose networks were timed.
    pub space: SearchSpace,
    /// Shape of the images, CHW.
    pub input: Shape,
}

/// How a [`Difference`] names the cores that the probe was pinned to.
const CORES: &str = "pinned cores";

impl Header {
    /// Returns the first thing in which this header differs from `ours`.
    pub fn difference(&self, ours: &Header) -> Option<Difference> {
        self.differences(ours).into_iter().next()
    }

    /// Returns everything in which this header differs from `ours`.
    pub fn differences(&self, ours: &Header) -> Vec<Difference> {
        let facts = |header: &Header| {
            let list = |parts: Vec<String>| if parts.is_empty() { "none".into() } else { parts.join(",") };
            [
                ("device", header.device.clone()),
                ("CPU", header.cpu.clone()),
                ("architecture", header.arch.clone()),
                ("libc", header.libc.clone()),
                ("runtime", header.runtime.clone()),
                ("runtime version", header.runtime_version.clone()),
                ("threads", header.threads.map_or(UNKNOWN.into(), |threads| threads.to_string())),
                ("precision", header.precision.to_string()),
                ("execution providers", list(header.providers.clone())),
                ("space", header.space.name.clone()),
                ("images", header.input.to_string()),
                (CORES, list(header.pinned.iter().map(usize::to_string).collect())),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(ours)).filter(|(a, b)| a != b);
        let mut differences: Vec<Difference> =
            pairs.map(|((what, theirs), (_, ours))| Difference { what, theirs, ours }).collect();
        if self.space.name == ours.space.name && self.space != ours.space {
            let space = &self.space.name;
            let theirs = format!("another space of the name {space}");
            differences.push(Difference { what: "layers", theirs, ours: format!("those of {space} as it is now") });
        }
        differences
    }
}

/// Something in which two headers differ, displayed as `CPU A, not B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: &'static str,
    pub theirs: String,
    pub ours: String,
}

impl Difference {
    /// Returns whether the latencies are of other cores.
    pub fn is_of_cores(&self) -> bool {
        self.what == CORES
    }

    /// Returns whether the latencies are known to be of another runtime, number of threads, precision or space, which no
    /// flag allows. What a published table was measured with is not always known.
    pub fn is_of_settings(&self) -> bool {
        match self.what {
            "runtime" => self.theirs.parse::<Runtime>().is_ok(),
            "threads" => self.theirs != UNKNOWN,
            "precision" | "space" | "images" | "layers" => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, not {}", self.what, self.theirs, self.ours)
    }
}
