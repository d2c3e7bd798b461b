use super::{Adam, Sgd, Supernet};
use crate::latency::{Latency, LatencyModel};
use tch::{Kind, Tensor};

/// The norm that weight gradients are clipped to, as in the DARTS code.
const CLIP: f64 = 5.0;

/// What latency adds to alpha's loss: λ·max(0, E/T − 1) with E the expected latency and T the target.
///
/// TF-NAS (Hu et al. 2020, arXiv 2008.05314, eq. 11) has |E/T − 1|. But a mixture that is still spread
/// over all candidates is cheap, and the absolute value then drives alpha to whatever is dear, whether
/// or not it classifies better; within the target, cross-entropy alone decides here.
pub struct LatencyTerm {
    /// Nanoseconds, layers×candidates.
    mixed: Tensor,
    fixed: Latency,
    target: Latency,
    weight: f64,
}

impl LatencyTerm {
    /// `weight` is λ.
    pub fn new(model: &LatencyModel, target: Latency, weight: f64) -> LatencyTerm {
        let mixed = Tensor::from_slice2(&model.mixed_ns()).to_kind(Kind::Float);
        LatencyTerm { mixed, fixed: model.fixed(), target, weight }
    }

    fn loss(&self, probabilities: &Tensor) -> Tensor {
        let expected = (probabilities * &self.mixed).sum(Kind::Float) + self.fixed.ns();
        (expected / self.target.ns() - 1.0).clamp_min(0.0) * self.weight
    }
}

/// Moves the weights by the gradient of the cross-entropy, at softmax(alpha), and gives that loss.
/// `images` are N×C×H×W, `labels` N.
pub fn weight_step(
    net: &Supernet,
    sgd: &mut Sgd,
    images: &Tensor,
    labels: &Tensor,
    learning_rate: f64,
) -> Tensor {
    let logits = net.forward(images, &net.probabilities().detach(), true);
    let loss = logits.cross_entropy_for_logits(labels);
    sgd.zero_grad();
    loss.backward();
    sgd.clip_grad_norm(CLIP);
    sgd.step(learning_rate);
    loss
}

/// Moves alpha by the gradient of cross-entropy and latency term, and gives the cross-entropy and the
/// logits, N×classes.
pub fn alpha_step(
    net: &Supernet,
    adam: &mut Adam,
    term: &LatencyTerm,
    images: &Tensor,
    labels: &Tensor,
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let probabilities = net.probabilities();
    let logits = net.forward(images, &probabilities, true);
    let loss = logits.cross_entropy_for_logits(labels);
    let total = &loss + term.loss(&probabilities);
    let grad = Tensor::run_backward(&[total], &[&net.alpha], false, false);
    adam.step(&net.alpha, &grad[0], learning_rate);
    (loss, logits)
}
