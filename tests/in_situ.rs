//! Which networks are measured, tried on a board that pulls a strided skip forward through the layer before it.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::Latency;
use edge_nas::model::{LatencyModel, ModelError, Validation, isolated_subjects};
use edge_nas::profile::{
    FOR_A_HEAD, derived_unseen, design_size, first_to_fit, for_a_head, random_unseen, rest_to_fit,
};
use edge_nas::search::latency_range;
use edge_nas::space::{CandidateOp, Genotype, Layer, Networks, SearchSpace};
use edge_nas::table::{Drawn, LatencyTable, Planned, Row, Subject};
use nas_exporters::Shape;
use std::collections::BTreeSet;
use table::{COMMAND, header_of, row};

const INPUT: Shape = Shape { channels: 3, height: 32, width: 32 };
const CLASSES: usize = 10;
const NETWORKS: usize = 160;
/// The share that is left of a layer through which a strided skip is pulled.
const LEFT: f64 = 0.25;

fn networks() -> Networks {
    Networks::new(SearchSpace::load("chain_small").unwrap(), INPUT, [CLASSES]).unwrap()
}

/// Returns the nanoseconds of a layer without the influence of its neighbours.
fn alone(layer: &Layer) -> f64 {
    let ops = ["skip", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "conv_3x3", "conv_5x5"];
    let name = layer.op.to_string();
    let op = ops.iter().position(|op| *op == name).unwrap_or(1);
    let classes = if layer.op == CandidateOp::Head { 100.0 * layer.channels as f64 } else { 0.0 };
    let width =
        if layer.op == CandidateOp::Head { 1.0 } else { 1.0 + (layer.input.channels * layer.channels) as f64 / 1024.0 };
    if layer.is_identity() { 0.0 } else { 20_000.0 * width * (op + 1) as f64 / layer.stride as f64 + classes }
}

