use super::{Net, decay_of};
use crate::bounded::Weight;
use nas_exporters::{Param, Role};
use tch::{Kind, Tensor};

/// Three buffers that hold the parameters of a net, which become views of them. A step of an optimizer, or of a moving
/// average, is then a few operations on large tensors instead of hundreds on small ones.
pub struct Buffers {
    /// Weights of convolutions and linear layers.
    pub weights: Tensor,
    /// Biases, and the scales and shifts of batch norm.
    pub others: Tensor,
    /// Running statistics of batch norm.
    pub statistics: Tensor,
}

/// Returns the index of the buffer that a parameter is in.
fn part(role: Role) -> usize {
    match role {
        Role::Weight => 0,
        Role::Bias | Role::Scale | Role::Shift => 1,
        Role::RunningMean | Role::RunningVar => 2,
    }
}

impl Buffers {
    /// Moves the parameters of a net into buffers.
    pub fn of(net: &Net) -> Buffers {
        let _guard = tch::no_grad_guard();
        let of_part = |wanted: usize| {
            let params: Vec<(&Param, &Tensor)> = net.params().filter(|(param, _)| part(param.role) == wanted).collect();
            let flat: Vec<Tensor> = params.iter().map(|(_, tensor)| stored(tensor)).collect();
            let buffer = match flat.is_empty() {
                true => Tensor::zeros([0], (Kind::Float, net.device())),
                false => Tensor::cat(&flat, 0),
            };
            let mut start = 0;
            for (_, tensor) in params {
                let len = tensor.numel() as i64;
                tensor.shallow_clone().set_data(&shaped(&buffer.narrow(0, start, len), &tensor.size()));
                start += len;
            }
            buffer
        };
        Buffers { weights: of_part(0), others: of_part(1), statistics: of_part(2) }
    }

    /// Returns the gradients of a loss with respect to the first two buffers, in the order of [`Buffers::trained`].
    pub fn gradients(net: &Net, loss: &Tensor) -> Vec<(usize, Tensor)> {
        let params: Vec<(&Param, &Tensor)> = net.trainable().collect();
        let tensors: Vec<&Tensor> = params.iter().map(|(_, tensor)| *tensor).collect();
        let grads = Tensor::run_backward(&[loss], &tensors, false, false);
        let _guard = tch::no_grad_guard();
        let of_part = |wanted: usize| {
            let flat = params.iter().zip(&grads).filter(|((param, _), _)| part(param.role) == wanted);
            // A parameter that the loss does not depend on has no gradient.
            let flat = flat
                .map(|((_, tensor), grad)| if grad.defined() { stored(grad) } else { stored(&tensor.zeros_like()) });
            (wanted, flat.collect::<Vec<Tensor>>())
        };
        let parts = [of_part(0), of_part(1)].into_iter().filter(|(_, flat)| !flat.is_empty());
        parts.map(|(wanted, flat)| (wanted, Tensor::cat(&flat, 0))).collect()
    }

    /// Returns the buffers that are trained by gradients, with their names and weight decay.
    pub fn trained(&self, weight_decay: Weight) -> [(String, &Tensor, f64); 2] {
        let decay = |role| decay_of(role, weight_decay);
        [("weights".into(), &self.weights, decay(Role::Weight)), ("others".into(), &self.others, decay(Role::Bias))]
    }

    /// Returns all buffers.
    pub fn all(&self) -> [&Tensor; 3] {
        [&self.weights, &self.others, &self.statistics]
    }
}

/// Returns the numbers of a tensor in the order in which they are stored. Convolution weights are channels-last.
fn stored(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 4 { tensor.permute([0, 2, 3, 1]).reshape([-1]) } else { tensor.reshape([-1]) }
}

/// Returns a part of a buffer in the shape of a parameter.
fn shaped(part: &Tensor, size: &[i64]) -> Tensor {
    match *size {
        [o, i, h, w] => part.view([o, h, w, i]).permute([0, 3, 1, 2]),
        _ => part.view(size),
    }
}
