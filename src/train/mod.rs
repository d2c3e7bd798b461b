//! Training with libtorch: graphs as nets, the supernet, and training from scratch.

mod arithmetic;
mod buffers;
mod checkpoint;
mod device;
mod epochs;
pub mod fit;
mod init;
mod interrupt;
mod net;
mod optim;
pub mod search;
mod settings;
mod steps;
mod student;
mod supernet;
mod teacher;

pub use arithmetic::Arithmetic;
pub use buffers::Buffers;
pub use checkpoint::Checkpoint;
pub use device::TorchDevice;
pub use epochs::{At, Epochs, Metrics, Seen, Task};
pub use init::Init;
pub use interrupt::{Deferred, interrupted, interruption};
pub use net::{Net, Norm, Placement};
pub use optim::{Adam, Sgd, clipped, cosine, decay_of};
pub use settings::{Changes, Preset, Schedule, TrainSettings};
pub use steps::{alpha_step, excesses, expectation, penalty, sandwich_step, weight_step};
pub use supernet::{Gate, Path, Supernet};
pub use teacher::{Taught, Teacher};

use crate::artifact::ArtifactError;
use crate::bounded::{Share, Threads};
use crate::data::{Batch, Batches};
use nas_exporters::Shape;
use std::path::PathBuf;
use tch::{Device, Tensor};

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    #[error(
        "no GPU can be used: {reason}; leave out --torch-device, or start nas with LD_LIBRARY_PATH=FOLDER, the folder `torch/lib` of a PyTorch 2.11 with CUDA"
    )]
    Cuda { reason: String },
    #[error("interrupted while the logits of the teacher were computed; the same command resumes")]
    TeacherInterrupted,
    #[error("the teacher was trained on other data; give the --data of {run}", run = run.display())]
    TeacherData { run: PathBuf },
    #[error("the loss of epoch {epoch} is {loss}: training diverged; lower --learning-rate (now {learning_rate})")]
    Diverged { epoch: usize, loss: f64, learning_rate: f64 },
    #[error("the short training runs diverged, and no network is left; lower --learning-rate (now {learning_rate})")]
    AllDiverged { learning_rate: f64 },
    #[error(
        "{warmup} of {epochs} epochs are for warm-up, which leaves none to train alpha, so the choice of the layers would be arbitrary; raise --epochs, or lower --warmup-epochs"
    )]
    Untrained { epochs: usize, warmup: usize },
    #[error("interrupted in epoch {epoch}, after step {step} of {steps}; the same command resumes")]
    Interrupted { epoch: usize, step: usize, steps: usize },
    #[error("interrupted, with {networks} comparisons of networks done; the same command resumes")]
    Stopped { networks: usize },
    #[error("cannot read {path}: {reason}; delete it to start from the first epoch", path = path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("{path} is damaged: {reason}; delete it, and repeat the command that wrote it", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot write {path}: {reason}", path = path.display())]
    Write { path: PathBuf, reason: String },
    #[error("the images are {images} and the network takes {network}; give the --data that it was made for")]
    Images { images: Shape, network: Shape },
    #[error("the data have {data} classes and the network has {network}; give the --data that it was made for")]
    Classes { data: usize, network: usize },
    #[error(transparent)]
    Search(#[from] crate::search::SearchError),
    #[error(transparent)]
    Weights(#[from] nas_exporters::WeightsError),
}

/// Sets the number of threads that libtorch computes with, and the seed of its random numbers. The same pair gives
/// bit-equal results on the same CPU.
pub fn fix(threads: Threads, seed: u64) {
    tch::set_num_threads(threads.get() as i32);
    tch::manual_seed(seed as i64);
}

/// Converts a batch to tensors: images N×C×H×W, channels-last, and labels N.
pub fn tensors(batch: &Batch, shape: Shape, device: Device) -> (Tensor, Tensor) {
    let size = [-1, shape.channels as i64, shape.height as i64, shape.width as i64];
    let images = net::channels_last(&Tensor::from_slice(&batch.images).view(size));
    (images.to_device(device), Tensor::from_slice(&batch.labels).to_device(device))
}

/// Returns how many rows of `logits` (N×classes) are largest at their label.
fn correct(logits: &Tensor, labels: &Tensor) -> usize {
    logits.argmax(1, false).eq_tensor(labels).sum(tch::Kind::Int64).int64_value(&[]) as usize
}

/// Returns the share of the images that the net classifies correctly.
pub fn accuracy(net: &Net, batches: Batches) -> Share {
    let _guard = tch::no_grad_guard();
    let right: usize = batches
        .in_order()
        .map(|batch| {
            let (images, labels) = tensors(&batch, net.graph().input_shape(), net.device());
            correct(&net.forward(&images, Norm::Running), &labels)
        })
        .sum();
    Share::new(right as f64 / batches.indices.len() as f64).unwrap_or(Share::of(0.0))
}
