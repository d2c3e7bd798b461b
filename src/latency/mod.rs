//! Latencies, the tables that keep them, and what they predict.

mod disturbance;
pub mod fit;
mod fleet;
mod model;
mod profile;
mod statistics;
mod table;
mod target;
mod unit;

pub use disturbance::Disturbance;
pub use model::LatencyModel;
pub use profile::{ProfileError, Profiled, profile};
pub use statistics::Summary;
pub use table::{Difference, Header, LatencyTable, Method, Row, TableError, micro_model, model_digest};
pub use target::Target;
pub use unit::Latency;
