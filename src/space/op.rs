use super::blocks::{InvertedResidual, conv_bn, fused, inverted_residual, residual};
use super::{Layer, SpaceError};
use crate::named::as_text;
use nas_exporters::{Graph, Op};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;

/// An op that a layer can hold. A new op needs a variant, its name in `Display`, `FromStr` and [`CandidateOp::FORMS`], a
/// [`CandidateOp::family`], and the nodes that [`CandidateOp::describe`] appends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub enum CandidateOp {
    /// `conv_3x3`: convolution, batch norm, ReLU.
    Conv { kernel: Kernel },
    /// `sep_conv_3x3`: depthwise, then pointwise, each with batch norm and ReLU (Howard et al. 2017, arXiv
    /// 1704.04861).
    SepConv { kernel: Kernel },
    /// `mb_3x3_e6`, `mb_3x3_e6_se`, `mb_3x3_e6_relu`, `mb_3x3_e6_se_hswish`: see [`inverted_residual`].
    InvertedResidual { kernel: Kernel, expansion: Expansion, squeeze_excite: bool, activation: Activation },
    /// `fused_3x3_e3`, `fused_3x3_e3_relu`: see [`fused`].
    Fused { kernel: Kernel, expansion: Expansion, activation: Activation },
    /// `res_3x3`, `res_3x3_n2`: one or several blocks in sequence, see [`residual`].
    Residual { kernel: Kernel, blocks: Blocks },
    /// `avg_pool_3x3`, `max_pool_3x3`: a pool, followed by a 1×1 projection if the numbers of channels differ.
    Pool { kind: PoolKind, kernel: Kernel },
    /// `skip`: identity, or a 1×1 projection if the shapes differ.
    Skip,
    /// `zero`: outputs zeros, and costs nothing by definition.
    Zero,
    /// `head`: global average pool and classifier, the last layer of every network.
    Head,
}

/// The size of a square window: an odd number from 1 to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kernel(u8);

/// The factor by which a block widens its input internally, from 1 to 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expansion(u8);

/// The number of residual blocks in sequence, from 1 to 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(u8);

/// The activation after the batch norms inside a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// The activation of MobileNetV2, which names do not mention.
    Relu6,
    /// `_relu`. It takes less time than ReLU6 in ONNX Runtime.
    Relu,
    /// `_hswish`: x times its hard sigmoid (Howard et al. 2019, arXiv 1905.02244, section 5.2).
    HardSwish,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    Avg,
    Max,
}

