//! From a trained network's weights to ONNX.
#![allow(clippy::unwrap_used)]

use divan::Bencher;
use edge_nas::space::{Genotype, SearchSpace, mobilenet_v2};
use nas_exporters::{Graph, Shape, Weights, fold_batch_norm, onnx};

fn main() {
    divan::main();
}

const CIFAR10: Shape = Shape { channels: 3, height: 32, width: 32 };

/// The network that the original report found in `chain`.
fn genotype() -> Graph {
    let ops = "conv_3x3,skip,conv_3x3,conv_3x3,conv_3x3,conv_3x3";
    Genotype::parse(SearchSpace::load("chain").unwrap(), ops, CIFAR10, 10).unwrap().graph()
}

#[divan::bench]
fn encode_genotype(bencher: Bencher) {
    let graph = genotype();
    let weights = Weights::random(&graph, 0);
    bencher.bench(|| onnx::encode(&graph, &weights).unwrap());
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
    bencher.bench(|| onnx::encode(&graph, &weights).unwrap());
}
