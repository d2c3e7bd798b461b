//! Latencies, the tables that keep them, and what they predict.

mod disturbance;
mod drift;
pub mod fit;
mod fleet;
mod header;
mod model;
mod networks;
mod profile;
mod published;
mod row;
mod statistics;
mod table;
mod target;
mod timing;
mod unit;
mod validation;

pub use disturbance::Disturbance;
pub use drift::drift;
pub use header::{Difference, Header};
pub use model::{LatencyModel, LayerLatency, Prediction};
pub use networks::{Images, Networks};
pub use profile::{Plan, ProfileError, Profiled, profile};
pub use published::{Mean, Misfit, Published, PublishedError, PublishedTable};
pub use row::{Row, Subject, micro_model};
pub use statistics::Summary;
pub use table::{LatencyTable, TableError};
pub use target::Target;
pub use timing::Timing;
pub use unit::Latency;
pub use validation::{Unseen, Validation};
