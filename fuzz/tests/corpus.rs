//! Gives each fuzz target the inputs of its corpus, once. `scripts/fuzz SECONDS` searches for new ones.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// Runs a fuzz target. A probe may take several times the timeout that it is given, so `onnx` needs more seconds.
fn run(program: &str, target: &str, seconds: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let inputs: Vec<_> = folder.read_dir().unwrap().map(|input| input.unwrap().path()).collect();
    assert!(!inputs.is_empty());
    let limits = [&format!("-timeout={seconds}"), "-rss_limit_mb=1024", "-malloc_limit_mb=1024"];
    // A crash would leave its input here.
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(program).args(limits).args(inputs).current_dir(scratch.path()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

macro_rules! corpora {
    ($($target:ident: $seconds:literal),*) => {$(
        #[test]
        fn $target() {
            run(env!(concat!("CARGO_BIN_EXE_fuzz-", stringify!($target))), stringify!($target), $seconds);
        }
    )*};
}

corpora!(table: 10, run_files: 10, toml: 10, wire: 10, published: 10, onnx: 60);
