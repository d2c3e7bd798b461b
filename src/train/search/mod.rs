//! Search: trains a supernet by one of the algorithms, and proposes networks within some limits.

mod alpha;
mod oneshot;
mod settings;
mod trials;
mod unrolled;

pub use settings::{Algorithm, Component, Components, SearchSettings};

use super::{At, Checkpoint, Epochs, Placement, Sgd, Supernet, TrainError, decay_of};
use crate::artifact::Digest;
use crate::data::{Augment, Batches, Data, Normalisation};
use crate::record::{CandidateRow, RunDir, SearchEpoch, Unfinished};
use crate::search::{Candidate, Limits, Searched, best_of, evolve, fitted, propose, sample, scores_of};
use crate::space::Networks;
use alpha::Alpha;
use oneshot::Oneshot;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use trials::Trials;

/// A search among the networks of a space, on the training images of a data set. Most of the images train weights, and
/// the rest are held out to choose networks by.
pub struct Search<'a> {
    searched: &'a Searched,
    data: &'a Data,
    data_digest: Digest,
    settings: &'a SearchSettings,
    augment: Augment,
    train: Vec<usize>,
    held_out: Vec<usize>,
    normalisation: Normalisation,
    unfinished: Unfinished,
    /// Where nets are computed, and the number formats of their convolutions.
    placement: Placement,
}

/// The result of the first part of a search.
pub struct TrainedSupernet {
    pub log: Vec<SearchEpoch>,
    scores: Scores,
}

/// The networks that a search proposes for some limits.
pub struct Proposed {
    /// Best first: by the short training runs if there were any, otherwise by their scores.
    pub candidates: Vec<Candidate>,
    /// The best score within the limits. `None` if the algorithm gives networks no scores.
    pub best_score: Option<f64>,
    /// The best network without the limits, as far as its score is known or predicted.
    pub unconstrained: Option<Candidate>,
    /// What was found out about each network.
    pub rows: Vec<CandidateRow>,
}

/// How candidates are scored before any of them is trained from scratch.
enum Scores {
    /// By layer, the log-probability of each choice.
    Alpha(Vec<Vec<f64>>),
    /// Minus the cross-entropy of a network with the weights of the supernet.
    Weights(Supernet),
    /// There are no scores.
    None,
}

/// Returns the best network without limits. A model of the scores may err, so that its best network is no better than
/// those that were found.
fn best_of_both(found: &[Candidate], predicted: Option<Candidate>) -> Option<Candidate> {
    let found = found.first().cloned();
    found.into_iter().chain(predicted).max_by(|a, b| a.score.total_cmp(&b.score))
}

/// Returns the random number generator of a step.
fn rng(seed: u64, at: At) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((at.epoch as u64) << 32) + at.step as u64);
    rng
}

