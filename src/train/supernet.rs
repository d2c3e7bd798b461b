use super::{Net, Norm, Placement};
use crate::data::Batch;
use crate::space::{CandidateOp, Choice, Layer, Networks, Variant, names_of};
use nas_exporters::{Param, Shape};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// How the layers of a supernet are computed.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'g> {
    /// The mixture Σ pᵢ·opᵢ(x), with a tensor of probabilities for each layer (Liu et al. 2019, arXiv 1806.09055, eq.
    /// 2). If there are several widths, every choice gets the widest input of its layer, and each channel is multiplied
    /// by the probability that the network has it (Wan et al. 2020, arXiv 2004.05565, section 3.1).
    Mixture(&'g [Tensor]),
    /// One choice per layer.
    Path(&'g [usize]),
    /// One choice per layer, with its output multiplied by a scalar tensor.
    Scaled(&'g [usize], &'g [Tensor]),
}

/// All networks of a space at once. Each network is a part of it, with the first channels of the widest candidate and
/// the centre of the largest kernel (Cai et al. 2020, arXiv 1908.09791; Yu et al. 2020, arXiv 2003.11142).
pub struct Supernet {
    networks: Networks,
    placement: Placement,
    /// By layer and choice, the prefix of the names of its parameters. Choices with the same prefix share parameters.
    owners: Vec<Vec<String>>,
    /// The parameters, each with the largest size that any network needs, in the order of their names. Running
    /// statistics are not among them, since each network has its own.
    params: Vec<(String, Param, Tensor)>,
    /// Architecture weights of the layers that have several choices, one after another.
    pub alpha: Tensor,
}

impl Supernet {
    /// Creates a supernet with an even alpha, so that all choices of a layer have the same weight. With `sharing`,
    /// choices of a layer whose ops are of one family share the parameters of the same name. Without it, each choice
    /// has its own.
    pub fn new(networks: &Networks, placement: Placement, sharing: bool) -> Supernet {
        let owners: Vec<Vec<String>> = (0..networks.len()).map(|layer| owners(networks, layer, sharing)).collect();
        let mut largest: BTreeMap<String, Param> = BTreeMap::new();
        for (owners, variants) in owners.iter().zip(networks.variants()) {
            for Variant { choice, layer, .. } in variants {
                for param in layer.graph().params().into_iter().filter(|param| param.role.is_trained()) {
                    let name = format!("{}.{}", owners[*choice], param.name);
                    let known = largest.entry(name).or_insert_with(|| param.clone());
                    known.dims.iter_mut().zip(&param.dims).for_each(|(known, dim)| *known = (*known).max(*dim));
                }
            }
        }
        let init = |(name, param): (String, Param)| {
            let tensor = super::init::random(&param, placement.device);
            (name, param, tensor)
        };
        let params = largest.into_iter().map(init).collect();
        let size: usize = networks.searched().map(|layer| networks.choices()[layer].len()).sum();
        let alpha = Tensor::zeros([size as i64], (Kind::Float, placement.device)).set_requires_grad(true);
        Supernet { networks: networks.clone(), placement, owners, params, alpha }
    }

    /// Returns the logarithms of softmax(alpha), by layer.
    pub fn log_probabilities(&self) -> Vec<Tensor> {
        let mut at = 0;
        let of_layer = |choices: usize| {
            if choices == 1 {
                return Tensor::zeros([1], (Kind::Float, self.alpha.device()));
            }
            at += choices as i64;
            self.alpha.narrow(0, at - choices as i64, choices as i64).log_softmax(-1, Kind::Float)
        };
        self.networks.choices().iter().map(Vec::len).map(of_layer).collect()
    }

    /// Returns softmax(alpha), by layer.
    pub fn probabilities(&self) -> Vec<Tensor> {
        self.log_probabilities().iter().map(Tensor::exp).collect()
    }

    /// Returns alpha, by layer. That of a single choice is 0.
    pub fn alpha_by_layer(&self) -> Vec<Vec<f64>> {
        let mut values = numbers(&self.alpha).into_iter();
        let mut of_layer = |choices: &Vec<Choice>| match choices.len() {
            1 => vec![0.0],
            several => values.by_ref().take(several).collect(),
        };
        self.networks.choices().iter().map(&mut of_layer).collect()
    }

    /// Computes the logits, N×classes, for images N×C×H×W, with batch norm by the batch. Only what the gate uses is
    /// computed.
    pub fn forward(&self, x: &Tensor, gate: Gate) -> Tensor {
        match gate {
            Gate::Mixture(probabilities) => self.mixture(x, probabilities),
            Gate::Path(choices) => self.path(choices).forward(x, Norm::Batch),
            Gate::Scaled(choices, scales) => {
                let layers = self.path(choices).layers;
                let scaled = |x: Tensor, (net, scale): (&Net, &Tensor)| net.forward(&x, Norm::Batch) * scale;
                layers.iter().zip(scales).fold(x.shallow_clone(), scaled)
            }
        }
    }

    fn mixture(&self, x: &Tensor, probabilities: &[Tensor]) -> Tensor {
        let mut x = x.shallow_clone();
        // 1×C×1×1: the probability that the network has each channel of x.
        let mut has: Option<Tensor> = None;
        for (layer, probabilities) in probabilities.iter().enumerate() {
            let choices = &self.networks.choices()[layer];
            let widest: Vec<&Variant> = (0..choices.len()).map(|choice| self.widest(layer, choice)).collect();
            let channels = widest.iter().map(|variant| variant.layer.output().channels).max().unwrap_or_default();
            let single = widest.len() == 1;
            let terms = widest.iter().filter(|variant| single || variant.layer.op != CandidateOp::Zero);
            let term = |variant: &&Variant| {
                let y = self.net(layer, variant).forward(&x, Norm::Batch);
                if single { y } else { filled_up(&y, channels) * probabilities.get(variant.choice as i64) }
            };
            let sum = terms.map(term).reduce(|a, b| a + b);
            let y = sum.unwrap_or_else(|| self.net(layer, widest[0]).forward(&x, Norm::Batch));
            let same = choices.iter().all(|choice| choice.channels.is_none());
            x = match &has {
                Some(has) if same => y * has,
                _ => y,
            };
            if !same {
                let has_of = |variant: &&Variant| {
                    let own = variant.layer.output().channels as i64;
                    let ones = Tensor::ones([1, own, 1, 1], (Kind::Float, x.device()));
                    filled_up(&ones, channels) * probabilities.get(variant.choice as i64)
                };
                let several = widest.iter().any(|variant| variant.layer.output().channels < channels);
                has = several.then(|| widest.iter().map(has_of).reduce(|a, b| a + b)).flatten();
            }
        }
        x
    }

    /// Returns a choice with the widest input that its layer may get.
    fn widest(&self, layer: usize, choice: usize) -> &Variant {
        let variants = &self.networks.variants()[layer];
        let of_choice = variants.iter().filter(|variant| variant.choice == choice);
        of_choice.max_by_key(|variant| variant.layer.input.channels).unwrap_or(&variants[0])
    }

    /// Returns the network with these choices, one per layer. Its parameters are parts of the supernet's. Its running
    /// statistics are its own, and start anew.
    pub fn path(&self, choices: &[usize]) -> Path {
        let layers = self.networks.layers_of(choices);
        let net = |(layer, (at, &choice)): (usize, (&Layer, &usize))| {
            Net::with(at.graph(), self.placement, |param| self.part(&self.owners[layer][choice], param))
        };
        Path { layers: layers.iter().zip(choices).enumerate().map(net).collect() }
    }

    fn net(&self, layer: usize, variant: &Variant) -> Net {
        let owner = &self.owners[layer][variant.choice];
        Net::with(variant.layer.graph(), self.placement, |param| self.part(owner, param))
    }

    /// Returns the part of a parameter that a smaller layer has: its first channels, and the centre of its kernel.
    fn part(&self, owner: &str, param: &Param) -> Tensor {
        let (_, largest, tensor) = &self.params[self.index(owner, param)];
        let mut part = tensor.shallow_clone();
        for (i, (&dim, &all)) in param.dims.iter().zip(&largest.dims).enumerate() {
            let is_kernel = i >= 2;
            let start = if is_kernel { (all - dim) / 2 } else { 0 };
            if dim < all {
                part = part.narrow(i as i64, start as i64, dim as i64);
            }
        }
        part
    }

    /// Returns all parameters except alpha, with their names, in a fixed order.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Param, &Tensor)> {
        self.params.iter().map(|(name, param, tensor)| (name.as_str(), param, tensor))
    }

    /// Returns the parameters that a gate uses, with their index in [`Supernet::params`].
    pub fn used(&self, gate: Gate) -> Vec<(usize, &Tensor)> {
        let choices = match gate {
            Gate::Mixture(_) => return self.params.iter().map(|(.., tensor)| tensor).enumerate().collect(),
            Gate::Path(choices) | Gate::Scaled(choices, _) => choices,
        };
        let layers = self.networks.layers_of(choices);
        let of_layer = |(layer, (at, &choice)): (usize, (&Layer, &usize))| {
            let trained = at.graph().params().into_iter().filter(|param| param.role.is_trained());
            trained.map(|param| self.index(&self.owners[layer][choice], &param)).collect::<Vec<usize>>()
        };
        let indices = layers.iter().zip(choices).enumerate().flat_map(of_layer);
        indices.map(|index| (index, &self.params[index].2)).collect()
    }

    /// Returns the index of a parameter.
    ///
    /// # Panics
    /// Panics if no network has that parameter.
    fn index(&self, owner: &str, param: &Param) -> usize {
        let name = format!("{owner}.{}", param.name);
        let found = self.params.binary_search_by(|(known, ..)| known.as_str().cmp(&name));
        found.unwrap_or_else(|_| panic!("the supernet has no `{name}`"))
    }
}

