//! The best network within a latency, exactly, whatever the interactions.

use super::polynomial::Polynomial;
use crate::latency::Latency;
use std::collections::BTreeMap;

/// The first layers of a network.
#[derive(Clone, Debug)]
struct Partial {
    ns: f64,
    score: f64,
    ops: Vec<usize>,
}

/// Partial networks by the monomials that they have begun and not yet ended: those of one key cost the
/// same to go on with.
type Fronts = BTreeMap<Vec<usize>, Vec<Partial>>;

impl Polynomial {
    /// The network of the largest summed score whose latency is within `target`; `scores[l][i]` is that
    /// of op i in layer l, and an op whose score is minus infinity is none. Of partial networks that cost
    /// the same to go on with only those are kept that no other beats in both latency and score. None
    /// where every network is slower.
    pub fn likeliest_within(&self, scores: &[Vec<f64>], target: Latency) -> Option<Vec<usize>> {
        let rest = self.least_rest(scores);
        let fronts = self.walk(scores, |layer, front| {
            front.retain(|partial| partial.ns + rest[layer + 1] <= target.ns());
            front.sort_by(|a, b| a.ns.total_cmp(&b.ns).then(b.score.total_cmp(&a.score)));
            let mut best = f64::NEG_INFINITY;
            front.retain(|partial| {
                let better = partial.score > best;
                best = best.max(partial.score);
                better
            });
        });
        let all = fronts.into_values().flatten();
        all.max_by(|a, b| a.score.total_cmp(&b.score).then(b.ns.total_cmp(&a.ns))).map(|best| best.ops)
    }

    /// Latencies of the cheapest and the dearest network, `choices[l]` being the ops that layer l can
    /// hold. None where a layer can hold none.
    pub fn range(&self, choices: &[Vec<usize>]) -> Option<(Latency, Latency)> {
        let layers = self.layers(choices);
        let end = |sign: f64| {
            let fronts = self.walk(&layers, |_, front| {
                let best = front.drain(..).min_by(|a, b| (sign * a.ns).total_cmp(&(sign * b.ns)));
                front.extend(best);
            });
            fronts
                .into_values()
                .flatten()
                .map(|partial| sign * partial.ns)
                .reduce(f64::min)
                .map(|ns| sign * ns)
        };
        Some((Latency::from_ns(end(1.0)?), Latency::from_ns(end(-1.0)?)))
    }

    /// Scores of 0 for the choices, and for the other ops minus infinity.
    fn layers(&self, choices: &[Vec<usize>]) -> Vec<Vec<f64>> {
        let scores = |choices: &Vec<usize>| {
            let ops = choices.iter().max().map_or(0, |max| max + 1);
            (0..ops).map(|op| if choices.contains(&op) { 0.0 } else { f64::NEG_INFINITY }).collect()
        };
        choices.iter().map(scores).collect()
    }

    /// Grows partial networks layer by layer; `prune` drops those that are not needed from each front.
    fn walk(&self, scores: &[Vec<f64>], prune: impl Fn(usize, &mut Vec<Partial>)) -> Fronts {
        let base = self.monomials().iter().filter(|m| m.holds.is_empty()).map(|m| m.ns.ns()).sum();
        let mut fronts = Fronts::from([(vec![], vec![Partial { ns: base, score: 0.0, ops: vec![] }])]);
        for (layer, scores) in scores.iter().enumerate() {
            let mut grown = Fronts::new();
            for (begun, front) in &fronts {
                for (op, score) in scores.iter().enumerate().filter(|(_, s)| **s > f64::NEG_INFINITY) {
                    let (ns, begun) = self.step(begun, layer, op);
                    let grow = |p: &Partial| {
                        let ops = [p.ops.as_slice(), &[op]].concat();
                        Partial { ns: p.ns + ns, score: p.score + score, ops }
                    };
                    grown.entry(begun).or_default().extend(front.iter().map(grow));
                }
            }
            grown.values_mut().for_each(|front| prune(layer, front));
            grown.retain(|_, front| !front.is_empty());
            fronts = grown;
        }
        fronts
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
        rest
    }
}
