//! The two steps of the search, on the space `chain` and batches of 8 images of 3×32×32.
#![allow(clippy::unwrap_used)]

#[path = "../tests/table/mod.rs"]
mod table;

use divan::{Bencher, counter::ItemsCount};
use edge_nas::bounded::Threads;
use edge_nas::latency::Target;
use edge_nas::model::LatencyModel;
use edge_nas::search::{Constraint, Cost, latency_range};
use edge_nas::space::{Networks, SearchSpace};
use edge_nas::train::{Adam, Gate, Placement, Sgd, Supernet, alpha_step, fix, penalty, weight_step};
use nas_exporters::Shape;
use table::filled;
use tch::{Device, Kind, Tensor};

fn main() {
    fix(Threads::of(1), 0);
    divan::main();
}

const CIFAR10: Shape = Shape { channels: 3, height: 32, width: 32 };
const CLASSES: usize = 10;

/// A supernet with its optimizers, a latency limit, and a batch.
struct Search {
    net: Supernet,
    sgd: Sgd,
    adam: Adam,
    constraints: Vec<Constraint>,
    images: Tensor,
    labels: Tensor,
}

fn search() -> Search {
    let mut space = SearchSpace::load("chain").unwrap();
    let widths = [32, 32, 32, 64, 64, 128, 128].map(|width| vec![width].into());
    space.layers.iter_mut().zip(widths).for_each(|(layer, width)| layer.channels = width);
    let networks = Networks::new(space, CIFAR10, [CLASSES]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let table = filled(&dir.path().join("chain.jsonl"), &networks, 1, |layer| layer.graph().cost().macs as f64);
    let model = LatencyModel::new(&table, &networks).unwrap();
    let net = Supernet::new(&networks, Placement::default(), false);
    let sgd = Sgd::new(net.params().map(|(name, _, tensor)| (name.to_string(), tensor, 3e-4)), 0.9);
    let adam = Adam::new(&net.alpha, (0.5, 0.999), 1e-3);
    let limit = Target::Percent(40.0).resolve(latency_range(&model)).ns();
    let constraints = vec![Constraint::new(Cost::latency(&model), limit)];
    let images = Tensor::randn([8, 3, 32, 32], (Kind::Float, Device::Cpu));
    let labels = Tensor::arange(8, (Kind::Int64, Device::Cpu));
    Search { net, sgd, adam, constraints, images, labels }
}

#[divan::bench(sample_count = 20)]
fn step_of_the_weights(bencher: Bencher) {
    let Search { net, mut sgd, images, labels, .. } = search();
    let probabilities: Vec<Tensor> = net.probabilities().iter().map(Tensor::detach).collect();
    let step = || weight_step(&net, Gate::Mixture(&probabilities), &mut sgd, (&images, &labels), 0.05);
    bencher.counter(ItemsCount::new(8u32)).bench_local(step);
}

#[divan::bench(sample_count = 20)]
fn step_of_one_path(bencher: Bencher) {
    let Search { net, mut sgd, images, labels, .. } = search();
    let step = || weight_step(&net, Gate::Path(&[0; 8]), &mut sgd, (&images, &labels), 0.05);
    bencher.counter(ItemsCount::new(8u32)).bench_local(step);
}

#[divan::bench(sample_count = 20)]
fn step_of_alpha(bencher: Bencher) {
    let Search { net, mut adam, constraints, images, labels, .. } = search();
    let step = || {
        let probabilities = net.probabilities();
        let limits = penalty(&constraints, &probabilities, 0.5);
        alpha_step(&net, &mut adam, (Gate::Mixture(&probabilities), &limits), (&images, &labels), 3e-3)
    };
    bencher.counter(ItemsCount::new(8u32)).bench_local(step);
}
