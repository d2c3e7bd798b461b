use super::{Choice, Layer, Networks, SearchSpace, SpaceError, chained};
use nas_exporters::{Graph, Shape};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// A network of a search space, as one choice per layer. Its file holds the space, the shape of the images and the
/// number of classes beside the choices, so it depends on no other file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Genotype {
    pub networks: Networks,
    /// By layer, including the classifier.
    pub choices: Vec<usize>,
}

/// A genotype as it is stored in a file: the choices of the layers that have several.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ops: Vec<String>,
    /// Shape of the images, CHW.
    input: Shape,
    classes: usize,
    space: SearchSpace,
    /// What a search says about the network. It is not part of the network.
    #[serde(default, skip_serializing, rename = "certificate")]
    _certificate: IgnoredAny,
}

impl TryFrom<Written> for Genotype {
    type Error = SpaceError;

    fn try_from(Written { ops, input, classes, space, .. }: Written) -> Result<Self, SpaceError> {
        Genotype::of_names(Networks::new(space, input, [classes])?, &ops)
    }
}

impl From<Genotype> for Written {
    fn from(genotype: Genotype) -> Written {
        let ops = genotype.names();
        let Networks { space, input, classes, .. } = genotype.networks;
        Written { ops, input, classes: classes[0], space, _certificate: IgnoredAny }
    }
}

impl Genotype {
    /// Creates the network with these choices, one per layer.
    ///
    /// # Panics
    /// Panics if `choices` does not have one choice per layer.
    pub fn new(networks: Networks, choices: Vec<usize>) -> Self {
        assert!(choices.len() == networks.len(), "{choices:?} for {} layers", networks.len());
        Genotype { networks, choices }
    }

    /// Reads `conv_3x3,skip,…`: one choice for each layer that has several.
    ///
    /// # Errors
    /// Fails if there are too many or too few names, or if one is not a choice of its layer.
    pub fn parse(networks: Networks, names: &str) -> Result<Self, SpaceError> {
        Self::of_names(networks, &names.split(',').map(str::trim).collect::<Vec<_>>())
    }

    fn of_names(networks: Networks, names: &[impl AsRef<str>]) -> Result<Self, SpaceError> {
        let space = || networks.space.name.clone();
        let searched: Vec<usize> = networks.searched().collect();
        let (expected, found) = (searched.len(), names.len());
        if expected != found {
            return Err(SpaceError::Length { space: space(), expected, found });
        }
        let mut choices = vec![0; networks.len()];
        for (layer, name) in searched.into_iter().zip(names) {
            let of_layer = names_of(&networks.choices()[layer]);
            let Some(choice) = of_layer.iter().position(|known| known == name.as_ref()) else {
                let (layer, choice, choices) = (networks.layer_name(layer), name.as_ref().into(), of_layer.join(", "));
                return Err(SpaceError::NotAChoice { space: space(), layer, choice, choices });
            };
            choices[layer] = choice;
        }
        Ok(Genotype { choices, networks })
    }

    /// Returns the names of the choices of the layers that have several.
    pub fn names(&self) -> Vec<String> {
        let name = |layer: usize| names_of(&self.networks.choices()[layer]).swap_remove(self.choices[layer]);
        self.networks.searched().map(name).collect()
    }

    /// Returns the layers of the network, including the classifier.
    pub fn layers(&self) -> Vec<Layer> {
        self.networks.layers_of(&self.choices)
    }

    /// Returns the graph of the whole network.
    pub fn graph(&self) -> Graph {
        chained(&self.layers())
    }
}

/// Returns the name of each choice: its op, followed by its channels if the layer has several widths, as in
/// `conv_3x3:24`.
pub fn names_of(choices: &[Choice]) -> Vec<String> {
    let widths = choices.iter().any(|choice| choice.channels != choices[0].channels);
    let name = |Choice { op, channels }: &Choice| match channels {
        Some(channels) if widths => format!("{op}:{channels}"),
        _ => op.to_string(),
    };
    choices.iter().map(name).collect()
}

impl std::fmt::Display for Genotype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names().join(","))
    }
}
