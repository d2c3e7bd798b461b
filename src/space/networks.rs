use super::{CandidateOp, Layer, LayerSpec, SearchSpace, SpaceError, sizes};
use nas_exporters::{Graph, Shape};
use std::collections::{BTreeMap, HashSet};

/// What a layer can be: an op and its output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    pub op: CandidateOp,
    /// `None` for as many as the layer's input has.
    pub channels: Option<usize>,
}

/// A choice of a layer for one of the inputs that the layer may get.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub choice: usize,
    /// What decides this input: the last earlier layer that has widths of its own, and those of its choices that give
    /// this input. `None` if it is the shape of the images.
    pub inputs: Option<(usize, Vec<usize>)>,
    pub layer: Layer,
}

/// All networks of a space for images of one shape. The layers are those of the space, followed by the classifier. A
/// network is identified by its choices, one index per layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks {
    pub space: SearchSpace,
    /// Shape of the images, CHW.
    pub input: Shape,
    /// Number of classes. There are several if one latency table serves several data sets.
    pub classes: Vec<usize>,
    layers: Vec<Vec<Variant>>,
    choices: Vec<Vec<Choice>>,
}

impl Networks {
    /// Lists the layers of all networks, with all inputs that they may get.
    ///
    /// # Errors
    /// Fails if a size is 0 or too large.
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

    /// Returns the choices of each layer. Those of the last one are the classifiers, one for each number of classes.
    pub fn choices(&self) -> &[Vec<Choice>] {
        &self.choices
    }

    /// Returns the choices of each layer, for all inputs that the layer may get.
    pub fn variants(&self) -> &[Vec<Variant>] {
        &self.layers
    }

    /// Returns the number of layers, including the classifier.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Returns the layers that have more than one choice, in ascending order.
    pub fn searched(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|&layer| self.choices[layer].len() > 1)
    }

    /// Returns the choices of a layer except for `zero`, which no network needs.
    pub fn live(&self, layer: usize) -> Vec<usize> {
        let choices = &self.choices[layer];
        (0..choices.len()).filter(|&choice| choices[choice].op != CandidateOp::Zero).collect()
    }

    /// Returns [`Networks::live`] of each layer.
    pub fn all_live(&self) -> Vec<Vec<usize>> {
        (0..self.len()).map(|layer| self.live(layer)).collect()
    }

    /// Returns the number of networks without a `zero`.
    pub fn count(&self) -> usize {
        (0..self.len()).map(|layer| self.live(layer).len()).fold(1, usize::saturating_mul)
    }

    /// Returns the name of a layer: `stem`, `layer1`, …, `head`.
    pub fn layer_name(&self, layer: usize) -> String {
        layer_name(layer, self.len())
    }

    /// Returns the layers of a network.
    ///
    /// # Panics
    /// Panics if `choices` does not have one choice per layer.
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

    /// Returns the choices that identify a network of this space, or `None` if the network is not of this space.
    pub fn choices_of(&self, layers: &[Layer]) -> Option<Vec<usize>> {
        let find = |(layer, variants): (&Layer, &Vec<Variant>)| {
            variants.iter().find(|variant| variant.layer == *layer).map(|variant| variant.choice)
        };
        let choices: Vec<usize> = layers.iter().zip(&self.layers).map(find).collect::<Option<_>>()?;
        (choices.len() == self.len() && self.layers_of(&choices) == layers).then_some(choices)
    }

    /// Returns the first layer that the output depends on. A `zero` makes all layers before it dead, and costs nothing
    /// itself.
    pub fn first_live(&self, choices: &[usize]) -> usize {
        let is_zero = |(layer, &choice): (usize, &usize)| self.choices[layer][choice].op == CandidateOp::Zero;
        choices.iter().enumerate().rev().find(|at| is_zero(*at)).map_or(0, |(zero, _)| zero + 1)
    }

    /// Returns the condition for a network to contain a variant of `layer`: the layers that decide it, each with the
    /// choices that it may have.
    pub fn product(&self, layer: usize, variant: &Variant) -> Vec<(usize, Vec<usize>)> {
        let here = (layer, vec![variant.choice]);
        match &variant.inputs {
            Some((before, given)) if given.len() < self.choices[*before].len() => vec![(*before, given.clone()), here],
            _ => vec![here],
        }
    }

    /// Returns every distinct layer of all networks.
    pub fn distinct_layers(&self) -> Vec<Layer> {
        let mut seen = HashSet::new();
        let all = self.layers.iter().flatten().map(|variant| variant.layer);
        all.filter(|layer| seen.insert(*layer)).collect()
    }
}

/// The shapes that a layer's input may have, each with what decides it ([`Variant::inputs`]).
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

/// Returns the inputs that these variants of `layer` give to the next layer.
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

/// Returns the network of these layers: their graphs one after another. The names of their nodes start with `stem`,
/// `layer1`, …, `head`.
pub fn chained(layers: &[Layer]) -> Graph {
    let mut graph = Graph::new(layers.first().map_or(Shape::new(0, 0, 0), |stem| stem.input));
    for (i, layer) in layers.iter().enumerate() {
        let end = graph.output();
        graph.append(&layer_name(i, layers.len()), &layer.graph(), end);
    }
    graph
}
