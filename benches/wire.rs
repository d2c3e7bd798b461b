//! The wire between host and probe.
#![allow(clippy::unwrap_used)]

use divan::{Bencher, counter::BytesCount};
use nas_probe::{Conditions, ModelRef, Reply, Request, Runtime, Samples, TensorData};

fn main() {
    divan::main();
}

/// An image of 3×32×32 to infer.
fn request() -> Request {
    let values = (0..3072).map(|i| (i as f32 * 0.37).sin()).collect();
    let model = ModelRef { model: "0".repeat(64), runtime: Runtime::Ort, threads: 1 };
    Request::Infer { id: 1, model, inputs: vec![TensorData { shape: vec![1, 3, 32, 32], values }] }
}

/// The reply to a measurement of 100 samples.
fn reply() -> Reply {
    let ns = (0..100).map(|i| 94_123.25 + (i as f64 * 0.37).sin() * 1e3).collect();
    let conditions = Conditions { load1: Some(0.5), khz: Some(1_500_000), ..Default::default() };
    Reply::Samples {
        id: 1,
        samples: Samples {
            batch: 11,
            ns,
            before: conditions.clone(),
            during: conditions.clone(),
            after: conditions,
            others: Some(0.01),
        },
    }
}

#[divan::bench]
fn write_infer_request(bencher: Bencher) {
    let request = request();
    let bytes = serde_json::to_string(&request).unwrap().len();
    bencher.counter(BytesCount::new(bytes)).bench(|| serde_json::to_string(&request).unwrap());
}

#[divan::bench]
fn read_infer_request(bencher: Bencher) {
    let line = serde_json::to_string(&request()).unwrap();
    let read = || serde_json::from_str::<Request>(&line).unwrap();
    bencher.counter(BytesCount::new(line.len())).bench(read);
}

#[divan::bench]
fn write_samples_reply(bencher: Bencher) {
    let reply = reply();
    let bytes = serde_json::to_string(&reply).unwrap().len();
    bencher.counter(BytesCount::new(bytes)).bench(|| serde_json::to_string(&reply).unwrap());
}

#[divan::bench]
fn read_samples_reply(bencher: Bencher) {
    let line = serde_json::to_string(&reply()).unwrap();
    let read = || serde_json::from_str::<Reply>(&line).unwrap();
    bencher.counter(BytesCount::new(line.len())).bench(read);
}
