//! The input is a table that others published, as YAML. What is imported must be a latency table.
#![no_main]

use edge_nas::table::{LatencyTable, PublishedTable};
use libfuzzer_sys::fuzz_target;
use nas_fuzz::Folder;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let path = FOLDER.write("published.yaml", input);
    let Ok(published) = PublishedTable::read(&path) else { return };
    let _ = published.reasons();
    let path = FOLDER.path("table.jsonl");
    if let Err(error) = published.write(&path, "device", "runtime") {
        panic!("{error}");
    }
    match LatencyTable::load(&path, "nas-profile import") {
        Ok(table) => assert_eq!(table.published().len(), published.rows.len()),
        Err(error) => panic!("what was imported cannot be read: {error}"),
    }
});
