use super::{CandidateOp, Layer, SearchSpace, SpaceError};
use nas_exporters::{Graph, Shape};
use serde::{Deserialize, Serialize};

/// A network of a search space: the op of each of its layers. With the space, the images' shape and
/// the number of classes, so that a genotype file stands by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Genotype {
    pub ops: Vec<CandidateOp>,
    /// Shape of the images, CHW.
    pub input: Shape,
    pub classes: usize,
    pub space: SearchSpace,
}

/// A genotype as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    ops: Vec<CandidateOp>,
    input: Shape,
    classes: usize,
    space: SearchSpace,
}

impl TryFrom<Unchecked> for Genotype {
    type Error = SpaceError;

    fn try_from(Unchecked { ops, input, classes, space }: Unchecked) -> Result<Self, SpaceError> {
        space.validate()?;
        if input.is_empty() || classes == 0 {
            let reason = format!("images of {input} and {classes} classes: sizes start at 1");
            return Err(SpaceError::Invalid { space: space.name, reason });
        }
        Genotype::new(space, ops, input, classes)
    }
}

impl Genotype {
    /// # Errors
    /// Where the number of ops is not that of the space's layers, or an op is none of its candidates.
    pub fn new(
        space: SearchSpace,
        ops: Vec<CandidateOp>,
        input: Shape,
        classes: usize,
    ) -> Result<Self, SpaceError> {
        let (expected, found) = (space.layers.len(), ops.len());
        if expected != found {
            return Err(SpaceError::Length { space: space.name, expected, found });
        }
        if let Some(i) = ops.iter().position(|op| !space.candidates.contains(op)) {
            let candidates = space.candidates.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
            return Err(SpaceError::NotACandidate {
                space: space.name,
                layer: i + 1,
                op: ops[i].to_string(),
                candidates,
            });
        }
        Ok(Genotype { ops, input, classes, space })
    }

    /// Reads `conv_3x3,skip,…`.
    ///
    /// # Errors
    /// As [`Genotype::new`], and where an op is unknown.
    pub fn parse(space: SearchSpace, ops: &str, input: Shape, classes: usize) -> Result<Self, SpaceError> {
        let ops: Result<Vec<CandidateOp>, _> = ops.split(',').map(|op| op.trim().parse()).collect();
        Self::new(space, ops?, input, classes)
    }

    /// Stem, the chosen ops, head.
    pub fn layers(&self) -> Vec<Layer> {
        let mixed = self.space.mixed_layers(self.input);
        let chosen = self.ops.iter().zip(&mixed).flat_map(|(op, layers)| layers.iter().find(|l| l.op == *op));
        let mut layers = vec![self.space.stem(self.input)];
        layers.extend(chosen);
        layers.push(self.space.head(self.input, self.classes));
        layers
    }

    /// The layers that the output depends on: a `zero` makes itself and what is before it dead.
    pub fn live_layers(&self) -> Vec<Layer> {
        let mut layers = self.layers();
        if let Some(zero) = layers.iter().rposition(|l| l.op == CandidateOp::ZERO) {
            layers.drain(..=zero);
        }
        layers
    }

    /// The network.
    pub fn graph(&self) -> Graph {
        chained(&self.layers())
    }
}

/// The network of these layers, their graphs one after another, below `stem`, `layer1`…, `head`.
pub fn chained(layers: &[Layer]) -> Graph {
    let mut graph = Graph::new(layers.first().map_or(Shape::new(0, 0, 0), |stem| stem.input));
    let last = layers.len().saturating_sub(1);
    for (i, layer) in layers.iter().enumerate() {
        let prefix = match i {
            0 => "stem".to_string(),
            _ if i == last => "head".to_string(),
            _ => format!("layer{i}"),
        };
        let end = graph.output();
        graph.append(&prefix, &layer.graph(), end);
    }
    graph
}

impl std::fmt::Display for Genotype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.ops.iter().map(|op| op.name()).collect();
        f.write_str(&names.join(","))
    }
}
