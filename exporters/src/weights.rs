use crate::{Graph, Role};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// A dense f32 tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

/// A graph's parameters by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(BTreeMap<String, Tensor>);

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("the weights have no `{name}`; they belong to another network: train this one, or use its own weights")]
    Missing { name: String },
    #[error("`{name}` is {found:?} in the weights and {expected:?} in the network; they belong to another network")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
}

impl Weights {
    pub fn insert(&mut self, name: impl Into<String>, dims: Vec<usize>, values: Vec<f32>) {
        self.0.insert(name.into(), Tensor { dims, values });
    }

    /// Returns a parameter by its name.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor, WeightsError> {
        self.0.get(name).ok_or_else(|| WeightsError::Missing { name: name.into() })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Checks that there is a tensor of the right shape for each parameter of the graph.
    ///
    /// # Errors
    /// The first parameter that is missing or has another shape.
    pub fn check(&self, graph: &Graph) -> Result<(), WeightsError> {
        for param in graph.params() {
            let found = self.get(&param.name)?;
            if found.dims != param.dims {
                let (expected, found) = (param.dims, found.dims.clone());
                return Err(WeightsError::Shape { name: param.name, expected, found });
            }
        }
        Ok(())
    }

    /// Creates weights for measuring an untrained network: uniform, with a scale that keeps activations near one (He et
    /// al. 2015, arXiv:1502.01852), so that no runtime has to compute with denormals.
    pub fn random(graph: &Graph, seed: u64) -> Weights {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = Weights::default();
        for param in graph.params() {
            let fan_in: usize = param.dims[1..].iter().product();
            let bound = (6.0 / fan_in as f32).sqrt();
            let (low, high) = match param.role {
                Role::Weight => (-bound, bound),
                Role::Bias | Role::Shift | Role::RunningMean => (-0.1, 0.1),
                Role::Scale | Role::RunningVar => (0.8, 1.2),
            };
            let values = (0..param.dims.iter().product()).map(|_| rng.random_range(low..high)).collect();
            weights.insert(param.name, param.dims, values);
        }
        weights
    }
}
