use serde::{Deserialize, Serialize};

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

/// What the probe says of itself and of the device that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The probe's own version.
    pub probe: String,
    /// Runtimes that this probe can run here, with their versions.
    pub runtimes: Vec<RuntimeInfo>,
    /// Why each runtime that is not in `runtimes` is not there, and each execution provider that was
    /// asked for is not used, a line each.
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
    /// As the generic places of Linux tell them.
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
    /// ONNX Runtime's execution providers that are used, in the order in which they are offered a
    /// model's nodes; `cpu` where none were asked for. Empty for tract.
    #[serde(default)]
    pub providers: Vec<String>,
}

/// The state of the device at one moment; absent where the device does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Scaling governor; several, if the cores differ, are joined by commas.
    pub governor: Option<String>,
    /// Current clock, kHz: the lowest of the clocks that are watched.
    pub khz: Option<u64>,
    /// The hottest of the temperatures that are watched, thousandths of a degree Celsius.
    pub millicelsius: Option<i64>,
    /// Load average of the last minute.
    pub load1: Option<f64>,
    /// Memory that a process could still take without swapping, bytes.
    pub free_bytes: Option<u64>,
    /// Whether the device holds its clock down at this moment, for its heat or its power supply; of a
    /// device that only counts such events, whether it counted one since the last reading.
    pub throttled: Option<bool>,
    /// Power drawn by all rails that are watched together, milliwatts.
    pub power_mw: Option<f64>,
}
