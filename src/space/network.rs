use super::baselines::mobilenet_v2;
use super::{Genotype, SpaceError};
use nas_exporters::{Graph, Shape};
use serde::{Deserialize, Serialize};

/// A network that can be trained and exported: what `network.json` holds. A new baseline is a variant, and its
/// line in [`BASELINES`] and [`Network::graph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "snake_case")]
pub enum Network {
    Genotype(Genotype),
    MobilenetV2(Baseline),
}

/// The sizes of a published network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Scales the channels.
    pub width: f64,
    /// CHW
    pub input: Shape,
    pub classes: usize,
}

type Make = fn(Baseline) -> Network;

const BASELINES: [(&str, Make); 1] = [("mobilenet_v2", Network::MobilenetV2)];

impl Network {
    /// The names of the published networks.
    pub fn baselines() -> impl Iterator<Item = &'static str> {
        BASELINES.into_iter().map(|(name, _)| name)
    }

    /// # Errors
    /// Where no published network has that name.
    pub fn baseline(name: &str, sizes: Baseline) -> Result<Network, SpaceError> {
        let known = BASELINES.iter().find(|(known, _)| *known == name);
        known.map(|(_, make)| make(sizes)).ok_or_else(|| SpaceError::UnknownBaseline(name.into()))
    }

    /// `genotype`, or `mobilenet_v2_x0.5`.
    pub fn name(&self) -> String {
        match self {
            Network::Genotype(_) => "genotype".into(),
            Network::MobilenetV2(Baseline { width, .. }) => format!("mobilenet_v2_x{width}"),
        }
    }

    pub fn graph(&self) -> Graph {
        match self {
            Network::Genotype(genotype) => genotype.graph(),
            Network::MobilenetV2(Baseline { width, input, classes }) => mobilenet_v2(*width, *input, *classes),
        }
    }

    pub fn genotype(&self) -> Option<&Genotype> {
        match self {
            Network::Genotype(genotype) => Some(genotype),
            Network::MobilenetV2(_) => None,
        }
    }
}
