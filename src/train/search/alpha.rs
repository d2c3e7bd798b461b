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

/// What the loss of alpha contains. A supernet that was trained with another loss is not read.
pub(super) const LOSS: &str = "excesses by the scale of the limit, and in gradient without zero";

/// Adam's decay rates for alpha, as in the DARTS code.
const ALPHA_BETAS: (f64, f64) = (0.5, 0.999);

/// Temperatures of the Gumbel-softmax at the first and at the last epoch that trains alpha. LightNAS starts at 5 and
/// ends below 0.01, but at 0.1 a sample is already one-hot.
const TEMPERATURES: (f64, f64) = (5.0, 0.1);

/// A layer is undecided if its entropy is more than this share of the entropy of an even choice.
const UNDECIDED: f64 = 0.5;

pub(super) struct Alpha<'a> {
    pub(super) search: &'a Search<'a>,
    pub(super) net: Supernet,
    sgd: Sgd,
    pub(super) adam: Adam,
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
        self.used_log_probabilities().iter().map(numbers).collect()
    }

    /// Returns whether steps may use an op. A path with a `zero` would give every image the same answer.
    fn is_used(&self, op: CandidateOp) -> bool {
        self.search.settings.algorithm == Algorithm::Mixture || op != CandidateOp::Zero
    }

    /// Returns log softmax(alpha) over the choices that steps use, by layer. If expected costs counted the others, they
    /// would be lower than those of any path.
    fn used_log_probabilities(&self) -> Vec<Tensor> {
        let choices = self.search.searched.networks.choices().iter();
        let masks = choices.map(|choices| self.mask(choices, |op| self.is_used(op)));
        let log = self.net.log_probabilities().into_iter().zip(masks);
        log.map(|(log, mask)| (log + mask).log_softmax(-1, Kind::Float)).collect()
    }

    /// Returns the indices of the choices of a layer that steps use.
    fn used(&self, layer: usize) -> Vec<usize> {
        let choices = &self.search.searched.networks.choices()[layer];
        (0..choices.len()).filter(|&i| self.is_used(choices[i].op)).collect()
    }

    /// Returns the values of the choices that steps use, for each layer that has several choices.
    fn of_searched<T: Clone>(&self, values: impl Fn(usize) -> Vec<T>) -> Vec<Vec<T>> {
        let of_layer = |layer: usize| {
            let values = values(layer);
            self.used(layer).into_iter().map(|i| values[i].clone()).collect()
        };
        self.search.searched.networks.searched().map(of_layer).collect()
    }

    /// Returns the expected costs, with their limits.
    fn expected(&self) -> Vec<Expected> {
        let probabilities: Vec<Vec<f64>> =
            self.used_log_probabilities().iter().map(|log| numbers(&log.exp())).collect();
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
            let even = (self.used(*layer).len() as f64).ln();
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
        let log = self.log_probabilities();
        let entropy = |log: &Vec<f64>| log.iter().map(|log| -log.exp() * log).sum::<f64>();
        self.of_searched(|layer| log[layer].clone()).iter().map(entropy).collect()
    }

    pub(super) fn learning_rate(&self, at: At) -> f64 {
        let (peak, epochs) = (self.search.settings.learning_rate.get(), self.search.settings.epochs.get());
        cosine(peak, at.done(), epochs * at.steps, 0)
    }

    /// Returns the progress of the steps that train alpha, from 0 to 1.
    fn progress(&self, at: At) -> f64 {
        let warmup = self.search.settings.warmup_epochs * at.steps;
        let all = self.search.settings.epochs.get() * at.steps;
        at.done().saturating_sub(warmup) as f64 / (all - warmup).max(1) as f64
    }

    pub(super) fn tensors(&self, batch: &Batch) -> (Tensor, Tensor) {
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
    pub(super) fn allowed(&self, at: At, rng: &mut ChaCha8Rng) -> Vec<Tensor> {
        let dropout = self.search.settings.skip_dropout.get() * (1.0 - self.progress(at));
        let of_layer = |choices: &Vec<Choice>| {
            let without_skip = rng.random::<f64>() < dropout && choices.iter().any(|choice| computes(choice.op));
            let allowed = |op| if op == CandidateOp::Skip { !without_skip } else { self.is_used(op) };
            self.mask(choices, allowed)
        };
        self.search.searched.networks.choices().iter().map(of_layer).collect()
    }

    /// Returns softmax(alpha) over the choices that are allowed, by layer.
    pub(super) fn probabilities(&self, allowed: &[Tensor]) -> Vec<Tensor> {
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
        let probabilities: Vec<Tensor> = self.used_log_probabilities().iter().map(Tensor::exp).collect();
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
        let alpha = self.net.alpha_by_layer();
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
            alpha: self.of_searched(|layer| alpha[layer].clone()),
            entropies: self.entropies(),
            choices: self.of_searched(|layer| names_of(&networks.choices()[layer])),
            layers: networks.searched().map(|layer| networks.layer_name(layer)).collect(),
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
            let of_layer = |layer: usize| {
                let mut alpha = vec![f64::NEG_INFINITY; networks.choices()[layer].len()];
                let logged = if searched.contains(&layer) { rows.next().cloned() } else { Some(vec![0.0]) };
                let logged = logged.unwrap_or_default();
                self.used(layer).into_iter().zip(logged).for_each(|(i, value)| alpha[i] = value);
                alpha
            };
            let alpha: Vec<Vec<f64>> = (0..networks.len()).map(of_layer).collect();
            goal.limits.best(networks, &alpha, 1).ok()
        };
        let last = best(&log[log.len() - 1]);
        last.is_some() && log[log.len() - 1 - patience..].iter().all(|row| best(row) == last)
    }
}
