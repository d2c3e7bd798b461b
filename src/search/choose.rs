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
    let possible = |layer: usize, partial: &Partial| {
        let least = partial.costs.iter().zip(&rest).map(|(cost, rest)| cost + rest[layer + 1]);
        least.zip(&limits).all(|(least, limit)| least <= *limit)
    };
    let complete = grow(&costs, scores, possible);
    let within = |partial: &&Partial| partial.costs.iter().zip(&limits).all(|(cost, limit)| cost <= limit);
    let cheaper = |a: &Partial, b: &Partial| b.costs.first().partial_cmp(&a.costs.first());
    let best = complete.iter().filter(within).max_by(|a, b| {
        a.score.total_cmp(&b.score).then_with(|| cheaper(a, b).unwrap_or(std::cmp::Ordering::Equal))
    });
    best.map(|best| best.choices.clone())
}

/// The cost of the cheapest and of the dearest network, `choices[l]` being those that layer l may hold. None where a
/// layer may hold none.
pub fn range(cost: &Polynomial, choices: &[Vec<usize>]) -> Option<(f64, f64)> {
    let scores = |choices: &Vec<usize>| {
        let all = choices.iter().max().map_or(0, |max| max + 1);
        (0..all).map(|i| if choices.contains(&i) { 0.0 } else { f64::NEG_INFINITY }).collect()
    };
    let scores: Vec<Vec<f64>> = choices.iter().map(scores).collect();
    let least = |cost: &Polynomial| {
        grow(&[cost], &scores, |_, _| true).iter().map(|partial| partial.costs[0]).reduce(f64::min)
    };
    let negative = cost.monomials().iter().map(|m| (m.holds.clone(), -m.coefficient));
    let (cheapest, dearest) = (least(cost)?, -least(&Polynomial::sum(negative))?);
    Some((cheapest.max(cost.floor()), dearest.max(cost.floor())))
}

/// All complete networks, less those that are not `possible` within the limits, and those that another one beats.
fn grow(
    costs: &[&Polynomial],
    scores: &[Vec<f64>],
    possible: impl Fn(usize, &Partial) -> bool,
) -> Vec<Partial> {
    let first =
        Partial { costs: costs.iter().map(|cost| cost.base()).collect(), score: 0.0, choices: vec![] };
    let mut fronts = Fronts::from([(vec![], vec![first])]);
    for (layer, scores) in scores.iter().enumerate() {
        let mut grown = Fronts::new();
        for (begun, front) in &fronts {
            for (choice, score) in scores.iter().enumerate().filter(|(_, s)| **s > f64::NEG_INFINITY) {
                let (added, begun) = step(costs, begun, layer, choice);
                let grow = |p: &Partial| Partial {
                    costs: p.costs.iter().zip(&added).map(|(cost, added)| cost + added).collect(),
                    score: p.score + score,
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
        // The last ones that were kept have the best scores so far.
        if !kept.iter().rev().any(beats) {
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
        let decided = |m: &&Monomial| m.holds.last().is_some_and(|(l, _)| *l == layer);
        let shared = cost.monomials().iter().filter(decided).filter(|m| m.holds.len() > 1);
        let choices = (0..scores[layer].len()).filter(|&choice| scores[layer][choice] > f64::NEG_INFINITY);
        let least = choices.map(|choice| cost.row((layer, choice))).reduce(f64::min).unwrap_or(0.0);
        rest[layer] = rest[layer + 1] + least + shared.map(|m| m.coefficient.min(0.0)).sum::<f64>();
    }
    rest
}
