//! Hardware-aware neural architecture search against latencies measured on your own board.
//!
//! The pipeline, in order; each step reads files and writes the next:
//!
//! 1. [`space`] describes what can be built; each candidate op lowers to a [`nas_exporters::Graph`].
//! 2. [`device`] reaches a board, where the probe measures; [`profile`] decides what is measured, [`table`] stores it,
//!    and [`model`] predicts from it.
//! 3. `train` trains a supernet against data ([`data`]) and latency, and [`search`] derives a genotype from it, which
//!    `train` then trains from scratch.
//! 4. [`run`] keeps the files of a run, and does all stages of an experiment; [`report`] shows them.

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
