//! The protocol between host and probe: JSON lines on the probe's stdin ([`Request`]) and stdout
//! ([`Reply`]). Logs go to stderr. The first line that a probe writes is [`Reply::Hello`].
//!
//! Requests identify a model by the SHA-256 of its ONNX bytes. Untrained networks are sent as graphs
//! ([`Request::Graphs`]), from which the probe makes the same bytes. Other models are sent once, as files
//! that the probe stores: the host asks which are missing ([`Request::Have`]) and sends those
//! ([`Request::Put`]).
//!
//! The library has only these types. The default features are the runtimes, which only the program needs.

mod wire;

pub use wire::{
    Conditions, DeployedGraph, Hello, Line, MOST_REPLY_BYTES, MOST_REQUEST_BYTES, MeasurePlan, ModelRef, Rail, Reply,
    Request, Runtime, RuntimeInfo, Samples, Sensors, TensorData, Throttle, ThrottleKind, printable, read_line, sha256,
};

/// Version of the protocol, raised whenever the meaning of a line changes. Both sides refuse other versions.
pub const PROTOCOL: u32 = 5;
