//! From trained weights to an ONNX file on whose outputs both runtimes agree with libtorch.

use super::RunError;
use super::models::all_trained;
use crate::artifact;
use crate::data::{Batches, Data};
use crate::device::{Board, Device, Session, Source};
use crate::record::{INTERFACE, ModelDir, RunDir, Trained, TrainedOn, WEIGHTS};
use crate::train::{Net, Placement, TrainError, fit::read_weights};
use nas_exporters::{Graph, Precision, Shape, Weights, onnx};
use nas_probe::{Runtime, TensorData};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The largest difference from libtorch that a logit of an export may have, as a share of the largest logit, or of 1 if
/// all logits are smaller.
pub const TOLERANCE: f32 = 1e-4;

/// What was exported, and how it was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    pub network: String,
    pub path: PathBuf,
    pub bytes: usize,
    /// The number of test images that were compared.
    pub images: usize,
    /// The largest difference of a logit from libtorch, by runtime.
    pub differences: Vec<(Runtime, f32)>,
}

/// Writes each trained network of a run as ONNX, after `runtimes` on this machine have reproduced libtorch's logits for
/// the first `images` test images.
///
/// # Errors
/// Fails if the run has no trained network, if the images do not fit it, or if the logits of a runtime differ.
pub fn export(run: &Path, data: &Data, runtimes: &[Runtime], images: NonZeroUsize) -> Result<Vec<Export>, RunError> {
    let trained = all_trained(&RunDir(run.into()))?;
    for (_, network) in &trained {
        let shape = Shape::from(data.test.shape);
        let takes = network.network.graph().input_shape();
        if shape != takes {
            return Err(TrainError::Images { images: shape, network: takes }.into());
        }
    }
    let runtimes = if runtimes.is_empty() { Runtime::ALL.to_vec() } else { runtimes.to_vec() };
    let board = Board { runtimes: runtimes.clone(), ..Board::local(Device::load("host")?) };
    let mut session = Session::open(&board)?;
    trained.iter().map(|(dir, network)| export_one(dir, network, data, &mut session, &runtimes, images)).collect()
}

fn export_one(
    dir: &ModelDir,
    Trained { network, on, .. }: &Trained,
    data: &Data,
    session: &mut Session,
    runtimes: &[Runtime],
    images: NonZeroUsize,
) -> Result<Export, RunError> {
    let weights = read_weights(&dir.weights())?;
    let graph = network.graph();
    let shape = graph.input_shape();
    let onnx = encoded(&graph, &weights, on)?;
    let net = Net::new(graph, Placement::default());
    net.load(&weights).map_err(TrainError::from)?;
    let placed = session.place(&[(network.name(), Source::File(onnx.clone()))])?;
    let indices: Vec<usize> = (0..data.test.len().min(images.get())).collect();
    let one = NonZeroUsize::MIN;
    let batches = Batches {
        dataset: &data.test,
        indices: &indices,
        normalisation: &on.normalisation,
        size: one,
        balanced: false,
    };
    let size = vec![1, shape.channels, shape.height, shape.width];
    let expected: Vec<(Vec<f32>, TensorData)> = batches
        .in_order()
        .map(|batch| (net.logits(&batch), TensorData { shape: size.clone(), values: batch.images }))
        .collect();
    let mut differences = vec![];
    for &runtime in runtimes {
        session.require(runtime)?;
        let mut worst = 0f32;
        for (image, (expected, input)) in expected.iter().enumerate() {
            let outputs = session.infer(&placed[0], runtime, vec![input.clone()])?;
            let found = outputs.first().map(|o| o.values.as_slice()).unwrap_or_default();
            worst = worst.max(compared(&network.name(), runtime, image, expected, found)?);
        }
        differences.push((runtime, worst));
    }
    artifact::write(&dir.onnx(), &onnx)?;
    Ok(Export { network: network.name(), path: dir.onnx(), bytes: onnx.len(), images: indices.len(), differences })
}

/// Returns the ONNX file of a network, which states its weights, its classes and how images are normalised.
fn encoded(graph: &Graph, weights: &Weights, on: &TrainedOn) -> Result<Vec<u8>, RunError> {
    let onnx = onnx::encode(graph, weights, Precision::Fp32)?;
    let onnx = onnx::with_metadata(&onnx, WEIGHTS, on.weights.as_str())?;
    let interface = serde_json::to_string(&on.interface()).unwrap_or_default();
    Ok(onnx::with_metadata(&onnx, INTERFACE, &interface)?)
}

/// Returns by how much the logits of an image in a runtime, `found`, differ at most from those in libtorch.
///
/// # Errors
/// Fails if they differ by more than [`TOLERANCE`], or if their number differs.
fn compared(name: &str, runtime: Runtime, image: usize, expected: &[f32], found: &[f32]) -> Result<f32, RunError> {
    let model = name.to_string();
    if found.len() != expected.len() {
        let (expected, found) = (expected.len(), found.len());
        return Err(RunError::Logits { model, runtime, image, expected, found });
    }
    let tolerance = TOLERANCE * expected.iter().fold(1.0, |largest, logit| logit.abs().max(largest));
    let mut worst = 0f32;
    for (logit, (a, b)) in expected.iter().zip(found).enumerate() {
        let difference = (a - b).abs();
        if difference.is_nan() || difference > tolerance {
            return Err(RunError::Differs { model, runtime, image, logit, difference, tolerance });
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}
