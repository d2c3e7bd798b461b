//! The latency table: loading it, creating a model from it, and finding the best network within a target.
#![allow(clippy::unwrap_used)]

#[path = "../tests/table/mod.rs"]
mod table;

use divan::Bencher;
use edge_nas::latency::Target;
use edge_nas::model::LatencyModel;
use edge_nas::search::{Constraint, Cost, best_within, latency_range, scores_of};
use edge_nas::space::{Layer, LayerSpec, Networks, SearchSpace};
use edge_nas::table::LatencyTable;
use nas_exporters::Shape;
use std::path::PathBuf;
use table::{COMMAND, filled};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// Returns `chain` with one width per layer and two more layers, on CIFAR-10, and a table of its 51 rows of 100 samples
/// each.
fn networks_and_table() -> (Networks, TempDir, PathBuf) {
    let mut space = SearchSpace::load("chain").unwrap();
    let widths = [32, 32, 32, 64, 64, 128, 128].map(|width| vec![width].into());
    space.layers.iter_mut().zip(widths).for_each(|(layer, width)| layer.channels = width);
    let last = space.layers[6].clone();
    space.layers.push(LayerSpec { channels: vec![256].into(), stride: 2, ..last.clone() });
    space.layers.push(LayerSpec { channels: vec![256].into(), ..last });
    let networks = Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.jsonl");
    let ns = |layer: &Layer| 1234.5 + layer.graph().cost().macs as f64 / 7.0;
    assert_eq!(filled(&path, &networks, 100, ns).rows().len(), 51);
    (networks, dir, path)
}

#[divan::bench]
fn load(bencher: Bencher) {
    let (_, _dir, path) = networks_and_table();
    bencher.bench(|| LatencyTable::load(&path, COMMAND).unwrap());
}

#[divan::bench]
fn model(bencher: Bencher) {
    let (networks, _dir, path) = networks_and_table();
    let table = LatencyTable::load(&path, COMMAND).unwrap();
    bencher.bench(|| LatencyModel::new(&table, &networks).unwrap());
}

#[divan::bench]
fn best_network_within(bencher: Bencher) {
    let (networks, _dir, path) = networks_and_table();
    let table = LatencyTable::load(&path, COMMAND).unwrap();
    let model = LatencyModel::new(&table, &networks).unwrap();
    let scores = scores_of(&networks, |layer, choice| ((layer * 8 + choice) as f64 * 0.73).sin());
    let limit = Target::Percent(40.0).resolve(latency_range(&model)).ns();
    let constraints = [Constraint::new(Cost::latency(&model), limit)];
    bencher.bench(|| best_within(&scores, &constraints).unwrap());
}
