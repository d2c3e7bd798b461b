//! Algorithms that train architecture weights, called alpha, alongside the weights of the networks.
//!
//! Batch by batch, they alternate a step of the weights on the training split with a step of alpha on the held-out
//! split (Liu et al. 2019, arXiv 1806.09055).

use super::{Algorithm, Search};
use crate::data::Batch;
use crate::record::{Expected, SearchEpoch};
use crate::space::{CandidateOp, Choice, names_of};
use crate::train::epochs::{At, Metrics, Task};
use crate::train::steps::{excesses, penalty};
use crate::train::supernet::numbers;
use crate::train::{Adam, Gate, Sgd, Supernet, TrainError, alpha_step, correct, cosine, tensors, weight_step};
use nas_exporters::Shape;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Adam's decay rates for alpha, as in the DARTS code.
const ALPHA_BETAS: (f64, f64) = (0.5, 0.999);

/// Temperatures of the Gumbel-softmax at the first and at the last epoch that trains alpha. LightNAS starts at 5 and
/// ends below 0.01, but at 0.1 a sample is already one-hot.
const TEMPERATURES: (f64, f64) = (5.0, 0.1);

/// A layer is undecided if its entropy is more than this share of the entropy of an even choice.
const UNDECIDED: f64 = 0.5;

pub(super) struct Alpha<'a> {
    search: &'a Search<'a>,
    net: Supernet,
    sgd: Sgd,
    adam: Adam,
    /// The multiplier of each constraint in `gradient`. They are on the CPU, like the numbers from which they are
    /// computed.
    multipliers: Tensor,
}

