//! Limits of sizes, so that a mistake in a file or in a flag is an error instead of exhausting the memory.

use super::{CandidateOp, Layer};
use crate::bounded::Classes;
use nas_exporters::{MOST_VALUES, Shape};

/// The most channels of a layer, and of images.
pub(super) const MOST_CHANNELS: usize = 1 << 14;
/// The largest stride that a [`nas_exporters::Graph`] accepts.
pub(super) const MOST_STRIDE: usize = 127;
/// The most layers of a space.
pub(super) const MOST_LAYERS: usize = 1 << 10;
/// The most choices of a layer, each counted once for every input that it may get.
pub(super) const MOST_VARIANTS: usize = 1 << 14;
/// The largest height and width of images, in pixels.
const MOST_PIXELS: usize = 1 << 12;

/// Checks the shape of images and the numbers of classes.
///
/// # Errors
/// A message that says which size is out of range.
pub(super) fn check_images(input: Shape, classes: &[usize]) -> Result<(), String> {
    check_input(input).map_err(|range| format!("images of {input}: {range}"))?;
    if classes.is_empty() || classes.iter().any(|&classes| Classes::new(classes).is_none()) {
        return Err(format!("{classes:?} classes: there are 1 to 100000"));
    }
    Ok(())
}

fn check_input(Shape { channels, height, width }: Shape) -> Result<(), String> {
    let within = |size: usize, most: usize| (1..=most).contains(&size);
    if within(channels, MOST_CHANNELS) && within(height, MOST_PIXELS) && within(width, MOST_PIXELS) {
        return Ok(());
    }
    Err(format!("they have 1 to {MOST_CHANNELS} channels and 1 to {MOST_PIXELS} pixels a side"))
}

/// Checks the sizes of a layer.
///
/// # Errors
/// Fails if a size of the layer is out of range, or if one of its feature maps, or the weights of one of its nodes,
/// have more values than a graph accepts.
pub(super) fn check_layer(layer: &Layer) -> Result<(), String> {
    let Layer { op, input, channels, stride } = *layer;
    check_input(input).map_err(|range| format!("layer {layer}: its inputs are out of range: {range}"))?;
    if Classes::new(channels).is_none() || !(1..=MOST_STRIDE).contains(&stride) {
        return Err(format!("layer {layer}: its channels or its stride are out of range"));
    }
    let map = |channels: usize| channels * input.height * input.width;
    let (inner, weights) = match op {
        CandidateOp::Conv { kernel } => (0, kernel.get().pow(2) * input.channels * channels),
        CandidateOp::SepConv { kernel } => (0, input.channels * channels.max(kernel.get().pow(2))),
        CandidateOp::InvertedResidual { kernel, expansion, squeeze_excite, .. } => {
            let hidden = input.channels * expansion.get();
            let excite = if squeeze_excite { hidden } else { 0 };
            (map(hidden), hidden * input.channels.max(kernel.get().pow(2)).max(channels).max(excite))
        }
        CandidateOp::Fused { kernel, expansion, .. } => {
            let hidden = input.channels * expansion.get();
            (map(hidden), hidden * channels.max(kernel.get().pow(2) * input.channels))
        }
        CandidateOp::Residual { kernel, .. } => (0, kernel.get().pow(2) * input.channels.max(channels) * channels),
        CandidateOp::Pool { .. } | CandidateOp::Skip | CandidateOp::Head => (0, input.channels * channels),
        CandidateOp::Zero => (0, 0),
    };
    let largest = map(input.channels).max(layer.output().len()).max(inner);
    check_values(largest, weights).map_err(|reason| format!("{layer}: {reason}"))
}

/// Checks the number of values of the largest feature map, and of the largest weights of an op.
///
/// # Errors
/// Fails if there are more values than a graph accepts.
pub(super) fn check_values(largest_map: usize, most_weights: usize) -> Result<(), String> {
    for (what, values) in [("a feature map", largest_map), ("the weights of an op", most_weights)] {
        if values > MOST_VALUES {
            return Err(format!("{what} would have {values} values, more than {MOST_VALUES}; use smaller sizes"));
        }
    }
    Ok(())
}
