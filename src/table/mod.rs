//! Latency tables: files of measured rows, and what all rows of a subject say about it.

mod agreement;
mod drift;
mod estimate;
mod facts;
mod file;
mod header;
mod merge;
mod published;
mod row;
mod statistics;

pub use agreement::Agreement;
pub use drift::drift;
pub use estimate::{Estimate, Timing, by_subject, uncorrected};
pub use facts::Facts;
pub use file::{LatencyTable, TableError, TableName, examples};
pub use header::{Difference, FORMAT, Header};
pub use merge::Merged;
pub use published::{Mean, Misfit, Published, PublishedError, PublishedTable};
pub use row::{Disturbance, Drawn, Planned, Row, Subject};
pub use statistics::{MAD_TO_SIGMA, Summary, median, spearman};
