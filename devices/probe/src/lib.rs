//! The wire between host and probe: JSON lines on the probe's stdin ([`Request`]) and stdout
//! ([`Reply`]). Logs go to stderr. The first line that a probe writes is [`Reply::Hello`].
//!
//! Requests name a model by the SHA-256 of its ONNX bytes. Untrained networks travel as graphs
//! ([`Request::Graphs`]), from which the probe makes the same bytes. Other models travel once, as files that the probe
//! stores: the host asks which are missing ([`Request::Have`]) and sends those ([`Request::Put`]).
//!
//! With default features off this crate is these types alone.

mod wire;

pub use wire::{
    Conditions, DeployedGraph, Hello, MeasurePlan, ModelRef, Rail, Reply, Request, Runtime, RuntimeInfo,
    Samples, Sensors, TensorData, Throttle, ThrottleKind, sha256,
};

/// Raised whenever a line changes its meaning; host and probe refuse each other on a difference.
pub const PROTOCOL: u32 = 4;
