use super::supernet::{Gate, Supernet, numbers};
use super::{Adam, Sgd};
use crate::model::Polynomial;
use crate::search::Constraint;
use tch::{Kind, Tensor};

/// The norm that weight gradients are clipped to, as in the DARTS code.
const CLIP: f64 = 5.0;

/// The expected cost under `probabilities`, one tensor for each layer. Value and gradient are those of
/// [`Polynomial::expected`] and [`Polynomial::gradient`], so that there is one formula for numbers and for tensors.
pub fn expectation(cost: &Polynomial, probabilities: &[Tensor]) -> Tensor {
    let at: Vec<Vec<f64>> = probabilities.iter().map(numbers).collect();
    let slopes = cost.gradient(&at);
    let change = probabilities.iter().zip(&slopes).map(|(p, slope)| {
        let slope = Tensor::from_slice(slope).to_device(p.device());
        ((p - p.detach()).to_kind(Kind::Double) * slope).sum(Kind::Double)
    });
    change.fold(Tensor::from(cost.expected(&at)), |sum, change| sum + change)
}

/// What the constraints add to the loss of alpha: λ·Σ max(0, E/L − 1), with E an expected cost and L its limit.
///
/// TF-NAS (Hu et al. 2020, arXiv 2008.05314, eq. 11) has |E/L − 1|. But a mixture that is still spread over all choices
/// is cheap, and the absolute value then drives alpha to whatever is expensive, whether or not it classifies better;
/// within the limit, cross-entropy alone decides here.
pub fn excess(constraints: &[Constraint], probabilities: &[Tensor], weight: f64) -> Tensor {
    let of = |c: &Constraint| (expectation(&c.cost.polynomial, probabilities) / c.limit.max(1.0) - 1.0).clamp_min(0.0);
    constraints.iter().map(of).fold(Tensor::from(0f64), |sum, excess| sum + excess) * weight
}

/// Moves the weights by the gradient of the cross-entropy, and gives that loss and the logits, N×classes. `images` are
/// N×C×H×W, `labels` N.
pub fn weight_step(
    net: &Supernet,
    gate: Gate,
    sgd: &mut Sgd,
    (images, labels): (&Tensor, &Tensor),
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let logits = net.forward(images, gate, true);
    let loss = logits.cross_entropy_for_logits(labels);
    sgd.zero_grad();
    loss.backward();
    sgd.clip_grad_norm(CLIP);
    sgd.step(learning_rate);
    (loss, logits)
}

/// Moves alpha by the gradient of cross-entropy and [`excess`], through the mixture, and gives the cross-entropy and
/// the logits, N×classes.
pub fn alpha_step(
    net: &Supernet,
    adam: &mut Adam,
    (constraints, weight): (&[Constraint], f64),
    (images, labels): (&Tensor, &Tensor),
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let probabilities = net.probabilities();
    let logits = net.forward(images, Gate::Mixture(&probabilities), true);
    let loss = logits.cross_entropy_for_logits(labels);
    let total = &loss + excess(constraints, &probabilities, weight);
    let grad = Tensor::run_backward(&[total], &[&net.alpha], false, false);
    adam.step(&net.alpha, &grad[0], learning_rate);
    (loss, logits)
}
