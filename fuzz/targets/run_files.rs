//! The input is the files of a run's folder, each after a line `--- NAME`, from which the report is made.
#![no_main]

use edge_nas::record::RunDir;
use edge_nas::report::Run;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use nas_fuzz::Folder;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

const FILES: [&str; 12] = [
    "genotype.json",
    "network.json",
    "data.json",
    "search.jsonl",
    "train.jsonl",
    "bench.jsonl",
    "stages.json",
    "baseline/network.json",
    "baseline/data.json",
    "baseline/train.jsonl",
    "model.onnx",
    "weights.safetensors",
];

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    nas_fuzz::mutate_json_lines(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| {
    FOLDER.clear();
    let mut file: Option<(&str, Vec<u8>)> = None;
    let save = |file: Option<(&str, Vec<u8>)>| file.map(|(name, bytes)| FOLDER.write(name, &bytes));
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"--- ").map(|name| name.trim_ascii());
        match FILES.iter().find(|file| name == Some(file.as_bytes())) {
            Some(name) => drop(save(file.replace((name, vec![])))),
            None => file.iter_mut().for_each(|(_, bytes)| bytes.extend_from_slice(line)),
        }
    }
    save(file);
    let dir = RunDir(FOLDER.path(""));
    let Ok(run) = Run::load(&dir) else { return };
    let _ = (run.settings(), run.rows(), run.table());
    if let Ok(page) = run.write(&dir) {
        let size = page.metadata().map_or(0, |page| page.len());
        assert!(size < 100_000_000, "a page of {size} bytes from {} bytes", input.len());
    }
});
