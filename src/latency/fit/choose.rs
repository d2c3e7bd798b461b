//! The best network within a latency, exactly, whatever the interactions.

use super::crowding::{Crowd, Crowding};
use super::polynomial::{Monomial, Polynomial};
use crate::latency::Latency;
use std::collections::BTreeMap;

/// The first layers of a network.
#[derive(Clone, Debug)]
struct Partial {
    /// Of the monomials that have ended.
    ns: f64,
    crowd: Crowd,
    score: f64,
    ops: Vec<usize>,
}

/// Partial networks by the monomials that they have begun and not yet ended: of those of one key, the
/// ones that have as many weights cost the same to go on with.
type Fronts = BTreeMap<Vec<usize>, Vec<Partial>>;

impl Polynomial {
    /// The network of the largest summed score whose latency is within `target`; `scores[l][i]` is that
    /// of op i in layer l, and an op whose score is minus infinity is none. None where every network is
    /// slower.
    pub fn likeliest_within(&self, scores: &[Vec<f64>], target: Latency) -> Option<Vec<usize>> {
        let rest = self.least_rest(scores);
        let fronts = self.walk(scores, |layer, partial| self.ns(partial) + rest[layer + 1] <= target.ns());
        let all = fronts.into_values().flatten();
        let within = all.filter(|partial| self.ns(partial) <= target.ns());
        within
            .max_by(|a, b| a.score.total_cmp(&b.score).then(self.ns(b).total_cmp(&self.ns(a))))
            .map(|best| best.ops)
    }

    /// Latencies of the cheapest and the dearest network, `choices[l]` being the ops that layer l can
    /// hold. None where a layer can hold none.
    pub fn range(&self, choices: &[Vec<usize>]) -> Option<(Latency, Latency)> {
        let scores = |choices: &Vec<usize>| {
            let ops = choices.iter().max().map_or(0, |max| max + 1);
            (0..ops).map(|op| if choices.contains(&op) { 0.0 } else { f64::NEG_INFINITY }).collect()
        };
        let scores: Vec<Vec<f64>> = choices.iter().map(scores).collect();
        let least = |model: &Polynomial| {
            let fronts = model.walk(&scores, |_, _| true);
            fronts.into_values().flatten().map(|partial| model.ns(&partial)).reduce(f64::min)
        };
        let (cheapest, dearest) = (least(self)?, -least(&self.negative())?);
        Some((Latency::from_ns(cheapest), Latency::from_ns(dearest)))
    }

    fn negative(&self) -> Polynomial {
        let negative = |m: &Monomial| Monomial { ns: -1.0 * m.ns, ..m.clone() };
        Polynomial {
            monomials: self.monomials.iter().map(negative).collect(),
            crowding: self.crowding.as_ref().map(|c| Crowding { ns: -c.ns, ..c.clone() }),
        }
    }

    fn ns(&self, partial: &Partial) -> f64 {
        self.crowding.as_ref().map_or(partial.ns, |crowding| partial.ns + crowding.ns * partial.crowd.pairs)
    }

    /// Grows partial networks layer by layer, of which those are left out that are not `worth` it, or
    /// that another beats.
    fn walk(&self, scores: &[Vec<f64>], worth: impl Fn(usize, &Partial) -> bool) -> Fronts {
        let base = self.monomials().iter().filter(|m| m.holds.is_empty()).map(|m| m.ns.ns()).sum();
        let first = Partial { ns: base, crowd: Crowd::default(), score: 0.0, ops: vec![] };
        let mut fronts = Fronts::from([(vec![], vec![first])]);
        for (layer, scores) in scores.iter().enumerate() {
            let mut grown = Fronts::new();
            for (begun, front) in &fronts {
                for (op, score) in scores.iter().enumerate().filter(|(_, s)| **s > f64::NEG_INFINITY) {
                    let (ns, begun) = self.step(begun, layer, op);
                    let weights = self.crowding.as_ref().map_or(0.0, |crowding| crowding.weights[layer][op]);
                    let grow = |p: &Partial| Partial {
                        ns: p.ns + ns,
                        crowd: p.crowd.with(weights),
                        score: p.score + score,
                        ops: [p.ops.as_slice(), &[op]].concat(),
                    };
                    let worthy = front.iter().map(grow).filter(|partial| worth(layer, partial));
                    grown.entry(begun).or_default().extend(worthy);
                }
            }
            grown.values_mut().for_each(|front| self.keep_unbeaten(front));
            grown.retain(|_, front| !front.is_empty());
            fronts = grown;
        }
        fronts
    }

    /// Keeps those partial networks that no other beats in latency, in what they will add to the crowding
    /// of the rest, and in score.
    fn keep_unbeaten(&self, front: &mut Vec<Partial>) {
        let sign = self.crowding.as_ref().map_or(0.0, |crowding| crowding.ns.signum());
        front.sort_by(|a, b| self.ns(a).total_cmp(&self.ns(b)).then(b.score.total_cmp(&a.score)));
        // By crowding to come, rising, the best score so far of as little or less, rising too.
        let mut stairs: BTreeMap<i64, f64> = BTreeMap::new();
        front.retain(|partial| {
            let to_come = (sign * partial.crowd.weights) as i64;
            let best = stairs.range(..=to_come).next_back();
            if best.is_some_and(|(_, score)| *score >= partial.score) {
                return false;
            }
            while let Some((&step, &score)) = stairs.range(to_come..).next()
                && score <= partial.score
            {
                stairs.remove(&step);
            }
            stairs.insert(to_come, partial.score);
            true
        });
    }

    /// What `op` in `layer` adds, and the monomials that are begun after it.
    fn step(&self, begun: &[usize], layer: usize, op: usize) -> (f64, Vec<usize>) {
        let (mut ns, mut next) = (0.0, vec![]);
        for (i, monomial) in self.monomials().iter().enumerate() {
            let Some((last, _)) = monomial.holds.last() else { continue };
            let starts = monomial.holds[0].0 == layer;
            if starts || begun.contains(&i) {
                match monomial.holds.iter().find(|(l, _)| *l == layer) {
                    Some((_, ops)) if !ops.contains(&op) => {}
                    Some(_) if *last == layer => ns += monomial.ns.ns(),
                    _ => next.push(i),
                }
            }
        }
        (ns, next)
    }

    /// By layer, less than what that layer and those after it can add.
    fn least_rest(&self, scores: &[Vec<f64>]) -> Vec<f64> {
        let crowding = self.crowding.as_ref();
        let saved = crowding.map_or(0.0, |c| c.ns.min(0.0) * Crowding::most_pairs(&c.weights));
        let mut rest = vec![0.0; scores.len() + 1];
        for layer in (0..scores.len()).rev() {
            let ending = self.monomials().iter().filter(|m| m.holds.last().is_some_and(|(l, _)| *l == layer));
            let (rows, shared): (Vec<_>, Vec<_>) = ending.partition(|m| m.holds.len() == 1);
            let row = |op: usize| {
                rows.iter().filter(|m| m.holds[0].1.contains(&op)).map(|m| m.ns.ns()).sum::<f64>()
            };
            let ops = (0..scores[layer].len()).filter(|&op| scores[layer][op] > f64::NEG_INFINITY);
            let least = ops.map(row).reduce(f64::min).unwrap_or(0.0);
            rest[layer] = rest[layer + 1] + least + shared.iter().map(|m| m.ns.ns().min(0.0)).sum::<f64>();
        }
        rest.iter_mut().for_each(|rest| *rest += saved);
        rest
    }
}
