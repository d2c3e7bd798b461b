use super::mobile::{fused, inverted_residual};
use super::{Layer, SpaceError};
use nas_exporters::{Graph, NodeId, Op};
use serde::{Deserialize, Serialize};

/// Describes the op of a layer: appends its nodes to a graph that is the layer's input so far.
type Describe = fn(&mut Graph, &Layer);

/// Every op that a layer can hold. A new one is a function and its line here.
static OPS: &[(&str, Describe)] = &[
    ("conv_3x3", |g, l| conv(g, l, 3)),
    ("conv_5x5", |g, l| conv(g, l, 5)),
    ("sep_conv_3x3", |g, l| separable_conv(g, l, 3)),
    ("sep_conv_5x5", |g, l| separable_conv(g, l, 5)),
    ("skip", skip),
    ("zero", zero),
    ("avg_pool_3x3", |g, l| pool(g, l, Op::AvgPool { kernel: 3, stride: l.stride })),
    ("max_pool_3x3", |g, l| pool(g, l, Op::MaxPool { kernel: 3, stride: l.stride })),
    ("mb_3x3_e1", |g, l| mb(g, l, 3, 1, false)),
    ("mb_3x3_e3", |g, l| mb(g, l, 3, 3, false)),
    ("mb_3x3_e6", |g, l| mb(g, l, 3, 6, false)),
    ("mb_5x5_e1", |g, l| mb(g, l, 5, 1, false)),
    ("mb_5x5_e3", |g, l| mb(g, l, 5, 3, false)),
    ("mb_5x5_e6", |g, l| mb(g, l, 5, 6, false)),
    ("mb_7x7_e1", |g, l| mb(g, l, 7, 1, false)),
    ("mb_7x7_e3", |g, l| mb(g, l, 7, 3, false)),
    ("mb_7x7_e6", |g, l| mb(g, l, 7, 6, false)),
    ("mb_3x3_e1_se", |g, l| mb(g, l, 3, 1, true)),
    ("mb_3x3_e3_se", |g, l| mb(g, l, 3, 3, true)),
    ("mb_3x3_e6_se", |g, l| mb(g, l, 3, 6, true)),
    ("mb_5x5_e1_se", |g, l| mb(g, l, 5, 1, true)),
    ("mb_5x5_e3_se", |g, l| mb(g, l, 5, 3, true)),
    ("mb_5x5_e6_se", |g, l| mb(g, l, 5, 6, true)),
    ("mb_7x7_e1_se", |g, l| mb(g, l, 7, 1, true)),
    ("mb_7x7_e3_se", |g, l| mb(g, l, 7, 3, true)),
    ("mb_7x7_e6_se", |g, l| mb(g, l, 7, 6, true)),
    ("fused_3x3_e3", |g, l| fused(g, l.channels, l.stride, 3, 3)),
    ("head", head),
];

// Behind an alias, since serde's derive would take a plain `&'static str` for text to borrow.
type Name = &'static str;

/// An op that a layer can hold, by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct CandidateOp(Name);

impl CandidateOp {
    /// Global average pool and classifier, the last layer of every network.
    pub const HEAD: CandidateOp = CandidateOp("head");
    /// The op that gives zeros: the one that costs nothing by definition.
    pub const ZERO: CandidateOp = CandidateOp("zero");

    pub fn names() -> Vec<&'static str> {
        OPS.iter().map(|(name, _)| *name).collect()
    }

    pub fn name(self) -> &'static str {
        self.0
    }

    pub(super) fn describe(self, graph: &mut Graph, layer: &Layer) {
        for (name, describe) in OPS {
            if *name == self.0 {
                describe(graph, layer);
            }
        }
    }

    /// Whether the op gives its layer's channels at its layer's stride, as mixed layers need.
    pub(super) fn keeps_shape(self) -> bool {
        let layer = Layer { op: self, input: [4, 6, 6].into(), channels: 8, stride: 2 };
        layer.graph().output_shape() == layer.input.strided(8, 2)
    }
}

impl TryFrom<String> for CandidateOp {
    type Error = SpaceError;

    fn try_from(name: String) -> Result<Self, SpaceError> {
        name.parse()
    }
}

impl std::str::FromStr for CandidateOp {
    type Err = SpaceError;

    fn from_str(name: &str) -> Result<Self, SpaceError> {
        let known = OPS.iter().find(|(n, _)| *n == name);
        known.map(|(n, _)| CandidateOp(n)).ok_or_else(|| SpaceError::UnknownOp(name.into()))
    }
}

impl From<CandidateOp> for &'static str {
    fn from(op: CandidateOp) -> Self {
        op.0
    }
}

impl std::fmt::Display for CandidateOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.0)
    }
}

impl std::fmt::Debug for CandidateOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Convolution and batch norm, named `name` and `name_bn`.
pub(super) fn conv_bn(
    g: &mut Graph,
    name: &str,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> NodeId {
    let conv = Op::Conv2d { out_channels, kernel, stride, groups, bias: false };
    let conv = g.add(name, conv, &[g.output()]);
    g.add(&format!("{name}_bn"), Op::BatchNorm, &[conv])
}

fn conv(g: &mut Graph, l: &Layer, kernel: usize) {
    let x = conv_bn(g, "conv", l.channels, kernel, l.stride, 1);
    g.add("relu", Op::Relu, &[x]);
}

/// Depthwise, then pointwise, each with batch norm and ReLU (Howard et al. 2017, arXiv 1704.04861).
fn separable_conv(g: &mut Graph, l: &Layer, kernel: usize) {
    let x = conv_bn(g, "depthwise", l.input.channels, kernel, l.stride, l.input.channels);
    g.add("depthwise_relu", Op::Relu, &[x]);
    let x = conv_bn(g, "pointwise", l.channels, 1, 1, 1);
    g.add("pointwise_relu", Op::Relu, &[x]);
}

fn mb(g: &mut Graph, l: &Layer, kernel: usize, expansion: usize, excite: bool) {
    inverted_residual(g, l.channels, l.stride, kernel, expansion, excite);
}

fn skip(g: &mut Graph, l: &Layer) {
    if l.input != l.output() {
        conv_bn(g, "projection", l.channels, 1, l.stride, 1);
    }
}

fn zero(g: &mut Graph, l: &Layer) {
    g.add("zero", Op::Zero { shape: l.output() }, &[]);
}

fn pool(g: &mut Graph, l: &Layer, pool: Op) {
    g.add("pool", pool, &[g.output()]);
    if l.input.channels != l.channels {
        conv_bn(g, "projection", l.channels, 1, 1, 1);
    }
}

fn head(g: &mut Graph, l: &Layer) {
    let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
    g.add("linear", Op::Linear { out_features: l.channels }, &[x]);
}
