use super::{Net, Placement, TrainError};
use crate::space::{CandidateOp, Layer, Networks, Variant};
use nas_exporters::Param;
use tch::{Kind, Tensor};

/// How the mixed layers of a supernet are computed.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'g> {
    /// Σ pᵢ·opᵢ(x), with a tensor of probabilities for each layer (Liu et al. 2019, arXiv 1806.09055, eq. 2).
    Mixture(&'g [Tensor]),
    /// One choice of each layer.
    Path(&'g [usize]),
}

/// Every network of a space at once: a branch for each choice of each layer.
pub struct Supernet {
    /// By layer, by choice.
    branches: Vec<Vec<(Layer, Net)>>,
    /// Architecture weights of the layers that have several choices, one after another.
    pub alpha: Tensor,
}

/// # Errors
/// Where the choices of a layer differ in their output, or in what they get: a mixture cannot add them up.
pub fn mixable(networks: &Networks) -> Result<(), TrainError> {
    for (layer, variants) in networks.variants().iter().enumerate() {
        if variants.iter().any(|v| v.layer.output() != variants[0].layer.output()) {
            let (space, layer) = (networks.space.name.clone(), networks.layer_name(layer));
            return Err(TrainError::Widths { space, layer });
        }
    }
    Ok(())
}

impl Supernet {
    /// With an even alpha: all choices of a layer weigh the same.
    ///
    /// # Errors
    /// As [`mixable`].
    pub fn new(networks: &Networks, placement: Placement) -> Result<Supernet, TrainError> {
        mixable(networks)?;
        let branch = |layer: Layer| (layer, Net::new(layer.graph(), placement));
        let branches = |variants: &Vec<Variant>| variants.iter().map(|variant| branch(variant.layer)).collect();
        let branches = networks.variants().iter().map(branches).collect();
        let size: usize = networks.searched().map(|layer| networks.choices()[layer].len()).sum();
        let alpha = Tensor::zeros([size as i64], (Kind::Float, placement.device)).set_requires_grad(true);
        Ok(Supernet { branches, alpha })
    }

    /// By layer, the logarithms of softmax(alpha).
    pub fn log_probabilities(&self) -> Vec<Tensor> {
        let mut at = 0;
        let of_layer = |branches: &Vec<(Layer, Net)>| {
            if branches.len() == 1 {
                return Tensor::zeros([1], (Kind::Float, self.alpha.device()));
            }
            let choices = branches.len() as i64;
            at += choices;
            self.alpha.narrow(0, at - choices, choices).log_softmax(-1, Kind::Float)
        };
        self.branches.iter().map(of_layer).collect()
    }

    /// By layer, softmax(alpha).
    pub fn probabilities(&self) -> Vec<Tensor> {
        self.log_probabilities().iter().map(Tensor::exp).collect()
    }

    /// By layer that has several choices, alpha.
    pub fn alpha_rows(&self) -> Vec<Vec<f64>> {
        let mut values = numbers(&self.alpha).into_iter();
        let searched = self.branches.iter().filter(|branches| branches.len() > 1);
        searched.map(|branches| values.by_ref().take(branches.len()).collect()).collect()
    }

    /// N×C×H×W → logits, N×classes. Only branches that the gate uses are computed.
    pub fn forward(&self, x: &Tensor, gate: Gate, train: bool) -> Tensor {
        let mut x = x.shallow_clone();
        for (layer, branches) in self.branches.iter().enumerate() {
            x = match (gate, branches.as_slice()) {
                (_, [(_, only)]) => only.forward(&x, train),
                (Gate::Path(choices), branches) => branches[choices[layer]].1.forward(&x, train),
                (Gate::Mixture(probabilities), branches) => mixture(branches, &x, &probabilities[layer], train),
            };
        }
        x
    }

    /// All parameters but alpha, by name, in a fixed order.
    pub fn params(&self) -> impl Iterator<Item = (String, &Param, &Tensor)> {
        let layers = self.branches.len();
        self.branches.iter().enumerate().flat_map(move |(i, branches)| {
            let layer = match i {
                0 => "stem".to_string(),
                _ if i + 1 == layers => "head".into(),
                _ => format!("layer{i}"),
            };
            branches.iter().flat_map(move |(branch, net)| {
                let prefix = if branches.len() == 1 { layer.clone() } else { format!("{layer}.{}", branch.op) };
                net.params().map(move |(param, tensor)| (format!("{prefix}.{}", param.name), param, tensor))
            })
        })
    }
}

fn mixture(branches: &[(Layer, Net)], x: &Tensor, probabilities: &Tensor, train: bool) -> Tensor {
    let terms = branches.iter().enumerate().filter(|(_, (layer, _))| layer.op != CandidateOp::Zero);
    let sum = terms.map(|(i, (_, net))| net.forward(x, train) * probabilities.get(i as i64)).reduce(|a, b| a + b);
    sum.unwrap_or_else(|| branches[0].1.forward(x, train))
}

/// The numbers of a tensor, row-major.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.detach().to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous().view(-1);
    let mut values = vec![0f64; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}
