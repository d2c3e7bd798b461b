//! A training that is interrupted at any step resumes from its checkpoint and gives the same bits.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use edge_nas::artifact::Digest;
use edge_nas::bounded::Weight;
use edge_nas::data::{Augment, Batch, Batches, Data, DataSpec, Normalisation};
use edge_nas::train::{At, Buffers, Checkpoint, Epochs, Metrics, Net, Norm, Placement, Sgd, Task, TrainError, tensors};
use nas_exporters::{Graph, Op, Shape, Weights};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;
use tch::Tensor;

const IMAGES: usize = 40;
const EPOCHS: usize = 3;
/// The last batch of an epoch is smaller.
const BATCH: usize = 12;
const STEPS: usize = IMAGES.div_ceil(BATCH);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    epoch: usize,
    loss: f64,
    right: f64,
    images: f64,
}

/// A small network with batch norm and momentum, which panics at a step.
struct Small {
    net: Net,
    sgd: Sgd,
    interrupted_at: Option<usize>,
}

impl Small {
    fn new(interrupted_at: Option<usize>) -> Small {
        let mut g = Graph::new(Shape::new(1, 28, 28));
        let conv = Op::Conv2d { out_channels: 4, kernel: 3, stride: 2, groups: 1, bias: false };
        let x = g.add("conv", conv, &[g.input()]);
        let x = g.add("bn", Op::BatchNorm, &[x]);
        let x = g.add("relu", Op::Relu, &[x]);
        let x = g.add("pool", Op::GlobalAvgPool, &[x]);
        g.add("linear", Op::Linear { out_features: 10 }, &[x]);
        let net = Net::new(g, Placement::default());
        // Not from libtorch's generator, which all tests share.
        net.load(&Weights::random(net.graph(), 3)).unwrap();
        let sgd = Sgd::new(Buffers::of(&net).trained(Weight::of(1e-4)), 0.9);
        Small { net, sgd, interrupted_at }
    }
}

impl Task for Small {
    type Row = Line;

    fn state(&self) -> Vec<(String, Tensor)> {
        let params = self.net.params().map(|(param, tensor)| (param.name.clone(), tensor.shallow_clone()));
        params.chain(self.sgd.state()).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        assert!(self.interrupted_at != Some(at.done()), "interrupted");
        let (images, labels) = tensors(batch, self.net.graph().input_shape(), self.net.device());
        let logits = self.net.forward(&images, Norm::TRAIN);
        let loss = logits.cross_entropy_for_logits(&labels);
        self.sgd.step_along(&Buffers::gradients(&self.net, &loss), 0.1 / (1.0 + at.done() as f64));
        let right = logits.argmax(1, false).eq_tensor(&labels).sum(tch::Kind::Int64).int64_value(&[]);
        metrics.train.add(loss.double_value(&[]), right as usize, batch.labels.len());
    }

    fn row(&self, at: At, metrics: &Metrics, _: f64) -> Result<Line, TrainError> {
        let seen = metrics.train;
        Ok(Line { epoch: at.epoch, loss: seen.loss, right: seen.right, images: seen.images })
    }

    fn describe(row: &Line) -> String {
        row.epoch.to_string()
    }
}

/// Trains in `dir`, with a checkpoint after every step, and returns the log and all tensors.
fn train(data: &Data, dir: &Path, mut task: Small) -> (Vec<Line>, Vec<(String, Vec<f64>)>) {
    let indices: Vec<usize> = (0..IMAGES).collect();
    let normalisation = Normalisation::of(&data.train, &indices).unwrap();
    let size = NonZeroUsize::new(BATCH).unwrap();
    let epochs = Epochs {
        stage: "test",
        name: "small".into(),
        batches: Batches {
            dataset: &data.train,
            indices: &indices,
            normalisation: &normalisation,
            size,
            balanced: false,
        },
        augment: Augment { padding: 2, flip: true, ..Augment::default() },
        seed: 5,
        epochs: EPOCHS,
        until: EPOCHS,
        learning_rate: 0.1,
        log: dir.join("log.jsonl"),
        checkpoint: Checkpoint { path: dir.join("checkpoint.safetensors"), key: Digest::of_bytes(b"key") },
    };
    let log = epochs.run_saving(&mut task, Duration::ZERO).unwrap();
    let numbers = |tensor: Tensor| -> Vec<f64> {
        Vec::try_from(tensor.detach().to_kind(tch::Kind::Double).contiguous().view(-1)).unwrap()
    };
    (log, task.state().into_iter().map(|(name, tensor)| (name, numbers(tensor))).collect())
}

#[test]
fn an_interruption_at_any_step_changes_nothing() {
    let data = Data::load(&DataSpec::Embedded).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let expected = train(&data, whole.path(), Small::new(None));
    assert_eq!(expected.0.len(), EPOCHS);
    assert!(expected.0.iter().all(|line| line.images == IMAGES as f64), "{:?}", expected.0);
    for step in [0, 1, STEPS - 1, STEPS, STEPS + 2, EPOCHS * STEPS - 1] {
        let dir = tempfile::tempdir().unwrap();
        let interrupted = catch_unwind(AssertUnwindSafe(|| train(&data, dir.path(), Small::new(Some(step)))));
        assert!(interrupted.is_err(), "step {step}");
        assert_eq!(train(&data, dir.path(), Small::new(None)), expected, "interrupted at step {step}");
    }
}

#[test]
fn a_checkpoint_of_another_training_is_not_used() {
    let data = Data::load(&DataSpec::Embedded).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let expected = train(&data, dir.path(), Small::new(None));
    let path = dir.path().join("checkpoint.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    tensors.iter_mut().find(|(name, _)| name == "key").unwrap().1 = Tensor::from_slice(b"another");
    Tensor::write_safetensors(&tensors, &path).unwrap();
    assert_eq!(train(&data, dir.path(), Small::new(None)), expected, "it starts from the first step");
}
