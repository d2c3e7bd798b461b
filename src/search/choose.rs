//! Exact choice of the best networks within some limits, whatever interactions the costs have.

use super::Constraint;
use super::states::{States, Step};
use crate::model::Polynomial;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the network with the largest summed score that is within all `constraints`, or `None` if there is none.
/// `scores[l][i]` is the score of choice i of layer l. A choice with a score of minus infinity is never taken.
pub fn best_within(scores: &[Vec<f64>], constraints: &[Constraint]) -> Option<Vec<usize>> {
    best_of(scores, constraints, f64::NEG_INFINITY, 1).pop()
}

/// Returns the `n` networks with the largest summed scores, best first, that are within all `constraints` and whose
/// first cost is at least `low`. Returns fewer if there are no more. Scores that differ by less than a part in 10⁹
/// count as equal.
pub fn best_of(scores: &[Vec<f64>], constraints: &[Constraint], low: f64, n: usize) -> Vec<Vec<usize>> {
    let Some(sides) = Side::of(constraints, low).filter(|_| n > 0) else { return vec![] };
    let costs: Vec<&Polynomial> = constraints.iter().map(|c| &c.cost.polynomial).collect();
    let problem = Problem::new(States::new(&costs, scores), sides, n);
    let mut found: Vec<Partial> = vec![];
    for beam in BEAMS {
        let worth = found.get(n - 1).map_or(f64::NEG_INFINITY, |nth| nth.score);
        let (complete, cut) = problem.grow(worth, |fronts| cut(fronts, beam));
        found = best_first(found, complete, n);
        if !cut {
            break;
        }
    }
    found.into_iter().map(|partial| partial.choices).collect()
}

/// A network, and how much nearer to the limit another network may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    pub choices: Vec<usize>,
    /// A share of the limit. 0 if no other network is nearer.
    pub resolution: f64,
}

/// If there are more networks than this, not all are tried.
const MOST_TRIED: usize = 1_000_000;

/// Returns the network with the highest first cost among those within all `constraints`, or `None` if there is none.
/// `choices[l]` are the choices that layer l may hold.
///
/// The result is exact for up to a million networks. Beyond that, of partial networks whose costs agree to 0.01 % of
/// the limit only the cheapest is continued. With a single constraint, the result is then exact to that share times the
/// number of layers.
pub fn nearest_below(choices: &[Vec<usize>], constraints: &[Constraint]) -> Option<Nearest> {
    let sides = Side::of(constraints, f64::NEG_INFINITY)?;
    let limit = constraints.first()?.limit;
    let costs: Vec<&Polynomial> = constraints.iter().map(|c| &c.cost.polynomial).collect();
    let mut states = States::new(&costs, &even(choices));
    let all = states.steps.iter_mut().flatten().flatten();
    all.for_each(|step| step.score = step.added[0]);
    let networks = choices.iter().map(Vec::len).fold(1, usize::saturating_mul);
    let problem = Problem::new(states, sides, 1);
    let mut found: Vec<Partial> = vec![];
    let mut resolution = 0.0;
    let exact = if networks <= MOST_TRIED { &[0.0][..] } else { &[] };
    for width in [1e-2, 1e-3, 1e-4].iter().chain(exact) {
        let worth = found.first().map_or(f64::NEG_INFINITY, |best| best.score);
        let (complete, cut) = problem.grow(worth, |fronts| thin(fronts, width * limit.abs()));
        found = best_first(found, complete, 1);
        resolution = if cut { width * choices.len() as f64 } else { 0.0 };
        if !cut {
            break;
        }
    }
    match found.pop() {
        Some(nearest) => Some(Nearest { choices: nearest.choices, resolution }),
        // With several constraints, it is possible that none of the kept networks is within all of them.
        None => best_within(&even(choices), constraints).map(|choices| Nearest { choices, resolution: 1.0 }),
    }
}

/// Returns the cheapest network, where `choices[l]` are the choices that layer l may hold, or the most expensive one if
/// `sign` is −1. Returns `None` if a layer has no choices.
pub fn extreme(cost: &Polynomial, choices: &[Vec<usize>], sign: f64) -> Option<Vec<usize>> {
    let states = States::new(&[cost], &even(choices));
    let weight = |step: &Step| -sign * step.added[0];
    let most = states.most(weight);
    let mut state = 0;
    let mut step = |layer: usize| {
        let value = |step: &&Step| weight(step) + most[layer + 1][step.next];
        let best = states.steps[layer][state].iter().max_by(|a, b| value(a).total_cmp(&value(b)))?;
        state = best.next;
        Some(best.choice)
    };
    (0..choices.len()).map(&mut step).collect()
}

