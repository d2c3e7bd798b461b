use super::bounds;
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

    /// Returns the name that is used in files, flags and reports.
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
    #[serde(deserialize_with = "bounds::text")]
    pub probe: String,
    /// Runtimes that the probe can use on this device.
    pub runtimes: Vec<RuntimeInfo>,
    /// Why each runtime that is not in `runtimes`, and each requested execution provider that is not used, is
    /// unavailable; one line each.
    #[serde(deserialize_with = "bounds::texts")]
    pub unavailable: Vec<String>,
    /// CPU architecture, as Rust names it: x86_64, aarch64.
    #[serde(deserialize_with = "bounds::text")]
    pub arch: String,
    #[serde(deserialize_with = "bounds::text")]
    pub os: String,
    /// `glibc 2.36` or `musl`.
    #[serde(deserialize_with = "bounds::text")]
    pub libc: String,
    /// Model name of the CPU in /proc/cpuinfo; on arm64, where that has none, the implementer and part number
    /// of each kind of core (`0x41/0xd08`).
    #[serde(deserialize_with = "bounds::text")]
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Conditions, as the standard files of Linux report them.
    pub conditions: Conditions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    pub runtime: Runtime,
    #[serde(deserialize_with = "bounds::text")]
    pub version: String,
    /// The execution providers that ONNX Runtime uses, in the order in which they can claim nodes of a model;
    /// `cpu` if none were requested. Empty for tract.
    #[serde(default, deserialize_with = "bounds::texts")]
    pub providers: Vec<String>,
}

/// The state of the device at one moment. A field is `None` if the device does not report it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Scaling governor; different ones are joined by commas.
    #[serde(default, deserialize_with = "bounds::some_text")]
    pub governor: Option<String>,
    /// Lowest of the clocks that are read, or the highest if they are those of all cores, in kHz.
    #[serde(default, deserialize_with = "bounds::khz")]
    pub khz: Option<u64>,
    /// Highest of the temperatures that are read, in thousandths of a degree Celsius.
    #[serde(default, deserialize_with = "bounds::millicelsius")]
    pub millicelsius: Option<i64>,
    /// Load average of the last minute.
    #[serde(default, deserialize_with = "bounds::load")]
    pub load1: Option<f64>,
    /// Memory that can still be used without swapping, in bytes.
    pub free_bytes: Option<u64>,
    /// Whether the device lowers its clock at this moment, because of heat or its power supply; for a device
    /// that only counts such events, whether one was counted since the last reading.
    pub throttled: Option<bool>,
    /// Sum of the power rails, in milliwatts.
    #[serde(default, deserialize_with = "bounds::milliwatts")]
    pub power_mw: Option<f64>,
}

impl Conditions {
    /// Removes values that are out of their bounds, as a broken sensor reports them.
    pub fn plausible(self) -> Conditions {
        Conditions {
            khz: self.khz.filter(bounds::is_khz),
            millicelsius: self.millicelsius.filter(bounds::is_millicelsius),
            load1: self.load1.filter(bounds::is_load),
            power_mw: self.power_mw.filter(bounds::is_milliwatts),
            ..self
        }
    }
}
