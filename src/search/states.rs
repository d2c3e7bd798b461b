//! What is still missing from a partial network, as a graph of states.

use crate::model::Polynomial;
use std::collections::BTreeMap;

/// The states of partial networks, layer by layer. Partial networks in the same state have the same undecided
/// monomials, so completing them costs the same.
pub struct States {
    /// By cost, what all networks cost.
    pub base: Vec<f64>,
    /// `steps[l][s]` are the choices that layer l may hold after state s. There is one state before the first layer,
    /// and one after the last.
    pub steps: Vec<Vec<Vec<Step>>>,
}

/// A choice of a layer.
pub struct Step {
    pub choice: usize,
    pub score: f64,
    /// By cost, what the choice adds, including all monomials that it decides.
    pub added: Vec<f64>,
    /// The state after this choice.
    pub next: usize,
}

/// Monomials that hold so far but are not decided yet, each as the index of a cost and of a monomial.
type Begun = Vec<(usize, usize)>;

impl States {
    /// Creates the states. `scores[l][i]` is the score of choice i of layer l. A choice with a score of minus infinity
    /// is left out.
    pub fn new(costs: &[&Polynomial], scores: &[Vec<f64>]) -> States {
        let mut starts: Vec<Begun> = vec![vec![]; scores.len()];
        for (c, cost) in costs.iter().enumerate() {
            for (i, monomial) in cost.monomials().iter().enumerate() {
                if let Some((first, _)) = monomial.holds.first() {
                    starts[*first].push((c, i));
                }
            }
        }
        let mut begun: Vec<Begun> = vec![vec![]];
        let mut steps = vec![];
        for (layer, scores) in scores.iter().enumerate() {
            let mut next = BTreeMap::new();
            let mut step = |begun: &Begun, choice: usize| {
                let (added, after) = decide(costs, begun.iter().chain(&starts[layer]), layer, choice);
                let states = next.len();
                Step { choice, score: scores[choice], added, next: *next.entry(after).or_insert(states) }
            };
            let possible = || (0..scores.len()).filter(|&choice| scores[choice] > f64::NEG_INFINITY);
            steps.push(begun.iter().map(|begun| possible().map(|choice| step(begun, choice)).collect()).collect());
            begun = vec![vec![]; next.len()];
            next.into_iter().for_each(|(key, state)| begun[state] = key);
        }
        States { base: costs.iter().map(|cost| cost.base()).collect(), steps }
    }

    /// Returns, by layer and state, the largest sum of `weight` over the completions of a network, or minus infinity if
    /// there are none.
    pub fn most(&self, weight: impl Fn(&Step) -> f64) -> Vec<Vec<f64>> {
        let mut most = vec![vec![0.0]; self.steps.len() + 1];
        for (layer, states) in self.steps.iter().enumerate().rev() {
            let after = &most[layer + 1];
            let of = |steps: &Vec<Step>| {
                steps.iter().map(|step| weight(step) + after[step.next]).fold(f64::NEG_INFINITY, f64::max)
            };
            most[layer] = states.iter().map(of).collect();
        }
        most
    }
}

/// Returns, by cost, what `choice` in `layer` decides and adds, and the monomials that are undecided after it.
fn decide<'a>(
    costs: &[&Polynomial],
    open: impl Iterator<Item = &'a (usize, usize)>,
    layer: usize,
    choice: usize,
) -> (Vec<f64>, Begun) {
    let (mut added, mut next) = (vec![0.0; costs.len()], vec![]);
    for &(c, i) in open {
        let monomial = &costs[c].monomials()[i];
        let last = monomial.holds.last().is_some_and(|(last, _)| *last == layer);
        match monomial.holds.iter().find(|(l, _)| *l == layer) {
            Some((_, set)) if !set.contains(&choice) => {}
            Some(_) if last => added[c] += monomial.coefficient,
            _ => next.push((c, i)),
        }
    }
    next.sort_unstable();
    (added, next)
}
