//! Folders of runs with made-up results, for the tests of the report.
#![allow(dead_code, clippy::unwrap_used)]

use edge_nas::artifact::{self, Digest};
use edge_nas::bounded::{Share, Width};
use edge_nas::data::Normalisation;
use edge_nas::latency::Latency;
use edge_nas::record::{
    BegunFiles, BenchRow, CandidateRow, Expected, LayerLatency, ModelDir, Prediction, RunDir, SearchEpoch, SearchedOn,
    TrainEpoch, TrainedOn, WEIGHTS,
};
use edge_nas::report::Run;
use edge_nas::search::Unit;
use edge_nas::space::{Baseline, Genotype, Layer, Network, Networks, SearchSpace, names_of};
use nas_exporters::{Precision, Shape, onnx};
use nas_probe::Runtime;

pub const OPS: &str = "conv_3x3,skip,conv_5x5,sep_conv_3x3,max_pool_3x3,conv_3x3";
pub const EPOCHS: usize = 8;

pub fn genotype_of(ops: &str) -> Genotype {
    let space = SearchSpace::load("chain_small").unwrap();
    Genotype::parse(Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap(), ops).unwrap()
}

pub fn genotype() -> Genotype {
    genotype_of(OPS)
}

pub fn write_search(dir: &RunDir) {
    let genotype = genotype();
    for epoch in 1..=EPOCHS {
        let progress = epoch as f64 / EPOCHS as f64;
        let networks = &genotype.networks;
        let chosen = |layer: usize, i: usize| if genotype.choices[layer] == i { 1.0 } else { 0.1 };
        let alpha =
            |layer: usize| (0..networks.choices()[layer].len()).map(|i| 2.0 * progress * chosen(layer, i)).collect();
        let line = SearchEpoch {
            epoch,
            learning_rate: 0.025,
            train_loss: 2.0 - progress,
            held_out_loss: (epoch > 2).then_some(2.1 - progress),
            held_out_accuracy: (epoch > 2).then_some(share(0.5 * progress)),
            constraints: vec![Expected {
                cost: "latency on host with ort".into(),
                unit: Unit::Nanoseconds,
                expected: 2.0e6 - 0.7e6 * progress,
                limit: 1.25e6,
            }],
            multipliers: vec![],
            entropies: vec![],
            alpha: networks.searched().map(alpha).collect(),
            choices: networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect(),
            layers: networks.searched().map(|layer| networks.layer_name(layer)).collect(),
            seconds: 61.0,
        };
        artifact::append_line(&dir.search_log(), &line).unwrap();
    }
    artifact::write_json(&dir.genotype(), &genotype).unwrap();
    let lines: Vec<SearchEpoch> = artifact::read_lines(&dir.search_log()).unwrap();
    let on = SearchedOn {
        data: "test".into(),
        data_digest: Digest::of_bytes(b"data"),
        tables: vec![Digest::of_bytes(b"table")],
        genotype: Digest::of(&genotype),
        log: Digest::of_lines(&lines),
        foreign_table: None,
        made: None,
    };
    artifact::write_json(&dir.searched_on(), &on).unwrap();
}

pub fn share(value: f64) -> Share {
    Share::of(value)
}

/// Returns the ONNX file of a network, as if its weights were its name.
pub fn model(network: &Network) -> Vec<u8> {
    let weights = Digest::of_bytes(network.name().as_bytes());
    let model = onnx::untrained(&network.graph(), Precision::Fp32).unwrap();
    onnx::with_metadata(&model, WEIGHTS, weights.as_str()).unwrap()
}

