//! The limits of sizes: a mistake in a file or in a flag is an error, and does not exhaust the memory.

use super::{CandidateOp, Layer};
use crate::bounded::Classes;
use nas_exporters::{MOST_VALUES, Shape};

/// Of a layer, and of images.
pub(super) const MOST_CHANNELS: usize = 1 << 14;
/// That a [`nas_exporters::Graph`] takes.
pub(super) const MOST_STRIDE: usize = 127;
/// Of a space.
pub(super) const MOST_LAYERS: usize = 1 << 10;
/// Choices of a layer, each on every input that it may get.
pub(super) const MOST_VARIANTS: usize = 1 << 14;
/// Height and width of images, in pixels.
const MOST_PIXELS: usize = 1 << 12;

/// # Errors
/// Says which size is out of range.
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

/// # Errors
/// Where a size of the layer is out of range, or a feature map of the layer, or the weights of one of its nodes, have more values than a graph takes.
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

/// # Errors
/// Where there are more values than a graph takes.
pub(super) fn check_values(largest_map: usize, most_weights: usize) -> Result<(), String> {
    for (what, values) in [("a feature map", largest_map), ("the weights of an op", most_weights)] {
        if values > MOST_VALUES {
            return Err(format!("{what} would have {values} values, more than {MOST_VALUES}; use smaller sizes"));
        }
    }
    Ok(())
}