impl Kernel {
    /// Returns `None` if `size` is even or out of range.
    pub fn new(size: usize) -> Option<Kernel> {
        u8::try_from(size).ok().filter(|size| size % 2 == 1 && *size <= 15).map(Kernel)
    }

    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Expansion {
    /// Returns `None` if `factor` is out of range.
    pub fn new(factor: usize) -> Option<Expansion> {
        u8::try_from(factor).ok().filter(|factor| (1..=16).contains(factor)).map(Expansion)
    }

    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Blocks {
    /// Returns `None` if `number` is out of range.
    pub fn new(number: usize) -> Option<Blocks> {
        u8::try_from(number).ok().filter(|number| (1..=16).contains(number)).map(Blocks)
    }

    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Activation {
    fn suffix(self) -> &'static str {
        match self {
            Activation::Relu6 => "",
            Activation::Relu => "_relu",
            Activation::HardSwish => "_hswish",
        }
    }
}

impl CandidateOp {
    /// The patterns of all names, for messages.
    pub const FORMS: &str = "conv_KxK, sep_conv_KxK, mb_KxK_eE, mb_KxK_eE_se, fused_KxK_eE (these three also with \
                             _relu or _hswish at the end), res_KxK, res_KxK_nN, avg_pool_KxK, max_pool_KxK, skip and zero, with \
                             an odd K up to 15, E from 1 to 16 and N from 2 to 16";

    /// Returns the kind of the op, irrespective of its kernel, expansion, squeeze-and-excite, activation and number of
    /// blocks. Parameters of the same name have the same meaning in all ops of a family: those of smaller kernels are
    /// the centre of larger ones, and those of fewer channels are the first of more.
    pub fn family(self) -> &'static str {
        match self {
            CandidateOp::Conv { .. } => "conv",
            CandidateOp::SepConv { .. } => "sep_conv",
            CandidateOp::InvertedResidual { .. } => "mb",
            CandidateOp::Fused { .. } => "fused",
            CandidateOp::Residual { .. } => "res",
            CandidateOp::Pool { kind: PoolKind::Avg, .. } => "avg_pool",
            CandidateOp::Pool { kind: PoolKind::Max, .. } => "max_pool",
            CandidateOp::Skip => "skip",
            CandidateOp::Zero => "zero",
            CandidateOp::Head => "head",
        }
    }

    /// Appends the op's nodes to a graph that so far has only the layer's input.
    pub(super) fn describe(self, g: &mut Graph, layer: &Layer) {
        let (input, channels, stride) = (layer.input, layer.channels, layer.stride);
        match self {
            CandidateOp::Conv { kernel } => {
                let x = conv_bn(g, "conv", channels, kernel.get(), stride, 1);
                g.add("relu", Op::Relu, &[x]);
            }
            CandidateOp::SepConv { kernel } => {
                let x = conv_bn(g, "depthwise", input.channels, kernel.get(), stride, input.channels);
                g.add("depthwise_relu", Op::Relu, &[x]);
                let x = conv_bn(g, "pointwise", channels, 1, 1, 1);
                g.add("pointwise_relu", Op::Relu, &[x]);
            }
            CandidateOp::InvertedResidual { kernel, expansion, squeeze_excite, activation } => {
                let hidden = input.channels * expansion.get();
                let kernel = kernel.get();
                inverted_residual(g, InvertedResidual { hidden, channels, kernel, stride, squeeze_excite, activation });
            }
            CandidateOp::Fused { kernel, expansion, activation } => {
                fused(g, channels, stride, kernel.get(), expansion.get(), activation);
            }
            CandidateOp::Residual { kernel, blocks } => {
                for block in 1..=blocks.get() {
                    let stride = if block == 1 { stride } else { 1 };
                    residual(g, &format!("block{block}"), channels, stride, kernel.get());
                }
            }
            CandidateOp::Pool { kind, kernel } => {
                let kernel = kernel.get();
                let pool = match kind {
                    PoolKind::Avg => Op::AvgPool { kernel, stride },
                    PoolKind::Max => Op::MaxPool { kernel, stride },
                };
                g.add("pool", pool, &[g.output()]);
                if input.channels != channels {
                    conv_bn(g, "projection", channels, 1, 1, 1);
                }
            }
            CandidateOp::Skip if layer.is_identity() => {}
            CandidateOp::Skip => drop(conv_bn(g, "projection", channels, 1, stride, 1)),
            CandidateOp::Zero => drop(g.add("zero", Op::Zero { shape: layer.output() }, &[])),
            CandidateOp::Head => {
                let x = g.add("pool", Op::GlobalAvgPool, &[g.output()]);
                g.add("linear", Op::Linear { out_features: channels }, &[x]);
            }
        }
    }
}

impl Display for CandidateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            CandidateOp::Conv { kernel } => format!("conv_{kernel}"),
            CandidateOp::SepConv { kernel } => format!("sep_conv_{kernel}"),
            CandidateOp::InvertedResidual { kernel, expansion, squeeze_excite, activation } => {
                let excite = if *squeeze_excite { "_se" } else { "" };
                format!("mb_{kernel}_e{}{excite}{}", expansion.0, activation.suffix())
            }
            CandidateOp::Fused { kernel, expansion, activation } => {
                format!("fused_{kernel}_e{}{}", expansion.0, activation.suffix())
            }
            CandidateOp::Residual { kernel, blocks: Blocks(1) } => format!("res_{kernel}"),
            CandidateOp::Residual { kernel, blocks } => format!("res_{kernel}_n{}", blocks.0),
            CandidateOp::Pool { kind: PoolKind::Avg, kernel } => format!("avg_pool_{kernel}"),
            CandidateOp::Pool { kind: PoolKind::Max, kernel } => format!("max_pool_{kernel}"),
            CandidateOp::Skip => "skip".into(),
            CandidateOp::Zero => "zero".into(),
            CandidateOp::Head => "head".into(),
        };
        f.pad(&name)
    }
}

