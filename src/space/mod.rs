//! What can be built: search spaces, candidate ops, and the networks that a genotype names.

mod candidate;
mod genotype;
mod layer;
mod mobile;
mod mobilenet_v2;

pub use candidate::CandidateOp;
pub use genotype::{Genotype, chained};
pub use layer::Layer;
pub use mobilenet_v2::mobilenet_v2;

use crate::artifact::{self, ArtifactError};
use nas_exporters::Shape;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    #[error("there is no space `{0}`: name a built-in one ({names}) or a TOML file", names = SearchSpace::BUILT_IN.map(|(n, _)| n).join(", "))]
    Unknown(String),
    #[error("{0}; src/space/chain.toml is an example of a space to copy")]
    Artifact(#[from] ArtifactError),
    #[error("space `{space}`: {reason}")]
    Invalid { space: String, reason: String },
    #[error("there is no candidate op `{0}`; there are {names}", names = CandidateOp::names().join(", "))]
    UnknownOp(String),
    #[error(
        "the genotype has {found} ops and space `{space}` has {expected} layers: {expected} ops are needed, separated by commas"
    )]
    Length { space: String, expected: usize, found: usize },
    #[error("layer {layer} of space `{space}` has no candidate `{op}`; it has {candidates}")]
    NotACandidate { space: String, layer: usize, op: String, candidates: String },
}

/// A chain of layers: a stem, mixed layers that each hold one candidate op, and a head of global
/// average pool and classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSpace {
    pub name: String,
    pub stem: Stem,
    /// Names of the ops that each layer chooses from.
    pub candidates: Vec<CandidateOp>,
    pub layers: Vec<LayerSpec>,
}

/// The first layer of every network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stem {
    pub op: CandidateOp,
    pub channels: usize,
    #[serde(default = "one")]
    pub stride: usize,
}

/// A mixed layer: what all its candidate ops give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSpec {
    pub channels: usize,
    #[serde(default = "one")]
    pub stride: usize,
}

fn one() -> usize {
    1
}

impl SearchSpace {
    const BUILT_IN: [(&str, &str); 4] = [
        ("chain", include_str!("chain.toml")),
        ("chain_small", include_str!("chain_small.toml")),
        ("mobile", include_str!("mobile.toml")),
        ("mobile_224", include_str!("mobile_224.toml")),
    ];

    /// The built-in space of that name, or the one in that TOML file.
    ///
    /// # Errors
    /// Where there is neither, or the file does not describe a space.
    pub fn load(name_or_file: &str) -> Result<Self, SpaceError> {
        let path = Path::new(name_or_file);
        let space: SearchSpace = match Self::BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            Some((_, text)) => artifact::parse_toml(path, text)?,
            None if path.is_file() => artifact::read_toml(path)?,
            None => return Err(SpaceError::Unknown(name_or_file.into())),
        };
        space.validate()?;
        Ok(space)
    }

    fn validate(&self) -> Result<(), SpaceError> {
        let invalid = |reason: String| Err(SpaceError::Invalid { space: self.name.clone(), reason });
        if self.layers.is_empty() || self.candidates.iter().all(|op| *op == CandidateOp::ZERO) {
            return invalid("it needs at least one layer, and one candidate besides zero".into());
        }
        let stem = (self.stem.channels, self.stem.stride);
        let sizes = self.layers.iter().map(|l| (l.channels, l.stride)).chain([stem]);
        if sizes.into_iter().any(|(channels, stride)| channels == 0 || stride == 0) {
            return invalid("channels and strides start at 1".into());
        }
        for (i, op) in self.candidates.iter().enumerate() {
            if self.candidates[..i].contains(op) {
                return invalid(format!("candidate `{op}` stands twice"));
            }
            if !op.keeps_shape() {
                return invalid(format!(
                    "`{op}` cannot be a candidate: it does not give the layer's output shape"
                ));
            }
        }
        if !self.stem.op.keeps_shape() {
            return invalid(format!("`{}` cannot be the stem", self.stem.op));
        }
        Ok(())
    }

    /// The stem for images of shape `input`.
    pub fn stem(&self, input: Shape) -> Layer {
        let Stem { op, channels, stride } = self.stem;
        Layer { op, input, channels, stride }
    }

    /// For each mixed layer its candidates, for images of shape `input`.
    pub fn mixed_layers(&self, input: Shape) -> Vec<Vec<Layer>> {
        let mut shape = self.stem(input).output();
        self.layers
            .iter()
            .map(|spec| {
                let of = |&op| Layer { op, input: shape, channels: spec.channels, stride: spec.stride };
                let candidates = self.candidates.iter().map(of).collect();
                shape = shape.strided(spec.channels, spec.stride);
                candidates
            })
            .collect()
    }

    /// The classifier, for images of shape `input`.
    pub fn head(&self, input: Shape, classes: usize) -> Layer {
        let input =
            self.layers.iter().fold(self.stem(input).output(), |s, l| s.strided(l.channels, l.stride));
        Layer { op: CandidateOp::HEAD, input, channels: classes, stride: 1 }
    }

    /// Every distinct layer of every network of the space.
    pub fn distinct_layers(&self, input: Shape, classes: usize) -> Vec<Layer> {
        let mut layers = vec![self.stem(input)];
        layers.extend(self.mixed_layers(input).into_iter().flatten());
        layers.push(self.head(input, classes));
        let mut seen = std::collections::HashSet::new();
        layers.retain(|layer| seen.insert(*layer));
        layers
    }
}
