use serde::{Deserialize, Serialize};

/// What layers cost each other by crowding weights out of the caches: so much for each two weights that
/// are in different layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crowding {
    /// Nanoseconds a pair of weights.
    pub ns: f64,
    /// By layer, by op, how many weights it has.
    pub weights: Vec<Vec<f64>>,
}

/// Weights of the first layers of a network. Both are whole numbers, so that they are exact in whatever
/// order layers are added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Crowd {
    pub weights: f64,
    /// Pairs that are in different layers.
    pub pairs: f64,
}

impl Crowd {
    pub fn with(self, weights: f64) -> Crowd {
        Crowd { weights: self.weights + weights, pairs: self.pairs + self.weights * weights }
    }
}

impl Crowding {
    /// Nanoseconds where layer l holds op i with `probability(l, i)`.
    pub fn expected(&self, probability: impl Fn(usize, usize) -> f64) -> f64 {
        let mean = |(layer, ops): (usize, &Vec<f64>)| -> f64 {
            ops.iter().enumerate().map(|(op, weights)| probability(layer, op) * weights).sum()
        };
        let means = self.weights.iter().enumerate().map(mean);
        self.ns * means.fold(Crowd::default(), Crowd::with).pairs
    }

    /// Pairs of weights in a network whose layers are all as heavy as can be.
    pub fn most_pairs(weights: &[Vec<f64>]) -> f64 {
        let heaviest = weights.iter().map(|ops| ops.iter().copied().fold(0.0, f64::max));
        heaviest.fold(Crowd::default(), Crowd::with).pairs
    }
}
