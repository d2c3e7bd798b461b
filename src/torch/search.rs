//! Differentiable architecture search with a latency term.
//!
//! Alternates, batch by batch, a step of the weights on the training split with a step of alpha on
//! the held-out split (Liu et al. 2019, arXiv 1806.09055, first order).

use super::{
    Adam, Checkpoint, LatencyTerm, Sgd, Supernet, TrainError, alpha_step, correct, cosine, tensors,
    weight_step,
};
use crate::artifact;
use crate::data::{Augment, Batches, Data, Normalisation, split};
use crate::latency::{Latency, LatencyModel};
use crate::progress;
use crate::record::{RunDir, SearchEpoch};
use crate::space::{Genotype, SearchSpace};
use nas_exporters::{Role, Shape};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::time::Instant;
use tch::{Kind, Tensor};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Search")]
pub struct SearchSettings {
    /// Passes over the training split
    #[arg(long, default_value_t = SearchSettings::default().epochs)]
    pub epochs: usize,
    /// First epochs, of these, that train only weights
    #[arg(long, default_value_t = SearchSettings::default().warmup_epochs)]
    pub warmup_epochs: usize,
    /// Images a step
    #[arg(long, default_value_t = SearchSettings::default().batch_size)]
    pub batch_size: NonZeroUsize,
    /// Share of the training images that alpha is trained on, and weights are not
    #[arg(long, default_value_t = SearchSettings::default().held_out)]
    pub held_out: f64,
    /// Peak learning rate of the weights
    #[arg(long, default_value_t = SearchSettings::default().learning_rate)]
    pub learning_rate: f64,
    #[arg(long, default_value_t = SearchSettings::default().momentum)]
    pub momentum: f64,
    #[arg(long, default_value_t = SearchSettings::default().weight_decay)]
    pub weight_decay: f64,
    /// Learning rate of alpha
    #[arg(long, default_value_t = SearchSettings::default().alpha_learning_rate)]
    pub alpha_learning_rate: f64,
    #[arg(long, default_value_t = SearchSettings::default().alpha_weight_decay)]
    pub alpha_weight_decay: f64,
    /// λ, the weight of the latency term
    #[arg(long, default_value_t = SearchSettings::default().latency_weight)]
    pub latency_weight: f64,
    /// Move training images by up to so many pixels
    #[arg(long, default_value_t = SearchSettings::default().padding)]
    pub padding: usize,
    /// Do not mirror training images (for digits and letters)
    #[arg(long)]
    pub no_flip: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = SearchSettings::default().seed)]
    pub seed: u64,
    /// Threads of libtorch; the same number gives the same result
    #[arg(id = "torch_threads", long = "torch-threads", default_value_t = SearchSettings::default().threads)]
    pub threads: NonZeroUsize,
}