impl<'a> Search<'a> {
    /// Prepares a search.
    ///
    /// # Errors
    /// Fails if the settings do not fit the data.
    pub fn new(
        searched: &'a Searched,
        data: &'a Data,
        settings: &'a SearchSettings,
        run: &RunDir,
    ) -> Result<Search<'a>, TrainError> {
        settings.check()?;
        let unused = settings.unused();
        if !unused.is_empty() {
            log::warn!("--algorithm {} does not use {}", settings.algorithm, unused.join(", "));
        }
        let augment = settings.augment(data)?;
        let (train, held_out) = settings.split(data)?;
        let normalisation = Normalisation::of(&data.train, &train)?;
        let unfinished = run.unfinished();
        let device = settings.torch_device.resolve()?;
        super::fix(settings.threads, settings.seed);
        let data_digest = data.digest();
        let decided =
            unfinished.arithmetic(&Digest::of(&(&searched.networks.space, settings.of_supernet(), &data_digest)));
        let placement = Placement { floats: settings.arithmetic.resolve(&decided, device)?, device };
        Ok(Search {
            searched,
            data,
            data_digest,
            settings,
            augment,
            train,
            held_out,
            normalisation,
            unfinished,
            placement,
        })
    }

    /// Trains the supernet, if the algorithm has one. Resumes from a checkpoint of the same settings and data. The
    /// constraints must be the same only if the loss contains them.
    ///
    /// # Errors
    /// Fails if the loss is no longer finite, or if a file cannot be written.
    pub fn train(&self) -> Result<TrainedSupernet, TrainError> {
        let settings = self.settings;
        super::fix(settings.threads, settings.seed);
        let Some(key) = self.log_key() else { return Ok(TrainedSupernet { log: vec![], scores: Scores::None }) };
        let epochs = self.epochs(key);
        let (log, scores) = if settings.algorithm == Algorithm::Oneshot {
            let sharing = settings.components.has(Component::Sharing);
            let mut task = Oneshot::new(self, Supernet::new(&self.searched.networks, self.placement, sharing));
            (epochs.run(&mut task)?, Scores::Weights(task.supernet()))
        } else {
            let mut task = Alpha::new(self, Supernet::new(&self.searched.networks, self.placement, false));
            let log = epochs.run(&mut task)?;
            task.warn_undecided();
            (log, Scores::Alpha(task.log_probabilities()))
        };
        Ok(TrainedSupernet { log, scores })
    }

    /// Proposes networks within `limits`, based on what was trained.
    ///
    /// # Errors
    /// Fails if no network is within the limits, or if a training fails.
    pub fn candidates(&self, trained: &TrainedSupernet, limits: &Limits) -> Result<Proposed, TrainError> {
        let mut trials = Trials::open(self, self.candidates_key(limits))?;
        let (mut candidates, unconstrained) = self.scored(&trained.scores, limits, &mut trials)?;
        let mut best_score = None;
        // Random networks have no scores, so all of them are trained.
        if self.settings.algorithm != Algorithm::Random {
            candidates.truncate(self.settings.finalists.get());
            best_score = candidates.first().map(|best| best.score);
        }
        if self.settings.components.has(Component::Reranking) {
            candidates = trials.race(candidates)?;
        }
        Ok(Proposed { candidates, best_score, unconstrained, rows: trials.close()? })
    }

    /// Returns networks within `limits`, those with the best scores first, and the best one without the limits if the
    /// algorithm has a score for it.
    fn scored(
        &self,
        scores: &Scores,
        limits: &Limits,
        trials: &mut Trials,
    ) -> Result<(Vec<Candidate>, Option<Candidate>), TrainError> {
        let (settings, networks) = (self.settings, &self.searched.networks);
        let number = settings.candidates.get();
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let without_limits = |scores: &[Vec<f64>]| {
            let allowed = scores_of(networks, |layer, choice| scores[layer][choice]);
            best_of(&allowed, &[], f64::NEG_INFINITY, 1).pop()
        };
        let summed = |scores: &[Vec<f64>], choices: Vec<usize>| {
            let score = choices.iter().zip(scores).map(|(&choice, scores)| scores[choice]).sum();
            Candidate { choices, score }
        };
        Ok(match (scores, settings.algorithm) {
            (Scores::Alpha(scores), _) => {
                let best = limits.best(networks, scores, settings.finalists.get())?;
                let candidates = best.into_iter().map(|choices| summed(scores, choices)).collect();
                (candidates, without_limits(scores).map(|choices| summed(scores, choices)))
            }
            (Scores::Weights(supernet), _) => {
                let found = propose(networks, limits, number, &mut rng, |choices| trials.score(supernet, choices))?;
                let unconstrained = match without_limits(&fitted(networks, &found)) {
                    Some(choices) => Some(Candidate { score: trials.score(supernet, &choices)?, choices }),
                    None => None,
                };
                let unconstrained = best_of_both(&found, unconstrained);
                (found, unconstrained)
            }
            (Scores::None, Algorithm::Surrogate) => {
                let found = propose(networks, limits, number, &mut rng, |choices| trials.train(choices, 1))?;
                let model = fitted(networks, &found);
                let predicted = without_limits(&model).map(|choices| summed(&model, choices));
                let unconstrained = best_of_both(&found, predicted);
                (found, unconstrained)
            }
            (Scores::None, Algorithm::Evolution) => {
                (evolve(networks, limits, number, &mut rng, |choices| trials.train(choices, 1))?, None)
            }
            (Scores::None, _) => (sample(networks, limits, number, &mut rng, |_| Ok::<_, TrainError>(0.0))?, None),
        })
    }

    /// Returns the processor that trains: `cpu` or `cuda`.
    pub fn processor(&self) -> &'static str {
        self.placement.processor()
    }

    /// Returns [`Data::digest`], which was computed once since it reads all images.
    pub fn data_digest(&self) -> &Digest {
        &self.data_digest
    }

    fn train_batches(&self) -> Batches<'_> {
        let size = self.settings.batch_size.into();
        Batches {
            dataset: &self.data.train,
            indices: &self.train,
            normalisation: &self.normalisation,
            size,
            balanced: false,
        }
    }

    fn held_out_batches(&self) -> Batches<'_> {
        Batches { indices: &self.held_out, ..self.train_batches() }
    }

    /// Returns the digest of everything that a result depends on: the settings, the data, and `on`.
    fn key(&self, on: impl serde::Serialize) -> Digest {
        self.key_with(on, self.settings)
    }

    /// Returns the same for a result that does not depend on what happens once the supernet is trained.
    fn supernet_key(&self, on: impl serde::Serialize) -> Digest {
        self.key_with(on, &self.settings.of_supernet())
    }

    fn key_with(&self, on: impl serde::Serialize, settings: &SearchSettings) -> Digest {
        let Networks { space, input, classes, .. } = &self.searched.networks;
        Digest::of(&(space, input, classes, on, settings, &self.data_digest))
    }

    /// Returns the key of the log of the supernet. `None` if no supernet is trained: by the algorithm, or because the
    /// space has a single network.
    pub fn log_key(&self) -> Option<Digest> {
        let widest = self.searched.widest();
        self.searched.networks.searched().next()?;
        match self.settings.algorithm {
            Algorithm::Mixture | Algorithm::Gradient => Some(self.supernet_key((widest, alpha::LOSS))),
            // Which latencies are covered depends on the cost, but not on any limit.
            Algorithm::Oneshot => Some(self.supernet_key((&widest.first()?.cost.polynomial, oneshot::PATHS))),
            Algorithm::Surrogate | Algorithm::Random | Algorithm::Evolution => None,
        }
    }

    /// Returns the key of what is found out about networks within `limits`.
    pub fn candidates_key(&self, limits: &Limits) -> Digest {
        self.key((limits, trials::LOSS))
    }

    fn epochs(&self, key: Digest) -> Epochs<'_> {
        Epochs {
            stage: "search",
            name: self.searched.networks.space.name.clone(),
            batches: self.train_batches(),
            augment: self.augment,
            seed: self.settings.seed,
            epochs: self.settings.epochs.get(),
            until: self.settings.epochs.get(),
            learning_rate: self.settings.learning_rate.get(),
            log: self.unfinished.log(&key),
            checkpoint: Checkpoint { path: self.unfinished.checkpoint(&key), key },
        }
    }

    fn sgd(&self, net: &Supernet) -> Sgd {
        let decay = |role| decay_of(role, self.settings.weight_decay);
        let params = net.params().map(|(name, param, tensor)| (name.to_string(), tensor, decay(param.role)));
        Sgd::new(params, self.settings.momentum.get())
    }
}
