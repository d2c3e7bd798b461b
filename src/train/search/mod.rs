//! Searching: training a supernet by one of the algorithms, and proposing networks within some limits.

mod alpha;
mod oneshot;
mod settings;
mod trials;

pub use settings::{Algorithm, Component, Components, SearchSettings};

use super::{At, Checkpoint, Epochs, Placement, Sgd, Supernet, TrainError};
use crate::artifact::Digest;
use crate::data::{Augment, Batches, Data, Normalisation, split};
use crate::record::{CandidateRow, Floats, RunDir, SearchEpoch, Unfinished};
use crate::search::{Candidate, Constraint, Limits, evolve, propose};
use crate::space::Networks;
use alpha::Alpha;
use nas_exporters::Role;
use oneshot::Oneshot;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use trials::Trials;

/// A search of the networks of a space, on the training images of a data set: most train weights, and the rest are held
/// out to choose by.
pub struct Search<'a> {
    networks: &'a Networks,
    /// What the networks cost, by the limits of the first goal.
    constraints: &'a [Constraint],
    data: &'a Data,
    settings: &'a SearchSettings,
    /// In what the latency table differs from the device's own, where that was allowed.
    foreign: Option<String>,
    augment: Augment,
    train: Vec<usize>,
    held_out: Vec<usize>,
    normalisation: Normalisation,
    unfinished: Unfinished,
    /// What convolutions are trained in.
    floats: Floats,
}

/// What the first part of a search gives.
pub struct TrainedSupernet {
    pub log: Vec<SearchEpoch>,
    scores: Scores,
}

/// What candidates are scored by before any is trained from scratch.
enum Scores {
    /// By layer, the log-probability of each choice.
    Alpha(Vec<Vec<f64>>),
    /// The accuracy of a network with the weights of the supernet.
    Weights(Supernet),
    /// Nothing.
    None,
}

/// The random numbers of a step.
fn rng(seed: u64, at: At) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((at.epoch as u64) << 32) + at.step as u64);
    rng
}

