//! Latencies, the tables that keep them, and what they predict.

mod agreement;
mod disturbance;
mod drift;
mod facts;
pub mod fit;
mod fleet;
mod header;
mod merge;
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

pub use agreement::Agreement;
pub use disturbance::Disturbance;
pub use drift::drift;
pub use facts::{Adds, Facts};
pub use header::{Difference, Header};
pub use merge::Merged;
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
