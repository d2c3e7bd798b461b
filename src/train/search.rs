//! Training a supernet as a mixture.
//!
//! Alternates, batch by batch, a step of the weights on the training split with a step of alpha on the held-out split
//! (Liu et al. 2019, arXiv 1806.09055, first order).

use super::epochs::{At, Epochs, Metrics, Task};
use super::supernet::{Gate, Supernet, numbers};
use super::{Adam, Checkpoint, Placement, Sgd, TrainError, alpha_step, correct, cosine, tensors, weight_step};
use crate::artifact::Digest;
use crate::bounded::{BatchSize, EpochCount, HeldOut, LearningRate, Momentum, Threads, Weight};
use crate::data::{self, Augment, Batch, Batches, Data, Normalisation, split};
use crate::record::{Expected, RunDir, SearchEpoch};
use crate::search::Searched;
use crate::space::names_of;
use nas_exporters::{Role, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How to train a supernet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Passes over the training split.
    pub epochs: EpochCount,
    /// The first of these epochs, which train only weights; fewer than all.
    pub warmup_epochs: usize,
    /// Images in a step.
    pub batch_size: BatchSize,
    /// Share of the training images that alpha is trained on, and weights are not.
    pub held_out: HeldOut,
    /// Of the weights: the peak.
    pub learning_rate: LearningRate,
    pub momentum: Momentum,
    pub weight_decay: Weight,
    pub alpha_learning_rate: LearningRate,
    pub alpha_weight_decay: Weight,
    /// λ, the weight of the constraints in the loss of alpha.
    pub latency_weight: Weight,
    /// Training images are moved by up to so many pixels.
    pub padding: usize,
    /// Training images are not mirrored.
    pub no_flip: bool,
    /// Of everything random.
    pub seed: u64,
    /// Of libtorch; the same number gives the same result.
    pub threads: Threads,
}

impl Default for SearchSettings {
    fn default() -> Self {
        SearchSettings {
            epochs: EpochCount::of(10),
            warmup_epochs: 1,
            batch_size: BatchSize::of(64),
            held_out: HeldOut::of(0.5),
            learning_rate: LearningRate::of(0.05),
            momentum: Momentum::of(0.9),
            weight_decay: Weight::of(3e-4),
            alpha_learning_rate: LearningRate::of(3e-3),
            alpha_weight_decay: Weight::of(1e-3),
            latency_weight: Weight::of(0.5),
            padding: 4,
            no_flip: false,
            seed: 0,
            threads: Threads::of(1),
        }
    }
}

impl SearchSettings {
    /// # Errors
    /// Where the warm-up leaves no epoch that trains alpha.
    pub fn check(&self) -> Result<(), TrainError> {
        let (epochs, warmup) = (self.epochs.get(), self.warmup_epochs);
        if warmup < epochs { Ok(()) } else { Err(TrainError::Untrained { epochs, warmup }) }
    }

    /// # Errors
    /// Where the padding is larger than the images.
    pub fn augment(&self, data: &Data) -> Result<Augment, data::Error> {
        Augment::new(self.padding, !self.no_flip, data.train.shape)
    }
}

/// Adam's decay rates for alpha, as in the DARTS code.
const ALPHA_BETAS: (f64, f64) = (0.5, 0.999);

/// Trains a supernet, and gives the log and, by layer, the log-probability of each choice. Resumes from a
/// checkpoint of the same settings and data; the constraints are part of these only where they have a weight.
///
/// # Errors
/// Where a layer cannot be mixed, the loss is no longer finite, or a file cannot be written.
pub fn train_supernet(
    searched: &Searched,
    data: &Data,
    settings: &SearchSettings,
    run: &RunDir,
) -> Result<(Vec<SearchEpoch>, Vec<Vec<f64>>), TrainError> {
    let (networks, constraints) = (&searched.networks, searched.widest());
    settings.check()?;
    let augment = settings.augment(data)?;
    super::fix(settings.threads, settings.seed);
    let net = Supernet::new(networks, Placement::default())?;
    let trained = net.params().filter(|(_, param, _)| param.role.is_trained());
    let decay = |role| if role == Role::Weight { settings.weight_decay.get() } else { 0.0 };
    let params = trained.map(|(name, param, tensor)| (name, tensor, decay(param.role)));
    let sgd = Sgd::new(params, settings.momentum.get());
    let adam = Adam::new(&net.alpha, ALPHA_BETAS, settings.alpha_weight_decay.get());

    let all: Vec<usize> = (0..data.train.len()).collect();
    let (train, held_out) = split(&data.train, &all, settings.held_out.get(), settings.seed)?;
    let normalisation = Normalisation::of(&data.train, &train)?;
    let size = settings.batch_size.into();
    let batches = Batches { dataset: &data.train, indices: &train, normalisation: &normalisation, size };
    let held_out = Batches { indices: &held_out, ..batches };
    let weighted = if settings.latency_weight.get() > 0.0 { constraints } else { &[] };
    let (space, input, classes) = (&networks.space, networks.input, &networks.classes);
    let key = Digest::of(&(space, input, classes, weighted, settings, data.fingerprint()));
    let unfinished = run.unfinished();
    let epochs = Epochs {
        stage: "search",
        name: networks.space.name.clone(),
        batches,
        augment,
        seed: settings.seed,
        epochs: settings.epochs.get(),
        learning_rate: settings.learning_rate.get(),
        log: &unfinished.log(&key),
        checkpoint: Checkpoint { path: unfinished.checkpoint(&key), key },
    };
    let mut task = Mixture { net, sgd, adam, searched, settings, held_out, augment };
    let log = epochs.run(&mut task)?;
    Ok((log, task.net.log_probabilities().iter().map(numbers).collect()))
}

