//! Latencies, the tables that keep them, and what they predict.

mod model;
mod statistics;
mod table;
mod unit;

pub use model::LatencyModel;
pub use statistics::Summary;
pub use table::{Header, LatencyTable, Method, Row, TableError, micro_model, model_digest};
pub use unit::Latency;
