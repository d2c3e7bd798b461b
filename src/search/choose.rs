//! The best network within some limits, exactly, whatever interactions the costs have.

use super::Constraint;
use crate::model::{Monomial, Polynomial};
use std::collections::BTreeMap;

/// The choices of the first layers of a network.
#[derive(Clone, Debug)]
struct Partial {
    /// By cost, the sum of the monomials that are decided.
    costs: Vec<f64>,
    score: f64,
    choices: Vec<usize>,
}

/// Partial networks by the monomials, each a cost and an index, that hold so far and are not decided yet: those of
/// one key cost the same to complete.
type Fronts = BTreeMap<Vec<(usize, usize)>, Vec<Partial>>;

/// The network of the largest summed score that is within all `constraints`; of those, the cheapest by the first
/// one. `scores[l][i]` is that of choice i of layer l; a choice whose score is minus infinity is never taken. None
/// where no network is within all.
pub fn best_within(scores: &[Vec<f64>], constraints: &[Constraint]) -> Option<Vec<usize>> {
    if constraints.iter().any(|c| c.cost.polynomial.floor() > c.limit) {
        return None;
    }
    let costs: Vec<&Polynomial> = constraints.iter().map(|c| &c.cost.polynomial).collect();
    let limits: Vec<f64> = constraints.iter().map(|c| c.limit).collect();
    let rest: Vec<Vec<f64>> = costs.iter().map(|cost| least_rest(cost, scores)).collect();
    let bounds: Vec<Bound> = constraints.iter().flat_map(|c| Bound::ladder(c, scores)).collect();
    let within = |choices: &[usize]| constraints.iter().all(|c| c.cost.polynomial.value(choices, 0) <= c.limit);
    let score = |choices: &[usize]| choices.iter().zip(scores).fold(0.0, |sum, (&i, scores)| sum + scores[i]);
    let found = bounds.iter().map(|bound| &bound.best).filter(|choices| within(choices));
    let found = found.map(|choices| score(choices)).fold(f64::NEG_INFINITY, f64::max);
    let possible = |layer: usize, partial: &Partial| {
        let cheap = |(cost, limit): (usize, &f64)| partial.costs[cost] + rest[cost][layer + 1] <= *limit;
        let per = bounds.len() / limits.len().max(1);
        let good = |(i, bound): (usize, &Bound)| bound.at_most(layer, partial, i / per.max(1)) >= found;
        limits.iter().enumerate().all(cheap) && bounds.iter().enumerate().all(good)
    };
    let complete = grow(&costs, scores, possible);
    let within = |partial: &&Partial| partial.costs.iter().zip(&limits).all(|(cost, limit)| cost <= limit);
    let cheaper = |a: &Partial, b: &Partial| b.costs.first().partial_cmp(&a.costs.first());
    let best = complete
        .iter()
        .filter(within)
        .max_by(|a, b| a.score.total_cmp(&b.score).then_with(|| cheaper(a, b).unwrap_or(std::cmp::Ordering::Equal)));
    best.map(|best| best.choices.clone())
}

/// The cheapest network, `choices[l]` being those that layer l may hold; with a `sign` of −1 the dearest. None where a
/// layer may hold none.
pub fn extreme(cost: &Polynomial, choices: &[Vec<usize>], sign: f64) -> Option<Vec<usize>> {
    let scores = |choices: &Vec<usize>| {
        let all = choices.iter().max().map_or(0, |max| max + 1);
        (0..all).map(|i| if choices.contains(&i) { 0.0 } else { f64::NEG_INFINITY }).collect()
    };
    let scores: Vec<Vec<f64>> = choices.iter().map(scores).collect();
    let signed = Polynomial::sum(cost.monomials().iter().map(|m| (m.holds.clone(), sign * m.coefficient)));
    let complete = grow(&[&signed], &scores, |_, _| true);
    let least = complete.into_iter().min_by(|a, b| a.costs[0].total_cmp(&b.costs[0]));
    least.map(|least| least.choices)
}

/// The cost of the cheapest and of the dearest network, as [`extreme`].
pub fn range(cost: &Polynomial, choices: &[Vec<usize>]) -> Option<(f64, f64)> {
    let value = |sign: f64| Some(cost.value(&extreme(cost, choices, sign)?, 0));
    value(1.0).zip(value(-1.0))
}

/// No network that completes a partial one within a limit has a larger score than this: its score plus that of
/// Lagrange's relaxation of the rest, max Σ (score − λ·cost) + λ·(what is left of the limit).
struct Bound {
    lambda: f64,
    limit: f64,
    /// By layer, the relaxation of that layer and those after it.
    rest: Vec<f64>,
    /// By layer, the choice with the largest score − λ·cost.
    best: Vec<usize>,
}

/// Multipliers of the ladder, from one step to the next.
const STEP: f64 = 1.5;
const STEPS: i32 = 24;

