//! Gradient-free search among networks that are costly to score.

use super::{Candidate, Limits, SearchError, scores_of};
use crate::model::Polynomial;
use crate::space::Networks;
use nalgebra::{DMatrix, DVector};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::HashSet;

/// Networks with their scores, in the order in which they were scored.
struct Scored<S> {
    score: S,
    found: Vec<Candidate>,
    known: HashSet<Vec<usize>>,
}

impl<E, S: FnMut(&[usize]) -> Result<f64, E>> Scored<S> {
    fn new(score: S) -> Self {
        Scored { score, found: vec![], known: HashSet::new() }
    }

    /// Scores a network unless it is known. Returns whether it was new.
    fn add(&mut self, choices: &[usize]) -> Result<bool, E> {
        if self.known.contains(choices) {
            return Ok(false);
        }
        let score = (self.score)(choices)?;
        self.known.insert(choices.to_vec());
        self.found.push(Candidate { choices: choices.to_vec(), score });
        Ok(true)
    }

    /// Adds networks that `draw` returns until `number` are known, or until so many tries in a row were futile that there
    /// seem to be no others. `draw` is given the networks so far.
    fn add_until(
        &mut self,
        number: usize,
        mut draw: impl FnMut(&[Candidate]) -> Result<Option<Vec<usize>>, E>,
    ) -> Result<(), E> {
        let mut tries = 0;
        while self.found.len() < number && tries < MOST_TRIES {
            let new = match draw(&self.found)? {
                Some(choices) => self.add(&choices)?,
                None => false,
            };
            tries = if new { 0 } else { tries + 1 };
        }
        Ok(())
    }

    fn best_first(&self) -> Vec<Candidate> {
        let mut best = self.found.clone();
        best.sort_by(|a, b| b.score.total_cmp(&a.score));
        best
    }
}

/// The most changes that [`near`] tries, for each layer that has several choices.
const MOST_CHANGES: usize = 16;

/// Returns a random network whose cost is within `tolerance` of `wanted`, or about as near. Its choices are drawn evenly,
/// and then changed one by one, at random, where that brings the cost nearer. Without the changes, nearly all networks
/// would have a medium cost. `choices[l]` are the choices that layer l may hold.
pub fn near(
    cost: &Polynomial,
    choices: &[Vec<usize>],
    (wanted, tolerance): (f64, f64),
    rng: &mut impl Rng,
) -> Vec<usize> {
    let mut path: Vec<usize> = choices.iter().map(|of_layer| *of_layer.choose(rng).unwrap_or(&0)).collect();
    let several: Vec<usize> = (0..choices.len()).filter(|&layer| choices[layer].len() > 1).collect();
    let distance = |path: &[usize]| (cost.value(path, 0) - wanted).abs();
    let mut nearest = distance(&path);
    for _ in 0..MOST_CHANGES * several.len() {
        if nearest <= tolerance {
            break;
        }
        let layer = several[rng.random_range(0..several.len())];
        let old = std::mem::replace(&mut path[layer], choices[layer][rng.random_range(0..choices[layer].len())]);
        let found = distance(&path);
        if found < nearest {
            nearest = found;
        } else {
            path[layer] = old;
        }
    }
    path
}

/// Rounds in which networks are proposed, after the first, random ones.
const ROUNDS: usize = 4;
/// Share of the networks that are random.
const RANDOM_SHARE: f64 = 0.4;

/// Futile tries after which a small space is taken to have no other networks.
const MOST_TRIES: usize = 200;

/// Scores `number` networks within `limits` and returns them, best first. The first ones are random. Then, in each
/// round, half of the networks are the best ones by a model of the scores so far ([`fitted`]), chosen exactly, and the
/// rest are mutations of the best so far.
///
/// # Errors
/// Fails if no network is within the limits, or if a network cannot be scored.
pub fn propose<E: From<SearchError>>(
    networks: &Networks,
    limits: &Limits,
    number: usize,
    rng: &mut impl Rng,
    score: impl FnMut(&[usize]) -> Result<f64, E>,
) -> Result<Vec<Candidate>, E> {
    let mut scored = Scored::new(score);
    let random = (number as f64 * RANDOM_SHARE).ceil() as usize;
    add_random(networks, limits, random, rng, &mut scored)?;
    for round in 1..=ROUNDS {
        let until = random + (number - random) * round / ROUNDS;
        let wanted = until.saturating_sub(scored.found.len());
        if wanted == 0 {
            continue;
        }
        let model = fitted(networks, &scored.found);
        // The first of the best networks that are not known yet.
        let mut predicted = limits.best(networks, &model, scored.found.len() + wanted.div_ceil(2))?;
        predicted.retain(|choices| !scored.known.contains(choices));
        for choices in predicted.iter().take(wanted.div_ceil(2)) {
            scored.add(choices)?;
        }
        let parents: Vec<Vec<usize>> =
            scored.best_first().into_iter().take(wanted.max(2)).map(|parent| parent.choices).collect();
        scored
            .add_until(until, |_| Ok(parents.choose(rng).and_then(|parent| mutated(networks, limits, parent, rng))))?;
    }
    Ok(scored.best_first())
}