struct Mixture<'a> {
    net: Supernet,
    sgd: Sgd,
    adam: Adam,
    searched: &'a Searched,
    settings: &'a SearchSettings,
    held_out: Batches<'a>,
    augment: Augment,
}

impl Mixture<'_> {
    fn learning_rate(&self, at: At) -> f64 {
        let (peak, epochs) = (self.settings.learning_rate.get(), self.settings.epochs.get());
        cosine(peak, at.done(), epochs * at.steps, 0)
    }

    fn tensors(&self, batch: &Batch) -> (Tensor, Tensor) {
        tensors(batch, Shape::from(self.held_out.dataset.shape), self.net.alpha.device())
    }

    /// The held-out batch of a step. An epoch goes through the held-out split as often as it needs to, each time in a
    /// new order, which no epoch of the training split has.
    fn held_out(&self, at: At) -> Batch {
        let batches = self.held_out.indices.len().div_ceil(self.held_out.size.get());
        let (pass, step) = (at.step / batches, at.step % batches);
        let stream = ((at.epoch as u64) << 32) + pass as u64;
        self.held_out.epoch(!self.settings.seed, stream, self.augment).batch(step)
    }
}

impl Task for Mixture<'_> {
    type Row = SearchEpoch;

    fn state(&self) -> Vec<(String, Tensor)> {
        let params = self.net.params().map(|(name, _, tensor)| (name, tensor.shallow_clone()));
        let alpha = [("alpha".to_string(), self.net.alpha.shallow_clone())];
        params.chain(self.sgd.state()).chain(self.adam.state()).chain(alpha).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        let (images, labels) = self.tensors(batch);
        let probabilities: Vec<Tensor> = self.net.probabilities().iter().map(Tensor::detach).collect();
        let (gate, rate) = (Gate::Mixture(&probabilities), self.learning_rate(at));
        let (loss, logits) = weight_step(&self.net, gate, &mut self.sgd, (&images, &labels), rate);
        metrics.train.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
        if at.epoch > self.settings.warmup_epochs {
            let batch = self.held_out(at);
            let (images, labels) = self.tensors(&batch);
            let limits = (self.searched.widest(), self.settings.latency_weight.get());
            let rate = self.settings.alpha_learning_rate.get();
            let (loss, logits) = alpha_step(&self.net, &mut self.adam, limits, (&images, &labels), rate);
            metrics.held_out.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
        }
    }

    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> SearchEpoch {
        let Searched { networks, foreign, .. } = self.searched;
        let probabilities: Vec<Vec<f64>> = self.net.probabilities().iter().map(numbers).collect();
        SearchEpoch {
            epoch: at.epoch,
            learning_rate: self.learning_rate(at),
            train_loss: metrics.train.mean_loss().unwrap_or_default(),
            validation_loss: metrics.held_out.mean_loss(),
            validation_accuracy: metrics.held_out.accuracy(),
            constraints: self
                .searched
                .widest()
                .iter()
                .map(|constraint| Expected::of(constraint, &probabilities))
                .collect(),
            foreign_table: foreign.clone(),
            alpha: self.net.alpha_rows(),
            choices: networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect(),
            seconds,
        }
    }

    fn describe(row: &SearchEpoch) -> String {
        let expected = row.constraints.iter().map(|c| c.unit.show(c.expected));
        format!("loss {:.3}, expected {}", row.train_loss, expected.collect::<Vec<_>>().join(", "))
    }
}