impl Bound {
    /// Bounds for multipliers around the one at which scores and costs weigh the same.
    fn ladder(constraint: &Constraint, scores: &[Vec<f64>]) -> Vec<Bound> {
        let Constraint { cost, limit } = constraint;
        let cost = &cost.polynomial;
        let spread = |of: &dyn Fn(usize, usize) -> f64| -> f64 {
            let layer = |layer: usize| {
                let values = finite(&scores[layer]).map(|choice| of(layer, choice));
                let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (v.min(l), v.max(h)));
                (high - low).max(0.0)
            };
            (0..scores.len()).map(layer).sum()
        };
        let even = spread(&|layer, choice| scores[layer][choice]) / spread(&|layer, choice| cost.row((layer, choice)));
        let even = if even.is_finite() { even } else { 0.0 };
        let ladder = (-STEPS / 2..STEPS / 2).map(|step| even * STEP.powi(step));
        ladder.map(|lambda| Bound::new(cost, *limit, scores, lambda)).collect()
    }

    fn new(cost: &Polynomial, limit: f64, scores: &[Vec<f64>], lambda: f64) -> Bound {
        let mut rest = vec![0.0; scores.len() + 1];
        let mut best = vec![0; scores.len()];
        for layer in (0..scores.len()).rev() {
            let value = |choice: usize| scores[layer][choice] - lambda * cost.row((layer, choice));
            let most = finite(&scores[layer]).max_by(|&a, &b| value(a).total_cmp(&value(b)));
            best[layer] = most.unwrap_or(0);
            rest[layer] = rest[layer + 1] + value(best[layer]) - lambda * least_shared(cost, layer);
        }
        Bound { lambda, limit, rest, best }
    }

    /// For the cost of that index; rounding must not make it too small.
    fn at_most(&self, layer: usize, partial: &Partial, cost: usize) -> f64 {
        let bound = partial.score + self.rest[layer + 1] + self.lambda * (self.limit - partial.costs[cost]);
        bound + 1e-9 * bound.abs() + 1e-9
    }
}

/// The choices that may be taken.
fn finite(scores: &[f64]) -> impl Iterator<Item = usize> + '_ {
    (0..scores.len()).filter(|&choice| scores[choice] > f64::NEG_INFINITY)
}

/// All complete networks, less those that are not `possible` within the limits, and those that another one beats.
fn grow(costs: &[&Polynomial], scores: &[Vec<f64>], possible: impl Fn(usize, &Partial) -> bool) -> Vec<Partial> {
    let first = Partial { costs: costs.iter().map(|cost| cost.base()).collect(), score: 0.0, choices: vec![] };
    let mut fronts = Fronts::from([(vec![], vec![first])]);
    for (layer, scores) in scores.iter().enumerate() {
        let mut grown = Fronts::new();
        for (begun, front) in &fronts {
            for choice in finite(scores) {
                let (added, begun) = step(costs, begun, layer, choice);
                let grow = |p: &Partial| Partial {
                    costs: p.costs.iter().zip(&added).map(|(cost, added)| cost + added).collect(),
                    score: p.score + scores[choice],
                    choices: [p.choices.as_slice(), &[choice]].concat(),
                };
                let partials = front.iter().map(grow).filter(|partial| possible(layer, partial));
                grown.entry(begun).or_default().extend(partials);
            }
        }
        grown.values_mut().for_each(keep_unbeaten);
        grown.retain(|_, front| !front.is_empty());
        fronts = grown;
    }
    fronts.into_values().flatten().collect()
}

/// Keeps the partial networks that no other one beats in every cost and in score.
fn keep_unbeaten(front: &mut Vec<Partial>) {
    let costs = |a: &Partial, b: &Partial| {
        let each = a.costs.iter().zip(&b.costs).map(|(a, b)| a.total_cmp(b));
        each.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    };
    front.sort_by(|a, b| costs(a, b).then(b.score.total_cmp(&a.score)));
    let mut kept: Vec<Partial> = vec![];
    for partial in front.drain(..) {
        let beats = |other: &Partial| {
            other.score >= partial.score && other.costs.iter().zip(&partial.costs).all(|(a, b)| a <= b)
        };
        // Of one cost, the last one that was kept has the best score so far.
        let beaten = match partial.costs.as_slice() {
            [_] => kept.last().is_some_and(beats),
            _ => kept.iter().rev().any(beats),
        };
        if !beaten {
            kept.push(partial);
        }
    }
    *front = kept;
}

/// By cost, what `choice` in `layer` decides and adds; and the monomials that are undecided after it.
fn step(
    costs: &[&Polynomial],
    begun: &[(usize, usize)],
    layer: usize,
    choice: usize,
) -> (Vec<f64>, Vec<(usize, usize)>) {
    let (mut added, mut next) = (vec![0.0; costs.len()], vec![]);
    for (c, cost) in costs.iter().enumerate() {
        for (i, m) in cost.monomials().iter().enumerate() {
            let Some((last, _)) = m.holds.last() else { continue };
            if m.holds[0].0 != layer && !begun.contains(&(c, i)) {
                continue;
            }
            match m.holds.iter().find(|(l, _)| *l == layer) {
                Some((_, set)) if !set.contains(&choice) => {}
                Some(_) if *last == layer => added[c] += m.coefficient,
                _ => next.push((c, i)),
            }
        }
    }
    (added, next)
}

/// By layer, no more than what that layer and those after it can add.
fn least_rest(cost: &Polynomial, scores: &[Vec<f64>]) -> Vec<f64> {
    let mut rest = vec![0.0; scores.len() + 1];
    for layer in (0..scores.len()).rev() {
        let least = finite(&scores[layer]).map(|choice| cost.row((layer, choice))).reduce(f64::min).unwrap_or(0.0);
        rest[layer] = rest[layer + 1] + least + least_shared(cost, layer);
    }
    rest
}

/// No more than what the monomials of several layers add that `layer` decides.
fn least_shared(cost: &Polynomial, layer: usize) -> f64 {
    let decided = |m: &&Monomial| m.holds.len() > 1 && m.holds.last().is_some_and(|(l, _)| *l == layer);
    cost.monomials().iter().filter(decided).map(|m| m.coefficient.min(0.0)).sum()
}
