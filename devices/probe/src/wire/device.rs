use serde::{Deserialize, Serialize};

/// An inference runtime that the probe can measure with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// tract (crate tract-onnx), compiled into the probe.
    Tract,
    /// ONNX Runtime (crate ort), loaded from a shared library when the probe starts.
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
            .ok_or_else(|| format!("unknown runtime `{s}`; the runtimes are tract and ort"))
    }
}

/// Describes the probe and the device that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The probe's own version.
    pub probe: String,
    /// Runtimes that the probe can use on this device.
    pub runtimes: Vec<RuntimeInfo>,
    /// Why each runtime that is not in `runtimes`, and each requested execution provider that is not used, is
    /// unavailable; one line each.
    pub unavailable: Vec<String>,
    /// CPU architecture, as Rust names it: x86_64, aarch64.
    pub arch: String,
    pub os: String,
    /// `glibc 2.36` or `musl`.
    pub libc: String,
    /// Model name of the CPU in /proc/cpuinfo; on arm64, where that has none, the implementer and part number
    /// of each kind of core (`0x41/0xd08`).
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// As the standard files of Linux report them.
    pub conditions: Conditions,
}

impl Hello {
    /// The version of a runtime; `None` if the probe cannot use it on this device.
    pub fn version(&self, runtime: Runtime) -> Option<&str> {
        self.runtimes.iter().find(|r| r.runtime == runtime).map(|r| r.version.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    pub runtime: Runtime,
    pub version: String,
    /// The execution providers that ONNX Runtime uses, in the order in which they can claim nodes of a model;
    /// `cpu` if none were requested. Empty for tract.
    #[serde(default)]
    pub providers: Vec<String>,
}

/// The state of the device at one moment. A field is `None` if the device does not report it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Scaling governor; different ones are joined by commas.
    pub governor: Option<String>,
    /// Lowest of the clocks that are read, in kHz.
    pub khz: Option<u64>,
    /// Highest of the temperatures that are read, in thousandths of a degree Celsius.
    pub millicelsius: Option<i64>,
    /// Load average of the last minute.
    pub load1: Option<f64>,
    /// Memory that can still be used without swapping, in bytes.
    pub free_bytes: Option<u64>,
    /// Whether the device lowers its clock at this moment, because of heat or its power supply; for a device
    /// that only counts such events, whether one was counted since the last reading.
    pub throttled: Option<bool>,
    /// Sum of the power rails, in milliwatts.
    pub power_mw: Option<f64>,
}
