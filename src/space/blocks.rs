//! The building blocks of ops. The blocks of the MobileNets each end in a linear 1×1 convolution, and add their input
//! if the shapes are equal. The blocks of the ResNets always add it.

use super::op::Activation;
use nas_exporters::{Graph, NodeId, Op};

/// Appends a convolution and a batch norm, named `name` and `name_bn`.
pub(super) fn conv_bn(
    g: &mut Graph,
    name: &str,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> NodeId {
    conv_bn_of(g, g.output(), name, out_channels, kernel, stride, groups)
}

fn conv_bn_of(
    g: &mut Graph,
    input: NodeId,
    name: &str,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> NodeId {
    let conv = Op::Conv2d { out_channels, kernel, stride, groups, bias: false };
    let conv = g.add(name, conv, &[input]);
    g.add(&format!("{name}_bn"), Op::BatchNorm, &[conv])
}

/// The sizes of an [`inverted_residual`].
pub(super) struct InvertedResidual {
    /// Channels of the depthwise convolution.
    pub hidden: usize,
    /// Output channels.
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub squeeze_excite: bool,
    pub activation: Activation,
}

/// Appends a 1×1 convolution to the hidden channels (none if the input has as many), a depthwise convolution,
/// squeeze-and-excite if asked for, and the linear 1×1 convolution (Sandler et al. 2018, arXiv 1801.04381, table 1).
pub(super) fn inverted_residual(g: &mut Graph, block: InvertedResidual) {
    let InvertedResidual { hidden, channels, kernel, stride, squeeze_excite: excite, activation } = block;
    let start = g.output();
    if hidden != g.output_shape().channels {
        conv_bn(g, "expand", hidden, 1, 1, 1);
        activate(g, "expand", activation);
    }
    conv_bn(g, "depthwise", hidden, kernel, stride, hidden);
    activate(g, "depthwise", activation);
    if excite {
        squeeze_excite(g);
    }
    project(g, start, channels);
}

/// Appends an inverted residual whose first two convolutions are replaced by one dense convolution (Gupta & Akin 2020,
/// arXiv 2003.02838; Tan & Le 2021, arXiv 2104.00298, figure 2).
pub(super) fn fused(
    g: &mut Graph,
    channels: usize,
    stride: usize,
    kernel: usize,
    expansion: usize,
    activation: Activation,
) {
    let start = g.output();
    conv_bn(g, "expand", g.output_shape().channels * expansion, kernel, stride, 1);
    activate(g, "expand", activation);
    project(g, start, channels);
}

/// Appends two convolutions and adds the input to their output, through a 1×1 convolution if the shapes differ (He et
/// al. 2016, arXiv 1512.03385, figure 2 and option B of section 4.1). The names of its nodes start with `name`.
pub(super) fn residual(g: &mut Graph, name: &str, channels: usize, stride: usize, kernel: usize) {
    let start = g.output();
    let x = conv_bn(g, &format!("{name}.conv1"), channels, kernel, stride, 1);
    g.add(&format!("{name}.conv1_relu"), Op::Relu, &[x]);
    let x = conv_bn(g, &format!("{name}.conv2"), channels, kernel, 1, 1);
    let shortcut = if g.node(x).shape == g.node(start).shape {
        start
    } else {
        conv_bn_of(g, start, &format!("{name}.projection"), channels, 1, stride, 1)
    };
    let x = g.add(&format!("{name}.add"), Op::Add, &[x, shortcut]);
    g.add(&format!("{name}.relu"), Op::Relu, &[x]);
}

fn project(g: &mut Graph, start: NodeId, channels: usize) {
    let x = conv_bn(g, "project", channels, 1, 1, 1);
    if g.node(x).shape == g.node(start).shape {
        g.add("add", Op::Add, &[x, start]);
    }
}

/// Scales each channel by a number between 0 and 1 that is computed from the means of all channels (Hu et al. 2018,
/// arXiv 1709.01507), with the reduction to a quarter and the hard sigmoid of MobileNetV3 (Howard et al. 2019, arXiv
/// 1905.02244, sections 5.2 and 5.3).
fn squeeze_excite(g: &mut Graph) {
    let (start, channels) = (g.output(), g.output_shape().channels);
    let conv = |out_channels| Op::Conv2d { out_channels, kernel: 1, stride: 1, groups: 1, bias: true };
    let x = g.add("se_pool", Op::GlobalAvgPool, &[start]);
    let x = g.add("se_reduce", conv(scaled(channels, 0.25)), &[x]);
    let x = g.add("se_reduce_relu", Op::Relu, &[x]);
    let x = g.add("se_expand", conv(channels), &[x]);
    let scale = g.add("se_expand_sigmoid", Op::HardSigmoid, &[x]);
    g.add("se_scale", Op::Mul, &[start, scale]);
}

/// Appends the activation of the convolution `name`.
pub(super) fn activate(g: &mut Graph, name: &str, activation: Activation) {
    let x = g.output();
    let mut add = |suffix: &str, op, inputs: &[NodeId]| g.add(&format!("{name}_{suffix}"), op, inputs);
    match activation {
        Activation::Relu6 => add("relu", Op::Relu6, &[x]),
        Activation::Relu => add("relu", Op::Relu, &[x]),
        Activation::HardSwish => {
            let sigmoid = add("sigmoid", Op::HardSigmoid, &[x]);
            add("swish", Op::Mul, &[x, sigmoid])
        }
    };
}

/// Scales a number of channels and rounds it to a multiple of 8, but down by no more than a tenth, as the authors' code
/// does.
pub(super) fn scaled(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let rounded = ((exact / 8.0).round() as usize * 8).max(8);
    if (rounded as f64) < 0.9 * exact { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    use crate::space::Layer;
    use nas_exporters::Shape;

    /// Multiply-accumulates and parameters, convolution by convolution, each with the γ and β of its batch norm. The
    /// convolutions of squeeze-and-excite have a bias instead.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn costs_are_those_counted_by_hand() {
        let input = Shape::new(16, 8, 6);
        for (op, channels, stride, macs, params) in [
            ("mb_5x5_e1", 16, 1, 48 * (16 * 25 + 16 * 16), 16 * 25 + 32 + 16 * 16 + 32),
            ("mb_7x7_e3", 24, 2, 48 * 16 * 48 + 12 * (48 * 49 + 48 * 24), 16 * 48 + 96 + 48 * 49 + 96 + 48 * 24 + 48),
            // 96 channels are squeezed to 24.
            (
                "mb_3x3_e6_se",
                24,
                2,
                48 * 16 * 96 + 12 * (96 * 9 + 96 * 24) + 2 * 96 * 24,
                16 * 96 + 192 + 96 * 9 + 192 + (96 * 24 + 24) + (24 * 96 + 96) + 96 * 24 + 48,
            ),
            // A quarter of 16 is less than 8.
            (
                "mb_3x3_e1_se",
                16,
                1,
                48 * (16 * 9 + 16 * 16) + 2 * 16 * 8,
                16 * 9 + 32 + (16 * 8 + 8) + (8 * 16 + 16) + 16 * 16 + 32,
            ),
            (
                "mb_7x7_e3_relu",
                24,
                2,
                48 * 16 * 48 + 12 * (48 * 49 + 48 * 24),
                16 * 48 + 96 + 48 * 49 + 96 + 48 * 24 + 48,
            ),
            ("fused_3x3_e3", 16, 1, 48 * (16 * 48 * 9 + 48 * 16), 16 * 48 * 9 + 96 + 48 * 16 + 32),
            ("fused_3x3_e3_hswish", 16, 1, 48 * (16 * 48 * 9 + 48 * 16), 16 * 48 * 9 + 96 + 48 * 16 + 32),
            ("res_3x3", 16, 1, 48 * 2 * 16 * 16 * 9, 2 * (16 * 16 * 9 + 32)),
            // The first block has the stride and a projection.
            (
                "res_3x3_n2",
                24,
                2,
                12 * (16 * 24 * 9 + 16 * 24 + 3 * 24 * 24 * 9),
                16 * 24 * 9 + 16 * 24 + 3 * 24 * 24 * 9 + 5 * 48,
            ),
        ] {
            let cost = Layer { op: op.parse().unwrap(), input, channels, stride }.graph().cost();
            assert_eq!((cost.macs, cost.params), (macs, params), "{op}");
        }
    }
}
