use super::supernet::{Gate, Supernet, numbers};
use super::{Adam, Sgd, clipped};
use crate::model::Polynomial;
use crate::search::Constraint;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The norm that weight gradients are clipped to, as in the DARTS code.
const CLIP: f64 = 5.0;

/// Returns the expected cost under `probabilities`, with one tensor for each layer. The value and the gradient are
/// those of [`Polynomial::expected`] and [`Polynomial::gradient`], so that numbers and tensors share one formula.
pub fn expectation(cost: &Polynomial, probabilities: &[Tensor]) -> Tensor {
    let at: Vec<Vec<f64>> = probabilities.iter().map(numbers).collect();
    let slopes = cost.gradient(&at);
    let change = probabilities.iter().zip(&slopes).map(|(p, slope)| {
        let slope = Tensor::from_slice(slope).to_device(p.device());
        ((p - p.detach()).to_kind(Kind::Double) * slope).sum(Kind::Double)
    });
    change.fold(Tensor::from(cost.expected(&at)), |sum, change| sum + change)
}

/// Returns (E − L)/S for each constraint, where E is the expected cost, L the limit and S the scale, which is usually the
/// limit.
pub fn excesses(constraints: &[Constraint], probabilities: &[Tensor]) -> Vec<Tensor> {
    constraints.iter().map(|c| (expectation(&c.cost.polynomial, probabilities) - c.limit) / c.scale).collect()
}

/// Returns what the constraints add to the loss of alpha: λ times the sum of their [`excesses`] above 0.
///
/// TF-NAS (Hu et al. 2020, arXiv 2008.05314, eq. 11) uses |E/L − 1|. But a mixture that is still spread over all
/// choices is cheap, and the absolute value would then drive alpha towards expensive choices, whether or not they
/// classify better. Here, cross-entropy alone decides within the limit.
pub fn penalty(constraints: &[Constraint], probabilities: &[Tensor], weight: f64) -> Tensor {
    let excesses = excesses(constraints, probabilities).into_iter();
    excesses.map(|excess| excess.clamp_min(0.0)).fold(Tensor::from(0f64), |sum, excess| sum + excess) * weight
}

/// Updates the weights by the gradient of the cross-entropy. Returns that loss and the logits, N×classes. `images` are
/// N×C×H×W, `labels` N.
pub fn weight_step(
    net: &Supernet,
    gate: Gate,
    sgd: &mut Sgd,
    (images, labels): (&Tensor, &Tensor),
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let logits = net.forward(images, gate);
    let loss = logits.cross_entropy_for_logits(labels);
    sgd.step_along(&clipped(gradients(net, gate, &loss), CLIP), learning_rate);
    (loss.detach(), logits.detach())
}

/// Returns the gradients of the parameters that a gate uses, by their index in [`Supernet::params`].
fn gradients(net: &Supernet, gate: Gate, loss: &Tensor) -> Vec<(usize, Tensor)> {
    let (indices, tensors): (Vec<usize>, Vec<&Tensor>) = net.used(gate).into_iter().unzip();
    let grads = Tensor::run_backward(&[loss], &tensors, false, false);
    indices.into_iter().zip(grads).filter(|(_, grad)| grad.defined()).collect()
}

/// Updates alpha by the gradient, through the gate, of the cross-entropy and of what the limits add to it. Returns the
/// cross-entropy and the logits, N×classes.
pub fn alpha_step(
    net: &Supernet,
    adam: &mut Adam,
    (gate, limits): (Gate, &Tensor),
    (images, labels): (&Tensor, &Tensor),
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let logits = net.forward(images, gate);
    let loss = logits.cross_entropy_for_logits(labels);
    let grad = Tensor::run_backward(&[&loss + limits], &[&net.alpha], false, false);
    adam.step(&net.alpha, &grad[0], learning_rate);
    (loss, logits)
}

/// Updates the weights by the mean gradient of several paths. The first path, the largest, learns from the labels. The
/// others learn from its answers if `distilled`, and otherwise also from the labels (the sandwich rule and in-place
/// distillation of Yu & Huang 2019, arXiv 1903.05134). Returns the loss and the logits of the first path.
pub fn sandwich_step(
    net: &Supernet,
    paths: &[Vec<usize>],
    distilled: bool,
    sgd: &mut Sgd,
    (images, labels): (&Tensor, &Tensor),
    learning_rate: f64,
) -> (Tensor, Tensor) {
    let share = 1.0 / paths.len() as f64;
    let mut first: Option<(Tensor, Tensor)> = None;
    let mut sums: BTreeMap<usize, Tensor> = BTreeMap::new();
    for path in paths {
        let gate = Gate::Path(path);
        let logits = net.forward(images, gate);
        let loss = match &first {
            Some((_, teacher)) if distilled => {
                let wanted = teacher.softmax(-1, Kind::Float);
                -(wanted * logits.log_softmax(-1, Kind::Float))
                    .sum_dim_intlist(-1, false, Kind::Float)
                    .mean(Kind::Float)
            }
            _ => logits.cross_entropy_for_logits(labels),
        };
        for (index, grad) in gradients(net, gate, &(&loss * share)) {
            let sum = match sums.remove(&index) {
                Some(sum) => sum + grad,
                None => grad,
            };
            sums.insert(index, sum);
        }
        first.get_or_insert_with(|| (loss.detach(), logits.detach()));
    }
    sgd.step_along(&clipped(sums.into_iter().collect(), CLIP), learning_rate);
    first.unwrap_or_else(|| (Tensor::from(f64::NAN), Tensor::new()))
}
