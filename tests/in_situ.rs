//! Which networks are measured, against a board that pulls a strided skip forward through the layer before it.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::{Header, Images, LatencyModel, LatencyTable, Networks, Row, Subject};
use edge_nas::space::{CandidateOp, Layer, SearchSpace};
use nas_exporters::Shape;
use std::collections::BTreeSet;
use table::{COMMAND, header, row};

const IMAGES: Images = Images { shape: Shape { channels: 3, height: 32, width: 32 }, classes: 10 };
const NETWORKS: usize = 160;
/// What is left of a layer that a strided skip is pulled through.
const LEFT: f64 = 0.25;

fn is_identity(layer: &Layer) -> bool {
    layer.graph().nodes().len() == 1
}

/// Nanoseconds of a layer with its neighbours' doings left out.
fn alone(layer: &Layer) -> f64 {
    let ops =
        ["skip", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "conv_3x3", "conv_5x5"];
    let op = ops.iter().position(|op| *op == layer.op.name()).unwrap_or(1);
    if is_identity(layer) { 0.0 } else { 20_000.0 * (op + 1) as f64 / layer.stride as f64 }
}

fn truth(layers: &[Layer]) -> f64 {
    let live: Vec<&Layer> = layers.iter().filter(|layer| !is_identity(layer)).collect();
    let is_pulled = |layer: &Layer| layer.op.name() == "skip";
    let next = live.iter().skip(1).map(|next| is_pulled(next)).chain([false]);
    let each = live.iter().zip(next).map(|(layer, pulls)| alone(layer) * if pulls { LEFT } else { 1.0 });
    50_000.0 + each.sum::<f64>()
}

fn measure(subject: &Subject) -> Row {
    match subject {
        Subject::Network(layers) => row(subject.clone(), truth(layers), 2),
        Subject::Layer(layer) => row(subject.clone(), 1_000.0 + 1.2 * alone(layer), 2),
        Subject::Call(_) => row(subject.clone(), 1_000.0, 2),
    }
}

fn measured(table: &mut LatencyTable, subjects: &[Subject]) {
    subjects.iter().for_each(|subject| table.append(measure(subject)).unwrap());
}

/// A table of the layers and of the networks that are always measured.
fn begun(networks: &Networks) -> (tempfile::TempDir, LatencyTable) {
    let dir = tempfile::tempdir().unwrap();
    let header = Header { networks: NETWORKS, ..header() };
    let mut table = LatencyTable::open(&dir.path().join("t.jsonl"), header, COMMAND).unwrap();
    measured(&mut table, &[networks.isolated(), networks.to_fit(NETWORKS)].concat());
    (dir, table)
}

/// Relative error of the prediction for a network of these ops.
fn error(table: &LatencyTable, networks: &Networks, ops: &[&str]) -> f64 {
    let model = LatencyModel::new(table, networks).unwrap();
    let candidate = |name: &&str| name.parse::<CandidateOp>().unwrap();
    let ops: Vec<CandidateOp> = ops.iter().map(candidate).collect();
    let index = |op: &CandidateOp| networks.space.candidates.iter().position(|c| c == op).unwrap();
    let Subject::Network(layers) = networks.network(&ops.iter().map(index).collect::<Vec<_>>()) else {
        panic!("no network")
    };
    (model.predict(&ops).ns() / truth(&layers) - 1.0).abs()
}

#[test]
fn the_networks_that_tell_the_most_are_new_and_chosen_once() {
    let space = SearchSpace::load("chain").unwrap();
    let networks = Networks { space: &space, images: IMAGES };
    let (_dir, mut table) = begun(&networks);
    let unseen = networks.fresh(5, 1, &table);
    unseen.iter().for_each(|network| table.append(Row { unseen: true, ..measure(network) }).unwrap());
    let known: BTreeSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
    let chosen = networks.telling(&table, NETWORKS).unwrap();
    assert_eq!(chosen.len() + networks.to_fit(NETWORKS).len(), NETWORKS);
    assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
    assert!(chosen.iter().all(|network| !known.contains(network)));
    assert_eq!(networks.telling(&table, NETWORKS).unwrap(), chosen);

    // Cut after ten: those stay, and as many are added as were left.
    measured(&mut table, &chosen[..10]);
    let again: BTreeSet<Subject> = networks.telling(&table, NETWORKS).unwrap().into_iter().collect();
    assert_eq!(again.len(), chosen.len());
    assert!(chosen[..10].iter().all(|network| again.contains(network)));
    let rest: Vec<Subject> = again.into_iter().filter(|network| !chosen[..10].contains(network)).collect();
    measured(&mut table, &rest);
    let whole: BTreeSet<Subject> = networks.telling(&table, NETWORKS).unwrap().into_iter().collect();
    assert!(whole.iter().eq(chosen[..10].iter().chain(&rest).collect::<BTreeSet<_>>()));
}

/// A pair that one network in 343 has, be the first the stem, which is in all.
#[test]
fn what_seldom_meets_is_predicted() {
    let space = SearchSpace::load("chain").unwrap();
    let networks = Networks { space: &space, images: IMAGES };
    let (_dir, mut table) = begun(&networks);
    let rare = [
        ["skip", "skip", "skip", "max_pool_3x3", "sep_conv_3x3", "skip"],
        ["max_pool_3x3", "skip", "conv_5x5", "skip", "skip", "max_pool_3x3"],
        ["skip", "conv_3x3", "avg_pool_3x3", "skip", "skip", "skip"],
    ];
    let worst =
        |table: &LatencyTable| rare.map(|ops| error(table, &networks, &ops)).into_iter().fold(0.0, f64::max);
    let before = worst(&table);
    let chosen = networks.telling(&table, NETWORKS).unwrap();
    measured(&mut table, &chosen);
    let after = worst(&table);
    assert!(after < 0.02 && after < before, "{before} -> {after}");
}

/// Of a space of 49 networks, none twice.
#[test]
fn a_small_space_runs_out_of_networks() {
    let chain = SearchSpace::load("chain").unwrap();
    let space = SearchSpace { layers: chain.layers[..2].to_vec(), ..chain };
    let networks = Networks { space: &space, images: IMAGES };
    let (_dir, mut table) = begun(&networks);
    let chosen = networks.telling(&table, NETWORKS).unwrap();
    measured(&mut table, &chosen);
    let all: BTreeSet<&Subject> = table.rows().iter().map(|row| &row.subject).collect();
    assert_eq!(all.len(), table.rows().len(), "some were measured twice");
    let whole = all.iter().filter(|subject| matches!(subject, Subject::Network(_))).count();
    assert_eq!(whole, 49);
}