fn truth(layers: &[Layer]) -> f64 {
    let live: Vec<&Layer> = layers.iter().filter(|layer| !layer.is_identity()).collect();
    let is_pulled = |layer: &Layer| layer.op == CandidateOp::Skip;
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

/// Creates a table with the layers and the networks that are measured first.
fn begun(networks: &Networks, number: usize) -> (tempfile::TempDir, LatencyTable) {
    let dir = tempfile::tempdir().unwrap();
    let mut table = LatencyTable::open(&dir.path().join("t.jsonl"), header_of(networks), COMMAND).unwrap();
    let first = first_to_fit(&table, networks, number);
    table.plan(Planned { networks: first.len(), classes: networks.classes[0] }).unwrap();
    measured(&mut table, &[vec![Subject::Call(INPUT)], isolated_subjects(networks), first].concat());
    (dir, table)
}

/// Returns the rest of `number` networks.
fn rest_of(table: &LatencyTable, networks: &Networks, number: usize) -> Vec<Subject> {
    rest_to_fit(table, networks, &first_to_fit(table, networks, number), number).unwrap()
}

fn rest(table: &LatencyTable, networks: &Networks) -> Vec<Subject> {
    rest_of(table, networks, NETWORKS)
}

/// Creates a table with all networks that a model is fitted to.
fn complete(networks: &Networks) -> (tempfile::TempDir, LatencyTable) {
    let (dir, mut table) = begun(networks, NETWORKS);
    let chosen = rest(&table, networks);
    measured(&mut table, &chosen);
    (dir, table)
}

fn choices(networks: &Networks, ops: &[&str]) -> Vec<usize> {
    Genotype::parse(networks.clone(), &ops.join(",")).unwrap().choices
}

/// Returns the relative error of the prediction for a network.
fn error(table: &LatencyTable, networks: &Networks, choices: &[usize]) -> f64 {
    let model = LatencyModel::new(table, networks).unwrap();
    (model.predict(choices).ns() / truth(&networks.layers_of(choices)) - 1.0).abs()
}

#[test]
fn the_rest_of_the_networks_is_new_and_chosen_once() {
    let networks = networks();
    let (_dir, mut table) = begun(&networks, NETWORKS);
    let unseen = random_unseen(&table, &networks, 5, 1);
    let unseen_row = |network: &Subject| Row { unseen: Some(Drawn::Random), ..measure(network) };
    unseen.iter().for_each(|network| table.append(unseen_row(network)).unwrap());
    let known: BTreeSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
    let chosen = rest(&table, &networks);
    assert_eq!(chosen.len() + first_to_fit(&table, &networks, NETWORKS).len(), NETWORKS);
    assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
    assert!(chosen.iter().all(|network| !known.contains(network)));
    assert_eq!(rest(&table, &networks), chosen);

    // Interrupted after ten: these stay, and as many others are added as were left.
    measured(&mut table, &chosen[..10]);
    let again: BTreeSet<Subject> = rest(&table, &networks).into_iter().collect();
    assert_eq!(again.len(), chosen.len());
    assert!(chosen[..10].iter().all(|network| again.contains(network)));
    let left: Vec<Subject> = again.into_iter().filter(|network| !chosen[..10].contains(network)).collect();
    measured(&mut table, &left);
    let whole: BTreeSet<Subject> = rest(&table, &networks).into_iter().collect();
    assert!(whole.iter().eq(chosen[..10].iter().chain(&left).collect::<BTreeSet<_>>()));
}

/// A command for another number of classes that was interrupted at its start does not change predictions.
#[test]
fn a_classifier_without_a_row_leaves_the_model_of_another_one_alone() {
    let networks = networks();
    let (_dir, mut table) = complete(&networks);
    let digest = |table: &LatencyTable| LatencyModel::new(table, &networks).unwrap().digest();
    let before = digest(&table);
    table.plan(Planned { networks: FOR_A_HEAD, classes: 7 }).unwrap();
    assert_eq!(digest(&table), before);
    let other = Networks::new(networks.space.clone(), INPUT, [7]).unwrap();
    let head = isolated_subjects(&other).into_iter().find(|subject| !isolated_subjects(&networks).contains(subject));
    measured(&mut table, &[head.unwrap()]);
    assert_ne!(digest(&table), before, "the model covers both numbers");
}

/// A larger number adds to the networks that were measured, and a much larger one needs another design.
#[test]
fn more_networks_are_measured_in_addition() {
    let networks = networks();
    let dir = tempfile::tempdir().unwrap();
    let mut table = LatencyTable::open(&dir.path().join("t.jsonl"), header_of(&networks), COMMAND).unwrap();
    table.plan(Planned { networks: 60, classes: CLASSES }).unwrap();
    let first = first_to_fit(&table, &networks, 60);
    measured(&mut table, &[vec![Subject::Call(INPUT)], isolated_subjects(&networks), first].concat());
    let chosen = rest_of(&table, &networks, 60);
    measured(&mut table, &chosen);
    let known: BTreeSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
    table.plan(Planned { networks: 70, classes: CLASSES }).unwrap();
    for number in [70, 80] {
        assert_eq!(design_size(&table, CLASSES, number), 60);
        let first = first_to_fit(&table, &networks, 60);
        assert!(first.iter().all(|network| known.contains(network)));
        let all = [first.clone(), rest_to_fit(&table, &networks, &first, number).unwrap()].concat();
        assert_eq!(all.len(), number);
        assert_eq!(all.iter().filter(|network| !known.contains(network)).count(), number - 60);
    }
    assert_eq!(design_size(&table, CLASSES, 200), 200);
    assert_eq!(design_size(&table, 200, 70), 70, "another number of classes");
}

/// Pairs that one network in 343 has, even if the first of the pair is the stem, which all networks have.
#[test]
fn rare_pairs_are_predicted() {
    let networks = networks();
    let (_dir, mut table) = begun(&networks, NETWORKS);
    let rare = [
        ["skip", "skip", "skip", "max_pool_3x3", "sep_conv_3x3", "skip"],
        ["max_pool_3x3", "skip", "conv_5x5", "skip", "skip", "max_pool_3x3"],
        ["skip", "conv_3x3", "avg_pool_3x3", "skip", "skip", "skip"],
    ];
    let worst = |table: &LatencyTable| {
        rare.map(|ops| error(table, &networks, &choices(&networks, &ops))).into_iter().fold(0.0, f64::max)
    };
    let before = worst(&table);
    let chosen = rest(&table, &networks);
    measured(&mut table, &chosen);
    let after = worst(&table);
    assert!(after < 0.02 && after < before, "{before} -> {after}");
}

/// One op throughout, and the cheapest and the most expensive network. Searches choose such extremes, while fits see
/// random networks.
#[test]
fn the_corners_are_predicted_and_never_below_what_a_call_costs() {
    let networks = networks();
    for number in [48, NETWORKS] {
        let (_dir, mut table) = begun(&networks, number);
        let chosen = rest_of(&table, &networks, number);
        measured(&mut table, &chosen);
        for op in ["skip", "conv_5x5", "sep_conv_3x3", "max_pool_3x3"] {
            let error = error(&table, &networks, &choices(&networks, &[op; 6]));
            assert!(error < 0.05, "{number} {op}: {error}");
        }
        let model = LatencyModel::new(&table, &networks).unwrap();
        let (cheapest, _) = latency_range(&model);
        assert!(cheapest >= Latency::from_ns(1_000.0), "{cheapest}");
    }
}

/// The cost of these layers depends on a choice in a layer that is not next to them, and so does the effect of their
/// neighbours.
#[test]
fn layers_of_the_same_width_are_predicted_on_each_width() {
    let text = r#"
        name = "same"
        candidates = ["conv_3x3", "sep_conv_3x3", "max_pool_3x3", "skip"]
        layers = [
            { ops = ["conv_3x3"], channels = [8, 16] },
            { channels = "same" },
            { channels = "same" },
            { channels = [16, 24, 32], stride = 2 },
            { channels = "same" },
            { channels = "same", stride = 2 },
        ]
    "#;
    let networks = Networks::new(toml::from_str(text).unwrap(), INPUT, [CLASSES]).unwrap();
    let (_dir, mut table) = complete(&networks);
    let model = LatencyModel::new(&table, &networks).unwrap();
    for network in random_unseen(&table, &networks, 40, 3) {
        table.append(Row { unseen: Some(Drawn::Random), ..measure(&network) }).unwrap();
    }
    for network in derived_unseen(&table, &model, 20, 3) {
        table.append(Row { unseen: Some(Drawn::Derived), ..measure(&network) }).unwrap();
    }
    let (validation, _) = Validation::of(&table, &networks).unwrap().unwrap();
    let derived = validation.derived.unwrap();
    assert!(validation.random.mape < 0.01 && derived.mape < 0.02, "{validation:?}");
    assert!(derived.networks >= 10, "{derived:?}");

    // Each width has a contribution of its own, and the networks that have the layer are counted.
    let adds = model.adds();
    let of = |op: &str, width: usize| {
        let (op, input) = (op.parse().unwrap(), Shape::new(width, 16, 16));
        let layer = Layer { op, input, channels: width, stride: 1 };
        (adds[&layer], alone(&layer))
    };
    for width in [16, 24, 32] {
        let [(conv, conv_truth), (sep, sep_truth)] = ["conv_3x3", "sep_conv_3x3"].map(|op| of(op, width));
        let said = conv.latency.ns() - sep.latency.ns();
        assert!((said / (conv_truth - sep_truth) - 1.0).abs() < 0.1, "{width}: {said}");
    }
    let ops = ["conv_3x3", "sep_conv_3x3", "max_pool_3x3", "skip"];
    let counted = ops.iter().flat_map(|op| [16, 24, 32].map(|width| of(op, width).0.networks));
    assert_eq!(counted.sum::<usize>(), NETWORKS);

    // What the layers add to a network sums up to its prediction, apart from interactions and what all networks share.
    let adds = |choices: &[usize]| networks.searched().map(|layer| model.contribution(layer, choices)).sum::<Latency>();
    let [deep, shallow] = [
        ["conv_3x3:8", "conv_3x3", "conv_3x3", "conv_3x3:24", "conv_3x3", "conv_3x3"],
        ["conv_3x3:8", "conv_3x3", "skip", "conv_3x3:24", "skip", "conv_3x3"],
    ]
    .map(|names| choices(&networks, &names));
    let predicted = model.predict(&deep).ns() - model.predict(&shallow).ns();
    let said = adds(&deep).ns() - adds(&shallow).ns();
    assert!((said / predicted - 1.0).abs() < 0.05, "{said} {predicted}");
}

/// The space has 49 networks, and none of them is measured twice.
#[test]
fn a_small_space_runs_out_of_networks() {
    let mut space = SearchSpace::load("chain_small").unwrap();
    space.layers.truncate(3);
    let networks = Networks::new(space, INPUT, [CLASSES]).unwrap();
    let (_dir, mut table) = begun(&networks, 49);
    let chosen = rest_of(&table, &networks, 49);
    measured(&mut table, &chosen);
    let all: BTreeSet<&Subject> = table.rows().iter().map(|row| &row.subject).collect();
    assert_eq!(all.len(), table.rows().len(), "some were measured twice");
    let whole = all.iter().filter(|subject| matches!(subject, Subject::Network(_))).count();
    assert_eq!(whole, 49);
}

/// The networks that validated a smaller table are still kept out of the fit.
#[test]
fn all_other_networks_can_be_fitted_after_a_validation() {
    let mut space = SearchSpace::load("chain_small").unwrap();
    space.layers.truncate(3);
    let networks = Networks::new(space, INPUT, [CLASSES]).unwrap();
    let (_dir, mut table) = begun(&networks, 24);
    let chosen = rest_of(&table, &networks, 24);
    measured(&mut table, &chosen);
    let unseen = random_unseen(&table, &networks, 30, 1);
    assert!(unseen.iter().any(|network| first_to_fit(&table, &networks, 49).contains(network)));
    for network in &unseen {
        table.append(Row { unseen: Some(Drawn::Random), ..measure(network) }).unwrap();
    }
    let all = 49 - unseen.len();
    table.plan(Planned { networks: all, classes: CLASSES }).unwrap();
    let known: BTreeSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
    let new = |networks: Vec<Subject>| -> Vec<Subject> {
        networks.into_iter().filter(|network| !known.contains(network)).collect()
    };
    let first = new(first_to_fit(&table, &networks, all));
    measured(&mut table, &first);
    let rest = rest_of(&table, &networks, all);
    measured(&mut table, &new(rest));
    LatencyModel::new(&table, &networks).unwrap();
}

/// Only the classifier differs, so a handful of networks is enough.
#[test]
fn another_number_of_classes_takes_a_few_networks() {
    let networks = networks();
    let (_dir, mut table) = complete(&networks);
    let other = Networks::new(networks.space.clone(), INPUT, [200]).unwrap();
    // Before any of them is measured, the row of the new head is missing.
    assert!(LatencyModel::new(&table, &other).is_err());
    let few = for_a_head(&table, &other);
    assert_eq!(few.len(), FOR_A_HEAD);
    table.plan(Planned { networks: few.len(), classes: 200 }).unwrap();
    measured(&mut table, &isolated_subjects(&other).split_off(isolated_subjects(&other).len() - 1));
    measured(&mut table, &few[1..]);
    let missing = LatencyModel::new(&table, &other).unwrap_err();
    assert!(matches!(missing, ModelError::Networks { measured: 11, planned: 12, .. }), "{missing}");
    measured(&mut table, &few[..1]);

    let model = LatencyModel::new(&table, &other).unwrap();
    for network in random_unseen(&table, &other, 20, 3) {
        table.append(Row { unseen: Some(Drawn::Random), ..measure(&network) }).unwrap();
    }
    for network in derived_unseen(&table, &model, 9, 3) {
        table.append(Row { unseen: Some(Drawn::Derived), ..measure(&network) }).unwrap();
    }
    let (validation, _) = Validation::of(&table, &other).unwrap().unwrap();
    let derived = validation.derived.unwrap();
    assert!(validation.random.mape < 0.01 && derived.mape < 0.02, "{validation:?}");
    assert!(derived.networks >= 5, "{derived:?}");
    // The model of the first classes is still there.
    assert!(error(&table, &networks, &choices(&networks, &["conv_3x3"; 6])) < 0.02);
}
