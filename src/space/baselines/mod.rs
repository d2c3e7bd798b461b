//! Published networks with which a found network is compared.
//!
//! Each is a function of a width, which scales the channels, of the shape of the images, and of the number of classes.

mod mobilenet_v2;
mod mobilenet_v3;
mod resnet;

pub use mobilenet_v2::mobilenet_v2;
pub use mobilenet_v3::mobilenet_v3_small;
pub use resnet::resnet20;

use super::blocks::scaled;
use nas_exporters::Shape;

/// Returns the stride of the first two layers that halve the feature map. For small images it is 1: a network made for
/// 224×224 pixels would reduce 32×32 to a single one.
fn first_stride(images: Shape) -> usize {
    if images.height.min(images.width) < 64 { 1 } else { 2 }
}

/// Returns bounds on the number of values of the largest feature map and of the weights of a node. They are those of
/// MobileNetV2, the widest of the networks.
pub(super) fn largest(width: f64, input: Shape, classes: usize) -> (usize, usize) {
    // Its second stage widens 24 channels by 6, at most at the resolution of the stem.
    let stem = input.strided(6 * scaled(24, width), first_stride(input));
    let map = stem.channels.saturating_mul(stem.height).saturating_mul(stem.width);
    (map, scaled(1280, width.max(1.0)).saturating_mul(classes.max(scaled(320, width))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nas_exporters::Graph;

    /// Millions of parameters and of multiply-accumulates, as published: for the MobileNets in their papers (the
    /// parameters by torchvision or, for a width of 0.75, by timm), and for the others in chenyaofo's
    /// pytorch-cifar-models.
    #[test]
    fn costs_are_those_published() {
        type Make = fn(f64, Shape, usize) -> Graph;
        for (make, width, side, classes, params, macs) in [
            (mobilenet_v2 as Make, 1.0, 224, 1000, 3.505, 300.0),
            (mobilenet_v2, 1.0, 32, 10, 2.24, 87.98),
            (mobilenet_v2, 0.5, 32, 10, 0.70, 27.97),
            (mobilenet_v3_small, 1.0, 224, 1000, 2.543, 56.0),
            (mobilenet_v3_small, 0.75, 224, 1000, 2.04, 44.0),
            (resnet20, 1.0, 32, 10, 0.27, 40.81),
        ] {
            let cost = make(width, Shape::new(3, side, side), classes).cost();
            assert!((cost.params as f64 / 1e6 - params).abs() < 0.005, "{params} M: {cost:?}");
            assert!((cost.macs as f64 / 1e6 / macs - 1.0).abs() < 0.015, "{macs} M: {cost:?}");
        }
    }
}