impl<'a> Alpha<'a> {
    pub fn new(search: &'a Search<'a>, net: Supernet) -> Alpha<'a> {
        let sgd = search.sgd(&net);
        let adam = Adam::new(&net.alpha, ALPHA_BETAS, search.settings.alpha_weight_decay.get());
        let multipliers = Tensor::zeros([search.searched.widest().len() as i64], (Kind::Double, Device::Cpu));
        Alpha { search, net, sgd, adam, multipliers }
    }

    /// Returns the log-probability of each choice, by layer.
    pub fn log_probabilities(&self) -> Vec<Vec<f64>> {
        self.decided().iter().map(numbers).collect()
    }

    /// Returns log softmax(alpha), by layer. In `gradient`, the probability of a `zero` is 0, since no path contains one:
    /// expected costs would otherwise be lower than those of any path.
    fn decided(&self) -> Vec<Tensor> {
        let log = self.net.log_probabilities();
        if self.search.settings.algorithm != Algorithm::Gradient {
            return log;
        }
        let choices = self.search.searched.networks.choices().iter();
        let live = choices.map(|choices| self.mask(choices, |op| op != CandidateOp::Zero));
        log.iter().zip(live).map(|(log, live)| (log + live).log_softmax(-1, Kind::Float)).collect()
    }

    /// Returns the expected costs, with their limits.
    fn expected(&self) -> Vec<Expected> {
        let probabilities: Vec<Vec<f64>> = self.decided().iter().map(|log| numbers(&log.exp())).collect();
        let constraints = self.search.searched.widest().iter();
        constraints.map(|constraint| Expected::of(constraint, &probabilities)).collect()
    }

    /// Returns 0 for each choice that is allowed, and minus infinity for the others.
    fn mask(&self, choices: &[Choice], allowed: impl Fn(CandidateOp) -> bool) -> Tensor {
        let mask = choices.iter().map(|choice| if allowed(choice.op) { 0.0 } else { f32::NEG_INFINITY });
        Tensor::from_slice(&mask.collect::<Vec<f32>>()).to_device(self.net.alpha.device())
    }

    /// Warns about layers whose choice is hardly better than another one.
    pub fn warn_undecided(&self) {
        let networks = &self.search.searched.networks;
        let entropies = self.entropies();
        let undecided = networks.searched().zip(&entropies).filter(|(layer, entropy)| {
            let even = (networks.choices()[*layer].len() as f64).ln();
            **entropy > UNDECIDED * even
        });
        let undecided: Vec<String> = undecided.map(|(layer, _)| networks.layer_name(layer)).collect();
        if !undecided.is_empty() {
            let layers = undecided.join(", ");
            log::warn!(
                "the search is undecided in {layers}: other choices score nearly as well; more --epochs may help"
            );
        }
    }

    /// Returns the entropy of softmax(alpha), in nats, for each layer that has several choices.
    fn entropies(&self) -> Vec<f64> {
        let networks = &self.search.searched.networks;
        let log = self.log_probabilities();
        let likely = |log: &&f64| **log > f64::NEG_INFINITY;
        let entropy = |layer: usize| -log[layer].iter().filter(likely).map(|log| log.exp() * log).sum::<f64>();
        networks.searched().map(entropy).collect()
    }

    fn learning_rate(&self, at: At) -> f64 {
        let (peak, epochs) = (self.search.settings.learning_rate.get(), self.search.settings.epochs.get());
        cosine(peak, at.done(), epochs * at.steps, 0)
    }

    /// Returns the progress of the steps that train alpha, from 0 to 1.
    fn progress(&self, at: At) -> f64 {
        let warmup = self.search.settings.warmup_epochs * at.steps;
        let all = self.search.settings.epochs.get() * at.steps;
        at.done().saturating_sub(warmup) as f64 / (all - warmup).max(1) as f64
    }

    fn tensors(&self, batch: &Batch) -> (Tensor, Tensor) {
        tensors(batch, Shape::from(self.search.data.train.shape), self.net.alpha.device())
    }

    /// Returns the held-out batch of a step. An epoch goes through the held-out split as often as necessary, each time
    /// in a new order that no epoch of the training split has.
    fn held_out(&self, at: At) -> Batch {
        let held_out = self.search.held_out_batches();
        let batches = held_out.indices.len().div_ceil(held_out.size.get());
        let (pass, step) = (at.step / batches, at.step % batches);
        let stream = ((at.epoch as u64) << 32) + pass as u64;
        held_out.epoch(!self.search.settings.seed, stream, self.search.augment).batch(step)
    }

    /// Returns, by layer, the mask of the choices that a step may use. `skip` is sometimes left out, since it has nothing
    /// to learn and would be ahead at first (Chen et al. 2019, arXiv 1904.12760, section 3.2).
    fn allowed(&self, at: At, rng: &mut ChaCha8Rng) -> Vec<Tensor> {
        let dropout = self.search.settings.skip_dropout.get() * (1.0 - self.progress(at));
        let sampled = self.search.settings.algorithm == Algorithm::Gradient;
        let of_layer = |choices: &Vec<Choice>| {
            let without_skip = rng.random::<f64>() < dropout && choices.iter().any(|choice| computes(choice.op));
            let allowed = |op| match op {
                CandidateOp::Skip => !without_skip,
                // A network with a `zero` gives every image the same answer.
                CandidateOp::Zero => !sampled,
                _ => true,
            };
            self.mask(choices, allowed)
        };
        self.search.searched.networks.choices().iter().map(of_layer).collect()
    }

    /// Returns softmax(alpha) over the choices that are allowed, by layer.
    fn probabilities(&self, allowed: &[Tensor]) -> Vec<Tensor> {
        let log = self.net.log_probabilities();
        log.iter().zip(allowed).map(|(log, allowed)| (log + allowed).softmax(-1, Kind::Float)).collect()
    }

    /// Samples a path. Returns it with the weight of each choice, which is 1 and has the gradient of the Gumbel-softmax
    /// (Jang et al. 2017, arXiv 1611.01144, straight-through).
    fn sample(&self, at: At, allowed: &[Tensor], rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<Tensor>) {
        let (first, last) = TEMPERATURES;
        let temperature = first * (last / first).powf(self.progress(at));
        let mut gumbel = || -(-rng.random::<f64>().max(1e-12).ln()).ln();
        let mut of_layer = |(log, allowed): (Tensor, &Tensor)| {
            let noise: Vec<f32> = (0..log.numel()).map(|_| gumbel() as f32).collect();
            let noise = Tensor::from_slice(&noise).to_device(log.device());
            let soft = ((log + noise + allowed) / temperature).softmax(-1, Kind::Float);
            let choice = soft.argmax(-1, false).int64_value(&[]);
            let weight = soft.get(choice);
            (choice as usize, 1.0 + &weight - weight.detach())
        };
        self.net.log_probabilities().into_iter().zip(allowed).map(&mut of_layer).unzip()
    }

    /// Updates alpha, through all choices or through a sampled path.
    fn alpha_step(&mut self, at: At, batch: &Batch, rng: &mut ChaCha8Rng, metrics: &mut Metrics) {
        let settings = self.search.settings;
        let allowed = self.allowed(at, rng);
        let (images, labels) = self.tensors(batch);
        let probabilities: Vec<Tensor> = self.decided().iter().map(Tensor::exp).collect();
        let rate = settings.alpha_learning_rate.get();
        let (path, mixed);
        let (gate, limits) = match settings.algorithm {
            Algorithm::Gradient => {
                path = self.sample(at, &allowed, rng);
                (Gate::Scaled(&path.0, &path.1), self.multiplied(&probabilities))
            }
            _ => {
                mixed = self.probabilities(&allowed);
                let weight = settings.latency_weight.get();
                (Gate::Mixture(&mixed), penalty(self.search.searched.widest(), &probabilities, weight))
            }
        };
        let (loss, logits) = alpha_step(&self.net, &mut self.adam, (gate, &limits), (&images, &labels), rate);
        metrics.held_out.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
    }

    /// Returns the sum of the [`excesses`], each times its multiplier λ. The multipliers then rise in proportion to the
    /// excesses, but never become negative: dual ascent on the limits (Luo et al. 2022, arXiv 2208.10658, section 3.3).
    fn multiplied(&mut self, probabilities: &[Tensor]) -> Tensor {
        let excesses = excesses(self.search.searched.widest(), probabilities);
        let terms = excesses.iter().zip(numbers(&self.multipliers)).map(|(excess, multiplier)| excess * multiplier);
        let sum = terms.fold(Tensor::from(0f64), |sum, term| sum + term);
        let _guard = tch::no_grad_guard();
        let found: Vec<f64> = excesses.iter().map(|excess| excess.double_value(&[])).collect();
        let step = Tensor::from_slice(&found) * self.search.settings.latency_weight.get();
        self.multipliers.copy_(&(&self.multipliers + step).clamp_min(0.0));
        sum
    }
}

