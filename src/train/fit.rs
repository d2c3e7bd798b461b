//! Training a network from scratch.

use super::checkpoint::{read_tensors, write_tensors};
use super::epochs::Epochs;
use super::init;
use super::student::{Shown, Student};
use super::{Checkpoint, Init, Net, Placement, Taught, Teacher, TrainError, TrainSettings};
use crate::artifact::{self, ArtifactError, Digest};
use crate::data::{Augment, Batches, Data, Normalisation};
use crate::record::{Made, ModelDir, TrainEpoch, TrainedOn, Unfinished};
use crate::space::Network;
use nas_exporters::{Shape, Weights};
use std::path::{Path, PathBuf};

/// Trains `network`, also from a teacher's answers if there is one, and writes its folder: `network.json`,
/// `train.jsonl`, `data.json` and `weights.safetensors`. Resumes from a checkpoint of the same settings.
///
/// # Errors
/// Fails if the data do not fit the network, if the loss is no longer finite, or if a file cannot be written.
pub fn fit(
    network: &Network,
    data: &Data,
    settings: &TrainSettings,
    taught: Option<&Taught>,
    dir: &ModelDir,
) -> Result<Vec<TrainEpoch>, TrainError> {
    check(network, data)?;
    let unused = settings.unused_without_teacher();
    if taught.is_none() && !unused.is_empty() {
        log::warn!("a training without --teacher does not use {}", unused.join(", "));
    }
    let device = settings.torch_device.resolve()?;
    let augment = settings.augment(data)?;
    let (train, held_out) = settings.split(data)?;
    let test = data.test.indices();
    let normalisation = Normalisation::of(&data.train, &train)?;
    let (size, balanced) = (settings.batch_size.into(), settings.balanced);
    let batches = Batches { dataset: &data.train, indices: &train, normalisation: &normalisation, size, balanced };
    let data_digest = data.digest();
    taught.map_or(Ok(()), |taught| taught.check(&data_digest))?;
    let key = Digest::of(&(network, settings, &data_digest, taught.map(|taught| &taught.trained.on.weights)));
    let unfinished = dir.unfinished();
    super::fix(settings.threads, settings.seed);
    let floats = settings.arithmetic.resolve(&unfinished.arithmetic(&key), device)?;
    let teacher = taught.map(|taught| Teacher::of(taught, &data.train, augment, device)).transpose()?;
    let test = Batches { dataset: &data.test, indices: &test, ..batches };
    let best = unfinished.best(&key);
    let shown = match held_out.is_empty() {
        true => Shown::Test(test),
        false => {
            let images = Batches { indices: &held_out, ..batches };
            Shown::HeldOut { images, test: Some(test), best: Some(best.clone()) }
        }
    };
    let (name, until) = (network.name(), settings.epochs.get());
    let placement = Placement { device, floats };
    let teacher = teacher.as_ref();
    let recipe = Recipe { stage: "train", name, batches, shown, augment, settings, teacher, placement, until };
    let (net, log) = recipe.train(network, &unfinished, key)?;
    let weights = write(dir, network, &log, &net, (!held_out.is_empty()).then_some(&best))?;
    let trained_on = TrainedOn {
        data: data.name.clone(),
        data_digest,
        network: Digest::of(network),
        log: Digest::of_lines(&log),
        weights,
        classes: data.train.classes.clone(),
        normalisation: normalisation.clone(),
        arithmetic: floats,
        made: Some(Made::here(settings.seed, placement.processor())),
    };
    artifact::write_json(&dir.trained_on(), &trained_on)?;
    Ok(log)
}

/// Writes a trained network and returns the digest of its weights. The results of an earlier training stay until all of
/// the new ones are there to replace them.
fn write(
    dir: &ModelDir,
    network: &Network,
    log: &[TrainEpoch],
    net: &Net,
    best: Option<&PathBuf>,
) -> Result<Digest, TrainError> {
    artifact::write_json(&dir.network(), network)?;
    artifact::write_lines(&dir.train_log(), log)?;
    write_tensors(&dir.weights(), &net.named())?;
    match best {
        Some(best) => artifact::write(&dir.best_weights(), &artifact::read(best, "nas train")?)?,
        // The best weights of an earlier training are not those of this one.
        None => artifact::remove(&dir.best_weights())?,
    }
    Ok(Digest::of_bytes(&artifact::read(&dir.weights(), "nas train")?))
}

/// Checks that a network fits the data.
///
/// # Errors
/// Fails if the network does not take the images, or has another number of classes.
fn check(network: &Network, data: &Data) -> Result<(), TrainError> {
    let graph = network.graph();
    let images = Shape::from(data.train.shape);
    if images != graph.input_shape() {
        return Err(TrainError::Images { images, network: graph.input_shape() });
    }
    let (classes, logits) = (data.train.classes.len(), graph.output_shape().channels);
    if classes != logits {
        return Err(TrainError::Classes { data: classes, network: logits });
    }
    Ok(())
}

/// A training from scratch: on which images, and for how long.
pub(super) struct Recipe<'a> {
    /// Name of the stage, for the progress bar.
    pub stage: &'static str,
    pub name: String,
    pub batches: Batches<'a>,
    pub shown: Shown<'a>,
    pub augment: Augment,
    pub settings: &'a TrainSettings,
    pub teacher: Option<&'a Teacher>,
    /// Where the net is computed, and the number formats of its convolutions.
    pub placement: Placement,
    /// The epoch after which the training pauses.
    pub until: usize,
}

impl Recipe<'_> {
    /// Trains a network up to `until`, and returns it with its log. Resumes if the training with the same key was
    /// interrupted or paused.
    ///
    /// # Errors
    /// Fails if the loss is no longer finite, or if a file cannot be written.
    pub fn train(
        &self,
        network: &Network,
        unfinished: &Unfinished,
        key: Digest,
    ) -> Result<(Net, Vec<TrainEpoch>), TrainError> {
        let settings = self.settings;
        super::fix(settings.threads, settings.seed);
        let net = Net::new(network.graph(), self.placement);
        if settings.init == Init::Whitened {
            init::whiten(&net, self.batches, settings.seed);
        }
        let mut student = Student::new(net, settings, self.teacher, self.shown.clone());
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
        let log = epochs.run(&mut student)?;
        Ok((student.net(), log))
    }
}

/// Reads the weights that [`fit`] wrote.
///
/// # Errors
/// Fails if the file is missing or is not a safetensors file of f32.
pub fn read_weights(path: &Path) -> Result<Weights, TrainError> {
    if !path.is_file() {
        return Err(ArtifactError::Missing { path: path.into(), maker: "nas train" }.into());
    }
    let mut weights = Weights::default();
    for (name, tensor) in read_tensors(path)? {
        let dims = tensor.size().iter().map(|&d| d as usize).collect();
        let damaged = |e| TrainError::Damaged { path: path.into(), reason: format!("`{name}`: {e}") };
        let values = Vec::<f32>::try_from(tensor.view(-1)).map_err(damaged)?;
        weights.insert(name, dims, values);
    }
    Ok(weights)
}
