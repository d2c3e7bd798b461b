//! From trained weights to an ONNX file that both runtimes agree on.

use crate::artifact::{self, ArtifactError};
use crate::data::{Batches, Data};
use crate::device::{DeviceError, Session};
use crate::record::{ModelDir, Network, TrainedOn};
use crate::torch::{Net, TrainError, fit::read_weights};
use nas_exporters::{Shape, onnx};
use nas_probe::{Runtime, TensorData};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The largest difference of a logit that an export may have from libtorch.
pub const TOLERANCE: f32 = 1e-4;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    #[error(
        "{network} in {runtime} differs from libtorch by {difference:e} in logit {logit} of test image {image} (at most {TOLERANCE:e} is allowed); nothing was written"
    )]
    Differs { network: String, runtime: Runtime, image: usize, logit: usize, difference: f32 },
    #[error(
        "{network} in {runtime} gave {found} logits for test image {image} and libtorch {expected}; nothing was written"
    )]
    Logits { network: String, runtime: Runtime, image: usize, expected: usize, found: usize },
}

/// What was written, and how it was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    pub network: String,
    pub path: PathBuf,
    pub bytes: usize,
    /// Test images that were compared.
    pub images: usize,
    /// The largest difference of a logit from libtorch, by runtime.
    pub differences: Vec<(Runtime, f32)>,
}

/// Writes `model.onnx` in a trained network's folder, once `runtimes` have given libtorch's logits
/// for the first `images` test images.
///
/// # Errors
/// Where the folder holds no trained network, the data are not its own, or a runtime differs.
pub fn export(
    dir: &ModelDir,
    data: &Data,
    session: &mut Session,
    runtimes: &[Runtime],
    images: NonZeroUsize,
) -> Result<Exported, ExportError> {
    let network: Network = artifact::read_json(&dir.network(), "nas train")?;
    let trained_on: TrainedOn = artifact::read_json(&dir.trained_on(), "nas train")?;
    let weights = read_weights(&dir.weights())?;
    let graph = network.graph();
    let shape = Shape::from(data.test.shape);
    if shape != graph.input_shape() {
        return Err(TrainError::Images { images: shape, network: graph.input_shape() }.into());
    }
    let onnx = onnx::encode(&graph, &weights).map_err(TrainError::from)?;

    let net = Net::new(graph);
    net.load(&weights).map_err(TrainError::from)?;
    let placed = session.put(&[(network.name(), onnx.clone())])?;
    let indices: Vec<usize> = (0..data.test.len().min(images.get())).collect();
    let one = NonZeroUsize::MIN;
    let batches = Batches {
        dataset: &data.test,
        indices: &indices,
        normalisation: &trained_on.normalisation,
        size: one,
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
            let network = network.name();
            if found.len() != expected.len() {
                let (expected, found) = (expected.len(), found.len());
                return Err(ExportError::Logits { network, runtime, image, expected, found });
            }
            for (logit, (a, b)) in expected.iter().zip(found).enumerate() {
                let difference = (a - b).abs();
                if difference.is_nan() || difference > TOLERANCE {
                    return Err(ExportError::Differs { network, runtime, image, logit, difference });
                }
                worst = worst.max(difference);
            }
        }
        differences.push((runtime, worst));
    }
    artifact::write(&dir.onnx(), &onnx)?;
    Ok(Exported {
        network: network.name(),
        path: dir.onnx(),
        bytes: onnx.len(),
        images: indices.len(),
        differences,
    })
}