/// Returns the costs of the cheapest and of the most expensive network; see [`extreme`].
pub fn range(cost: &Polynomial, choices: &[Vec<usize>]) -> Option<(f64, f64)> {
    let value = |sign: f64| Some(cost.value(&extreme(cost, choices, sign)?, 0));
    value(1.0).zip(value(-1.0))
}

/// Returns a score of 0 for the choices that a layer may hold, and minus infinity for all others.
fn even(choices: &[Vec<usize>]) -> Vec<Vec<f64>> {
    let of_layer = |choices: &Vec<usize>| {
        let all = choices.iter().max().map_or(0, |max| max + 1);
        (0..all).map(|i| if choices.contains(&i) { 0.0 } else { f64::NEG_INFINITY }).collect()
    };
    choices.iter().map(of_layer).collect()
}

/// The choices of the first layers of a network.
#[derive(Clone, Debug)]
struct Partial {
    /// By cost, the sum of what is decided so far.
    costs: Vec<f64>,
    score: f64,
    /// An upper bound on the score of any completion within the limits.
    bound: f64,
    choices: Vec<usize>,
}

/// A cost times a sign, which must not exceed a limit. This expresses upper and lower limits alike.
struct Side {
    cost: usize,
    sign: f64,
    limit: f64,
}

impl Side {
    /// Returns the sides of all limits, or `None` if no network can be within them.
    fn of(constraints: &[Constraint], low: f64) -> Option<Vec<Side>> {
        if constraints.iter().any(|c| c.cost.polynomial.floor() > c.limit) {
            return None;
        }
        let high = constraints.iter().enumerate().map(|(cost, c)| Side { cost, sign: 1.0, limit: c.limit });
        let floor = constraints.first().map_or(f64::INFINITY, |c| c.cost.polynomial.floor());
        let low = (low > floor).then_some(Side { cost: 0, sign: -1.0, limit: -low });
        Some(high.chain(low).collect())
    }

    fn value(&self, costs: &[f64]) -> f64 {
        self.sign * costs[self.cost]
    }
}

/// An upper bound on the scores of networks that complete a partial one within the limits: its own score plus the
/// Lagrangian relaxation of the rest, max Σ (score − Σ λ·cost) + Σ λ·(what is left of the limit), for any λ ≥ 0.
struct Bound {
    /// By layer and state, the relaxation of that layer and all later ones.
    rest: Vec<Vec<f64>>,
    /// By cost, the sum of the signed multipliers.
    weights: Vec<f64>,
    /// Σ λ·limit.
    limits: f64,
}

impl Bound {
    fn new(states: &States, sides: &[Side], lambdas: &[f64]) -> Bound {
        let mut weights = vec![0.0; states.base.len()];
        sides.iter().zip(lambdas).for_each(|(side, lambda)| weights[side.cost] += lambda * side.sign);
        let rest = states.most(|step| step.score - dot(&weights, &step.added));
        let limits = sides.iter().zip(lambdas).map(|(side, lambda)| lambda * side.limit).sum();
        Bound { rest, weights, limits }
    }