/// Returns whether the op has weights of its own.
fn computes(op: CandidateOp) -> bool {
    !matches!(op, CandidateOp::Skip | CandidateOp::Zero)
}

impl Task for Alpha<'_> {
    type Row = SearchEpoch;

    fn state(&self) -> Vec<(String, Tensor)> {
        let params = self.net.params().map(|(name, _, tensor)| (name.to_string(), tensor.shallow_clone()));
        let own = [("alpha", &self.net.alpha), ("multipliers", &self.multipliers)];
        let own = own.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()));
        params.chain(self.sgd.state()).chain(self.adam.state()).chain(own).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        let mut rng = super::rng(self.search.settings.seed, at);
        let (images, labels) = self.tensors(batch);
        let rate = self.learning_rate(at);
        let trains_alpha = at.epoch > self.search.settings.warmup_epochs;
        let held_out = trains_alpha.then(|| self.held_out(at));
        let unrolled = self.search.settings.unrolled && self.search.settings.algorithm == Algorithm::Mixture;
        if let (Some(batch), true) = (&held_out, unrolled) {
            self.unrolled_step(at, (&images, &labels), batch, &mut rng, metrics);
        } else if let Some(batch) = &held_out {
            self.alpha_step(at, batch, &mut rng, metrics);
        }
        let allowed = self.allowed(at, &mut rng);
        let (loss, logits) = match self.search.settings.algorithm {
            Algorithm::Gradient => {
                let (choices, _) = self.sample(at, &allowed, &mut rng);
                weight_step(&self.net, Gate::Path(&choices), &mut self.sgd, (&images, &labels), rate)
            }
            _ => {
                let probabilities: Vec<Tensor> = self.probabilities(&allowed).iter().map(Tensor::detach).collect();
                weight_step(&self.net, Gate::Mixture(&probabilities), &mut self.sgd, (&images, &labels), rate)
            }
        };
        metrics.train.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
    }

    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> Result<SearchEpoch, TrainError> {
        let networks = &self.search.searched.networks;
        Ok(SearchEpoch {
            epoch: at.epoch,
            learning_rate: self.learning_rate(at),
            train_loss: metrics.train.mean_loss().unwrap_or_default(),
            held_out_loss: metrics.held_out.mean_loss(),
            held_out_accuracy: metrics.held_out.accuracy(),
            constraints: self.expected(),
            multipliers: match self.search.settings.algorithm {
                Algorithm::Gradient => numbers(&self.multipliers),
                _ => vec![],
            },
            alpha: self.net.alpha_rows(),
            entropies: self.entropies(),
            choices: networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect(),
            seconds,
        })
    }

    fn describe(row: &SearchEpoch) -> String {
        let expected = row.constraints.iter().map(|c| c.unit.show(c.expected));
        format!("loss {:.3}, expected {}", row.train_loss, expected.collect::<Vec<_>>().join(", "))
    }

    fn note(&self) -> String {
        let expected = self.expected();
        let expected =
            expected.iter().map(|cost| format!("{} of {}", cost.unit.show(cost.expected), cost.unit.show(cost.limit)));
        let expected = expected.collect::<Vec<_>>().join(", ");
        match self.search.settings.algorithm {
            Algorithm::Gradient => {
                let multipliers = numbers(&self.multipliers).into_iter().map(|multiplier| format!("{multiplier:.2}"));
                format!("{expected}, λ {}", multipliers.collect::<Vec<_>>().join(", "))
            }
            _ => expected,
        }
    }

    /// Returns whether the best network within the limits and in the band of the largest target has stayed the same for
    /// `patience` epochs.
    fn is_done(&self, log: &[SearchEpoch]) -> bool {
        let patience = self.search.settings.patience;
        if patience == 0 || log.len() <= self.search.settings.warmup_epochs.saturating_add(patience) {
            return false;
        }
        let Some(goal) = self.search.searched.widest_goal() else { return false };
        let networks = &self.search.searched.networks;
        let best = |row: &SearchEpoch| {
            let mut rows = row.alpha.iter();
            let searched: Vec<usize> = networks.searched().collect();
            let of_layer = |layer: usize| match searched.contains(&layer) {
                true => rows.next().cloned().unwrap_or_default(),
                false => vec![0.0],
            };
            let alpha: Vec<Vec<f64>> = (0..networks.len()).map(of_layer).collect();
            goal.limits.best(networks, &alpha, 1).ok()
        };
        let last = best(&log[log.len() - 1]);
        last.is_some() && log[log.len() - 1 - patience..].iter().all(|row| best(row) == last)
    }
}

