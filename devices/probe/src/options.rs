//! The command line of the probe.

use std::path::PathBuf;

/// The arguments of the program.
#[derive(Default)]
pub struct Options {
    pub ort_library: Option<PathBuf>,
    /// Execution providers of ONNX Runtime, in order of preference.
    pub providers: Vec<String>,
    /// The folder in which models are stored.
    pub models: Option<PathBuf>,
}
