//! A supernet whose networks share weights, trained without a target.

use super::{Component, Search};
use crate::data::Batch;
use crate::record::SearchEpoch;
use crate::search::{Cost, extreme, near};
use crate::train::epochs::{At, Metrics, Task};
use crate::train::settings::MOST_WARMUP;
use crate::train::{Gate, Sgd, Supernet, TrainError, correct, cosine, sandwich_step, tensors, weight_step};
use nas_exporters::Shape;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// How paths are drawn. A supernet whose paths were drawn otherwise is not read.
pub(super) const PATHS: &str = "near evenly drawn latencies";

/// How near the latency of a path is to the one that was drawn for it, as a share of the range of the space.
const TOLERANCE: f64 = 0.02;

/// Random paths of a sandwich, besides the largest and the smallest (Yu et al. 2020, arXiv 2003.11142).
const RANDOM_PATHS: usize = 2;

pub(super) struct Oneshot<'a> {
    search: &'a Search<'a>,
    net: Supernet,
    sgd: Sgd,
    /// By layer, the choices that a path may have.
    live: Vec<Vec<usize>>,
    /// The first cost of the cheapest and of the most expensive network.
    range: (f64, f64),
    /// The networks with the fewest and with the most multiply-accumulates.
    smallest: Vec<usize>,
    largest: Vec<usize>,
}

impl<'a> Oneshot<'a> {
    pub fn new(search: &'a Search<'a>, net: Supernet) -> Oneshot<'a> {
        let networks = &search.searched.networks;
        let live = networks.all_live();
        let macs = Cost::macs(networks).polynomial;
        let first = || live.iter().map(|live| live[0]).collect();
        let extreme = |sign| extreme(&macs, &live, sign).unwrap_or_else(first);
        let (smallest, largest) = (extreme(1.0), extreme(-1.0));
        let range = search.searched.widest()[0].cost.range(networks);
        let sgd = search.sgd(&net);
        Oneshot { search, net, sgd, range, smallest, largest, live }
    }

    pub fn supernet(self) -> Supernet {
        self.net
    }

    /// Returns a random path. The latencies of such paths are spread evenly over the range of the space.
    fn path(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let (least, most) = self.range;
        let wanted = least + rng.random::<f64>() * (most - least);
        let cost = &self.search.searched.widest()[0].cost.polynomial;
        near(cost, &self.live, (wanted, TOLERANCE * (most - least)), rng)
    }

    fn learning_rate(&self, at: At) -> f64 {
        let settings = self.search.settings;
        cosine(settings.learning_rate.get(), at.done(), settings.epochs.get() * at.steps, at.steps.min(MOST_WARMUP))
    }
}

impl Task for Oneshot<'_> {
    type Row = SearchEpoch;

    fn state(&self) -> Vec<(String, Tensor)> {
        let params = self.net.params().map(|(name, _, tensor)| (name.to_string(), tensor.shallow_clone()));
        params.chain(self.sgd.state()).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        let mut rng = super::rng(self.search.settings.seed, at);
        let (images, labels) = tensors(batch, Shape::from(self.search.data.train.shape), self.net.alpha.device());
        let rate = self.learning_rate(at);
        let components = &self.search.settings.components;
        let (loss, logits) = if components.has(Component::Sandwich) {
            let random = (0..RANDOM_PATHS).map(|_| self.path(&mut rng));
            let paths: Vec<_> = [self.largest.clone(), self.smallest.clone()].into_iter().chain(random).collect();
            let distilled = components.has(Component::Distillation);
            sandwich_step(&self.net, &paths, distilled, &mut self.sgd, (&images, &labels), rate)
        } else {
            let path = self.path(&mut rng);
            weight_step(&self.net, Gate::Path(&path), &mut self.sgd, (&images, &labels), rate)
        };
        metrics.train.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
    }

    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> Result<SearchEpoch, TrainError> {
        Ok(SearchEpoch {
            epoch: at.epoch,
            learning_rate: self.learning_rate(at),
            train_loss: metrics.train.mean_loss().unwrap_or_default(),
            seconds,
            ..SearchEpoch::default()
        })
    }

    fn describe(row: &SearchEpoch) -> String {
        format!("loss {:.3}", row.train_loss)
    }
}
