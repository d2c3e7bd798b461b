//! What is found out about single networks, with the weights of a supernet and by short training runs from scratch.

use super::{Component, Search};
use crate::artifact::{self, Digest};
use crate::data::{Augment, Batches};
use crate::record::CandidateRow;
use crate::search::Candidate;
use crate::space::{Genotype, Network};
use crate::train::fit::Recipe;
use crate::train::student::Shown;
use crate::train::{Deferred, Norm, Supernet, TrainError, interrupted};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

/// Images per batch when a network is scored.
const SCORED_BATCH: usize = 256;

/// How networks are compared. What a search that compares them otherwise has found out is not read.
pub(super) const LOSS: &str = "loss of the last epoch; whitened start; calibrated on shuffled images";

/// The number of images from which the statistics of batch norm are computed.
const CALIBRATION_IMAGES: usize = 1024;

/// Everything that was found out about networks so far, stored in a file so that a search can resume.
pub(super) struct Trials<'a> {
    search: &'a Search<'a>,
    path: PathBuf,
    rows: Vec<CandidateRow>,
    /// The index of a network's row, by its choices and the number of epochs it was trained for.
    known: HashMap<(Vec<String>, usize), usize>,
    /// A signal ends the search between two networks, or at a step of a training.
    _deferred: Deferred,
}

