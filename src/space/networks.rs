use super::{CandidateOp, Layer, LayerSpec, SearchSpace, SpaceError, sizes};
use nas_exporters::{Graph, Shape};
use std::collections::{BTreeMap, HashSet};

/// What a layer can be: an op and its output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    pub op: CandidateOp,
    /// None for as many as its input has.
    pub channels: Option<usize>,
}

/// A choice of a layer on one of the inputs that it may get.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub choice: usize,
    /// What decides this input: the last layer before that has widths of its own, and those of its choices that give
    /// this one. None where it is the images' shape.
    pub inputs: Option<(usize, Vec<usize>)>,
    pub layer: Layer,
}

/// All networks of a space for images of one shape. Its layers are those of the space and, as the last one, the
/// classifier. A network is named by its choices, the index of one for each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks {
    pub space: SearchSpace,
    /// Shape of the images, CHW.
    pub input: Shape,
    /// Number of classes; several where one latency table serves several data sets.
    pub classes: Vec<usize>,
    layers: Vec<Vec<Variant>>,
    choices: Vec<Vec<Choice>>,
}

impl Networks {
    /// # Errors
    /// Where a size is 0 or too large.
    pub fn new(space: SearchSpace, input: Shape, classes: impl Into<Vec<usize>>) -> Result<Self, SpaceError> {
        let classes = classes.into();
        let invalid = |reason: String| SpaceError::Invalid { space: space.name.clone(), reason };
        sizes::check_images(input, &classes).map_err(invalid)?;
        let head = LayerSpec { ops: vec![CandidateOp::Head], channels: classes.clone().into(), stride: 1 };
        let specs: Vec<&LayerSpec> = space.layers.iter().chain([&head]).collect();
        let choices: Vec<Vec<Choice>> = specs.iter().map(|spec| spec.choices()).collect();
        let mut inputs = Inputs::from([(input, None)]);
        let mut layers = vec![];
        for (layer, (spec, choices)) in specs.into_iter().zip(&choices).enumerate() {
            if choices.len() * inputs.len() > sizes::MOST_VARIANTS {
                let reason = format!("a layer has {} choices on {} inputs", choices.len(), inputs.len());
                return Err(invalid(format!("{reason}: {} in all are allowed", sizes::MOST_VARIANTS)));
            }
            let variants = variants(spec, &inputs);
            variants.iter().try_for_each(|variant| variant.layer.check()).map_err(invalid)?;
            inputs = outputs(layer, choices, &variants);
            layers.push(variants);
        }
        Ok(Networks { space, input, classes, layers, choices })
    }

    /// By layer, its choices; the last one has the classifier of each number of classes.
    pub fn choices(&self) -> &[Vec<Choice>] {
        &self.choices
    }

    /// By layer, its choices on all inputs that they may get.
    pub fn variants(&self) -> &[Vec<Variant>] {
        &self.layers
    }