    fn at_most(&self, layer: usize, state: usize, score: f64, costs: &[f64]) -> f64 {
        score + self.rest[layer][state] + self.limits - dot(&self.weights, costs)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Factors for the multipliers that are best for a whole network. For partial networks, other multipliers are better.
const FACTORS: [f64; 9] = [0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0];

/// What to choose from.
struct Problem {
    states: States,
    sides: Vec<Side>,
    bounds: Vec<Bound>,
    /// By side, layer and state, the least and the most that completing a network can add.
    least: Vec<Vec<Vec<f64>>>,
    most: Vec<Vec<Vec<f64>>>,
    n: usize,
}

/// Partial networks by their state.
type Fronts = BTreeMap<usize, Vec<Partial>>;

impl Problem {
    fn new(states: States, sides: Vec<Side>, n: usize) -> Problem {
        let most = |sign: f64| {
            let of = |side: &Side| states.most(|step| sign * side.value(&step.added));
            sides.iter().map(of).collect::<Vec<_>>()
        };
        let mut least = most(-1.0);
        least.iter_mut().flatten().flatten().for_each(|rest| *rest = -*rest);
        let most = most(1.0);
        let bounds = multipliers(&states, &sides).iter().map(|lambdas| Bound::new(&states, &sides, lambdas)).collect();
        Problem { states, sides, bounds, least, most, n }
    }

    /// Returns all complete networks within the limits whose score is above `worth`, except those that `n` others beat.
    /// `thin` drops partial networks and returns whether it dropped any, which is also the second result.
    fn grow(&self, worth: f64, thin: impl Fn(&mut Fronts) -> bool) -> (Vec<Partial>, bool) {
        let worth = if worth.is_finite() { worth + 1e-10 * worth.abs().max(1.0) } else { worth };
        let first = Partial { costs: self.states.base.clone(), score: 0.0, bound: f64::INFINITY, choices: vec![] };
        let mut fronts = Fronts::from([(0, vec![first])]);
        let mut thinned = false;
        for (layer, states) in self.states.steps.iter().enumerate() {
            let mut grown = Fronts::new();
            for (&state, front) in &fronts {
                for step in &states[state] {
                    let grow = |p: &Partial| self.step(p, layer, step).filter(|p| p.bound > worth);
                    grown.entry(step.next).or_default().extend(front.iter().filter_map(grow));
                }
            }
            grown.retain(|_, front| !front.is_empty());
            grown.iter_mut().for_each(|(&state, front)| self.keep_unbeaten(layer + 1, state, front));
            thinned |= thin(&mut grown);
            fronts = grown;
        }
        (fronts.into_values().flatten().collect(), thinned)
    }

    /// Returns a partial network with one more layer, or `None` if no completion of it is within the limits.
    fn step(&self, partial: &Partial, layer: usize, step: &Step) -> Option<Partial> {
        let costs: Vec<f64> = partial.costs.iter().zip(&step.added).map(|(cost, added)| cost + added).collect();
        let possible =
            |(side, least): (&Side, &Vec<Vec<f64>>)| side.value(&costs) + least[layer + 1][step.next] <= side.limit;
        if !self.sides.iter().zip(&self.least).all(possible) {
            return None;
        }
        let score = partial.score + step.score;
        let bounds = self.bounds.iter().map(|bound| bound.at_most(layer + 1, step.next, score, &costs));
        let bound = bounds.fold(f64::INFINITY, f64::min);
        Some(Partial { bound, score, choices: [partial.choices.as_slice(), &[step.choice]].concat(), costs })
    }

    /// Drops partial networks that `n` others beat in score and on each side. A side does not count if the partial
    /// network stays within its limit whatever follows.
    fn keep_unbeaten(&self, layer: usize, state: usize, front: &mut Vec<Partial>) {
        let on_side = |partial: &Partial, (side, most): (&Side, &Vec<Vec<f64>>)| {
            let value = side.value(&partial.costs);
            if value + most[layer][state] <= side.limit { f64::NEG_INFINITY } else { value }
        };
        let sides = |p: &Partial| self.sides.iter().zip(&self.most).map(|side| on_side(p, side)).collect::<Vec<f64>>();
        let mut all: Vec<(Vec<f64>, Partial)> = front.drain(..).map(|partial| (sides(&partial), partial)).collect();
        let by_sides =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).fold(Ordering::Equal, Ordering::then);
        all.sort_by(|(a, p), (b, q)| by_sides(a, b).then(q.score.total_cmp(&p.score)));
        let mut kept: Vec<(Vec<f64>, Partial)> = vec![];
        // The largest scores so far; the last of them is the n-th.
        let mut best: Vec<f64> = vec![];
        for (sides, partial) in all {
            let beats = |(others, other): &&(Vec<f64>, Partial)| {
                other.score >= partial.score && others.iter().zip(&sides).all(|(a, b)| a <= b)
            };
            let beaten = match sides.len() {
                0 | 1 => best.get(self.n - 1).is_some_and(|nth| *nth >= partial.score),
                _ => kept.iter().rev().take(MOST_COMPARED + self.n).filter(beats).nth(self.n - 1).is_some(),
            };
            if !beaten {
                let at = best.partition_point(|score| *score >= partial.score);
                best.insert(at, partial.score);
                best.truncate(self.n);
                kept.push((sides, partial));
            }
        }
        front.extend(kept.into_iter().map(|(_, partial)| partial));
    }
}

/// The number of others that a partial network is compared with. Failing to drop one only costs time.
const MOST_COMPARED: usize = 200;

/// How many partial networks are kept at each layer, in successive passes. The first passes find networks whose scores
/// then bound the others.
const BEAMS: [usize; 3] = [1000, 30_000, usize::MAX];

/// Keeps the `most` partial networks with the largest bounds, and returns whether there were more.
fn cut(fronts: &mut Fronts, most: usize) -> bool {
    let mut bounds: Vec<f64> = fronts.values().flatten().map(|partial| partial.bound).collect();
    if bounds.len() <= most {
        return false;
    }
    bounds.sort_by(|a, b| b.total_cmp(a));
    let (least, mut alike) = (bounds[most - 1], bounds[..most].iter().filter(|b| **b == bounds[most - 1]).count());
    for front in fronts.values_mut() {
        front.retain(|partial| {
            let tie = partial.bound == least;
            let kept = partial.bound > least || (tie && alike > 0);
            alike -= usize::from(tie && kept);
            kept
        });
    }
    true
}

/// Of the partial networks in one state whose first costs agree to `width`, keeps only the cheapest. Returns whether
/// any were dropped.
fn thin(fronts: &mut Fronts, width: f64) -> bool {
    if width == 0.0 {
        return false;
    }
    let mut thinned = false;
    for front in fronts.values_mut() {
        front.sort_by(|a, b| a.costs[0].total_cmp(&b.costs[0]));
        let mut buckets = BTreeSet::new();
        let all = front.len();
        front.retain(|partial| buckets.insert((partial.costs[0] / width).floor() as i64));
        thinned |= front.len() < all;
    }
    thinned
}

/// Returns the `n` best of both lists, best first. Of equal scores, the one with the lower first cost comes first.
fn best_first(found: Vec<Partial>, more: Vec<Partial>, n: usize) -> Vec<Partial> {
    let mut all: Vec<Partial> = found.into_iter().chain(more).collect();
    let cost = |p: &Partial| p.costs.first().copied().unwrap_or(0.0);
    let by_cost = |a: &Partial, b: &Partial| cost(a).total_cmp(&cost(b)).then_with(|| a.choices.cmp(&b.choices));
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| by_cost(a, b)));
    all.dedup_by(|a, b| a.choices == b.choices);
    all.truncate(n);
    all
}

