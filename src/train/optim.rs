use crate::bounded::Weight;
use nas_exporters::Role;
use tch::Tensor;

/// Returns the learning rate at `step` of `steps`: a linear rise over the first `warmup` steps, then a half cosine from
/// `peak` to zero (Loshchilov & Hutter 2017, arXiv 1608.03983).
pub fn cosine(peak: f64, step: usize, steps: usize, warmup: usize) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// Returns the weight decay of a parameter: `weight_decay` for convolution and linear weights, and none for biases and
/// batch norm.
pub fn decay_of(role: Role, weight_decay: Weight) -> f64 {
    if role == Role::Weight { weight_decay.get() } else { 0.0 }
}

/// Stochastic gradient descent with Nesterov momentum and weight decay, as PyTorch's `SGD`.
///
/// tch's own optimizers cannot save their state, without which a resumed training would give another result.
pub struct Sgd {
    params: Vec<Slot>,
    momentum: f64,
}

struct Slot {
    name: String,
    tensor: Tensor,
    velocity: Tensor,
    weight_decay: f64,
}

impl Sgd {
    /// Creates an optimizer for parameters, given with their names and weight decay.
    pub fn new<'a>(params: impl IntoIterator<Item = (String, &'a Tensor, f64)>, momentum: f64) -> Sgd {
        let slot = |(name, tensor, weight_decay): (String, &Tensor, f64)| Slot {
            name,
            tensor: tensor.shallow_clone(),
            velocity: tensor.detach().zeros_like(),
            weight_decay,
        };
        Sgd { params: params.into_iter().map(slot).collect(), momentum }
    }

    /// Moves some parameters, given by index, along their gradients. The others do not move, and keep their momentum.
    pub fn step_along(&mut self, grads: &[(usize, Tensor)], learning_rate: f64) {
        let _guard = tch::no_grad_guard();
        for (index, grad) in grads {
            let p = &mut self.params[*index];
            let grad = if p.weight_decay > 0.0 { grad + &p.tensor * p.weight_decay } else { grad.shallow_clone() };
            let _ = p.velocity.g_mul_scalar_(self.momentum);
            let _ = p.velocity.g_add_(&grad);
            let _ = p.tensor.g_sub_(&((grad + &p.velocity * self.momentum) * learning_rate));
        }
    }

    /// Returns the tensors that make up the optimizer's state.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.params.iter().map(|p| (format!("sgd.{}", p.name), p.velocity.shallow_clone()))
    }
}

/// Scales gradients so that their total norm is at most `max`.
pub fn clipped(grads: Vec<(usize, Tensor)>, max: f64) -> Vec<(usize, Tensor)> {
    let _guard = tch::no_grad_guard();
    if grads.is_empty() {
        return grads;
    }
    let norms: Vec<Tensor> = grads.iter().map(|(_, grad)| grad.norm()).collect();
    let scale = (max / (Tensor::stack(&norms, 0).norm() + 1e-6)).clamp_max(1.0);
    grads.into_iter().map(|(index, grad)| (index, grad * &scale)).collect()
}

/// Adam (Kingma & Ba 2015, arXiv 1412.6980) for one tensor, with weight decay added to the gradient, as PyTorch's
/// `Adam`.
pub struct Adam {
    mean: Tensor,
    square: Tensor,
    /// The number of steps taken, as a tensor.
    steps: Tensor,
    betas: (f64, f64),
    weight_decay: f64,
}

impl Adam {
    pub fn new(param: &Tensor, betas: (f64, f64), weight_decay: f64) -> Adam {
        let zeros = || param.detach().zeros_like();
        Adam { mean: zeros(), square: zeros(), steps: Tensor::from(0i64), betas, weight_decay }
    }

    pub fn step(&mut self, param: &Tensor, grad: &Tensor, learning_rate: f64) {
        let _guard = tch::no_grad_guard();
        let (b1, b2) = self.betas;
        let _ = self.steps.g_add_scalar_(1);
        let steps = self.steps.int64_value(&[]) as i32;
        let grad = grad + param * self.weight_decay;
        let mean = &self.mean * b1 + &grad * (1.0 - b1);
        let square = &self.square * b2 + &grad * &grad * (1.0 - b2);
        self.mean.copy_(&mean);
        self.square.copy_(&square);
        let (mean, square) = (mean / (1.0 - b1.powi(steps)), square / (1.0 - b2.powi(steps)));
        let mut param = param.shallow_clone();
        let _ = param.g_sub_(&(mean / (square.sqrt() + 1e-8) * learning_rate));
    }

    /// Returns the tensors that make up the optimizer's state.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> {
        let of = |name: &str, tensor: &Tensor| (format!("adam.{name}"), tensor.shallow_clone());
        [of("mean", &self.mean), of("square", &self.square), of("steps", &self.steps)].into_iter()
    }
}