/// The number of networks that are drawn from the population. The best of them becomes the parent.
const TOURNAMENT: usize = 5;
/// Share of the networks that are random. It is also the size of the population.
const FIRST_SHARE: f64 = 0.3;

/// Scores `number` networks within `limits` and returns them, best first. The first ones are random. Each other one is
/// a mutation of the best of a few networks that are drawn from the youngest (regularised evolution, Real et al. 2019,
/// arXiv 1802.01548).
///
/// # Errors
/// Same as [`propose`].
pub fn evolve<E: From<SearchError>>(
    networks: &Networks,
    limits: &Limits,
    number: usize,
    rng: &mut impl Rng,
    score: impl FnMut(&[usize]) -> Result<f64, E>,
) -> Result<Vec<Candidate>, E> {
    let mut scored = Scored::new(score);
    let population = ((number as f64 * FIRST_SHARE).ceil() as usize).max(2);
    add_random(networks, limits, population.min(number), rng, &mut scored)?;
    scored.add_until(number, |found| {
        let young = &found[found.len().saturating_sub(population)..];
        let drawn = (0..TOURNAMENT).filter_map(|_| young.choose(rng));
        let parent = drawn.max_by(|a, b| a.score.total_cmp(&b.score));
        Ok(parent.and_then(|parent| mutated(networks, limits, &parent.choices, rng)))
    })?;
    Ok(scored.best_first())
}

/// Scores `number` random networks within `limits`, or all that exist, and returns them, best first.
///
/// # Errors
/// Same as [`propose`].
pub fn sample<E: From<SearchError>>(
    networks: &Networks,
    limits: &Limits,
    number: usize,
    rng: &mut impl Rng,
    score: impl FnMut(&[usize]) -> Result<f64, E>,
) -> Result<Vec<Candidate>, E> {
    let mut scored = Scored::new(score);
    add_random(networks, limits, number, rng, &mut scored)?;
    Ok(scored.best_first())
}

/// Adds `number` different random networks, or all that exist.
fn add_random<E: From<SearchError>, S: FnMut(&[usize]) -> Result<f64, E>>(
    networks: &Networks,
    limits: &Limits,
    number: usize,
    rng: &mut impl Rng,
    scored: &mut Scored<S>,
) -> Result<(), E> {
    scored.add_until(number, |_| Ok(Some(limits.sample(networks, rng)?)))
}

/// Returns a network within the limits that differs from its parent in one to three layers, or `None` if none was
/// found.
fn mutated(networks: &Networks, limits: &Limits, parent: &[usize], rng: &mut impl Rng) -> Option<Vec<usize>> {
    let searched: Vec<usize> = networks.searched().collect();
    for _ in 0..MOST_TRIES {
        let mut child = parent.to_vec();
        for _ in 0..rng.random_range(1..=3) {
            let layer = *searched.choose(rng)?;
            child[layer] = *networks.live(layer).choose(rng)?;
        }
        if child != parent && limits.allow(&child) {
            return Some(child);
        }
    }
    None
}

/// Strength of the ridge that shrinks each effect towards 0, as a number of networks that contain the choice.
const RIDGE: f64 = 1.0;

/// Returns the effect of each choice on the score, by layer, from least squares with a ridge. The predicted score of a
/// network is the sum of its effects. A choice that no network contains gets its layer's share of the mean score.
/// Networks whose score is not finite, since their training diverged, are left out.
pub fn fitted(networks: &Networks, found: &[Candidate]) -> Vec<Vec<f64>> {
    let found: Vec<&Candidate> = found.iter().filter(|candidate| candidate.score.is_finite()).collect();
    let mean = found.iter().map(|candidate| candidate.score).sum::<f64>() / found.len().max(1) as f64;
    let mut starts = vec![0];
    for choices in networks.choices() {
        starts.push(starts[starts.len() - 1] + choices.len());
    }
    let unknowns = starts[networks.len()];
    let mut x = DMatrix::<f64>::zeros(found.len(), unknowns);
    for (row, candidate) in found.iter().enumerate() {
        candidate.choices.iter().zip(&starts).for_each(|(choice, start)| x[(row, start + choice)] = 1.0);
    }
    let y = DVector::from_iterator(found.len(), found.iter().map(|candidate| candidate.score - mean));
    let normal = x.tr_mul(&x) + DMatrix::identity(unknowns, unknowns) * RIDGE;
    // With a ridge, the matrix is positive definite.
    let solved = normal.cholesky().map(|cholesky| cholesky.solve(&x.tr_mul(&y)));
    let value = |index: usize| solved.as_ref().map_or(0.0, |solved| solved[index]);
    let share = mean / networks.len() as f64;
    scores_of(networks, |layer, choice| share + value(starts[layer] + choice))
}
