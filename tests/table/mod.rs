//! Latency tables with chosen numbers, for tests and benchmarks.
#![allow(dead_code, clippy::unwrap_used)]

use edge_nas::latency::{Header, Latency, LatencyTable, Row, Subject};
use edge_nas::space::{CandidateOp, Layer};
use nas_probe::{Conditions, Runtime};
use std::path::Path;

pub const COMMAND: &str = "nas-profile --device board";

pub fn header() -> Header {
    Header {
        latency_table: 2,
        device: "board".into(),
        cpu: "0x41/0xd08".into(),
        arch: "aarch64".into(),
        libc: "glibc 2.27".into(),
        runtime: Runtime::Ort.to_string(),
        runtime_version: "1.28.0".into(),
        threads: Some(1),
        precision: "fp32".into(),
        providers: vec!["cpu".into()],
        pinned: vec![3],
        networks: 0,
        validations: vec![],
    }
}

/// A row of `samples` equal timings.
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
        model: subject.digest(),
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
        unseen: false,
        peak_bytes: None,
    }
}

/// A new table at `path` with a row for each of `layers` but `zero`.
pub fn filled(
    path: &Path,
    layers: &[Layer],
    samples: usize,
    mut ns: impl FnMut(&Layer) -> f64,
) -> LatencyTable {
    let mut table = LatencyTable::open(path, header(), COMMAND).unwrap();
    for layer in layers.iter().filter(|layer| layer.op != CandidateOp::ZERO) {
        table.append(row(Subject::Layer(*layer), ns(layer), samples)).unwrap();
    }
    table
}