pub fn write_model(dir: &ModelDir, network: &Network, last_accuracy: f64) {
    let _ = std::fs::remove_file(dir.train_log());
    artifact::write_json(&dir.network(), network).unwrap();
    for epoch in 1..=EPOCHS {
        let progress = epoch as f64 / EPOCHS as f64;
        let line = TrainEpoch {
            epoch,
            learning_rate: 0.05 * (1.0 - progress),
            train_loss: 1.9 - 1.5 * progress.sqrt(),
            train_accuracy: share(progress.sqrt() * last_accuracy),
            test_accuracy: Some(share(progress.sqrt() * last_accuracy)),
            held_out_accuracy: None,
            seconds: 30.5,
        };
        artifact::append_line(&dir.train_log(), &line).unwrap();
    }
    artifact::write(&dir.weights(), network.name().as_bytes()).unwrap();
    artifact::write(&dir.onnx(), &model(network)).unwrap();
    let lines: Vec<TrainEpoch> = artifact::read_lines(&dir.train_log()).unwrap();
    let on = TrainedOn {
        data: "test".into(),
        data_digest: Digest::of_bytes(b"data"),
        network: Digest::of(network),
        log: Digest::of_lines(&lines),
        weights: Digest::of_bytes(network.name().as_bytes()),
        classes: vec![],
        normalisation: Normalisation { mean: vec![], std: vec![] },
        arithmetic: Default::default(),
        made: None,
    };
    artifact::write_json(&dir.trained_on(), &on).unwrap();
}

pub fn bench_row(network: &Network, runtime: Runtime, ns: f64) -> BenchRow {
    BenchRow {
        model: network.name(),
        digest: Digest::of_bytes(&model(network)),
        network: Some(Digest::of(network)),
        images: 1,
        device: "test board <&>".into(),
        runtime,
        runtime_version: "0.0.1".into(),
        providers: vec![],
        threads: 1,
        precision: Precision::Fp32,
        latency_ns: Latency::from_ns(ns),
        median_ns: Latency::from_ns(1.02 * ns),
        p5_ns: Latency::from_ns(0.97 * ns),
        p95_ns: Latency::from_ns(1.06 * ns),
        samples: 211,
        disturbed_rounds: 0,
        peak_bytes: 23_456_789,
        prediction: None,
    }
}

pub fn by_layer(layer: Layer, ns: Latency) -> LayerLatency {
    LayerLatency { layer, adds_ns: Some(ns), isolated_ns: Some(2.0 * ns) }
}

/// Returns the layers that the output depends on.
fn live_layers(genotype: &Genotype) -> Vec<Layer> {
    genotype.layers().split_off(genotype.networks.first_live(&genotype.choices))
}

/// Returns a prediction in which each layer takes `ns`, and the whole network takes 5 % more than `latency`.
pub fn prediction(genotype: &Genotype, latency: f64, ns: f64) -> Prediction {
    let layers = live_layers(genotype).into_iter().map(|layer| by_layer(layer, Latency::from_ns(ns)));
    Prediction {
        latency_ns: Latency::from_ns(1.05 * latency),
        table: Digest::of_bytes(b"table"),
        isolated_ns: None,
        layers: layers.collect(),
        interactions: vec!["each layer before skip/2".into()],
        slowness: None,
        foreign_table: None,
    }
}

pub fn baseline() -> Network {
    Network::MobilenetV2(Baseline { width: Width::of(0.5), input: Shape::new(3, 32, 32), classes: 10 })
}

pub fn write_bench(dir: &RunDir) {
    let (found, genotype) = (Network::Genotype(genotype()), genotype());
    for (runtime, found_ns, baseline_ns) in [(Runtime::Tract, 2.4e6, 3.3e6), (Runtime::Ort, 1.2e6, 0.65e6)] {
        let share = found_ns / live_layers(&genotype).len() as f64;
        let prediction = Some(prediction(&genotype, found_ns, share));
        let row = BenchRow { prediction, ..bench_row(&found, runtime, found_ns) };
        // An older measurement, which the next line replaces.
        artifact::append_line(&dir.bench(), &bench_row(&found, runtime, 77.7e6)).unwrap();
        artifact::append_line(&dir.bench(), &row).unwrap();
        artifact::append_line(&dir.bench(), &bench_row(&baseline(), runtime, baseline_ns)).unwrap();
    }
}

