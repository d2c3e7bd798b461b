use crate::space::blocks::{InvertedResidual, activate, conv_bn, inverted_residual, scaled};
use crate::space::op::Activation;
use nas_exporters::{Graph, Op, Shape};

/// Expansion, channels, blocks, stride of the first block (Sandler et al. 2018, arXiv 1801.04381,
/// table 2); the first two strides of 2 are 1 here, as is usual for 32×32 images.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNetV2 for small images, the baseline; `width` scales its channels.
pub fn mobilenet_v2(width: f64, input: Shape, classes: usize) -> Graph {
    let mut g = Graph::new(input);
    conv_bn(&mut g, "stem", scaled(32, width), 3, 1, 1);
    activate(&mut g, "stem", Activation::Relu6);
    for (s, (expansion, channels, blocks, stride)) in STAGES.into_iter().enumerate() {
        for b in 0..blocks {
            let mut block = Graph::new(g.output_shape());
            let stride = if b == 0 { stride } else { 1 };
            let sizes = InvertedResidual {
                hidden: expansion * g.output_shape().channels,
                channels: scaled(channels, width),
                kernel: 3,
                stride,
                squeeze_excite: false,
                activation: Activation::Relu6,
            };
            inverted_residual(&mut block, sizes);
            let end = g.output();
            g.append(&format!("stage{}.block{}", s + 1, b + 1), &block, end);
        }
    }
    conv_bn(&mut g, "last", scaled(1280, width.max(1.0)), 1, 1, 1);
    activate(&mut g, "last", Activation::Relu6);
    let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
    g.add("linear", Op::Linear { out_features: classes }, &[x]);
    g
}

/// The values of its largest feature map, and the most weights of one of its nodes.
pub(in crate::space) fn largest(width: f64, input: Shape, classes: usize) -> (usize, usize) {
    // Up to the first stride, which is that of the third stage, images have their full size.
    let (first, last) = (6 * scaled(24, width), scaled(1280, width.max(1.0)));
    let map = first.saturating_mul(input.height).saturating_mul(input.width);
    (map, last.saturating_mul(classes.max(scaled(320, width))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Millions of parameters and multiply-accumulates that are published for CIFAR-10 (chenyaofo's
    /// pytorch-cifar-models: ×0.5 0.70 and 27.97, ×1.0 2.24 and 87.98).
    #[test]
    fn costs_what_is_published() {
        for (width, params, macs) in [(0.5, 0.70, 27.97), (1.0, 2.24, 87.98)] {
            let cost = mobilenet_v2(width, Shape::new(3, 32, 32), 10).cost();
            assert!((cost.params as f64 / 1e6 - params).abs() < 0.005, "{width}: {cost:?}");
            assert!((cost.macs as f64 / 1e6 - macs).abs() < 0.1, "{width}: {cost:?}");
        }
    }
}