impl FromStr for CandidateOp {
    type Err = SpaceError;

    fn from_str(name: &str) -> Result<Self, SpaceError> {
        let kernel = |text: &str| {
            let (a, b) = text.split_once('x')?;
            Kernel::new(a.parse().ok().filter(|_| a == b)?)
        };
        let expansion = |text: &str| Expansion::new(text.strip_prefix('e')?.parse().ok()?);
        let blocks = |text: &str| Blocks::new(text.strip_prefix('n')?.parse().ok()?);
        let activation = |text: &[&str]| match text {
            [] => Some(Activation::Relu6),
            ["relu"] => Some(Activation::Relu),
            ["hswish"] => Some(Activation::HardSwish),
            _ => None,
        };
        let op = || {
            Some(match name.split('_').collect::<Vec<_>>().as_slice() {
                ["conv", k] => CandidateOp::Conv { kernel: kernel(k)? },
                ["sep", "conv", k] => CandidateOp::SepConv { kernel: kernel(k)? },
                ["mb", k, e, rest @ ..] => CandidateOp::InvertedResidual {
                    kernel: kernel(k)?,
                    expansion: expansion(e)?,
                    squeeze_excite: rest.first() == Some(&"se"),
                    activation: activation(rest.strip_prefix(&["se"]).unwrap_or(rest))?,
                },
                ["fused", k, e, rest @ ..] => {
                    CandidateOp::Fused { kernel: kernel(k)?, expansion: expansion(e)?, activation: activation(rest)? }
                }
                ["res", k] => CandidateOp::Residual { kernel: kernel(k)?, blocks: Blocks(1) },
                ["res", k, n] => CandidateOp::Residual { kernel: kernel(k)?, blocks: blocks(n)? },
                ["avg", "pool", k] => CandidateOp::Pool { kind: PoolKind::Avg, kernel: kernel(k)? },
                ["max", "pool", k] => CandidateOp::Pool { kind: PoolKind::Max, kernel: kernel(k)? },
                ["skip"] => CandidateOp::Skip,
                ["zero"] => CandidateOp::Zero,
                ["head"] => CandidateOp::Head,
                _ => return None,
            })
        };
        // A number can be written in several ways, but only one spelling of a name is accepted.
        let known = op().filter(|op| op.to_string() == name);
        known.ok_or_else(|| SpaceError::UnknownOp(name.into()))
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}x{0}", self.0)
    }
}

impl fmt::Debug for CandidateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

as_text!(CandidateOp, SpaceError);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown_and_others_are_refused() {
        for name in [
            "conv_1x1",
            "conv_3x3",
            "sep_conv_5x5",
            "mb_7x7_e6",
            "mb_3x3_e1_se",
            "mb_3x3_e6_relu",
            "mb_3x3_e6_se_relu",
            "mb_5x5_e6_se_hswish",
            "fused_3x3_e3",
            "fused_3x3_e3_relu",
            "res_3x3",
            "res_5x5_n2",
            "res_3x3_n16",
            "avg_pool_3x3",
            "max_pool_5x5",
            "skip",
            "zero",
            "head",
        ] {
            assert_eq!(name.parse::<CandidateOp>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "conv",
            "conv_2x2",
            "conv_3x5",
            "conv_17x17",
            "conv_03x03",
            "mb_3x3_e0",
            "mb_3x3_e17",
            "mb_3x3_e6_ce",
            "mb_3x3_e6_se_se",
            "mb_3x3_e6_relu_se",
            "mb_3x3_e6_relu6",
            "mb_3x3_e6_relu_hswish",
            "fused_3x3_e3_se",
            "conv_3x3_relu",
            "res_3x3_n0",
            "res_3x3_n1",
            "res_3x3_n17",
            "res_3x3_n2_n2",
            "pool_3x3",
            "sep_conv_3x3_",
            "Skip",
            "conv_+3x+3",
        ] {
            assert!(name.parse::<CandidateOp>().is_err(), "{name}");
        }
    }
}