/// Returns multipliers of the sides, each of which gives a bound: zeros; the best ones for the whole network, by
/// coordinate descent; those of each side alone; and multiples of these.
fn multipliers(states: &States, sides: &[Side]) -> Vec<Vec<f64>> {
    let none = vec![0.0; sides.len()];
    let dual = |lambdas: &[f64]| Bound::new(states, sides, lambdas).at_most(0, 0, 0.0, &states.base);
    let spread = |weight: &dyn Fn(&Step) -> f64| states.most(weight)[0][0] + states.most(|step| -weight(step))[0][0];
    let scores = spread(&|step| step.score);
    let even = |side: &Side| {
        let even = scores / spread(&|step| step.added[side.cost]);
        if even.is_finite() && even > 0.0 { even } else { 0.0 }
    };
    let descend = |lambdas: &mut Vec<f64>, side: usize| {
        let even = even(&sides[side]);
        if even == 0.0 {
            return;
        }
        let mut value = |power: f64| {
            lambdas[side] = even * power.exp2();
            dual(lambdas)
        };
        let (mut low, mut high) = (-20.0, 20.0);
        for _ in 0..30 {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if value(a) <= value(b) { high = b } else { low = a }
        }
        let best = value(0.5 * (low + high));
        lambdas[side] = 0.0;
        if dual(lambdas) > best {
            lambdas[side] = even * (0.5 * (low + high)).exp2();
        }
    };
    let mut starts = vec![];
    for side in 0..sides.len() {
        let mut alone = none.clone();
        descend(&mut alone, side);
        starts.push(alone);
    }
    if sides.len() > 1 {
        let mut joint = none.clone();
        (0..3).for_each(|_| (0..sides.len()).for_each(|side| descend(&mut joint, side)));
        starts.push(joint);
    }
    starts.retain(|lambdas| lambdas.iter().any(|lambda| *lambda > 0.0));
    let scaled = |lambdas: Vec<f64>| FACTORS.map(|factor| lambdas.iter().map(|l| factor * l).collect::<Vec<f64>>());
    let mut all: Vec<Vec<f64>> = starts.into_iter().flat_map(scaled).collect();
    all.dedup();
    [none].into_iter().chain(all).collect()
}
