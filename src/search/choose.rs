//! The best networks within some limits, exactly, whatever interactions the costs have.

use super::Constraint;
use super::states::{States, Step};
use crate::model::Polynomial;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The network of the largest summed score that is within all `constraints`. `scores[l][i]` is that of choice i of
/// layer l; a choice whose score is minus infinity is never taken. None where no network is within all.
pub fn best_within(scores: &[Vec<f64>], constraints: &[Constraint]) -> Option<Vec<usize>> {
    best_of(scores, constraints, f64::NEG_INFINITY, 1).pop()
}

/// The `n` networks of the largest summed scores, the best first, that are within all `constraints` and cost at least
/// `low` by the first one; fewer where there are no more. Scores that differ by less than a part in 10⁹ are alike.
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

/// A network, and how much nearer to the limit another one may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    pub choices: Vec<usize>,
    /// A share of the limit; 0 where no other network is nearer.
    pub resolution: f64,
}

/// More networks than this are not all tried.
const MOST_TRIED: usize = 1_000_000;

/// The network that costs the most by the first of `constraints` and is within all; `choices[l]` are those that layer l
/// may hold. Exact for up to a million networks; beyond, partial networks that cost the same to 0.01 % of the limit count
/// as the cheapest of them, which is exact to that share times the number of layers where there is one constraint. None
/// where no network is within all.
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
        // Where there are several constraints, none of those that were kept need be within all.
        None => best_within(&even(choices), constraints).map(|choices| Nearest { choices, resolution: 1.0 }),
    }
}

/// The cheapest network, `choices[l]` being those that layer l may hold; with a `sign` of −1 the dearest. None where a
/// layer may hold none.
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

/// The cost of the cheapest and of the dearest network, as [`extreme`].
pub fn range(cost: &Polynomial, choices: &[Vec<usize>]) -> Option<(f64, f64)> {
    let value = |sign: f64| Some(cost.value(&extreme(cost, choices, sign)?, 0));
    value(1.0).zip(value(-1.0))
}

/// A score of 0 for the choices that a layer may hold.
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
    /// By cost, the sum of what is decided.
    costs: Vec<f64>,
    score: f64,
    /// No completion of it within the limits has a larger score.
    bound: f64,
    choices: Vec<usize>,
}

/// A cost times a sign, which must not exceed a limit.
struct Side {
    cost: usize,
    sign: f64,
    limit: f64,
}

impl Side {
    /// None where no network can be within the limits.
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

/// No network that completes a partial one within the limits has a larger score than its own and that of Lagrange's
/// relaxation of the rest: max Σ (score − Σ λ·cost) + Σ λ·(what is left of the limit), for any λ ≥ 0.
struct Bound {
    /// By layer and state, the relaxation of that layer and those after it.
    rest: Vec<Vec<f64>>,
    /// By cost, the sum of the multipliers with their signs.
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

/// Factors of the multipliers that are best for a whole network: for its parts others are.
const FACTORS: [f64; 9] = [0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0];

/// What is to be chosen from.
struct Problem {
    states: States,
    sides: Vec<Side>,
    bounds: Vec<Bound>,
    /// By side, layer and state, the least and the most that a network can be completed with.
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

    /// All complete networks within the limits with a score above `worth`, less those that `n` others beat; `thin`
    /// drops partial ones, and says whether it did.
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

    /// A partial network with one more layer; none where no completion of it is within the limits.
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

    /// Drops partial networks that `n` others beat in score and on each side. A side on which a partial network is
    /// within the limit whatever follows counts for nothing.
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
        // The largest scores so far, of which the last is the n-th.
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

/// A partial network is compared with so many others: not to drop one costs time and nothing else.
const MOST_COMPARED: usize = 200;

/// Partial networks that are grown first, to find networks whose scores then bound the others.
const BEAMS: [usize; 3] = [1000, 30_000, usize::MAX];

/// Keeps the `most` partial networks that promise the largest scores, and says whether there were more.
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

/// Keeps of each state, and of those whose first costs are alike to `width`, the cheapest; says whether there were
/// others. They are sorted by the first cost, unless that does not matter any more.
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

/// The `n` best of both, the best first; of equal scores the cheapest by the first cost.
fn best_first(found: Vec<Partial>, more: Vec<Partial>, n: usize) -> Vec<Partial> {
    let mut all: Vec<Partial> = found.into_iter().chain(more).collect();
    let cost = |p: &Partial| p.costs.first().copied().unwrap_or(0.0);
    let by_cost = |a: &Partial, b: &Partial| cost(a).total_cmp(&cost(b)).then_with(|| a.choices.cmp(&b.choices));
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| by_cost(a, b)));
    all.dedup_by(|a, b| a.choices == b.choices);
    all.truncate(n);
    all
}

/// Multipliers of the sides, each of which gives a bound: none; those that are best for the whole network, by descent
/// along one after another; multiples of these; and those of each side alone.
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
