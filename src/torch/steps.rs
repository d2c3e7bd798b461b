use super::{Adam, Sgd, Supernet};
use crate::latency::fit::Crowding;
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
    /// Nanoseconds, by monomial.
    ns: Tensor,
    /// Tables of factors×(layers·candidates + 1) for the monomials' first, second… factors: 1 where the
    /// factor has the candidate's probability in it, and in the last column where there is no factor.
    factors: Vec<Tensor>,
    /// Nanoseconds a pair of weights in different layers, and the weights, layers×candidates.
    crowding: Option<(f64, Tensor)>,
    target: Latency,
    weight: f64,
}

impl LatencyTerm {
    /// `weight` is λ.
    pub fn new(model: &LatencyModel, target: Latency, weight: f64) -> LatencyTerm {
        let (layers, candidates) = model.size();
        let monomials = model.polynomial().monomials();
        let ns: Vec<f64> = monomials.iter().map(|monomial| monomial.ns.ns()).collect();
        let most = monomials.iter().map(|monomial| monomial.holds.len()).max().unwrap_or(0);
        let width = layers * candidates + 1;
        let factor = |place: usize| {
            let mut table = vec![0f64; monomials.len() * width];
            for (row, monomial) in table.chunks_mut(width).zip(monomials) {
                match monomial.holds.get(place) {
                    Some((layer, ops)) => ops.iter().for_each(|op| row[layer * candidates + op] = 1.0),
                    None => row[width - 1] = 1.0,
                }
            }
            Tensor::from_slice(&table).view([monomials.len() as i64, width as i64])
        };
        let weights = |c: &Crowding| (c.ns, Tensor::from_slice2(&c.weights));
        LatencyTerm {
            ns: Tensor::from_slice(&ns),
            factors: (0..most).map(factor).collect(),
            crowding: model.polynomial().crowding().map(weights),
            target,
            weight,
        }
    }

    /// Expected nanoseconds; `probabilities` are layers×candidates.
    fn expected(&self, probabilities: &Tensor) -> Tensor {
        let probabilities = probabilities.to_kind(Kind::Double);
        let flat = probabilities.view(-1);
        let one = Tensor::ones([1], (Kind::Double, flat.device()));
        let flat = Tensor::cat(&[flat, one], 0);
        let factors = self.factors.iter().map(|table| table.mv(&flat));
        let sum = factors.fold(self.ns.shallow_clone(), |product, factor| product * factor).sum(Kind::Double);
        let Some((ns, weights)) = &self.crowding else { return sum };
        let by_layer = (probabilities * weights).sum_dim_intlist(-1, false, Kind::Double);
        // All pairs, less those that are of one layer, both ways.
        let pairs = (by_layer.sum(Kind::Double).square() - by_layer.square().sum(Kind::Double)) / 2.0;
        sum + pairs * *ns
    }

    fn loss(&self, probabilities: &Tensor) -> Tensor {
        let expected = self.expected(probabilities);
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
