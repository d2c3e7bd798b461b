//! The two steps of the search, on the space `chain` and batches of 8 images of 3×32×32.
#![allow(clippy::unwrap_used)]

#[path = "../tests/table/mod.rs"]
mod table;

use divan::{Bencher, counter::ItemsCount};
use edge_nas::latency::{Images, LatencyModel, Networks, Target};
use edge_nas::space::SearchSpace;
use edge_nas::torch::{Adam, LatencyTerm, Sgd, Supernet, alpha_step, fix, weight_step};
use nas_exporters::Shape;
use std::num::NonZeroUsize;
use table::filled;
use tch::{Device, Kind, Tensor};

fn networks(space: &SearchSpace) -> Networks<'_> {
    Networks { space, images: Images { shape: CIFAR10, classes: CLASSES } }
}

fn main() {
    fix(NonZeroUsize::MIN, 0);
    divan::main();
}

const CIFAR10: Shape = Shape { channels: 3, height: 32, width: 32 };
const CLASSES: usize = 10;

/// A supernet with its optimizers, the latency term of a table, and a batch.
struct Search {
    net: Supernet,
    sgd: Sgd,
    adam: Adam,
    term: LatencyTerm,
    images: Tensor,
    labels: Tensor,
}

fn search() -> Search {
    let space = SearchSpace::load("chain").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let layers = space.distinct_layers(CIFAR10, CLASSES);
    let table = filled(&dir.path().join("chain.jsonl"), &layers, 1, |layer| layer.graph().cost().macs as f64);
    let model = LatencyModel::new(&table, &networks(&space)).unwrap();
    let net = Supernet::new(&space, CIFAR10, CLASSES);
    let sgd = Sgd::new(net.params().map(|(name, _, tensor)| (name, tensor, 3e-4)), 0.9);
    let adam = Adam::new(&net.alpha, (0.5, 0.999), 1e-3);
    let term = LatencyTerm::new(&model, Target::Percent(40.0).resolve(&model), 0.5);
    let images = Tensor::randn([8, 3, 32, 32], (Kind::Float, Device::Cpu));
    let labels = Tensor::arange(8, (Kind::Int64, Device::Cpu));
    Search { net, sgd, adam, term, images, labels }
}

#[divan::bench(sample_count = 20)]
fn step_of_the_weights(bencher: Bencher) {
    let Search { net, mut sgd, images, labels, .. } = search();
    bencher
        .counter(ItemsCount::new(8u32))
        .bench_local(|| weight_step(&net, &mut sgd, &images, &labels, 0.05));
}

#[divan::bench(sample_count = 20)]
fn step_of_alpha(bencher: Bencher) {
    let Search { net, mut adam, term, images, labels, .. } = search();
    bencher
        .counter(ItemsCount::new(8u32))
        .bench_local(|| alpha_step(&net, &mut adam, &term, &images, &labels, 3e-3));
}