pub fn complete_run(dir: &RunDir) {
    write_search(dir);
    write_model(&dir.found(), &Network::Genotype(genotype()), 0.9125);
    write_model(&dir.baseline(), &baseline(), 0.9035);
    write_bench(dir);
}

pub fn folder() -> (tempfile::TempDir, RunDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = RunDir(temp.path().join("run"));
    artifact::create_dir(&dir.0).unwrap();
    (temp, dir)
}

pub fn page(dir: &RunDir) -> String {
    let path = Run::load(dir).unwrap().write(dir).unwrap();
    assert_eq!(path, dir.report());
    let page = std::fs::read_to_string(path).unwrap();
    assert_well_formed(&page);
    page
}

/// Checks that tags are closed in order, and that all text is escaped.
pub fn assert_well_formed(page: &str) {
    let (mut open, mut rest) = (vec![], page.strip_prefix("<!DOCTYPE html>").unwrap());
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>') || open.last() == Some(&"style"), "a bare > in `{text}`");
        let (tag, after) = after.split_once('>').unwrap();
        rest = after;
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "the closed tag is not open"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
}

/// Runs `nas report`, and returns its standard output and error.
pub fn report(dir: &RunDir) -> (String, String) {
    let mut nas = assert_cmd::Command::new(env!("CARGO_BIN_EXE_nas"));
    let output = nas.args(["report", "--run"]).arg(&dir.0).assert().success().get_output().clone();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Returns the page that `nas report` writes, and its warnings.
pub fn reported(dir: &RunDir) -> (String, String) {
    let (_, warnings) = report(dir);
    let page = page(dir);
    (page, warnings)
}

/// Returns the section of a page below a heading.
pub fn section<'p>(page: &'p str, title: &str) -> &'p str {
    let (_, after) = page.split_once(&format!("<h2>{title}</h2>")).unwrap_or_else(|| panic!("no section `{title}`"));
    after.split_once("</section>").unwrap().0
}

/// Returns the key of files whose names contain this letter twelve times.
pub fn key(letter: char) -> Digest {
    serde_json::from_value(letter.to_string().repeat(64).into()).unwrap()
}

/// Notes that a search has begun, which has a log with the first of these keys and candidates with the others.
pub fn begin(dir: &RunDir, log: Option<char>, candidates: &[char]) {
    let files = BegunFiles { log: log.map(key), candidates: candidates.iter().copied().map(key).collect() };
    artifact::write_json(&dir.begun_files(), &files).unwrap();
}

/// Returns an epoch of a supernet that is trained without alpha.
pub fn oneshot_epoch(epoch: usize) -> SearchEpoch {
    SearchEpoch { epoch, learning_rate: 0.05, train_loss: 2.0 / epoch as f64, seconds: 60.0, ..Default::default() }
}

pub fn candidate(ops: &str, epochs: usize, loss: f64) -> CandidateRow {
    let ops = ops.split(',').map(String::from).collect();
    CandidateRow { ops, epochs, loss: Some(loss), accuracy: Some(share(0.75)), seconds: 2.0 }
}

/// Returns candidates as `oneshot` compares them: all are scored with the weights of the supernet, and the best are
/// trained.
pub fn candidates() -> Vec<CandidateRow> {
    let others = ["skip,skip,conv_5x5,skip,skip,conv_3x3", "conv_3x3,skip,skip,skip,skip,conv_3x3"];
    let scored = [(OPS, 0.91), (others[0], 0.95), (others[1], 1.31)].map(|(ops, loss)| candidate(ops, 0, loss));
    let trained = [(OPS, 1, 1.62), (others[0], 1, 1.55), (OPS, 2, 1.31), (others[0], 2, 1.33)];
    scored.into_iter().chain(trained.map(|(ops, epochs, loss)| candidate(ops, epochs, loss))).collect()
}
