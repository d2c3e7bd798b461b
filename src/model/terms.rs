//! The terms that a network's latency can consist of.

use super::{Pair, Part, Product, Relation, Structure};
use std::collections::{BTreeMap, BTreeSet};

/// The meaning of one unknown of a fit: a sum of products, each times a scale in nanoseconds. The unknown is a factor
/// of that sum, so all unknowns have a similar size.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub name: String,
    pub products: Vec<(Product, f64)>,
    /// The parts, by index, to whose contributions this belongs, with their scales.
    pub contributions: Vec<(usize, f64)>,
}

impl Term {
    /// Returns what the unknown counts for in a network, in nanoseconds.
    pub fn ns(&self, choices: &[usize]) -> f64 {
        let holds = |product: &Product| product.iter().all(|(layer, set)| set.contains(&choices[*layer]));
        self.products.iter().filter(|(product, _)| holds(product)).map(|(_, ns)| ns).sum()
    }

    /// Returns the same term for an unknown that is smaller by this factor.
    fn scaled(&self, by: f64) -> Term {
        let scaled = |(product, ns): &(Product, f64)| (product.clone(), by * ns);
        Term { products: self.products.iter().map(scaled).collect(), ..self.clone() }
    }
}

/// Terms of the same sort. They share one strength of the ridge, and a model has all of them or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub terms: Vec<Term>,
}

impl Structure {
    /// Returns the terms of every model, from coarse to fine: a base and a common factor for all layers, how each
    /// kind departs from that factor, and how each layer departs from its kind. `typical` is the median latency of the
    /// networks, in nanoseconds.
    pub(super) fn contributions(&self, typical: f64) -> Vec<Family> {
        let mut whole = self.contributions_by("base", typical, |_| "all layers".into());
        let base = Term { name: "base".into(), products: vec![(vec![], typical)], contributions: vec![] };
        whole.terms.insert(0, base);
        let kinds = self.contributions_by("kinds", typical, |part| part.kind.clone());
        let layers = self.contributions_by("layers", typical, |part| part.work.clone());
        vec![whole, kinds, layers]
    }

    /// Returns the terms that a model has only if they help: layers by their place, and how neighbours change each
    /// other's cost, from a single unknown for all similar pairs to one for each pair of layers.
    pub(super) fn interactions(&self, typical: f64) -> Vec<Family> {
        let mut families = vec![self.contributions_by("each layer by its place", typical, by_place)];
        for (relation, word) in [(Relation::Before, "before"), (Relation::Beside, "beside")] {
            let pairs = Pairs::of(self, relation, typical);
            let first = |pair: &Pair| pair.first;
            let between = |pair: &Pair, name: fn(&Part) -> String| {
                let mut names = [pair.first, pair.second].map(|part| name(&self.parts[part]));
                if relation == Relation::Beside {
                    names.sort();
                }
                Some(names.join(&format!(" {word} ")))
            };
            let all = format!("anything {word} anything");
            let kind = |part: &Part| part.kind.clone();
            let kinds = pairs.family(format!("each kind {word} each kind"), first, |p| between(p, kind));
            let alone = |term: &Term| Family { name: term.name.clone(), terms: vec![term.clone()] };
            families.extend(kinds.terms.iter().map(alone));
            families.push(kinds);
            families.push(pairs.family(all.clone(), first, |_| Some(all.clone())));
            families.push(pairs.family(format!("each layer {word} each layer"), first, |p| between(p, by_place)));
        }
        let pairs = Pairs::of(self, Relation::Before, typical);
        for kind in self.parts.iter().map(|part| part.kind.as_str()).collect::<BTreeSet<_>>() {
            // The cost that changes is that of the unconstrained end.
            let ends: [(&str, End, End); 2] =
                [("before", |p| p.first, |p| p.second), ("after", |p| p.second, |p| p.first)];
            for (word, any, given) in ends {
                let is = |p: &Pair| self.parts[given(p)].kind == kind;
                let all = format!("anything {word} {kind}");
                let layer = |p: &Pair| is(p).then(|| format!("{} {word} {kind}", self.parts[any(p)].work));
                let shared = pairs.family(all.clone(), any, |p| is(p).then(|| all.clone()));
                let mut layers = pairs.family(format!("each layer {word} {kind}"), any, layer);
                let alike = |name: fn(&Part) -> &String| {
                    let name = |p: &Pair| is(p).then(|| format!("{} {word} {kind}", name(&self.parts[any(p)])));
                    pairs.family(String::new(), any, name)
                };
                // Terms for all layers, for those of an op, and for those of a kind help to predict layers that occur
                // in few networks. The more layers share a term, the less the ridge shrinks it.
                let levels = [alike(|part| &part.kind), alike(|part| &part.op), shared.clone()];
                for (level, freer) in levels.iter().zip([2.0, 4.0, 8.0]) {
                    layers.terms.splice(0..0, level.terms.iter().map(|term| term.scaled(freer)));
                }
                families.extend([shared, layers]);
            }
        }
        families.retain(|family| !family.terms.is_empty());
        families
    }

    fn contributions_by(&self, name: &str, typical: f64, key: impl Fn(&Part) -> String) -> Family {
        let parts = self.parts.iter().enumerate();
        let parts = parts.map(|(i, part)| (key(part), part.products.clone(), self.scale(part, typical), Some(i)));
        family(name.into(), parts)
    }

    /// Returns what a part is expected to take: its latency in isolation, or a layer's share of a typical network.
    fn scale(&self, part: &Part, typical: f64) -> f64 {
        part.isolated_ns.unwrap_or(typical / self.roles.len() as f64)
    }
}

fn by_place(part: &Part) -> String {
    format!("{} in layer {}", part.work, part.at.0)
}

/// One end of a pair: the index of a part.
type End = fn(&Pair) -> usize;

/// The neighbours with one relation.
struct Pairs<'a> {
    structure: &'a Structure,
    typical: f64,
    pairs: Vec<&'a Pair>,
}

impl Pairs<'_> {
    fn of(structure: &Structure, relation: Relation, typical: f64) -> Pairs<'_> {
        let pairs = structure.pairs.iter().filter(|pair| pair.relation == relation).collect();
        Pairs { structure, typical, pairs }
    }

    /// Groups the pairs that `term` names into terms by that name. The scale is that of the part whose cost changes.
    fn family(&self, name: String, changed: impl Fn(&Pair) -> usize, term: impl Fn(&Pair) -> Option<String>) -> Family {
        let part = |pair: &&Pair| {
            let scale = self.structure.scale(&self.structure.parts[changed(pair)], self.typical);
            Some((term(pair)?, pair.products.clone(), scale, None))
        };
        family(name, self.pairs.iter().filter_map(part))
    }
}

/// Creates a family from pieces, grouped into terms by name. Each piece has products, their scale, and the part to whose
/// contribution it belongs. Pieces with a scale of 0 are ignored.
fn family(name: String, pieces: impl IntoIterator<Item = (String, Vec<Product>, f64, Option<usize>)>) -> Family {
    let mut terms: BTreeMap<String, Term> = BTreeMap::new();
    for (name, products, scale, of) in pieces.into_iter().filter(|piece| piece.2 != 0.0) {
        let new = || Term { name: name.clone(), products: vec![], contributions: vec![] };
        let term = terms.entry(name.clone()).or_insert_with(new);
        term.products.extend(products.into_iter().map(|product| (product, scale)));
        term.contributions.extend(of.map(|part| (part, scale)));
    }
    Family { name, terms: terms.into_values().collect() }
}
