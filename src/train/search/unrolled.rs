//! The second-order step of alpha in `mixture`.

use super::alpha::Alpha;
use crate::data::Batch;
use crate::train::epochs::{At, Metrics};
use crate::train::steps::penalty;
use crate::train::{Gate, Supernet, correct};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// How far the weights are moved in either direction for a derivative by finite differences. The direction is
/// multiplied by this number divided by its norm, as in the DARTS code.
const FINITE_DIFFERENCE: f64 = 0.01;

impl Alpha<'_> {
    /// Updates alpha by the gradient of the held-out loss after a step of the weights (Liu et al. 2019, equations 7 and
    /// 8). The weights themselves stay as they are.
    pub(super) fn unrolled_step(
        &mut self,
        at: At,
        (images, labels): (&Tensor, &Tensor),
        batch: &Batch,
        rng: &mut ChaCha8Rng,
        metrics: &mut Metrics,
    ) {
        let (settings, rate) = (self.search.settings, self.learning_rate(at));
        let allowed = self.allowed(at, rng);
        let loss_of = |images: &Tensor, labels: &Tensor| {
            let logits = self.net.forward(images, Gate::Mixture(&self.probabilities(&allowed)));
            (logits.cross_entropy_for_logits(labels), logits)
        };
        let weights = Parameters::of(&self.net);
        weights.shift(&weights.gradients(&loss_of(images, labels).0).weights, -rate);

        let (held_out_images, held_out_labels) = self.tensors(batch);
        let (loss, logits) = loss_of(&held_out_images, &held_out_labels);
        let limits = penalty(self.search.searched.widest(), &self.net.probabilities(), settings.latency_weight.get());
        let Gradients { weights: direction, alpha: first_order } = weights.gradients(&(&loss + limits));
        weights.restore();

        let norms: Vec<Tensor> = direction.iter().filter(|d| d.defined()).map(|d| d.norm()).collect();
        let epsilon = FINITE_DIFFERENCE / Tensor::stack(&norms, 0).norm().double_value(&[]).max(1e-12);
        weights.shift(&direction, epsilon);
        let above = weights.gradients(&loss_of(images, labels).0).alpha;
        weights.shift(&direction, -2.0 * epsilon);
        let below = weights.gradients(&loss_of(images, labels).0).alpha;
        weights.restore();

        let grad = first_order - (above - below) * (rate / (2.0 * epsilon));
        weights.alpha.shallow_clone().zero_grad();
        metrics.held_out.add(loss.double_value(&[]), correct(&logits, &held_out_labels), batch.labels.len());
        self.adam.step(&self.net.alpha, &grad, settings.alpha_learning_rate.get());
    }
}

/// The gradients of a loss.
struct Gradients {
    /// In the order of [`Supernet::params`]. Undefined for weights that the mixture does not use: those that a choice has
    /// only on a narrower input.
    weights: Vec<Tensor>,
    alpha: Tensor,
}

/// The parameters of a supernet, while its weights move and return.
struct Parameters {
    all: Vec<Tensor>,
    /// Copies of the weights as they were.
    before: Vec<Tensor>,
    alpha: Tensor,
}

impl Parameters {
    fn of(net: &Supernet) -> Parameters {
        let all: Vec<Tensor> = net.params().map(|(_, _, tensor)| tensor.shallow_clone()).collect();
        let before = all.iter().map(|weight| weight.detach().copy()).collect();
        Parameters { all, before, alpha: net.alpha.shallow_clone() }
    }

    /// Moves the weights by `scale` times `along`.
    fn shift(&self, along: &[Tensor], scale: f64) {
        let _guard = tch::no_grad_guard();
        for (weight, along) in self.all.iter().zip(along).filter(|(_, along)| along.defined()) {
            let _ = weight.shallow_clone().g_add_(&(along * scale));
        }
    }

    fn restore(&self) {
        let _guard = tch::no_grad_guard();
        self.all.iter().zip(&self.before).for_each(|(weight, before)| weight.shallow_clone().copy_(before));
    }

    fn gradients(&self, loss: &Tensor) -> Gradients {
        self.all.iter().chain([&self.alpha]).for_each(|tensor| tensor.shallow_clone().zero_grad());
        loss.backward();
        let grad = |weight: &Tensor| {
            let grad = weight.grad();
            if grad.defined() { grad.copy() } else { grad }
        };
        Gradients { weights: self.all.iter().map(grad).collect(), alpha: self.alpha.grad().copy() }
    }
}