impl<'a> Search<'a> {
    /// # Errors
    /// Where the settings do not fit the data.
    pub fn new(
        networks: &'a Networks,
        constraints: &'a [Constraint],
        foreign: Option<String>,
        data: &'a Data,
        settings: &'a SearchSettings,
        run: &RunDir,
    ) -> Result<Search<'a>, TrainError> {
        settings.check()?;
        let augment = settings.augment(data)?;
        let all: Vec<usize> = (0..data.train.len()).collect();
        let (train, held_out) = split(&data.train, &all, settings.held_out.get(), settings.seed)?;
        let normalisation = Normalisation::of(&data.train, &train)?;
        let unfinished = run.unfinished();
        super::fix(settings.threads, settings.seed);
        let decided = unfinished.arithmetic(&Digest::of(&(networks.space.clone(), settings, data.fingerprint())));
        let floats = settings.arithmetic.resolve(&decided)?;
        Ok(Search {
            networks,
            constraints,
            data,
            settings,
            foreign,
            augment,
            train,
            held_out,
            normalisation,
            unfinished,
            floats,
        })
    }

    /// Trains the supernet, where the algorithm has one. Resumes from a checkpoint of the same settings and data; the
    /// constraints are part of these only where the loss has them.
    ///
    /// # Errors
    /// Where the loss is no longer finite, or a file cannot be written.
    pub fn train(&self) -> Result<TrainedSupernet, TrainError> {
        let settings = self.settings;
        super::fix(settings.threads, settings.seed);
        let (log, scores) = match settings.algorithm {
            Algorithm::Mixture | Algorithm::Gradient => {
                let supernet = Supernet::new(self.networks, self.placement(), false);
                let mut task = Alpha::new(self, supernet);
                let log = self.epochs(self.constraints).run(&mut task)?;
                task.warn_undecided();
                (log, Scores::Alpha(task.log_probabilities()))
            }
            Algorithm::Oneshot => {
                let sharing = settings.components.has(Component::Sharing);
                let supernet = Supernet::new(self.networks, self.placement(), sharing);
                let mut task = Oneshot::new(self, supernet);
                // Which latencies are covered depends on the cost, and on no limit.
                let costs: Vec<_> = self.constraints.iter().map(|constraint| &constraint.cost.polynomial).collect();
                let log = self.epochs(&costs[..1]).run(&mut task)?;
                (log, Scores::Weights(task.supernet()))
            }
            Algorithm::Random | Algorithm::Evolution => (vec![], Scores::None),
        };
        Ok(TrainedSupernet { log, scores })
    }

    /// The best networks within `limits` that the search finds, best first, and what it found out about each network.
    ///
    /// # Errors
    /// Where no network is within the limits, or a training fails.
    pub fn candidates(
        &self,
        trained: &TrainedSupernet,
        limits: &Limits,
    ) -> Result<(Vec<Candidate>, Vec<CandidateRow>), TrainError> {
        let settings = self.settings;
        let key = Digest::of(&(self.key(limits), trained.log.len()));
        let mut trials = Trials::open(self, key)?;
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let (number, finalists) = (settings.candidates.get(), settings.finalists.get());
        let sample = |rng: &mut ChaCha8Rng| limits.sample(self.networks, rng);
        let mut proposed: Vec<Candidate> = match (&trained.scores, settings.algorithm) {
            (Scores::Alpha(scores), _) => {
                let score = |choices: &[usize]| choices.iter().zip(scores).map(|(&i, scores)| scores[i]).sum();
                let best = limits.best(self.networks, scores, finalists)?;
                best.into_iter().map(|choices| Candidate { score: score(&choices), choices }).collect()
            }
            (Scores::Weights(supernet), _) => {
                let score = |choices: &[usize]| trials.score(supernet, choices);
                propose(self.networks, limits, number, &mut rng, score)?
            }
            (Scores::None, Algorithm::Evolution) => {
                evolve(self.networks, limits, number, &mut rng, |choices| trials.train(choices, 1))?
            }
            (Scores::None, _) => {
                let choices = (0..number).map(|_| sample(&mut rng)).collect::<Result<Vec<_>, _>>()?;
                choices.into_iter().map(|choices| Candidate { choices, score: 0.0 }).collect()
            }
        };
        // Random search has no scores, and trains all of its networks.
        if settings.algorithm != Algorithm::Random {
            proposed.truncate(finalists);
        }
        if settings.components.has(Component::Reranking) {
            proposed = trials.race(proposed)?;
        }
        Ok((proposed, trials.close()))
    }

    fn placement(&self) -> Placement {
        Placement { floats: self.floats, ..Placement::default() }
    }

    fn train_batches(&self) -> Batches<'_> {
        let size = self.settings.batch_size.into();
        Batches { dataset: &self.data.train, indices: &self.train, normalisation: &self.normalisation, size }
    }

    fn held_out_batches(&self) -> Batches<'_> {
        Batches { indices: &self.held_out, ..self.train_batches() }
    }

    /// Identifies all that a result depends on, with what it depends on besides the settings and the data.
    fn key(&self, on: impl serde::Serialize) -> Digest {
        let Networks { space, input, classes, .. } = self.networks;
        Digest::of(&(space, input, classes, on, self.settings, self.data.fingerprint()))
    }

    fn epochs(&self, on: impl serde::Serialize) -> Epochs<'_> {
        let key = self.key(on);
        Epochs {
            stage: "search",
            name: self.networks.space.name.clone(),
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
        let decay = |role| if role == Role::Weight { self.settings.weight_decay.get() } else { 0.0 };
        let params = net.params().map(|(name, param, tensor)| (name.to_string(), tensor, decay(param.role)));
        Sgd::new(params, self.settings.momentum.get())
    }
}
