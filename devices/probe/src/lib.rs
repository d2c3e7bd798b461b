//! The wire between host and probe: JSON lines on the probe's stdin ([`Request`]) and stdout
//! ([`Reply`]). Logs go to stderr. The first line that a probe writes is [`Reply::Hello`].
//!
//! Models travel once: a request names a model by the SHA-256 of its bytes, and the probe keeps each
//! in a folder of the device. The host asks which are missing ([`Request::Have`]) and puts those.
//!
//! With default features off this crate is these types alone, and what host and probe judge alike
//! ([`settled`]).

mod interval;
mod wire;

pub use interval::{FEWEST_SETTLED, median_interval, settled};
pub use wire::{
    Conditions, Hello, MeasurePlan, Memory, ModelRef, Rail, Reply, Request, Runtime, RuntimeInfo, Samples,
    Sensors, TensorData, Throttle, ThrottleKind, sha256,
};

/// Raised whenever a line changes its meaning; host and probe refuse each other on a difference.
pub const PROTOCOL: u32 = 3;
