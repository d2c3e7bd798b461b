use super::Net;
use crate::space::{CandidateOp, Layer, SearchSpace};
use nas_exporters::{Param, Shape};
use tch::{Device, Kind, Tensor};

/// All candidates of one layer (Liu et al. 2019, arXiv 1806.09055, eq. 2).
pub struct MixedOp {
    branches: Vec<(Layer, Net)>,
}

impl MixedOp {
    pub fn new(candidates: Vec<Layer>) -> MixedOp {
        MixedOp { branches: candidates.into_iter().map(|layer| (layer, Net::new(layer.graph()))).collect() }
    }

    /// Σ probabilitiesᵢ · opᵢ(x); `x` is N×C×H×W, `probabilities` one a candidate.
    pub fn forward(&self, x: &Tensor, probabilities: &Tensor, train: bool) -> Tensor {
        let terms = self.branches.iter().enumerate().filter(|(_, (layer, _))| layer.op != CandidateOp::ZERO);
        let sum = terms
            .map(|(i, (_, net))| net.forward(x, train) * probabilities.get(i as i64))
            .reduce(|a, b| a + b);
        sum.unwrap_or_else(|| self.branches[0].1.forward(x, train))
    }
}

/// Every network of a space at once: its layers are mixed ops, weighed by softmax(alpha).
pub struct Supernet {
    stem: Net,
    layers: Vec<MixedOp>,
    head: Net,
    /// Architecture weights: layers×candidates.
    pub alpha: Tensor,
}

impl Supernet {
    /// For images of shape `input`. Alpha starts at zero: all candidates weigh the same.
    pub fn new(space: &SearchSpace, input: Shape, classes: usize) -> Supernet {
        let size = [space.layers.len() as i64, space.candidates.len() as i64];
        Supernet {
            stem: Net::new(space.stem(input).graph()),
            layers: space.mixed_layers(input).into_iter().map(MixedOp::new).collect(),
            head: Net::new(space.head(input, classes).graph()),
            alpha: Tensor::zeros(size, (Kind::Float, Device::Cpu)).set_requires_grad(true),
        }
    }

    /// softmax(alpha): layers×candidates.
    pub fn probabilities(&self) -> Tensor {
        self.alpha.softmax(-1, None)
    }

    /// N×C×H×W → logits, N×classes.
    pub fn forward(&self, x: &Tensor, probabilities: &Tensor, train: bool) -> Tensor {
        let x = self.stem.forward(x, train);
        let x = self
            .layers
            .iter()
            .enumerate()
            .fold(x, |x, (i, layer)| layer.forward(&x, &probabilities.get(i as i64), train));
        self.head.forward(&x, train)
    }

    /// All parameters but alpha, by name, in a fixed order.
    pub fn params(&self) -> impl Iterator<Item = (String, &Param, &Tensor)> {
        let stem = self.stem.params().map(|(p, t)| (format!("stem.{}", p.name), p, t));
        let head = self.head.params().map(|(p, t)| (format!("head.{}", p.name), p, t));
        let layers = self.layers.iter().enumerate().flat_map(|(i, mixed)| {
            mixed.branches.iter().flat_map(move |(layer, net)| {
                net.params().map(move |(p, t)| (format!("layer{}.{}.{}", i + 1, layer.op, p.name), p, t))
            })
        });
        stem.chain(layers).chain(head)
    }
}
