//! Distillation: a network learns from the answers of one that was trained before (Hinton et al. 2015, arXiv
//! 1503.02531), on the same views of the same images (Beyer et al. 2022, arXiv 2106.05237).

use super::checkpoint::{read_tensors, write_tensors};
use super::fit::read_weights;
use super::interrupt::{Deferred, interrupted};
use super::{Net, Norm, Placement, TrainError, tensors};
use crate::artifact::{Digest, Lock};
use crate::data::{Augment, Batch, Batches, Dataset, Normalisation, ahead};
use crate::progress;
use crate::record::{ModelDir, Trained};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The logits of a network for every view of every training image. The number of shifts and flips is finite, so the
/// logits are computed once, and a step of a training only looks them up.
pub struct Teacher {
    /// (images · views) × classes, in 16-bit floats. The views of an image are consecutive.
    logits: Tensor,
    views: usize,
}

/// A trained network from whose answers another one learns.
pub struct Taught {
    pub dir: ModelDir,
    pub trained: Trained,
}

impl Taught {
    /// Checks that the network was trained on the data with this digest.
    ///
    /// # Errors
    /// Fails if it was trained on others.
    pub fn check(&self, data_digest: &Digest) -> Result<(), TrainError> {
        match self.trained.on.data_digest == *data_digest {
            true => Ok(()),
            false => Err(TrainError::TeacherData { run: self.dir.0.clone() }),
        }
    }
}

/// Images per batch when logits are computed.
const BATCH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// The name of the tensor in the file.
const LOGITS: &str = "logits";

impl Teacher {
    /// Reads the logits, or computes them and writes them to a file beside the network. If it is interrupted, the views
    /// that are complete are kept.
    ///
    /// # Errors
    /// Fails if a file cannot be read or written, if the weights do not fit the network, or if the program is
    /// interrupted.
    pub fn of(taught: &Taught, dataset: &Dataset, augment: Augment, device: Device) -> Result<Teacher, TrainError> {
        let Taught { dir, trained } = taught;
        let augment = Augment { cutout: 0, ..augment };
        let key = Digest::of(&(&trained.on.weights, &trained.on.data_digest, augment));
        let path = dir.answers(&key);
        let logits = if path.is_file() {
            read(&path)?
        } else {
            let _lock = Lock::of_file(&path)?;
            let net = Net::new(trained.network.graph(), Placement { device, ..Placement::default() });
            net.load(&read_weights(&dir.weights())?)?;
            let of_view = |view| dir.answers_of_view(&key, view);
            let logits = answers(&net, dataset, &trained.on.normalisation, augment, of_view)?;
            write_tensors(&path, &[(LOGITS.into(), logits.shallow_clone())])?;
            for view in 0..augment.views() {
                // These files take space and are not used again.
                let _ = std::fs::remove_file(of_view(view));
            }
            logits
        };
        Ok(Teacher { logits: logits.to_device(device), views: augment.views() })
    }

    /// Returns the logits for the views in a batch, N×classes.
    pub fn answers(&self, batch: &Batch) -> Tensor {
        let row = |(image, view): (&usize, &usize)| (image * self.views + view) as i64;
        let rows: Vec<i64> = batch.indices.iter().zip(&batch.views).map(row).collect();
        self.logits.index_select(0, &Tensor::from_slice(&rows).to_device(self.logits.device())).to_kind(Kind::Float)
    }
}

/// Returns the logits of all images in all views, in 16-bit floats, on the CPU. Writes each view to a file of its own, and
/// reads those that are there.
fn answers(
    net: &Net,
    dataset: &Dataset,
    normalisation: &Normalisation,
    augment: Augment,
    of_view: impl Fn(usize) -> PathBuf,
) -> Result<Tensor, TrainError> {
    let _guard = tch::no_grad_guard();
    let _deferred = Deferred::new();
    let indices = dataset.indices();
    let batches = Batches { dataset, indices: &indices, normalisation, size: BATCH, balanced: false };
    let bar = progress::bar("train", "logits of the teacher", augment.views());
    let mut views = vec![];
    for view in 0..augment.views() {
        let path = of_view(view);
        views.push(if path.is_file() {
            read(&path)?
        } else {
            let logits = answers_to(net, batches.in_view(augment, view))?;
            write_tensors(&path, &[(LOGITS.into(), logits.shallow_clone())])?;
            logits
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let logits = Tensor::stack(&views, 1);
    Ok(logits.view([-1, *logits.size().last().unwrap_or(&1)]))
}

/// Returns the logits of all images of the batches, N×classes.
fn answers_to(net: &Net, batches: impl Iterator<Item = Batch> + Send) -> Result<Tensor, TrainError> {
    let logits = |batch: Batch| {
        let (images, _) = tensors(&batch, net.graph().input_shape(), net.device());
        net.forward(&images, Norm::Running).to_kind(Kind::Half).to_device(Device::Cpu)
    };
    let logits: Vec<Tensor> = ahead(batches, |batches| batches.take_while(|_| !interrupted()).map(logits).collect());
    if interrupted() { Err(TrainError::TeacherInterrupted) } else { Ok(Tensor::cat(&logits, 0)) }
}

fn read(path: &Path) -> Result<Tensor, TrainError> {
    let logits = read_tensors(path)?.into_iter().find(|(name, _)| name == LOGITS);
    let missing = || TrainError::Damaged { path: path.into(), reason: format!("it has no `{LOGITS}`") };
    logits.map(|(_, logits)| logits).ok_or_else(missing)
}
