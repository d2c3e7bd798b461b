use super::first_stride;
use crate::space::blocks::{conv_bn, residual, scaled};
use nas_exporters::{Graph, Op, Shape};

/// ResNet-20 (He et al. 2016, arXiv 1512.03385, section 4.2): three stages of three blocks. The shortcuts that change
/// the shape are 1×1 convolutions (option B), as in the networks for which others publish weights. The paper pads with
/// zeros instead (option A), which takes 1 % fewer parameters. For images of at least 64 pixels, for which the paper
/// has other networks, the first convolution and the first stage have a stride of 2.
pub fn resnet20(width: f64, input: Shape, classes: usize) -> Graph {
    let first = first_stride(input);
    let mut g = Graph::new(input);
    let x = conv_bn(&mut g, "stem", scaled(16, width), 3, first, 1);
    g.add("stem_relu", Op::Relu, &[x]);
    for (stage, channels, stride) in [(1, 16, first), (2, 32, 2), (3, 64, 2)] {
        for block in 1..=3 {
            let stride = if block == 1 { stride } else { 1 };
            residual(&mut g, &format!("stage{stage}.block{block}"), scaled(channels, width), stride, 3);
        }
    }
    let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
    g.add("linear", Op::Linear { out_features: classes }, &[x]);
    g
}
