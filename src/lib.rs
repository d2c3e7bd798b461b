//! Hardware-aware neural architecture search against latencies measured on your own board.
//!
//! The pipeline, in order. Each step reads files and writes those that the next one reads:
//!
//! 1. [`space`] describes which networks can be built; each candidate op lowers to a [`nas_exporters::Graph`].
//! 2. [`device`] connects to a board, on which the probe measures. [`profile`] decides what to measure, [`table`]
//!    stores the results, and [`model`] predicts latencies from them.
//! 3. `train` trains a supernet, or many networks for a short time, on images ([`data`]). [`search`] derives a genotype
//!    within a target latency, which `train` then trains from scratch.
//! 4. [`record`] defines the files of a run, [`run`] implements the verbs and the stages of an experiment, and
//!    [`report`] shows the results.

pub mod artifact;
pub mod bounded;
pub mod cli;
pub mod data;
pub mod device;
mod environment;
pub mod latency;
pub mod model;
mod named;
pub mod profile;
mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod search;
pub mod space;
pub mod table;
#[cfg(feature = "torch")]
pub mod train;
