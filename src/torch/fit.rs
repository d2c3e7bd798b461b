//! Training a network from scratch.

use super::checkpoint::write_tensors;
use super::{Checkpoint, Net, Sgd, TrainError, accuracy, correct, cosine, tensors};
use crate::artifact;
use crate::data::{Augment, Batches, Data, Normalisation};
use crate::progress;
use crate::record::{ModelDir, Network, TrainEpoch, TrainedOn};
use nas_exporters::{Role, Shape, Weights};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;
use tch::Tensor;

/// How to train: SGD with Nesterov momentum, weight decay on convolution and linear weights, and a
/// cosine from `learning_rate` to zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Training")]
pub struct TrainSettings {
    /// Passes over the training images
    #[arg(long, default_value_t = TrainSettings::default().epochs)]
    pub epochs: usize,
    /// Images a step
    #[arg(long, default_value_t = TrainSettings::default().batch_size)]
    pub batch_size: NonZeroUsize,
    /// Peak learning rate
    #[arg(long, default_value_t = TrainSettings::default().learning_rate)]
    pub learning_rate: f64,
    #[arg(long, default_value_t = TrainSettings::default().momentum)]
    pub momentum: f64,
    #[arg(long, default_value_t = TrainSettings::default().weight_decay)]
    pub weight_decay: f64,
    /// Move training images by up to so many pixels
    #[arg(long, default_value_t = TrainSettings::default().padding)]
    pub padding: usize,
    /// Do not mirror training images (for digits and letters)
    #[arg(long)]
    pub no_flip: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = TrainSettings::default().seed)]
    pub seed: u64,
    /// Threads of libtorch; the same number gives the same result
    #[arg(id = "torch_threads", long = "torch-threads", default_value_t = TrainSettings::default().threads)]
    pub threads: NonZeroUsize,
}

impl Default for TrainSettings {
    fn default() -> Self {
        TrainSettings {
            epochs: 30,
            batch_size: NonZeroUsize::MIN.saturating_add(63),
            learning_rate: 0.05,
            momentum: 0.9,
            weight_decay: 5e-4,
            padding: 4,
            no_flip: false,
            seed: 0,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// Trains `network` on all training images and writes its folder: `network.json`, `train.jsonl` and
/// `weights.safetensors`. Goes on from a checkpoint of the same settings.
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
    super::fix(settings.threads, settings.seed);
    let net = Net::new(graph);
    let decay = |role| if role == Role::Weight { settings.weight_decay } else { 0.0 };
    let params = net.trainable().map(|(param, tensor)| (param.name.clone(), tensor, decay(param.role)));
    let mut sgd = Sgd::new(params, settings.momentum);

    let (train, test) = (indices(data.train.len()), indices(data.test.len()));
    let normalisation = Normalisation::of(&data.train, &train)?;
    let size = settings.batch_size;
    let batches = Batches { dataset: &data.train, indices: &train, normalisation: &normalisation, size };
    let test = Batches { dataset: &data.test, indices: &test, ..batches };
    let augment = Augment { padding: settings.padding, flip: !settings.no_flip };
    let steps = train.len().div_ceil(size.get());
    let learning_rate = |epoch: usize, step: usize| {
        let (step, all) = ((epoch - 1) * steps + step, settings.epochs * steps);
        cosine(settings.learning_rate, step, all, steps.min(500))
    };

    let key = crate::digest(&(network, settings, data.fingerprint()));
    let checkpoint = Checkpoint { path: dir.checkpoint(), key };
    let state: Vec<(String, Tensor)> = named(&net).chain(sgd.state()).collect();
    let done = checkpoint.restore(&state)?;
    let mut log: Vec<TrainEpoch> = checkpoint.log(done, &dir.train_log(), &[dir.weights(), dir.onnx()])?;
    artifact::write_json(&dir.network(), network)?;
    artifact::write_lines(&dir.train_log(), &log)?;

    let bar = progress::epochs("train", &network.name(), steps, settings.epochs, done);
    for epoch in done + 1..=settings.epochs {
        let start = Instant::now();
        let (mut loss_sum, mut right) = (0.0, 0);
        for (i, batch) in batches.epoch(settings.seed, epoch as u64, augment).enumerate() {
            let (images, labels) = tensors(&batch, net.graph().input_shape());
            let logits = net.forward(&images, true);
            let loss = logits.cross_entropy_for_logits(&labels);
            sgd.zero_grad();
            loss.backward();
            sgd.step(learning_rate(epoch, i));
            loss_sum += loss.double_value(&[]) * batch.labels.len() as f64;
            right += correct(&logits, &labels);
            bar.inc(1);
        }
        let train_loss = loss_sum / train.len() as f64;
        if !train_loss.is_finite() {
            return Err(TrainError::Diverged {
                epoch,
                loss: train_loss,
                learning_rate: settings.learning_rate,
            });
        }
        let row = TrainEpoch {
            epoch,
            learning_rate: learning_rate(epoch, 0),
            train_loss,
            train_accuracy: right as f64 / train.len() as f64,
            test_accuracy: accuracy(&net, test),
            seconds: start.elapsed().as_secs_f64(),
        };
        bar.set_message(format!("loss {train_loss:.3}, test {:.1} %", 100.0 * row.test_accuracy));
        artifact::append_line(&dir.train_log(), &row)?;
        log.push(row);
        checkpoint.save(epoch, &state)?;
    }
    bar.finish();
    let trained_on =
        TrainedOn { data: data.name.clone(), classes: data.train.classes.clone(), normalisation };
    artifact::write_json(&dir.trained_on(), &trained_on)?;
    write_tensors(
        &dir.weights(),
        &named(&net).map(|(n, t)| (n, t.detach().contiguous())).collect::<Vec<_>>(),
    )?;
    Ok(log)
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
