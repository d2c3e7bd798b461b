//! Latency tables with chosen numbers, for tests and benchmarks.
#![allow(dead_code, clippy::unwrap_used)]

use edge_nas::latency::Latency;
use edge_nas::space::{CandidateOp, Layer, LayerSpec, Networks, SearchSpace};
use edge_nas::table::{FORMAT, Header, LatencyTable, Row, Subject};
use nas_exporters::{Precision, Shape};
use nas_probe::{Conditions, Runtime};
use std::path::Path;

pub const COMMAND: &str = "nas-profile --device board";

/// Returns a space whose first layer is `stem` and whose other layers choose from `candidates`.
pub fn space(name: &str, stem: LayerSpec, candidates: &[CandidateOp], layers: &[(usize, usize)]) -> SearchSpace {
    let layer = |&(channels, stride): &(usize, usize)| LayerSpec {
        ops: candidates.to_vec(),
        channels: vec![channels].into(),
        stride,
    };
    SearchSpace { name: name.into(), layers: [stem].into_iter().chain(layers.iter().map(layer)).collect() }
}

pub fn op(name: &str) -> CandidateOp {
    name.parse().unwrap()
}

pub fn header() -> Header {
    header_of(&Networks::new(SearchSpace::load("chain_small").unwrap(), Shape::new(3, 8, 8), [4]).unwrap())
}

/// Returns the header of a table of these networks.
pub fn header_of(networks: &Networks) -> Header {
    Header {
        latency_table: FORMAT,
        device: "board".into(),
        cpu: "0x41/0xd08".into(),
        arch: "aarch64".into(),
        libc: "glibc 2.27".into(),
        runtime: Runtime::Ort.to_string(),
        runtime_version: "1.28.0".into(),
        threads: Some(1),
        precision: Precision::Fp32,
        providers: vec!["cpu".into()],
        pinned: vec![3],
        space: networks.space.clone(),
        input: networks.input,
    }
}

/// Returns a row of `samples` equal timings.
pub fn row(subject: Subject, ns: f64, samples: usize) -> Row {
    let before = Conditions {
        governor: Some("performance".into()),
        khz: Some(1_500_000),
        millicelsius: Some(51_500),
        load1: Some(0.25),
        free_bytes: Some(1 << 30),
        throttled: Some(false),
        power_mw: None,
    };
    Row {
        key: subject.key(),
        subject,
        median_ns: Latency::from_ns(ns),
        samples_ns: vec![ns; samples],
        batch: 4,
        measured_at: 1_795_000_000,
        before: before.clone(),
        during: before,
        after: Conditions::default(),
        others: Some(0.02),
        disturbed: vec![],
        anchor: false,
        unseen: None,
        peak_bytes: None,
    }
}

/// Creates a table of `networks` at `path`, with a row for each of their layers except `zero`.
pub fn filled(path: &Path, networks: &Networks, samples: usize, mut ns: impl FnMut(&Layer) -> f64) -> LatencyTable {
    let mut table = LatencyTable::open(path, header_of(networks), COMMAND).unwrap();
    for layer in networks.distinct_layers().iter().filter(|layer| layer.op != CandidateOp::Zero) {
        table.append(row(Subject::Layer(*layer), ns(layer), samples)).unwrap();
    }
    table
}
