//! The latency table: read, made a model, and asked for the best network within a target.
#![allow(clippy::unwrap_used)]

#[path = "../tests/table/mod.rs"]
mod table;

use divan::Bencher;
use edge_nas::latency::{Images, LatencyModel, LatencyTable, Networks, Target};
use edge_nas::space::{Layer, LayerSpec, SearchSpace};
use nas_exporters::Shape;
use std::path::PathBuf;
use table::{COMMAND, filled};
use tempfile::TempDir;

fn networks(space: &SearchSpace) -> Networks<'_> {
    Networks { space, images: Images { shape: CIFAR10, classes: CLASSES } }
}

fn main() {
    divan::main();
}

const CIFAR10: Shape = Shape { channels: 3, height: 32, width: 32 };
const CLASSES: usize = 10;

/// `chain` with two layers more, and a table of its 51 rows, each of 100 samples.
fn space_and_table() -> (SearchSpace, TempDir, PathBuf) {
    let mut space = SearchSpace::load("chain").unwrap();
    space.layers.extend([LayerSpec { channels: 256, stride: 2 }, LayerSpec { channels: 256, stride: 1 }]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.jsonl");
    let layers = space.distinct_layers(CIFAR10, CLASSES);
    let ns = |layer: &Layer| 1234.5 + layer.graph().cost().macs as f64 / 7.0;
    assert_eq!(filled(&path, &layers, 100, ns).rows().len(), 51);
    (space, dir, path)
}

#[divan::bench]
fn load(bencher: Bencher) {
    let (_, _dir, path) = space_and_table();
    bencher.bench(|| LatencyTable::load(&path, COMMAND).unwrap());
}

#[divan::bench]
fn model(bencher: Bencher) {
    let (space, _dir, path) = space_and_table();
    let table = LatencyTable::load(&path, COMMAND).unwrap();
    bencher.bench(|| LatencyModel::new(&table, &networks(&space)).unwrap());
}

#[divan::bench]
fn likeliest_within(bencher: Bencher) {
    let (space, _dir, path) = space_and_table();
    let table = LatencyTable::load(&path, COMMAND).unwrap();
    let model = LatencyModel::new(&table, &networks(&space)).unwrap();
    let score = |l: usize, i: usize| ((l * 8 + i) as f64 * 0.73).sin();
    let scores: Vec<Vec<f64>> =
        (0..space.layers.len()).map(|l| (0..8).map(|i| score(l, i)).collect()).collect();
    let target = Target::Percent(40.0).resolve(&model);
    bencher.bench(|| model.likeliest_within(&scores, target).unwrap());
}