/// A network of a supernet, layer by layer.
pub struct Path {
    layers: Vec<Net>,
}

impl Path {
    /// Computes the logits, N×classes, for images N×C×H×W.
    pub fn forward(&self, x: &Tensor, norm: Norm) -> Tensor {
        self.layers.iter().fold(x.shallow_clone(), |x, net| net.forward(&x, norm))
    }

    /// Sets the running statistics of batch norm to their mean over some batches. The statistics of other paths, which
    /// trained the same weights, do not fit this one (Yu & Huang 2019, arXiv 1903.05134, section 3.3).
    pub fn calibrate(&self, batches: impl IntoIterator<Item = Batch>) {
        let _guard = tch::no_grad_guard();
        for (seen, batch) in batches.into_iter().enumerate() {
            let _ = self.forward(&self.images(&batch), Norm::Update { share: 1.0 / (seen + 1) as f64 });
        }
    }

    /// Evaluates the path, with batch norm by the running statistics or by those of each batch.
    pub fn evaluate(&self, batches: impl IntoIterator<Item = Batch>, norm: Norm) -> super::Seen {
        let _guard = tch::no_grad_guard();
        let mut seen = super::Seen::default();
        for batch in batches {
            let labels = Tensor::from_slice(&batch.labels).to_device(self.layers[0].device());
            let logits = self.forward(&self.images(&batch), norm);
            let loss = logits.cross_entropy_for_logits(&labels).double_value(&[]);
            seen.add(loss, super::correct(&logits, &labels), batch.labels.len());
        }
        seen
    }

    fn images(&self, batch: &Batch) -> Tensor {
        let shape: Shape = self.layers[0].graph().input_shape();
        super::tensors(batch, shape, self.layers[0].device()).0
    }
}

/// Returns, for each choice, the prefix of the names of its parameters.
fn owners(networks: &Networks, layer: usize, sharing: bool) -> Vec<String> {
    let (name, choices) = (networks.layer_name(layer), &networks.choices()[layer]);
    match sharing {
        true => choices.iter().map(|choice| format!("{name}.{}", choice.op.family())).collect(),
        // A colon may occur in a name, but a dot separates its parts.
        false => names_of(choices).iter().map(|choice| format!("{name}.{choice}")).collect(),
    }
}

/// Pads N×C×H×W to N×channels×H×W, with zeros in the missing channels.
fn filled_up(x: &Tensor, channels: usize) -> Tensor {
    match channels as i64 - x.size()[1] {
        0 => x.shallow_clone(),
        missing => x.constant_pad_nd([0, 0, 0, 0, 0, missing]),
    }
}

/// Returns the numbers of a tensor, row-major.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.detach().to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous().view(-1);
    let mut values = vec![0f64; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}
