//! The input is the files of a run's folder, each after a line `--- NAME`. They are read, and a report is made from
//! them.
#![no_main]

use edge_nas::artifact::{self, Digest};
use edge_nas::record::{CandidateRow, Evaluation, ModelDir, RunDir, SearchEpoch, SearchedOn, TrainEpoch, TrainedOn};
use edge_nas::report::Run;
use edge_nas::space::{Genotype, Network};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use nas_fuzz::Folder;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

const FILES: [&str; 15] = [
    "genotype.json",
    "network.json",
    "data.json",
    "search.jsonl",
    "candidates.jsonl",
    "train.jsonl",
    "bench.jsonl",
    "stages.json",
    "checkpoint/begun.json",
    "baseline/network.json",
    "baseline/data.json",
    "baseline/train.jsonl",
    "model.onnx",
    "eval.json",
    "weights.safetensors",
];

/// Makes the digests of a training match its files, so that the report does not leave them out.
fn join_training(dir: &ModelDir) {
    let (network, log) = (artifact::read_json::<Network>(&dir.network(), ""), artifact::read_lines(&dir.train_log()));
    let (on, weights) = (artifact::read_json::<TrainedOn>(&dir.trained_on(), ""), Digest::of_file(&dir.weights()));
    if let (Ok(network), Ok::<Vec<TrainEpoch>, _>(log), Ok(on), Ok(Some(weights))) = (network, log, on, weights) {
        if let Ok(evaluation) = artifact::read_json::<Evaluation>(&dir.eval(), "") {
            let _ = artifact::write_json(&dir.eval(), &Evaluation { digest: weights.clone(), ..evaluation });
        }
        let on = TrainedOn { network: Digest::of(&network), log: Digest::of_lines(&log), weights, ..on };
        let _ = artifact::write_json(&dir.trained_on(), &on);
    }
}

/// Does the same for a search.
fn join_search(dir: &RunDir) {
    let genotype = artifact::read_json::<Genotype>(&dir.genotype(), "");
    if let (Ok(genotype), Ok::<Vec<SearchEpoch>, _>(log)) = (genotype, artifact::read_lines(&dir.search_log())) {
        let on = SearchedOn {
            data: String::new(),
            data_digest: Digest::of_bytes(b"data"),
            tables: vec![Digest::of_bytes(b"")],
            genotype: Digest::of(&genotype),
            log: Digest::of_lines(&log),
            foreign_table: None,
            made: None,
        };
        let _ = artifact::write_json(&dir.searched_on(), &on);
    }
}

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
    [dir.found(), dir.baseline()].iter().for_each(join_training);
    join_search(&dir);
    let _ = (dir.certificate(), artifact::read_lines::<CandidateRow>(&dir.candidates()));
    let Ok(run) = Run::load(&dir) else { return };
    let _ = (run.settings(), run.rows(), run.table());
    if let Ok(page) = run.write(&dir) {
        let size = page.metadata().map_or(0, |page| page.len());
        assert!(size < 100_000_000, "a page of {size} bytes from {} bytes", input.len());
    }
});
