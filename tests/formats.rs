//! docs/formats.md, compared with the code.
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use edge_nas::device::Device;
use edge_nas::model::Validations;
use edge_nas::record::{
    BenchRow, CandidateRow, Certificate, Evaluation, SearchEpoch, SearchedOn, TrainEpoch, TrainedOn,
};
use edge_nas::run::Experiment;
use edge_nas::space::{Genotype, Network, SearchSpace};
use edge_nas::table::{LatencyTable, Published};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use toml::Table;

const FORMATS: &str = include_str!("../docs/formats.md");

/// Everything that an experiment file must have.
const MINIMAL: &str = "name = \"minimal\"\ntarget_latency = \"40%\"\n";

/// Returns the first block of a language below a heading.
fn block(heading: &str, language: &str) -> &'static str {
    let after = |text: &'static str, what: &str| text.split_once(what).map(|(_, after)| after);
    let section = after(FORMATS, &format!("\n{heading}\n")).and_then(|text| text.split("\n## ").next());
    let block = section.and_then(|section| after(section, &format!("\n```{language}\n")));
    let block = block.and_then(|block| block.split("```").next());
    block.unwrap_or_else(|| panic!("{heading}: no {language}"))
}

/// Returns a line of the experiment example, uncommented if it is a key or a section.
fn in_force(line: &str) -> &str {
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_key = |text: &str| text.split_once(" = ").is_some_and(|(key, _)| is_name(key));
    match line.strip_prefix("# ") {
        Some(text) if is_key(text) || text.starts_with('[') => text,
        _ => line,
    }
}

/// Returns the known keys of a section of an experiment file, taken from the error for an unknown key.
fn known(ws: &Workspace, section: &str) -> BTreeSet<String> {
    let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    ws.write("unknown.toml", &format!("{MINIMAL}{header}unheard_of = 1\n"));
    let error = ws.error("run unknown.toml");
    let expected = error.split_once("unknown field `unheard_of`, expected ");
    let (_, expected) = expected.unwrap_or_else(|| panic!("[{section}]: {error}"));
    expected.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// Checks that a section has exactly the known keys, and so do the sections within it.
fn check(ws: &Workspace, section: &str, documented: &Table) {
    let keys: BTreeSet<String> = documented.keys().cloned().collect();
    assert_eq!(keys, known(ws, section), "documented and known keys of [{section}]");
    for (key, value) in documented {
        if let Some(within) = value.as_table() {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            check(ws, &path, within);
        }
    }
}

#[test]
fn the_experiment_example_has_every_key_and_no_other() {
    let example = block("## Experiment", "toml");
    let all = example.lines().map(in_force).collect::<Vec<_>>().join("\n");
    toml::from_str::<Experiment>(&all).unwrap();
    check(&Workspace::new(), "", &toml::from_str(&all).unwrap());
}

#[test]
fn the_experiment_example_has_the_defaults() {
    let example: Table = toml::from_str(block("## Experiment", "toml")).unwrap();
    let minimal: Experiment = toml::from_str(MINIMAL).unwrap();
    let mut defaults = Table::try_from(&minimal).unwrap();
    for without_default in ["name", "target_latency"] {
        defaults.insert(without_default.into(), example[without_default].clone());
    }
    assert_eq!(example, defaults);
}

/// Checks that the example below a heading has lines as the code writes them, and returns them.
fn lines<T: Serialize + DeserializeOwned>(heading: &str) -> Vec<T> {
    let line = |text: &str| {
        let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{heading}: {e}: {text}"));
        assert_eq!(serde_json::to_string(&value).unwrap(), text, "{heading}");
        value
    };
    block(heading, "json").lines().map(line).collect()
}

/// Checks that the example below a heading is a file as the code writes it, apart from line breaks, and returns it.
fn file<T: Serialize + DeserializeOwned>(heading: &str) -> T {
    let text = block(heading, "json");
    let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{heading}: {e}"));
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&serde_json::to_string(&value).unwrap()), parse(text), "{heading}");
    value
}

#[test]
fn the_examples_of_files_are_what_is_written() {
    toml::from_str::<Device>(block("## Device", "toml")).unwrap();
    let space: SearchSpace = toml::from_str(block("## Search space", "toml")).unwrap();
    assert_eq!(file::<Genotype>("### genotype.json").networks.space, space);
    file::<Certificate>("### Certificate");
    file::<SearchedOn>("### search.json");
    file::<Network>("### network.json");
    file::<TrainedOn>("### data.json");
    file::<Evaluation>("### eval.json");
    file::<Validations>("### Validations");
    assert_eq!(lines::<SearchEpoch>("### search.jsonl").len(), 1);
    assert_eq!(lines::<CandidateRow>("### candidates.jsonl").len(), 2);
    assert_eq!(lines::<TrainEpoch>("### train.jsonl").len(), 1);
    assert_eq!(lines::<BenchRow>("### bench.jsonl").len(), 1);
}

#[test]
fn the_examples_of_table_lines_are_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.jsonl");
    let text = block("## Latency table", "json");
    std::fs::write(&path, text).unwrap();
    let table = LatencyTable::load(&path, "nas-profile").unwrap();
    assert_eq!((table.stale(), table.rows().len(), table.planned(10)), (0, 1, 27));
    let space: SearchSpace = toml::from_str(block("## Search space", "toml")).unwrap();
    assert_eq!(table.header.space, space);
    let planned = "{\"planned\":{\"networks\":27,\"classes\":10}}".to_string();
    let [header, row] =
        [serde_json::to_string(&table.header).unwrap(), serde_json::to_string(&table.rows()[0]).unwrap()];
    assert_eq!(text.lines().collect::<Vec<_>>(), [header, planned, row]);
    for row in lines::<Published>("### Published tables") {
        assert_eq!(row.key, row.subject.key());
    }
}

#[test]
fn the_examples_of_the_wire_are_its_golden_lines() {
    for golden in [
        include_str!("../devices/probe/tests/golden/requests.jsonl"),
        include_str!("../devices/probe/tests/golden/replies.jsonl"),
    ] {
        assert!(FORMATS.contains(&format!("```json\n{golden}```\n")), "{golden}");
    }
}
