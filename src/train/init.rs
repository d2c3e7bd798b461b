//! The weights with which a training starts.

use super::Net;
use crate::data::{Augment, Batches};
use crate::named::named;
use nas_exporters::{Op, Param, Role};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use tch::{Device, Kind, Tensor};

/// How the weights of k×k convolutions start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// At random ([`Net::new`]).
    Random,
    /// A convolution that reads the images starts with filters that whiten their patches, and others pass their input on
    /// ([`whiten`]).
    Whitened,
}

named!(Init, "an initialisation": "random" = Random, "whitened" = Whitened);

/// The number of images from which patches are taken, and how many of them are in memory at once.
const IMAGES: usize = 1024;
const BATCH: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The most patches of an image in each direction. Larger images have as many, further apart.
const PATCHES: usize = 64;

/// Added to the variances of patches, so that directions with hardly any variance are not amplified without bound
/// (Jordan 2024, arXiv 2404.00498, section 3.2, for pixels with a standard deviation of 1).
const EPS: f64 = 5e-4;

/// Returns a parameter before training, at random by libtorch's generator.
pub(super) fn random(param: &Param, device: Device) -> Tensor {
    let dims: Vec<i64> = param.dims.iter().map(|&d| d as i64).collect();
    let fan_in = dims[1..].iter().product::<i64>() as f64;
    let options = (Kind::Float, device);
    let tensor = match (param.role, dims.len()) {
        (Role::Weight, 4) => super::net::channels_last(&(Tensor::randn(&dims, options) * (2.0 / fan_in).sqrt())),
        (Role::Weight, _) => (Tensor::rand(&dims, options) * 2.0 - 1.0) / fan_in.sqrt(),
        (Role::Scale | Role::RunningVar, _) => Tensor::ones(&dims, options),
        (Role::Bias | Role::Shift | Role::RunningMean, _) => Tensor::zeros(&dims, options),
    };
    tensor.detach().set_requires_grad(param.role.is_trained())
}

/// Replaces the random weights of k×k convolutions that are not depthwise.
///
/// A convolution that reads the images gets pairs of a whitening filter and its negative, for the directions in which
/// patches vary most. Any other one that has at least as many outputs as inputs copies each input channel to the output
/// channel of the same number. Filters beyond these stay random. After Jordan 2024 (arXiv 2404.00498, sections 3.2 and
/// 3.3), where the first convolution is not trained; here it is.
pub(super) fn whiten(net: &Net, batches: Batches, seed: u64) {
    let _guard = tch::no_grad_guard();
    let graph = net.graph();
    for id in graph.ids() {
        let node = graph.node(id);
        let Op::Conv2d { kernel: 2.., stride, groups: 1, .. } = node.op else { continue };
        let weight = net.weight(id);
        let size = weight.size();
        let (outputs, inputs, kernel) = (size[0], size[1], size[2]);
        if node.inputs[0] == graph.input() {
            let filters = whitening_filters(net, batches, seed, kernel, stride);
            let directions = filters.size()[0].min(outputs / 2);
            let filters = filters.narrow(0, 0, directions);
            weight.narrow(0, 0, 2 * directions).copy_(&Tensor::cat(&[&filters, &-&filters], 0));
        } else if outputs >= inputs {
            let copies = weight.narrow(0, 0, inputs).zero_();
            let _ = copies.select(3, kernel / 2).select(2, kernel / 2).fill_diagonal_(1.0, false);
        }
    }
}

/// Returns the filters that whiten the patches of images that a convolution gets, directions×C×k×k, with the largest
/// variance first.
fn whitening_filters(net: &Net, batches: Batches, seed: u64, kernel: i64, stride: usize) -> Tensor {
    let shape = net.graph().input_shape();
    let epoch = Batches { size: BATCH, balanced: false, ..batches }.epoch(seed, 0, Augment::default());
    let step = (stride * shape.height.max(shape.width).div_ceil(stride * PATCHES)) as i64;
    let values = shape.channels as i64 * kernel * kernel;
    let (mut products, mut patches) = (Tensor::zeros([values, values], (Kind::Double, Device::Cpu)), 0);
    for batch in epoch.iter().take(IMAGES / BATCH) {
        let (images, _) = super::tensors(&batch, shape, Device::Cpu);
        let of_batch = images.contiguous().im2col([kernel; 2], [1, 1], [kernel / 2; 2], [step; 2]);
        let of_batch = of_batch.transpose(0, 1).flatten(1, -1);
        products += of_batch.matmul(&of_batch.tr());
        patches += of_batch.size()[1];
    }
    let (variances, directions) = (products / patches as f64).linalg_eigh("L");
    let filters = (directions / (variances + EPS).sqrt()).tr().flip([0]);
    filters.view([values, shape.channels as i64, kernel, kernel])
}
