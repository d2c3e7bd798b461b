//! Training a network from scratch.

use super::checkpoint::write_tensors;
use super::epochs::{At, Epochs, Metrics, Task};
use super::{
    Arithmetic, Checkpoint, Net, Norm, Placement, Sgd, TrainError, accuracy, correct, cosine, decay_of, tensors,
};
use crate::artifact::{self, Digest};
use crate::bounded::{BatchSize, EpochCount, LearningRate, Momentum, Share, Threads, Weight};
use crate::data::{self, Augment, Batch, Batches, Data, Normalisation};
use crate::record::{Floats, ModelDir, TrainEpoch, TrainedOn, Unfinished};
use crate::space::Network;
use nas_exporters::{Shape, Weights};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::Tensor;

/// How to train: SGD with Nesterov momentum, weight decay on convolution and linear weights, and a cosine from
/// `learning_rate` to zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the training images.
    pub epochs: EpochCount,
    /// Images in a step.
    pub batch_size: BatchSize,
    /// The peak.
    pub learning_rate: LearningRate,
    pub momentum: Momentum,
    pub weight_decay: Weight,
    /// Training images are moved by up to so many pixels.
    pub padding: usize,
    /// Training images are not mirrored.
    pub no_flip: bool,
    /// Of everything random.
    pub seed: u64,
    /// Of libtorch; the same number gives the same result.
    pub threads: Threads,
    /// What convolutions are computed in.
    pub arithmetic: Arithmetic,
}

impl Default for TrainSettings {
    fn default() -> Self {
        TrainSettings {
            epochs: EpochCount::of(30),
            batch_size: BatchSize::of(64),
            learning_rate: LearningRate::of(0.05),
            momentum: Momentum::of(0.9),
            weight_decay: Weight::of(5e-4),
            padding: 4,
            no_flip: false,
            seed: 0,
            threads: Threads::of(1),
            arithmetic: Arithmetic::default(),
        }
    }
}

impl TrainSettings {
    /// # Errors
    /// Where the padding is larger than the images.
    pub fn augment(&self, data: &Data) -> Result<Augment, data::Error> {
        Augment::new(self.padding, !self.no_flip, data.train.shape)
    }
}

/// Trains `network` on all training images and writes its folder: `network.json`, `train.jsonl`, `data.json` and
/// `weights.safetensors`. Resumes from a checkpoint of the same settings.
///
/// # Errors
/// Where the data do not fit the network, the loss is no longer finite, or a file cannot be written.
pub fn fit(
    network: &Network,
    data: &Data,
    settings: &TrainSettings,
    dir: &ModelDir,
) -> Result<Vec<TrainEpoch>, TrainError> {
    let graph = network.graph();
    let images = Shape::from(data.train.shape);
    if images != graph.input_shape() {
        return Err(TrainError::Images { images, network: graph.input_shape() });
    }
    let (classes, logits) = (data.train.classes.len(), graph.output_shape().channels);
    if classes != logits {
        return Err(TrainError::Classes { data: classes, network: logits });
    }
    let augment = settings.augment(data)?;
    let (train, test) = (indices(data.train.len()), indices(data.test.len()));
    let normalisation = Normalisation::of(&data.train, &train)?;
    let size = settings.batch_size.into();
    let batches = Batches { dataset: &data.train, indices: &train, normalisation: &normalisation, size };
    let shown = Batches { dataset: &data.test, indices: &test, ..batches };
    let data_digest = data.fingerprint();
    let key = Digest::of(&(network, settings, &data_digest));
    let unfinished = dir.unfinished();
    super::fix(settings.threads, settings.seed);
    let floats = settings.arithmetic.resolve(&unfinished.arithmetic(&key))?;
    let (name, until) = (network.name(), settings.epochs.get());
    let recipe = Recipe { stage: "train", name, batches, shown, augment, settings, floats, until };
    let (net, log) = recipe.train(network, &unfinished, key)?;
    let weights: Vec<(String, Tensor)> =
        named(&net).map(|(name, tensor)| (name, tensor.detach().contiguous())).collect();
    // The results of an earlier training stay until all of these are there to take their place.
    artifact::write_json(&dir.network(), network)?;
    artifact::write_lines(&dir.train_log(), &log)?;
    write_tensors(&dir.weights(), &weights)?;
    let trained_on = TrainedOn {
        data: data.name.clone(),
        data_digest,
        network: Digest::of(network),
        log: Digest::of_lines(&log),
        weights: Digest::of_bytes(&artifact::read(&dir.weights(), "nas train")?),
        classes: data.train.classes.clone(),
        normalisation: normalisation.clone(),
        arithmetic: floats,
    };
    artifact::write_json(&dir.trained_on(), &trained_on)?;
    Ok(log)
}

