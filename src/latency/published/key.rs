use crate::space::{CandidateOp, Layer};
use nas_exporters::Shape;
use std::collections::BTreeMap;

/// Why a key is not a layer of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misfit {
    #[error("it is no inverted residual (expanded_conv)")]
    Kind,
    #[error("`{0}` is missing, stands twice, or cannot be read")]
    Unclear(String),
    #[error("its maps are not square")]
    NotSquare,
    #[error("its output is not its input divided by the stride, rounded up")]
    Size,
    #[error("no op has its kernel and expansion")]
    Op,
    #[error("its expansion may be a factor or a number of channels, and there are ops for both")]
    Ambiguous,
    #[error("it adds its input elsewhere than where shapes are equal")]
    Residual,
    #[error("its activation is h-swish, that of our ops ReLU6")]
    Activation,
    #[error("it does not tell the width and the gate of its squeeze-and-excite")]
    Excite,
    #[error("another key is the same layer")]
    Twice,
}

/// What a key says of a block, by name; all that it may say is named here.
struct Block<'k>(BTreeMap<&'static str, &'k str>);

const ATTRIBUTES: [&str; 8] = ["input", "output", "expand", "kernel", "stride", "idskip", "se", "hs"];

impl<'k> Block<'k> {
    fn new(key: &'k str) -> Result<Self, Misfit> {
        let attributes = key.strip_prefix("expanded_conv-").ok_or(Misfit::Kind)?;
        let mut said = BTreeMap::new();
        for attribute in attributes.split('-') {
            let named = |(name, value)| Some((ATTRIBUTES.into_iter().find(|known| *known == name)?, value));
            let fresh = attribute.split_once(':').and_then(named);
            let fresh = fresh.filter(|(name, _)| !said.contains_key(name));
            said.extend([fresh.ok_or_else(|| Misfit::Unclear(attribute.into()))?]);
        }
        Ok(Block(said))
    }

    fn number(&self, name: &str) -> Result<usize, Misfit> {
        let number = self.0.get(name).and_then(|value| value.parse::<u16>().ok());
        number.map(usize::from).filter(|number| *number > 0).ok_or_else(|| Misfit::Unclear(name.into()))
    }

    fn flag(&self, name: &str) -> Result<bool, Misfit> {
        match self.0.get(name) {
            Some(&"0") => Ok(false),
            Some(&"1") => Ok(true),
            _ => Err(Misfit::Unclear(name.into())),
        }
    }

    /// A flag that ProxylessNAS does not have, since none of its blocks has the thing.
    fn extra(&self, name: &str) -> Result<bool, Misfit> {
        if self.0.contains_key(name) { self.flag(name) } else { Ok(false) }
    }

    /// A shape, written height, width, channels.
    fn shape(&self, name: &str) -> Result<Shape, Misfit> {
        let sizes = self.0.get(name).map(|value| value.split('x').map(str::parse::<u16>));
        let sizes: Option<Vec<u16>> = sizes.and_then(|sizes| sizes.collect::<Result<_, _>>().ok());
        match sizes.as_deref() {
            Some(&[h, w, c]) if h > 0 && w > 0 && c > 0 => Ok(Shape::new(c.into(), h.into(), w.into())),
            _ => Err(Misfit::Unclear(name.into())),
        }
    }
}

/// The layer that a key names, if one of our ops computes the very same: of paddings, which no key tells,
/// nothing is asked, and of two clamps, ReLU is as good as ReLU6.
pub(super) fn layer(key: &str) -> Result<Layer, Misfit> {
    let block = Block::new(key)?;
    let (input, output) = (block.shape("input")?, block.shape("output")?);
    if input.height != input.width || output.height != output.width {
        return Err(Misfit::NotSquare);
    }
    let (kernel, expand) = (block.number("kernel")?, block.number("expand")?);
    let (stride, adds_input) = (block.number("stride")?, block.flag("idskip")?);
    if block.extra("hs")? {
        return Err(Misfit::Activation);
    }
    if block.extra("se")? {
        return Err(Misfit::Excite);
    }
    // ProxylessNAS writes the factor, Once-for-All the channels.
    let channels = input.channels;
    let of_channels = expand.is_multiple_of(channels).then_some(expand / channels);
    let op = |factor: usize| format!("mb_{kernel}x{kernel}_e{factor}").parse::<CandidateOp>().ok();
    let op = match (op(expand), of_channels.and_then(op)) {
        (Some(a), Some(b)) if a != b => return Err(Misfit::Ambiguous),
        (a, b) => a.or(b).ok_or(Misfit::Op)?,
    };
    let layer = Layer { op, input, channels: output.channels, stride };
    if layer.output() != output {
        return Err(Misfit::Size);
    }
    if adds_input != (input == output) {
        return Err(Misfit::Residual);
    }
    Ok(layer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_an_expansion_name_the_layer() {
        for (key, expected) in [
            (
                "expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0",
                "mb_5x5_e6 16x112x112->24 /2",
            ),
            (
                "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:7-stride:1-idskip:1-se:0-hs:0",
                "mb_7x7_e3 136x10x10->136",
            ),
            // Of 15 pixels, rounded up, 8.
            (
                "expanded_conv-input:15x15x40-output:8x8x80-expand:40-kernel:3-stride:2-idskip:0",
                "mb_3x3_e1 40x15x15->80 /2",
            ),
            // Three channels, and three times one channel.
            (
                "expanded_conv-input:8x8x1-output:8x8x4-expand:3-kernel:3-stride:1-idskip:0",
                "mb_3x3_e3 1x8x8->4",
            ),
        ] {
            assert_eq!(layer(key).map(|layer| layer.to_string()), Ok(expected.into()), "{key}");
        }
    }

    /// Each differs in one thing from a key that fits.
    #[test]
    fn what_does_not_fit_is_told_why() {
        let key = "expanded_conv-input:10x10x6-output:10x10x6-expand:18-kernel:3-stride:1-idskip:1-se:0-hs:0";
        assert_eq!(layer(key).unwrap().to_string(), "mb_3x3_e3 6x10x10->6");
        let unclear = |what: &str| Misfit::Unclear(what.into());
        for (from, to, why) in [
            ("expanded_conv", "Conv_1", Misfit::Kind),
            ("kernel:3", "kernel:9", Misfit::Op),
            ("expand:18", "expand:24", Misfit::Op),
            ("expand:18", "expand:19", Misfit::Op),
            ("expand:18", "expand:6", Misfit::Ambiguous),
            ("input:10x10x6", "input:10x12x6", Misfit::NotSquare),
            ("stride:1", "stride:2", Misfit::Size),
            ("idskip:1", "idskip:0", Misfit::Residual),
            ("output:10x10x6", "output:10x10x8", Misfit::Residual),
            ("hs:0", "hs:1", Misfit::Activation),
            ("se:0", "se:1", Misfit::Excite),
            ("hs:0", "hs:2", unclear("hs")),
            ("stride:1", "stride:0", unclear("stride")),
            ("-kernel:3", "", unclear("kernel")),
            ("10x10x6-output", "10x10-output", unclear("input")),
            ("-kernel:3", "-kernel:3-kernel:5", unclear("kernel:5")),
            ("-hs:0", "-hs:0-dilation:2", unclear("dilation:2")),
        ] {
            assert_eq!(layer(&key.replacen(from, to, 1)), Err(why), "{to}");
        }
    }
}
