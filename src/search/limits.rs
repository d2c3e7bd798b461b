use super::check::unreachable;
use super::{Constraint, Nearest, SearchError, best_of, check, nearest_below, scores_of};
use crate::artifact::Digest;
use crate::bounded::Share;
use crate::space::Networks;
use rand::Rng;
use serde::Serialize;

/// What a network may cost, and how much of the first limit it should use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// The constraints. The band is below the target of the first one.
    pub constraints: Vec<Constraint>,
    /// By how much the first cost may be below its target, as a share.
    pub band: Share,
}

/// One target of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// A name such as `1.2ms`. If a search has several goals, each has a folder of this name.
    pub name: String,
    pub limits: Limits,
}

/// A network that a search proposes.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub choices: Vec<usize>,
    /// The larger the better.
    pub score: f64,
}

/// What is searched, and for which goals.
#[derive(Clone, Debug)]
pub struct Searched {
    pub networks: Networks,
    /// At least one.
    pub goals: Vec<Goal>,
    /// Digests of the latency tables behind the limits, that of the first constraint first.
    pub tables: Vec<Digest>,
    /// For each of these tables, how it differs from the device's own, where that was allowed.
    pub foreign: Vec<Option<String>>,
}

impl Searched {
    /// Returns the goal with the largest target, whose limits the most networks are within.
    pub fn widest_goal(&self) -> Option<&Goal> {
        let first = |goal: &&Goal| goal.limits.constraints.first().map_or(0.0, |c| c.limit);
        self.goals.iter().max_by(|a, b| first(a).total_cmp(&first(b)))
    }

    /// Returns the limits of the largest target.
    pub fn widest(&self) -> &[Constraint] {
        self.widest_goal().map_or(&[], |goal| &goal.limits.constraints)
    }
}

/// If the margin is as wide as the band, the band is widened to exceed it by this share.
const LEAST_BAND: f64 = 0.02;

/// How many random networks are tried before one is derived.
const DRAWS: usize = 20_000;

impl Limits {
    /// Creates limits whose band is wide enough to contain a network, and wider than the margin of the first limit.
    /// Logs a warning if the band is wider than asked for.
    ///
    /// # Errors
    /// [`SearchError::Unreachable`] if no network is within all constraints.
    pub fn new(networks: &Networks, constraints: Vec<Constraint>, band: Share) -> Result<Limits, SearchError> {
        check(networks, &constraints)?;
        let mut limits = Limits { constraints, band };
        let Some(first) = limits.constraints.first() else { return Ok(limits) };
        let target = first.target;
        let margin = (1.0 - first.limit / target).max(0.0);
        if margin >= band.get() {
            limits.band = share(margin + LEAST_BAND);
            log::warn!(
                "predictions are uncertain, so they must be {:.1} % below {first}: the band is widened to {:.1} %",
                100.0 * margin,
                100.0 * limits.band.get()
            );
        }
        let nearest = limits.nearest_below(networks).ok_or_else(|| unreachable(networks, &limits.constraints))?;
        let first = &limits.constraints[0];
        let value = first.value(&nearest.choices);
        if value < limits.low() {
            log::warn!(
                "no network lies within {:.1} % below {first}: the nearest one has {}, and the band goes to {:.1} % below that",
                100.0 * limits.band.get(),
                first.cost.show(value),
                100.0 * band.get()
            );
            limits.band = share(1.0 - (1.0 - band.get()) * value / target);
        }
        Ok(limits)
    }

    /// Returns the lower edge of the band.
    fn low(&self) -> f64 {
        let target = self.constraints.first().map_or(f64::NEG_INFINITY, |first| first.target);
        (1.0 - self.band.get()) * target
    }

    /// Returns whether a network without a `zero` is within all limits and in the band.
    pub fn allow(&self, choices: &[usize]) -> bool {
        let values: Vec<f64> = self.constraints.iter().map(|c| c.value(choices)).collect();
        let within = self.constraints.iter().zip(&values).all(|(c, value)| *value <= c.limit);
        within && values.first().is_none_or(|value| *value >= self.low())
    }

    /// Returns the `n` networks with the largest summed scores within all limits and in the band, best first, and fewer
    /// if there are no more. The result is exact, and no network contains a `zero`. `scores[l][i]` is the score of
    /// choice i of layer l.
    ///
    /// # Errors
    /// [`SearchError::Unreachable`] if there is no such network.
    pub fn best(&self, networks: &Networks, scores: &[Vec<f64>], n: usize) -> Result<Vec<Vec<usize>>, SearchError> {
        let live = scores_of(networks, |layer, choice| scores[layer][choice]);
        let best = best_of(&live, &self.constraints, self.low(), n);
        if best.is_empty() { Err(unreachable(networks, &self.constraints)) } else { Ok(best) }
    }

    /// Returns a random network within all limits and in the band. All such networks are equally likely, unless they
    /// are so rare that one is derived from random scores.
    ///
    /// # Errors
    /// [`SearchError::Unreachable`] if there is no such network.
    pub fn sample(&self, networks: &Networks, rng: &mut impl Rng) -> Result<Vec<usize>, SearchError> {
        let live = networks.all_live();
        for _ in 0..DRAWS {
            let drawn: Vec<usize> = live.iter().map(|choices| choices[rng.random_range(0..choices.len())]).collect();
            if self.allow(&drawn) {
                return Ok(drawn);
            }
        }
        let scores: Vec<Vec<f64>> =
            networks.choices().iter().map(|choices| choices.iter().map(|_| rng.random()).collect()).collect();
        Ok(self.best(networks, &scores, 1)?.swap_remove(0))
    }

    /// Returns the network that uses the most of the first limit; see [`nearest_below`].
    pub fn nearest_below(&self, networks: &Networks) -> Option<Nearest> {
        nearest_below(&networks.all_live(), &self.constraints)
    }
}

/// Widens a share by less than any difference between costs, so that rounding keeps networks on its edge.
fn share(wanted: f64) -> Share {
    Share::new((wanted + 1e-12).clamp(0.0, 1.0)).unwrap_or(Share::of(1.0))
}
