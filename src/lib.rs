//! Hardware-aware neural architecture search against latencies measured on your own board.
//!
//! The pipeline, in order; each step reads files and writes the next:
//!
//! 1. [`space`] describes what can be built; each candidate op lowers to a [`nas_exporters::Graph`].
//! 2. [`device`] reaches a board, where the probe measures; [`latency`] keeps the table.
//! 3. `torch::search` trains a supernet against data ([`data`]) and table, and yields a genotype.
//! 4. `torch::fit` trains the genotype; `export` writes it as ONNX, checked against both runtimes.
//! 5. [`mod@bench`] measures it on the board, beside the baseline and the prediction.
//! 6. [`report`] shows it all.

pub mod artifact;
pub mod bench;
pub mod cli;
pub mod data;
pub mod device;
mod environment;
#[cfg(feature = "torch")]
pub mod export;
pub mod latency;
mod progress;
pub mod record;
pub mod report;
pub mod space;
#[cfg(feature = "torch")]
pub mod torch;

/// BLAKE3 digest, in hex, of a value's JSON: equal for equal values.
pub(crate) fn digest(value: &impl serde::Serialize) -> String {
    // Serialising plain data into memory does not fail; were it to, the digest would differ from
    // every other, and the worst is a stage done again.
    let json = serde_json::to_vec(value).unwrap_or_default();
    blake3::hash(&json).to_hex().to_string()
}
