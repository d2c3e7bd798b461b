use super::first_stride;
use crate::space::blocks::{InvertedResidual, activate, conv_bn, inverted_residual, scaled};
use crate::space::op::Activation::Relu6;
use nas_exporters::{Graph, Op, Shape};

/// Expansion, channels, blocks, stride of the first block (Sandler et al. 2018, arXiv 1801.04381, table 2).
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNetV2. As in the paper, a `width` below 1 does not scale the last convolution. For images of less than 64
/// pixels, the first two strides of 2 are 1.
pub fn mobilenet_v2(width: f64, input: Shape, classes: usize) -> Graph {
    let first = first_stride(input);
    let mut g = Graph::new(input);
    conv_bn(&mut g, "stem", scaled(32, width), 3, first, 1);
    activate(&mut g, "stem", Relu6);
    for (s, (expansion, channels, blocks, stride)) in STAGES.into_iter().enumerate() {
        for b in 0..blocks {
            let stride = match (s, b) {
                (1, 0) => first,
                (_, 0) => stride,
                _ => 1,
            };
            let mut block = Graph::new(g.output_shape());
            let sizes = InvertedResidual {
                hidden: expansion * g.output_shape().channels,
                channels: scaled(channels, width),
                kernel: 3,
                stride,
                squeeze_excite: false,
                activation: Relu6,
            };
            inverted_residual(&mut block, sizes);
            let end = g.output();
            g.append(&format!("stage{}.block{}", s + 1, b + 1), &block, end);
        }
    }
    conv_bn(&mut g, "last", scaled(1280, width.max(1.0)), 1, 1, 1);
    activate(&mut g, "last", Relu6);
    let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
    g.add("linear", Op::Linear { out_features: classes }, &[x]);
    g
}
