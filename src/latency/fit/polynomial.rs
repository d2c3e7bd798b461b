use super::crowding::Crowding;
use super::structure::Product;
use super::terms::Term;
use crate::latency::Latency;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Coefficients are whole parts of a nanosecond of this many, so that sums of up to two hours are exact
/// in whatever order they are taken: a one-hot expectation has the digits of the prediction anywhere.
const PARTS: f64 = 1024.0;

/// A latency that a network has where each of some layers holds one of some ops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monomial {
    pub ns: Latency,
    /// Layers in rising order, each with its ops; none in the base.
    pub holds: Product,
}

/// The latency of a space's networks, a multilinear polynomial of the probabilities with which layers
/// hold ops: the base first, then the rows, then what depends on several layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polynomial {
    pub(super) monomials: Vec<Monomial>,
    /// A monomial for each two ops in two layers, which all have one coefficient.
    pub(super) crowding: Option<Crowding>,
}

impl Polynomial {
    /// Of terms, each times its unknown.
    pub(super) fn new<'t>(terms: impl IntoIterator<Item = (&'t Term, &'t f64)>) -> Self {
        let mut sums: BTreeMap<(usize, &Product), f64> = BTreeMap::new();
        let mut crowding = None;
        for (term, unknown) in terms {
            for (product, ns) in &term.products {
                *sums.entry((product.len(), product)).or_default() += unknown * ns;
            }
            crowding =
                crowding.or(term.crowding.as_ref().map(|c| Crowding { ns: unknown * c.ns, ..c.clone() }));
        }
        let monomial = |((_, holds), ns): ((usize, &Product), f64)| Monomial {
            ns: Latency::from_ns(ns),
            holds: holds.clone(),
        };
        Polynomial { crowding, ..Self::of(sums.into_iter().map(monomial)) }
    }

    /// What is the same in all networks, and what each op adds in each layer.
    pub fn additive(fixed: Latency, rows: &[Vec<Latency>]) -> Self {
        let row =
            |(layer, op, &ns): (usize, usize, &Latency)| Monomial { ns, holds: vec![(layer, vec![op])] };
        let all = rows
            .iter()
            .enumerate()
            .flat_map(|(l, ops)| ops.iter().enumerate().map(move |(o, ns)| (l, o, ns)));
        let base = Monomial { ns: fixed, holds: vec![] };
        Self::of([base].into_iter().chain(all.map(row)))
    }

    fn of(monomials: impl IntoIterator<Item = Monomial>) -> Self {
        let rounded =
            |m: Monomial| Monomial { ns: Latency::from_ns((m.ns.ns() * PARTS).round() / PARTS), ..m };
        let monomials = monomials.into_iter().map(rounded).filter(|m| m.ns != Latency::ZERO).collect();
        Polynomial { monomials, crowding: None }
    }

    /// The same of `layers` layers without the first and the last of them, which hold their op 0 in every
    /// network and have no weights.
    pub fn between_ends(&self, layers: usize) -> Self {
        let mut sums: BTreeMap<(usize, Product), Latency> = BTreeMap::new();
        let is_inner = |layer: usize| (1..layers - 1).contains(&layer);
        let can_hold =
            |m: &&Monomial| m.holds.iter().all(|(layer, ops)| is_inner(*layer) || ops.contains(&0));
        for monomial in self.monomials.iter().filter(can_hold) {
            let inner = monomial.holds.iter().filter(|(layer, _)| is_inner(*layer));
            let holds: Product = inner.map(|(layer, ops)| (layer - 1, ops.clone())).collect();
            let sum = sums.entry((holds.len(), holds)).or_default();
            *sum = *sum + monomial.ns;
        }
        let inner = |c: &Crowding| Crowding { weights: c.weights[1..layers - 1].to_vec(), ..c.clone() };
        let monomials = sums.into_iter().map(|((_, holds), ns)| Monomial { ns, holds });
        Polynomial { crowding: self.crowding.as_ref().map(inner), ..Self::of(monomials) }
    }

    pub fn crowding(&self) -> Option<&Crowding> {
        self.crowding.as_ref()
    }

    pub fn monomials(&self) -> &[Monomial] {
        &self.monomials
    }

    /// Expected latency where layer l holds op i with `probabilities[l][i]`, whatever the others hold.
    pub fn expected(&self, probabilities: &[Vec<f64>]) -> Latency {
        self.at(|layer, op| probabilities[layer][op])
    }

    /// Latency of the network whose layers hold `ops`: the expectation where that is certain.
    pub fn predict(&self, ops: &[usize]) -> Latency {
        self.at(|layer, op| f64::from(ops[layer] == op))
    }

    fn at(&self, probability: impl Fn(usize, usize) -> f64 + Copy) -> Latency {
        let holds =
            |(layer, ops): &(usize, Vec<usize>)| ops.iter().map(|&op| probability(*layer, op)).sum::<f64>();
        let monomial = |m: &Monomial| m.holds.iter().map(holds).product::<f64>() * m.ns;
        let sum: Latency = self.monomials.iter().map(monomial).sum();
        let crowding = self.crowding.as_ref();
        crowding.map_or(sum, |crowding| sum + Latency::from_ns(crowding.expected(probability)))
    }
}
