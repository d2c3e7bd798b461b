//! The input is the file of a latency table. A table that loads can be estimated, predicted from, merged and written.
#![no_main]

use edge_nas::artifact::Digest;
use edge_nas::model::{LatencyModel, Validation, Validations};
use edge_nas::table::{LatencyTable, Merged};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use nas_fuzz::Folder;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);
/// The line after which the input continues as the file of validations.
const VALIDATIONS: &str = "--- validations\n";

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    nas_fuzz::mutate_json_lines(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| {
    let split = input.windows(VALIDATIONS.len()).position(|part| part == VALIDATIONS.as_bytes());
    let (table, validations) = input.split_at(split.unwrap_or(input.len()));
    FOLDER.clear();
    let path = FOLDER.write("table.jsonl", table);
    if split.is_some() {
        FOLDER.write("table.validation.json", &validations[VALIDATIONS.len()..]);
    }
    let Ok(table) = LatencyTable::load(&path, "nas profile") else { return };
    for facts in table.facts().values() {
        let latency = facts.estimate.latency;
        assert!(latency.ns() >= 0.0 && latency.ns().is_finite(), "{latency}");
    }
    let classes = table.classes().first().copied().unwrap_or(3);
    if let Ok(networks) = table.networks([classes]) {
        if let Ok(model) = LatencyModel::new(&table, &networks) {
            let first: Vec<usize> = (0..networks.len()).map(|_| 0).collect();
            let _ = (model.predict(&first).to_string(), model.adds(), model.digest());
        }
        let _ = LatencyModel::isolated(&table, &networks);
        let _ = Validation::of(&table, &networks);
    }
    let _ = Validations::load(&table);
    write_and_read(&table);
});

/// A table merged with itself is the same table, and a table that was written can be read.
fn write_and_read(table: &LatencyTable) {
    let Ok(again) = LatencyTable::load(table.path(), "nas profile") else { panic!("it loads once, but not again") };
    let merged = match Merged::of(table, &[again]) {
        Ok(merged) => merged,
        Err((_, difference)) => panic!("a table differs from itself: {difference}"),
    };
    let copy = FOLDER.path("copy.jsonl");
    if let Err(error) = merged.write(&copy) {
        panic!("{error}");
    }
    match LatencyTable::load(&copy, "nas profile") {
        Ok(copy) => assert_eq!(copy.rows().len(), merged.rows.len()),
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
    let _ = Digest::of(&merged.header);
}