/// How far the weights are moved in either direction for a derivative by finite differences. The direction is
/// multiplied by this number divided by its norm, as in the DARTS code.
const FINITE_DIFFERENCE: f64 = 0.01;

impl Alpha<'_> {
    /// Updates alpha by the gradient of the held-out loss after a step of the weights (Liu et al. 2019, equations 7 and
    /// 8). The weights themselves stay as they are.
    fn unrolled_step(
        &mut self,
        at: At,
        (images, labels): (&Tensor, &Tensor),
        batch: &Batch,
        rng: &mut ChaCha8Rng,
        metrics: &mut Metrics,
    ) {
        let rate = self.learning_rate(at);
        let allowed = self.allowed(at, rng);
        let weights: Vec<Tensor> = self.net.params().map(|(_, _, tensor)| tensor.shallow_clone()).collect();
        let loss_of = |net: &Self, images: &Tensor, labels: &Tensor| {
            let logits = net.net.forward(images, Gate::Mixture(&net.probabilities(&allowed)));
            (logits.cross_entropy_for_logits(labels), logits)
        };
        let moved = |by: &[Tensor], scale: f64| {
            let _guard = tch::no_grad_guard();
            for (weight, by) in weights.iter().zip(by).filter(|(_, by)| by.defined()) {
                let _ = weight.shallow_clone().g_add_(&(by * scale));
            }
        };
        let gradients = |loss: &Tensor| {
            weights.iter().for_each(|weight| weight.shallow_clone().zero_grad());
            self.net.alpha.shallow_clone().zero_grad();
            loss.backward();
            let grad = |weight: &Tensor| {
                let grad = weight.grad();
                // A mixture does not use the weights that a choice has only on a narrower input.
                if grad.defined() { grad.copy() } else { grad }
            };
            weights.iter().map(grad).collect::<Vec<_>>()
        };
        let of_alpha = || self.net.alpha.grad().copy();

        let before = weights.iter().map(|weight| weight.detach().copy()).collect::<Vec<_>>();
        let restore = || {
            let _guard = tch::no_grad_guard();
            weights.iter().zip(&before).for_each(|(weight, before)| weight.shallow_clone().copy_(before));
        };
        let descent = gradients(&loss_of(self, images, labels).0);
        moved(&descent, -rate);
        let (held_out_images, held_out_labels) = self.tensors(batch);
        let (loss, logits) = loss_of(self, &held_out_images, &held_out_labels);
        let constraints = (self.search.searched.widest(), self.search.settings.latency_weight.get());
        let limits = penalty(constraints.0, &self.net.probabilities(), constraints.1);
        let direction = gradients(&(&loss + limits));
        let first_order = of_alpha();
        restore();
        let norms: Vec<Tensor> = direction.iter().filter(|d| d.defined()).map(|d| d.norm()).collect();
        let epsilon = FINITE_DIFFERENCE / Tensor::stack(&norms, 0).norm().double_value(&[]).max(1e-12);
        moved(&direction, epsilon);
        let _ = gradients(&loss_of(self, images, labels).0);
        let above = of_alpha();
        moved(&direction, -2.0 * epsilon);
        let _ = gradients(&loss_of(self, images, labels).0);
        let below = of_alpha();
        restore();
        let grad = first_order - (above - below) * (rate / (2.0 * epsilon));
        self.net.alpha.shallow_clone().zero_grad();
        self.adam.step(&self.net.alpha, &grad, self.search.settings.alpha_learning_rate.get());
        metrics.held_out.add(loss.double_value(&[]), correct(&logits, &held_out_labels), batch.labels.len());
    }
}
