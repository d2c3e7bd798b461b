//! From a trained network's weights to ONNX.
#![allow(clippy::unwrap_used)]

use divan::Bencher;
use edge_nas::space::baselines::mobilenet_v2;
use edge_nas::space::{Genotype, Networks, SearchSpace};
use nas_exporters::{Graph, Precision, Shape, Weights, fold_batch_norm, onnx};

fn main() {
    divan::main();
}

const CIFAR10: Shape = Shape { channels: 3, height: 32, width: 32 };

/// A network of `chain` that a search found.
fn genotype() -> Graph {
    let ops = "conv_3x3:32,skip,conv_3x3:64,conv_3x3,conv_3x3:128,conv_3x3";
    let networks = Networks::new(SearchSpace::load("chain").unwrap(), CIFAR10, [10]).unwrap();
    Genotype::parse(networks, ops).unwrap().graph()
}

#[divan::bench]
fn encode_genotype(bencher: Bencher) {
    let graph = genotype();
    let weights = Weights::random(&graph, 0);
    bencher.bench(|| onnx::encode(&graph, &weights, Precision::Fp32).unwrap());
}

#[divan::bench]
fn fold_genotype(bencher: Bencher) {
    let graph = genotype();
    let weights = Weights::random(&graph, 0);
    bencher.bench(|| fold_batch_norm(&graph, &weights).unwrap());
}

#[divan::bench]
fn encode_mobilenet_v2(bencher: Bencher) {
    let graph = mobilenet_v2(0.5, CIFAR10, 10);
    let weights = Weights::random(&graph, 0);
    bencher.bench(|| onnx::encode(&graph, &weights, Precision::Fp32).unwrap());
}