impl Default for SearchSettings {
    fn default() -> Self {
        SearchSettings {
            epochs: 10,
            warmup_epochs: 1,
            batch_size: NonZeroUsize::MIN.saturating_add(63),
            held_out: 0.5,
            learning_rate: 0.05,
            momentum: 0.9,
            weight_decay: 3e-4,
            alpha_learning_rate: 3e-3,
            alpha_weight_decay: 1e-3,
            latency_weight: 0.5,
            padding: 4,
            no_flip: false,
            seed: 0,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// What is searched, and what for.
pub struct Searched {
    pub space: SearchSpace,
    pub model: LatencyModel,
    pub target: Latency,
    /// In what the table behind the model differs from the device's own, where that was allowed.
    pub foreign: Option<String>,
}

/// Adam's decay rates for alpha, as in the DARTS code.
const ALPHA_BETAS: (f64, f64) = (0.5, 0.999);

/// Searches `space` and writes `search.jsonl` and `genotype.json`: the likeliest network under
/// softmax(alpha) whose predicted latency is within `target`. Goes on from a checkpoint of the same
/// settings, data and table.
///
/// # Errors
/// Where no network of the space meets `target`, the loss is no longer finite, or a file cannot be
/// written.
pub fn search(
    searched: &Searched,
    data: &Data,
    settings: &SearchSettings,
    run: &RunDir,
) -> Result<Genotype, TrainError> {
    let Searched { space, model, target, foreign } = searched;
    let target = *target;
    model.check_target(target)?;
    super::fix(settings.threads, settings.seed);
    let input = Shape::from(data.train.shape);
    let classes = data.train.classes.len();
    let net = Supernet::new(space, input, classes);
    let trained = net.params().filter(|(_, param, _)| param.role.is_trained());
    let decay = |role| if role == Role::Weight { settings.weight_decay } else { 0.0 };
    let mut sgd =
        Sgd::new(trained.map(|(name, param, tensor)| (name, tensor, decay(param.role))), settings.momentum);
    let mut adam = Adam::new(&net.alpha, ALPHA_BETAS, settings.alpha_weight_decay);
    let term = LatencyTerm::new(model, target, settings.latency_weight);

    let all: Vec<usize> = (0..data.train.len()).collect();
    let (train, held_out) = split(&data.train, &all, settings.held_out, settings.seed)?;
    let normalisation = Normalisation::of(&data.train, &train)?;
    let size = settings.batch_size;
    let train = Batches { dataset: &data.train, indices: &train, normalisation: &normalisation, size };
    let held_out = Batches { indices: &held_out, ..train };
    let augment = Augment { padding: settings.padding, flip: !settings.no_flip };
    let steps = train.indices.len().div_ceil(size.get());
    let learning_rate = |epoch: usize, step: usize| {
        cosine(settings.learning_rate, (epoch - 1) * steps + step, settings.epochs * steps, 0)
    };

    let key = crate::digest(&(space, model, target, settings, data.fingerprint()));
    let checkpoint = Checkpoint { path: run.search_checkpoint(), key };
    let state: Vec<(String, Tensor)> = net
        .params()
        .map(|(name, _, tensor)| (name, tensor.shallow_clone()))
        .chain(sgd.state())
        .chain(adam.state())
        .chain([("alpha".to_string(), net.alpha.shallow_clone())])
        .collect();
    let done = checkpoint.restore(&state)?;
    let log: Vec<SearchEpoch> = checkpoint.log(done, &run.search_log(), &[run.genotype()])?;
    artifact::write_lines(&run.search_log(), &log)?;

    let bar = progress::epochs("search", &space.name, steps, settings.epochs, done);
    for epoch in done + 1..=settings.epochs {
        let start = Instant::now();
        let learn_alpha = epoch > settings.warmup_epochs;
        let (mut train_loss, mut validation_loss, mut seen, mut right) = (0.0, 0.0, 0, 0);
        let mut fresh =
            (0u64..).flat_map(|pass| held_out.epoch(!settings.seed, ((epoch as u64) << 32) + pass, augment));
        for (i, batch) in train.epoch(settings.seed, epoch as u64, augment).enumerate() {
            let (images, labels) = tensors(&batch, input);
            let loss = weight_step(&net, &mut sgd, &images, &labels, learning_rate(epoch, i));
            train_loss += loss.double_value(&[]) * batch.labels.len() as f64;

            if learn_alpha && let Some(batch) = fresh.next() {
                let (images, labels) = tensors(&batch, input);
                let rate = settings.alpha_learning_rate;
                let (loss, logits) = alpha_step(&net, &mut adam, &term, &images, &labels, rate);
                validation_loss += loss.double_value(&[]) * batch.labels.len() as f64;
                seen += batch.labels.len();
                right += correct(&logits, &labels);
            }
            bar.inc(1);
        }
        let train_loss = train_loss / train.indices.len() as f64;
        if !train_loss.is_finite() {
            return Err(TrainError::Diverged {
                epoch,
                loss: train_loss,
                learning_rate: settings.learning_rate,
            });
        }
        let row = SearchEpoch {
            epoch,
            learning_rate: learning_rate(epoch, 0),
            train_loss,
            validation_loss: (seen > 0).then(|| validation_loss / seen as f64),
            validation_accuracy: (seen > 0).then(|| right as f64 / seen as f64),
            expected_ns: model.expected(&rows(&net.probabilities())),
            target_ns: target,
            foreign_table: foreign.clone(),
            alpha: rows(&net.alpha),
            candidates: space.candidates.clone(),
            seconds: start.elapsed().as_secs_f64(),
        };
        bar.set_message(format!("loss {train_loss:.3}, expected {}", row.expected_ns));
        artifact::append_line(&run.search_log(), &row)?;
        checkpoint.save(epoch, &state)?;
    }
    bar.finish();
    let log_probabilities = rows(&net.alpha.log_softmax(-1, Kind::Float));
    let ops = model.likeliest_within(&log_probabilities, target)?;
    let genotype = Genotype { ops, input, classes, space: space.clone() };
    artifact::write_json(&run.genotype(), &genotype)?;
    Ok(genotype)
}

fn rows(matrix: &Tensor) -> Vec<Vec<f64>> {
    let row = |i| {
        let row = matrix.get(i).detach();
        (0..row.size()[0]).map(|j| row.double_value(&[j])).collect()
    };
    (0..matrix.size()[0]).map(row).collect()
}
