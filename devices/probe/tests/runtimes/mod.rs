//! The runtimes of this machine.
// Each test program uses a part of it.
#![allow(dead_code)]

use nas_probe::Runtime;
use std::path::{Path, PathBuf};

/// ONNX Runtime's library, if the machine has one.
pub fn ort_library() -> Option<PathBuf> {
    let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/onnxruntime/libonnxruntime.so");
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(set_up, PathBuf::from);
    library.exists().then_some(library)
}

/// The runtimes that can be tested on this machine, each with the arguments that the probe needs for it.
pub fn runtimes() -> Vec<(Runtime, Vec<PathBuf>)> {
    let mut runtimes = vec![(Runtime::Tract, vec![])];
    match ort_library() {
        Some(library) => runtimes.push((Runtime::Ort, vec!["--ort".into(), library])),
        None => println!("SKIPPED for ort: no ORT_DYLIB_PATH and no .deps/onnxruntime/libonnxruntime.so"),
    }
    runtimes
}