    /// Number of layers, the classifier among them.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// The layers that have more than one choice, in rising order.
    pub fn searched(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|&layer| self.choices[layer].len() > 1)
    }

    /// The choices of a layer besides `zero`, which no network needs.
    pub fn live(&self, layer: usize) -> Vec<usize> {
        let choices = &self.choices[layer];
        (0..choices.len()).filter(|&choice| choices[choice].op != CandidateOp::Zero).collect()
    }

    /// By layer, [`Networks::live`].
    pub fn all_live(&self) -> Vec<Vec<usize>> {
        (0..self.len()).map(|layer| self.live(layer)).collect()
    }

    /// How many networks there are without a `zero`.
    pub fn count(&self) -> usize {
        (0..self.len()).map(|layer| self.live(layer).len()).fold(1, usize::saturating_mul)
    }

    /// `stem`, `layer1`…, `head`: how the layers of a network are called.
    pub fn layer_name(&self, layer: usize) -> String {
        layer_name(layer, self.len())
    }

    /// The layers of a network.
    ///
    /// # Panics
    /// Where `choices` is not a choice of each layer.
    pub fn layers_of(&self, choices: &[usize]) -> Vec<Layer> {
        let mut input = self.input;
        let mut layers = vec![];
        for (choices_of, (&choice, variants)) in self.choices.iter().zip(choices.iter().zip(&self.layers)) {
            let Choice { op, channels } = choices_of[choice];
            let channels = channels.unwrap_or(input.channels);
            let layer = Layer { op, input, channels, stride: variants[0].layer.stride };
            input = layer.output();
            layers.push(layer);
        }
        layers
    }

    /// The choices by which a network of this space is named; none where it is not of this space.
    pub fn choices_of(&self, layers: &[Layer]) -> Option<Vec<usize>> {
        let find = |(layer, variants): (&Layer, &Vec<Variant>)| {
            variants.iter().find(|variant| variant.layer == *layer).map(|variant| variant.choice)
        };
        let choices: Vec<usize> = layers.iter().zip(&self.layers).map(find).collect::<Option<_>>()?;
        (choices.len() == self.len() && self.layers_of(&choices) == layers).then_some(choices)
    }

    /// The first layer that the output depends on: a `zero` makes all layers before it dead, and costs nothing.
    pub fn first_live(&self, choices: &[usize]) -> usize {
        let is_zero = |(layer, &choice): (usize, &usize)| self.choices[layer][choice].op == CandidateOp::Zero;
        choices.iter().enumerate().rev().find(|at| is_zero(*at)).map_or(0, |(zero, _)| zero + 1)
    }

    /// Where a variant of `layer` is in a network: the layers that decide it, each with its choices.
    pub fn product(&self, layer: usize, variant: &Variant) -> Vec<(usize, Vec<usize>)> {
        let here = (layer, vec![variant.choice]);
        match &variant.inputs {
            Some((before, given)) if given.len() < self.choices[*before].len() => vec![(*before, given.clone()), here],
            _ => vec![here],
        }
    }

    /// Every distinct layer of every network.
    pub fn distinct_layers(&self) -> Vec<Layer> {
        let mut seen = HashSet::new();
        let all = self.layers.iter().flatten().map(|variant| variant.layer);
        all.filter(|layer| seen.insert(*layer)).collect()
    }
}

/// The shapes that a layer may get, each with what decides it ([`Variant::inputs`]).
type Inputs = BTreeMap<Shape, Option<(usize, Vec<usize>)>>;

fn variants(spec: &LayerSpec, inputs: &Inputs) -> Vec<Variant> {
    let of = |(choice, Choice { op, channels }): (usize, Choice)| {
        inputs.iter().map(move |(&input, from)| {
            let channels = channels.unwrap_or(input.channels);
            let layer = Layer { op, input, channels, stride: spec.stride };
            Variant { choice, inputs: from.clone(), layer }
        })
    };
    spec.choices().into_iter().enumerate().flat_map(of).collect()
}

/// What these variants of `layer` give to the layer after it.
fn outputs(layer: usize, choices: &[Choice], variants: &[Variant]) -> Inputs {
    let mut outputs = Inputs::new();
    for variant in variants {
        let output = outputs.entry(variant.layer.output()).or_default();
        if choices[variant.choice].channels.is_none() {
            output.clone_from(&variant.inputs);
            continue;
        }
        let (_, given) = output.get_or_insert_with(|| (layer, vec![]));
        if !given.contains(&variant.choice) {
            given.push(variant.choice);
        }
    }
    outputs
}

fn layer_name(layer: usize, layers: usize) -> String {
    match layer {
        0 => "stem".into(),
        _ if layer + 1 == layers => "head".into(),
        _ => format!("layer{layer}"),
    }
}

/// The network of these layers: their graphs one after another, below `stem`, `layer1`…, `head`.
pub fn chained(layers: &[Layer]) -> Graph {
    let mut graph = Graph::new(layers.first().map_or(Shape::new(0, 0, 0), |stem| stem.input));
    for (i, layer) in layers.iter().enumerate() {
        let end = graph.output();
        graph.append(&layer_name(i, layers.len()), &layer.graph(), end);
    }
    graph
}
