use crate::space::{Activation, CandidateOp, Expansion, Kernel, Layer, Networks};
use nas_exporters::Shape;
use std::collections::BTreeMap;

/// Why a key does not describe a layer of the space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misfit {
    #[error("it is neither an inverted residual (expanded_conv) nor a layer of stem and head")]
    Kind,
    #[error("`{0}` is missing, repeated, or cannot be read")]
    Unclear(String),
    #[error("its maps are not square")]
    NotSquare,
    #[error("its output is not its input divided by the stride, rounded up")]
    Size,
    #[error("there is no op with its kernel and expansion")]
    Op,
    #[error("it adds its input elsewhere than where shapes are equal")]
    Residual,
    #[error("the space has no such layer")]
    NotInSpace,
    #[error("another key is the same layer")]
    Repeated,
}

/// The attributes of a key, by name. A key may have only those in [`ATTRIBUTES`].
struct Attributes<'k>(BTreeMap<&'static str, &'k str>);

const ATTRIBUTES: [&str; 6] = ["input", "output", "expand", "kernel", "stride", "idskip"];

impl<'k> Attributes<'k> {
    fn read(text: &'k str) -> Result<Self, Misfit> {
        let mut attributes = BTreeMap::new();
        for attribute in text.split('-') {
            let named = |(name, value)| Some((ATTRIBUTES.into_iter().find(|known| *known == name)?, value));
            let new = attribute.split_once(':').and_then(named);
            let new = new.filter(|(name, _)| !attributes.contains_key(name));
            attributes.extend([new.ok_or_else(|| Misfit::Unclear(attribute.into()))?]);
        }
        Ok(Attributes(attributes))
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

    /// Returns a shape, which is written as height, width and channels, or as channels alone.
    fn shape(&self, name: &str) -> Result<Shape, Misfit> {
        let sizes = self.0.get(name).map(|value| value.split('x').map(str::parse::<u16>));
        let sizes: Option<Vec<u16>> = sizes.and_then(|sizes| sizes.collect::<Result<_, _>>().ok());
        match sizes.as_deref() {
            Some(&[h, w, c]) if h > 0 && w > 0 && c > 0 => Ok(Shape::new(c.into(), h.into(), w.into())),
            Some(&[c]) if c > 0 => Ok(Shape::new(c.into(), 1, 1)),
            _ => Err(Misfit::Unclear(name.into())),
        }
    }
}

/// Returns the layer of `networks` that a key describes. Keys name neither paddings nor activations; ReLU counts as
/// ReLU6.
pub(super) fn layer(key: &str, networks: &Networks) -> Result<Layer, Misfit> {
    let (kind, attributes) = key.split_once('-').ok_or(Misfit::Kind)?;
    let layers = networks.len();
    let fixed = match kind {
        "expanded_conv" => None,
        "Conv" => Some(0),
        "Conv_1" => Some(layers - 2),
        "Logits" => Some(layers - 1),
        _ => return Err(Misfit::Kind),
    };
    let attributes = Attributes::read(attributes)?;
    let (input, output) = (attributes.shape("input")?, attributes.shape("output")?);
    let layer = match fixed {
        Some(place) => networks.variants()[place][0].layer,
        None => inverted_residual(&attributes, input, output)?,
    };
    let is_in_space = networks.variants().iter().flatten().any(|variant| variant.layer == layer);
    if is_in_space && layer.input == input && layer.output() == output { Ok(layer) } else { Err(Misfit::NotInSpace) }
}

fn inverted_residual(attributes: &Attributes, input: Shape, output: Shape) -> Result<Layer, Misfit> {
    if input.height != input.width || output.height != output.width {
        return Err(Misfit::NotSquare);
    }
    let kernel = Kernel::new(attributes.number("kernel")?).ok_or(Misfit::Op)?;
    let expansion = Expansion::new(attributes.number("expand")?).ok_or(Misfit::Op)?;
    let (stride, adds_input) = (attributes.number("stride")?, attributes.flag("idskip")?);
    let op = CandidateOp::InvertedResidual { kernel, expansion, squeeze_excite: false, activation: Activation::Relu6 };
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
    use crate::space::SearchSpace;

    fn networks() -> Networks {
        let input = Shape::new(3, 224, 224);
        Networks::new(SearchSpace::load("proxylessnas").unwrap(), input, [1000]).unwrap()
    }

    #[test]
    fn keys_name_layers_of_the_space() {
        for (key, expected) in [
            ("Conv-input:224x224x3-output:112x112x32", "conv_3x3 3x224x224->32 /2"),
            (
                "expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0",
                "mb_5x5_e6 16x112x112->24 /2",
            ),
            (
                "expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:7-stride:1-idskip:1",
                "mb_7x7_e3 80x14x14->80",
            ),
            ("Conv_1-input:7x7x320-output:7x7x1280", "conv_1x1 320x7x7->1280"),
            ("Logits-input:7x7x1280-output:1000", "head 1280x7x7->1000"),
        ] {
            assert_eq!(layer(key, &networks()).map(|layer| layer.to_string()), Ok(expected.into()), "{key}");
        }
    }

    /// Each case differs in one thing from a key that fits.
    #[test]
    fn what_does_not_fit_has_a_reason() {
        let key = "expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:3-stride:1-idskip:1";
        assert_eq!(layer(key, &networks()).unwrap().to_string(), "mb_3x3_e3 80x14x14->80");
        let unclear = |what: &str| Misfit::Unclear(what.into());
        for (from, to, why) in [
            ("expanded_conv", "Conv_2", Misfit::Kind),
            ("kernel:3", "kernel:4", Misfit::Op),
            ("kernel:3", "kernel:9", Misfit::NotInSpace),
            ("expand:3", "expand:80", Misfit::Op),
            ("expand:3", "expand:4", Misfit::NotInSpace),
            ("input:14x14x80", "input:14x28x80", Misfit::NotSquare),
            ("stride:1", "stride:2", Misfit::Size),
            ("idskip:1", "idskip:0", Misfit::Residual),
            ("output:14x14x80", "output:14x14x96", Misfit::Residual),
            ("stride:1", "stride:0", unclear("stride")),
            ("-kernel:3", "", unclear("kernel")),
            ("14x14x80-output", "14x14-output", unclear("input")),
            ("-kernel:3", "-kernel:3-kernel:5", unclear("kernel:5")),
            ("-idskip:1", "-idskip:1-se:1", unclear("se:1")),
        ] {
            assert_eq!(layer(&key.replacen(from, to, 1), &networks()), Err(why), "{to}");
        }
    }
}