/// A training from scratch: on which images, and how long.
pub(super) struct Recipe<'a> {
    /// For the progress bar.
    pub stage: &'static str,
    pub name: String,
    pub batches: Batches<'a>,
    /// Images of which each epoch shows the accuracy; nothing is trained on them.
    pub shown: Batches<'a>,
    pub augment: Augment,
    pub settings: &'a TrainSettings,
    /// What convolutions are trained in.
    pub floats: Floats,
    /// The epoch after which it pauses.
    pub until: usize,
}

impl Recipe<'_> {
    /// Trains a network up to `until`, and gives it with its log. Resumes where the training of the same key was
    /// interrupted, or paused.
    ///
    /// # Errors
    /// Where the loss is no longer finite, or a file cannot be written.
    pub fn train(
        &self,
        network: &Network,
        unfinished: &Unfinished,
        key: Digest,
    ) -> Result<(Net, Vec<TrainEpoch>), TrainError> {
        let settings = self.settings;
        super::fix(settings.threads, settings.seed);
        let net = Net::new(network.graph(), Placement { floats: self.floats, ..Placement::default() });
        let decay = |role| decay_of(role, settings.weight_decay);
        let params = net.trainable().map(|(param, tensor)| (param.name.clone(), tensor, decay(param.role)));
        let sgd = Sgd::new(params, settings.momentum.get());
        let mut task = Fit { net, sgd, settings, shown: self.shown };
        let epochs = Epochs {
            stage: self.stage,
            name: self.name.clone(),
            batches: self.batches,
            augment: self.augment,
            seed: settings.seed,
            epochs: settings.epochs.get(),
            until: self.until,
            learning_rate: settings.learning_rate.get(),
            log: unfinished.log(&key),
            checkpoint: Checkpoint { path: unfinished.checkpoint(&key), key },
        };
        let log = epochs.run(&mut task)?;
        Ok((task.net, log))
    }
}

struct Fit<'a> {
    net: Net,
    sgd: Sgd,
    settings: &'a TrainSettings,
    shown: Batches<'a>,
}

/// Steps over which the learning rate rises, at most; and no more than an epoch.
pub(super) const MOST_WARMUP: usize = 500;

impl Fit<'_> {
    fn learning_rate(&self, at: At) -> f64 {
        let all = self.settings.epochs.get() * at.steps;
        cosine(self.settings.learning_rate.get(), at.done(), all, at.steps.min(MOST_WARMUP))
    }
}

impl Task for Fit<'_> {
    type Row = TrainEpoch;

    fn state(&self) -> Vec<(String, Tensor)> {
        named(&self.net).chain(self.sgd.state()).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        let (images, labels) = tensors(batch, self.net.graph().input_shape(), self.net.device());
        let logits = self.net.forward(&images, Norm::TRAIN);
        let loss = logits.cross_entropy_for_logits(&labels);
        self.sgd.zero_grad();
        loss.backward();
        self.sgd.step(self.learning_rate(at));
        metrics.train.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
    }

    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> TrainEpoch {
        TrainEpoch {
            epoch: at.epoch,
            learning_rate: self.learning_rate(at),
            train_loss: metrics.train.mean_loss().unwrap_or_default(),
            train_accuracy: metrics.train.accuracy().unwrap_or(Share::of(0.0)),
            test_accuracy: accuracy(&self.net, self.shown),
            seconds,
        }
    }

    fn describe(row: &TrainEpoch) -> String {
        format!("loss {:.3}, test {:.1} %", row.train_loss, 100.0 * row.test_accuracy.get())
    }
}

/// Reads the weights that [`fit`] wrote.
///
/// # Errors
/// Where the file is missing or no safetensors of f32.
pub fn read_weights(path: &Path) -> Result<Weights, TrainError> {
    artifact::read(path, "nas train")?;
    let damaged = |reason: String| TrainError::Checkpoint { path: path.into(), reason };
    let mut weights = Weights::default();
    for (name, tensor) in Tensor::read_safetensors(path).map_err(|e| damaged(e.to_string()))? {
        let dims = tensor.size().iter().map(|&d| d as usize).collect();
        let values = Vec::<f32>::try_from(tensor.view(-1)).map_err(|e| damaged(format!("`{name}`: {e}")))?;
        weights.insert(name, dims, values);
    }
    Ok(weights)
}

fn named(net: &Net) -> impl Iterator<Item = (String, Tensor)> {
    net.params().map(|(param, tensor)| (param.name.clone(), tensor.shallow_clone()))
}

fn indices(len: usize) -> Vec<usize> {
    (0..len).collect()
}
