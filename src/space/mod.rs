//! What can be built: search spaces, candidate ops, genotypes, and the networks that they describe.

pub mod baselines;
mod blocks;
mod channels;
mod genotype;
mod layer;
mod network;
mod networks;
mod op;
mod sizes;

pub use channels::Channels;
pub use genotype::{Genotype, names_of};
pub use layer::Layer;
pub use network::{Baseline, Network};
pub use networks::{Choice, Networks, Variant, chained};
pub use op::{Activation, Blocks, CandidateOp, Expansion, Kernel, PoolKind};

use crate::artifact::{self, ArtifactError};
use crate::bounded::Name;
use serde::{Deserialize, Serialize};
use sizes::{MOST_CHANNELS, MOST_LAYERS, MOST_STRIDE};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    #[error("there is no space `{0}`: name a built-in one ({names}) or a TOML file", names = SearchSpace::names().join(", "))]
    Unknown(String),
    #[error("{0}; src/space/chain.toml is an example of a space to copy")]
    Artifact(ArtifactError),
    #[error("space `{space}`: {reason}")]
    Invalid { space: String, reason: String },
    #[error("there is no candidate op `{0}`; there are {forms}", forms = CandidateOp::FORMS)]
    UnknownOp(String),
    #[error(
        "the genotype has {found} ops, and space `{space}` needs {expected}, separated by commas: one for each layer that has several choices"
    )]
    Length { space: String, expected: usize, found: usize },
    #[error("{layer} of space `{space}` has no choice `{choice}`; it has {choices}")]
    NotAChoice { space: String, layer: String, choice: String, choices: String },
    #[error("there is no baseline `{0}`; there are {names}", names = Network::baselines().collect::<Vec<_>>().join(", "))]
    UnknownBaseline(String),
    #[error("the baseline: {0}")]
    Baseline(String),
}

// This error's message includes that of the cause, so the cause is not its `source`.
impl From<ArtifactError> for SpaceError {
    fn from(error: ArtifactError) -> SpaceError {
        SpaceError::Artifact(error)
    }
}

/// A chain of layers, each with its own choices, followed by a classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct SearchSpace {
    pub name: String,
    pub layers: Vec<LayerSpec>,
}

/// What a layer chooses from: every op with every number of output channels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSpec {
    pub ops: Vec<CandidateOp>,
    pub channels: Channels,
    pub stride: usize,
}

impl LayerSpec {
    /// Returns the choices in the order in which alpha, fits and genotypes count them.
    pub fn choices(&self) -> Vec<Choice> {
        let widths = match &self.channels {
            Channels::Widths(widths) => widths.iter().copied().map(Some).collect(),
            Channels::Same => vec![None],
        };
        let with = |op| widths.iter().map(move |&channels| Choice { op, channels });
        self.ops.iter().flat_map(|&op| with(op)).collect()
    }
}

/// A space as a person writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Name,
    /// The ops of the layers that do not list any.
    #[serde(default)]
    candidates: Vec<CandidateOp>,
    layers: Vec<WrittenLayer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLayer {
    ops: Option<Vec<CandidateOp>>,
    channels: Channels,
    #[serde(default = "one")]
    stride: usize,
}

fn one() -> usize {
    1
}

impl TryFrom<Written> for SearchSpace {
    type Error = SpaceError;

    fn try_from(Written { name, candidates, layers }: Written) -> Result<Self, SpaceError> {
        let layer = |WrittenLayer { ops, channels, stride }| LayerSpec {
            ops: ops.unwrap_or_else(|| candidates.clone()),
            channels,
            stride,
        };
        SearchSpace { layers: layers.into_iter().map(layer).collect(), name: name.into() }.checked()
    }
}

/// The files of this folder, by name.
macro_rules! built_in {
    ($($name:literal),*) => { [$(($name, include_str!(concat!($name, ".toml")))),*] };
}

const BUILT_IN: [(&str, &str); 8] =
    built_in!["chain", "chain_small", "residual", "resnet", "pooled", "mobile", "mobile_224", "proxylessnas"];

impl SearchSpace {
    /// Returns the names of the built-in spaces.
    pub fn names() -> Vec<&'static str> {
        BUILT_IN.map(|(name, _)| name).to_vec()
    }

    /// Loads the built-in space of that name, or the space in that TOML file.
    ///
    /// # Errors
    /// Fails if there is neither, or if the file does not describe a space.
    pub fn load(name_or_file: &str) -> Result<Self, SpaceError> {
        let path = Path::new(name_or_file);
        match BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            Some((_, text)) => Ok(artifact::parse_toml(path, text)?),
            None if path.is_file() => Ok(artifact::read_toml(path)?),
            None => Err(SpaceError::Unknown(name_or_file.into())),
        }
    }

    /// Checks the number of layers, and what each layer chooses from.
    ///
    /// # Errors
    /// [`SpaceError::Invalid`], which names what is wrong.
    pub fn checked(self) -> Result<Self, SpaceError> {
        let wrong = self.layers.iter().enumerate().find_map(|(i, layer)| {
            let reason = layer.wrong()?;
            Some(format!("layer {}: {reason}", i + 1))
        });
        let in_range = (1..=MOST_LAYERS).contains(&self.layers.len());
        let reason = if in_range { wrong } else { Some(format!("it needs 1 to {MOST_LAYERS} layers")) };
        match reason {
            Some(reason) => Err(SpaceError::Invalid { space: self.name, reason }),
            None => Ok(self),
        }
    }
}

impl LayerSpec {
    fn wrong(&self) -> Option<String> {
        let LayerSpec { ops, channels, stride } = self;
        if ops.iter().all(|op| *op == CandidateOp::Zero) {
            return Some("it needs an op besides zero: give it `ops`, or the space `candidates`".into());
        }
        if ops.contains(&CandidateOp::Head) {
            return Some("`head` cannot be chosen: it follows the last layer by itself".into());
        }
        if let Some(op) = repeated(ops) {
            return Some(format!("op `{op}` is listed twice"));
        }
        if let Channels::Widths(widths) = channels {
            if let Some(channels) = repeated(widths) {
                return Some(format!("{channels} channels are listed twice"));
            }
            let in_range = !widths.is_empty() && widths.iter().all(|size| (1..=MOST_CHANNELS).contains(size));
            if !in_range {
                return Some(format!("channels are numbers from 1 to {MOST_CHANNELS}, or \"same\""));
            }
        }
        (!(1..=MOST_STRIDE).contains(stride)).then(|| format!("a stride is a number from 1 to {MOST_STRIDE}"))
    }
}

fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)).map(|(_, value)| value)
}