impl<'a> Trials<'a> {
    /// Reads what was found out before, if anything.
    ///
    /// # Errors
    /// Fails if the file is damaged.
    pub fn open(search: &'a Search<'a>, key: Digest) -> Result<Trials<'a>, TrainError> {
        let path = search.unfinished.candidates(&key);
        let rows: Vec<CandidateRow> = artifact::read_lines(&path)?;
        artifact::write_lines(&path, &rows)?;
        let known = rows.iter().enumerate().map(|(i, row)| ((row.ops.clone(), row.epochs), i)).collect();
        Ok(Trials { search, path, rows, known, _deferred: Deferred::new() })
    }

    /// Returns all rows in the order in which they were found, and removes the checkpoints of the short training runs.
    ///
    /// # Errors
    /// [`TrainError::AllDiverged`] if there were short training runs, and all of them diverged.
    pub fn close(self) -> Result<Vec<CandidateRow>, TrainError> {
        let mut trained = self.rows.iter().filter(|row| row.epochs > 0).peekable();
        if trained.peek().is_some() && trained.all(|row| row.loss.is_none()) {
            return Err(self.diverged());
        }
        let unfinished = self.search.unfinished.trial();
        for row in self.rows.iter().filter(|row| row.epochs > 0) {
            let key = self.key(&row.ops);
            for path in [unfinished.checkpoint(&key), unfinished.log(&key)] {
                // These files take space and are not used again.
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(self.rows)
    }

    fn diverged(&self) -> TrainError {
        TrainError::AllDiverged { learning_rate: self.search.settings.learning_rate.get() }
    }

    /// Returns the key of the short training of a network.
    fn key(&self, ops: &[String]) -> Digest {
        self.search.key((ops, self.search.settings.trial(), "trial"))
    }

    /// Returns the score of a network with the weights of the supernet: minus its cross-entropy on held-out images.
    ///
    /// # Errors
    /// Fails if the search is interrupted, or if a file cannot be written.
    pub fn score(&mut self, supernet: &Supernet, choices: &[usize]) -> Result<f64, TrainError> {
        let search = self.search;
        let row = self.row(self.genotype(choices).names(), 0, |ops| {
            let size = SCORED_BATCH.try_into().unwrap_or(std::num::NonZeroUsize::MIN);
            // A data set may be sorted by class, and the statistics of a batch are to be those of all classes.
            let shuffled =
                |batches: Batches<'a>| Batches { size, ..batches }.epoch(search.settings.seed, 0, Augment::default());
            let (train, held_out) = (shuffled(search.train_batches()), shuffled(search.held_out_batches()));
            let path = supernet.path(choices);
            let seen = if search.settings.components.has(Component::Recalibration) {
                path.calibrate(train.iter().take(CALIBRATION_IMAGES.div_ceil(SCORED_BATCH)));
                path.evaluate(held_out.iter(), Norm::Running)
            } else {
                path.evaluate(held_out.iter(), Norm::Batch)
            };
            let loss = seen.mean_loss().unwrap_or(f64::INFINITY);
            if !loss.is_finite() {
                let (epoch, learning_rate) = (search.settings.epochs.get(), search.settings.learning_rate.get());
                return Err(TrainError::Diverged { epoch, loss, learning_rate });
            }
            Ok(CandidateRow { ops, epochs: 0, loss: Some(loss), accuracy: seen.accuracy(), seconds: 0.0 })
        })?;
        Ok(row.score())
    }

    /// Trains a network from scratch up to an epoch of the short training, and returns its score: minus the training loss
    /// in the last epoch (TSE-E with E = 1; Ru et al. 2021, arXiv 2006.04492), or minus infinity if it diverges.
    /// docs/search.md compares it with the mean over all epochs.
    ///
    /// # Errors
    /// Fails if the training fails.
    pub fn train(&mut self, choices: &[usize], epochs: usize) -> Result<f64, TrainError> {
        let search = self.search;
        let genotype = self.genotype(choices);
        let ops = genotype.names();
        let (key, name) = (self.key(&ops), format!("network {}", self.rows.len() + 1));
        let row = self.row(ops, epochs, |ops| {
            let network = Network::Genotype(genotype);
            let settings = search.settings.trial();
            let recipe = Recipe {
                stage: "search",
                name,
                batches: search.train_batches(),
                shown: Shown::HeldOut { images: search.held_out_batches(), test: None, best: None },
                augment: search.augment,
                settings: &settings,
                teacher: None,
                placement: search.placement,
                until: epochs,
            };
            let log = match recipe.train(&network, &search.unfinished.trial(), key) {
                Ok((_, log)) => log,
                // Others may learn, so the search continues without this network.
                Err(TrainError::Diverged { .. }) => vec![],
                Err(error) => return Err(error),
            };
            // A search with other limits may have trained this network for longer.
            let last = log.get(epochs - 1);
            let loss = last.map(|epoch| epoch.train_loss);
            let accuracy = last.and_then(|epoch| epoch.held_out_accuracy);
            Ok(CandidateRow { ops, epochs, loss, accuracy, seconds: 0.0 })
        })?;
        Ok(row.score())
    }

    /// Compares candidates by successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): all of them are trained
    /// for one epoch, the better half for as many epochs again, and so on until the short training ends. Returns them
    /// best first, without those that diverged; those that were trained longer come before the others.
    ///
    /// # Errors
    /// [`TrainError::AllDiverged`] if all that were trained longest diverged. Also fails if a training fails.
    pub fn race(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, TrainError> {
        let (last, mut behind) = (self.search.settings.trial_epochs.get(), vec![]);
        let mut racing: Vec<(f64, Candidate)> = candidates.into_iter().map(|candidate| (0.0, candidate)).collect();
        for epochs in rungs(last) {
            if racing.len() < 2 {
                break;
            }
            for (score, candidate) in &mut racing {
                *score = self.train(&candidate.choices, epochs)?;
            }
            racing.retain(|(score, _)| *score > f64::NEG_INFINITY);
            if racing.is_empty() {
                return Err(self.diverged());
            }
            racing.sort_by(|a, b| b.0.total_cmp(&a.0));
            if epochs < last {
                let out = racing.split_off(racing.len().div_ceil(2));
                behind.splice(0..0, out);
            }
        }
        racing.extend(behind);
        Ok(racing.into_iter().map(|(_, candidate)| candidate).collect())
    }

    fn genotype(&self, choices: &[usize]) -> Genotype {
        Genotype::new(self.search.searched.networks.clone(), choices.to_vec())
    }

    /// Returns what is known about a network. If nothing is known, calls `find` and stores the result.
    fn row(
        &mut self,
        ops: Vec<String>,
        epochs: usize,
        find: impl FnOnce(Vec<String>) -> Result<CandidateRow, TrainError>,
    ) -> Result<&CandidateRow, TrainError> {
        let key = (ops, epochs);
        if let Some(&known) = self.known.get(&key) {
            return Ok(&self.rows[known]);
        }
        if interrupted() {
            return Err(TrainError::Stopped { networks: self.rows.len() });
        }
        let start = Instant::now();
        let mut row = find(key.0.clone())?;
        row.seconds = start.elapsed().as_secs_f64();
        artifact::append_line(&self.path, &row)?;
        self.known.insert(key, self.rows.len());
        self.rows.push(row);
        Ok(&self.rows[self.rows.len() - 1])
    }
}

/// Returns the epochs at which candidates are compared: 1, 2, 4 and so on, and the last.
fn rungs(last: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |epochs| Some(2 * epochs));
    doubled.take_while(|epochs| *epochs < last).chain([last]).collect()
}
