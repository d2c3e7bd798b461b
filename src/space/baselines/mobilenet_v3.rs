use super::first_stride;
use crate::space::blocks::{InvertedResidual, activate, conv_bn, inverted_residual, scaled};
use crate::space::op::Activation::{self, HardSwish, Relu};
use nas_exporters::{Graph, Op, Shape};

/// Kernel, expansion, channels, squeeze-and-excite, activation, stride (Howard et al. 2019, arXiv 1905.02244, table 2).
const BLOCKS: [(usize, f64, usize, bool, Activation, usize); 11] = [
    (3, 1.0, 16, true, Relu, 2),
    (3, 72.0 / 16.0, 24, false, Relu, 2),
    (3, 88.0 / 24.0, 24, false, Relu, 1),
    (5, 4.0, 40, true, HardSwish, 2),
    (5, 6.0, 40, true, HardSwish, 1),
    (5, 6.0, 40, true, HardSwish, 1),
    (5, 3.0, 48, true, HardSwish, 1),
    (5, 3.0, 48, true, HardSwish, 1),
    (5, 6.0, 96, true, HardSwish, 2),
    (5, 6.0, 96, true, HardSwish, 1),
    (5, 6.0, 96, true, HardSwish, 1),
];

/// MobileNetV3-Small. A `width` below 1 does not scale the 1024 features before the classifier. The last 1×1
/// convolution has no squeeze-and-excite, as in the authors' code and unlike in the paper's table. For images of less
/// than 64 pixels, the first two strides of 2 are 1.
pub fn mobilenet_v3_small(width: f64, input: Shape, classes: usize) -> Graph {
    let first = first_stride(input);
    let mut g = Graph::new(input);
    conv_bn(&mut g, "stem", scaled(16, width), 3, first, 1);
    activate(&mut g, "stem", HardSwish);
    for (b, (kernel, expansion, channels, squeeze_excite, activation, stride)) in BLOCKS.into_iter().enumerate() {
        let mut block = Graph::new(g.output_shape());
        let (hidden, channels) = (scaled(g.output_shape().channels, expansion), scaled(channels, width));
        let stride = if b == 0 { first } else { stride };
        let sizes = InvertedResidual { hidden, channels, kernel, stride, squeeze_excite, activation };
        inverted_residual(&mut block, sizes);
        let end = g.output();
        g.append(&format!("block{}", b + 1), &block, end);
    }
    conv_bn(&mut g, "last", scaled(576, width), 1, 1, 1);
    activate(&mut g, "last", HardSwish);
    let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
    let features = scaled(1024, width.max(1.0));
    g.add("features", Op::Conv2d { out_channels: features, kernel: 1, stride: 1, groups: 1, bias: true }, &[x]);
    activate(&mut g, "features", HardSwish);
    g.add("linear", Op::Linear { out_features: classes }, &[g.output()]);
    g
}
