use super::baselines::{self, mobilenet_v2, mobilenet_v3_small, resnet20};
use super::{Genotype, SpaceError, sizes};
use crate::bounded::Width;
use nas_exporters::{Graph, Shape};
use serde::{Deserialize, Serialize};

/// A network that can be trained and exported: the content of `network.json`. A new baseline needs a variant, and a
/// line in [`BASELINES`] and in [`Network::graph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "snake_case")]
pub enum Network {
    Genotype(Genotype),
    MobilenetV2(Baseline),
    MobilenetV3Small(Baseline),
    Resnet20(Baseline),
}

/// The sizes of a published network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Baseline {
    /// Scales the channels.
    pub width: Width,
    /// Shape of the images, CHW.
    pub input: Shape,
    pub classes: usize,
}

/// The sizes as they are stored in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    width: Width,
    input: Shape,
    classes: usize,
}

impl TryFrom<Written> for Baseline {
    type Error = SpaceError;

    fn try_from(Written { width, input, classes }: Written) -> Result<Baseline, SpaceError> {
        Baseline { width, input, classes }.checked()
    }
}

impl Baseline {
    fn checked(self) -> Result<Baseline, SpaceError> {
        let Baseline { width, input, classes } = self;
        let (map, weights) = baselines::largest(width.get(), input, classes);
        let fits = sizes::check_images(input, &[classes]).and_then(|()| sizes::check_values(map, weights));
        fits.map(|()| self).map_err(SpaceError::Baseline)
    }
}

type Make = fn(Baseline) -> Network;

/// The published networks, each with its name and the width that is used unless another one is given. MobileNetV2 at
/// its full width is too slow to be compared with networks for small images.
const BASELINES: [(&str, f64, Make); 3] = [
    ("mobilenet_v2", 0.5, Network::MobilenetV2),
    ("mobilenet_v3_small", 1.0, Network::MobilenetV3Small),
    ("resnet20", 1.0, Network::Resnet20),
];

impl Network {
    /// Returns the names of the published networks.
    pub fn baselines() -> impl Iterator<Item = &'static str> {
        BASELINES.into_iter().map(|(name, ..)| name)
    }

    /// Returns the published network of this name, at its usual width unless another one is given.
    ///
    /// # Errors
    /// Fails if no published network has that name, or if its sizes are out of range.
    pub fn baseline(name: &str, width: Option<Width>, input: Shape, classes: usize) -> Result<Network, SpaceError> {
        let known = BASELINES.iter().find(|(known, ..)| *known == name);
        let (_, usual, make) = known.ok_or_else(|| SpaceError::UnknownBaseline(name.into()))?;
        let width = width.unwrap_or(Width::of(*usual));
        Ok(make(Baseline { width, input, classes }.checked()?))
    }

    /// Returns `genotype`, or a name with the width, such as `mobilenet_v2_x0.5`.
    pub fn name(&self) -> String {
        match self {
            Network::Genotype(_) => "genotype".into(),
            Network::MobilenetV2(Baseline { width, .. }) => format!("mobilenet_v2_x{width}"),
            Network::MobilenetV3Small(Baseline { width, .. }) => format!("mobilenet_v3_small_x{width}"),
            Network::Resnet20(Baseline { width, .. }) => format!("resnet20_x{width}"),
        }
    }

    /// Returns the ops of a genotype, or else the name of the network.
    pub fn described(&self) -> String {
        self.genotype().map_or_else(|| self.name(), Genotype::to_string)
    }

    pub fn graph(&self) -> Graph {
        let of = |make: fn(f64, Shape, usize) -> Graph, sizes: &Baseline| {
            make(sizes.width.get(), sizes.input, sizes.classes)
        };
        match self {
            Network::Genotype(genotype) => genotype.graph(),
            Network::MobilenetV2(sizes) => of(mobilenet_v2, sizes),
            Network::MobilenetV3Small(sizes) => of(mobilenet_v3_small, sizes),
            Network::Resnet20(sizes) => of(resnet20, sizes),
        }
    }

    pub fn genotype(&self) -> Option<&Genotype> {
        match self {
            Network::Genotype(genotype) => Some(genotype),
            _ => None,
        }
    }
}
