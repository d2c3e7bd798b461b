//! What a network's latency can be made of.

use super::crowding::Crowding;
use super::structure::{Choice, Pair, Place, Product, Relation, Structure, Wiring};
use std::collections::{BTreeMap, BTreeSet};

/// What one unknown of the latency model stands for: a sum of products, each times a scale in
/// nanoseconds. The unknown is a share of that, so that all unknowns are alike in size.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub name: String,
    pub products: Vec<(Product, f64)>,
    /// The choices whose row it is a part of, and their scales.
    pub rows: Vec<(Place, f64)>,
    /// Only in the one term that is of all layers at once.
    pub crowding: Option<Crowding>,
}

impl Term {
    /// What the unknown counts for in a network, in nanoseconds.
    pub fn ns(&self, ops: &[usize]) -> f64 {
        let holds = |product: &Product| product.iter().all(|(layer, set)| set.contains(&ops[*layer]));
        let sum: f64 = self.products.iter().filter(|(product, _)| holds(product)).map(|(_, ns)| ns).sum();
        let certain = |layer: usize, op: usize| f64::from(ops[layer] == op);
        sum + self.crowding.as_ref().map_or(0.0, |crowding| crowding.expected(certain))
    }

    /// The same, of an unknown that is so many times smaller.
    fn scaled(&self, by: f64) -> Term {
        let scaled = |(product, ns): &(Product, f64)| (product.clone(), by * ns);
        Term { products: self.products.iter().map(scaled).collect(), ..self.clone() }
    }

    /// What crowding counts for in a network of average weights, in nanoseconds.
    pub fn crowding_mean(&self) -> f64 {
        let even =
            |crowding: &Crowding| crowding.expected(|layer, _| 1.0 / crowding.weights[layer].len() as f64);
        self.crowding.as_ref().map_or(0.0, even)
    }
}

/// Terms that are alike: the strength of their ridge is one, and a model has all of them or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub terms: Vec<Term>,
}

impl Structure {
    /// What every model has, from coarse to fine: a base, and one share of their scale for all rows; how
    /// each kind departs from that; how each row departs from its kind. `typical` is the latency of a
    /// network in the middle, in nanoseconds.
    pub(super) fn rows(&self, typical: f64) -> Vec<Family> {
        let mut whole = self.rows_by("base", typical, |_| "all rows".into());
        let base =
            Term { name: "base".into(), products: vec![(vec![], typical)], rows: vec![], crowding: None };
        whole.terms.insert(0, base);
        let kinds = self.rows_by("kinds", typical, |at| self.choice(at).kind.clone());
        let rows = self.rows_by("rows", typical, |at| self.choice(at).row.clone());
        vec![whole, kinds, rows]
    }

    /// What a model has besides where it helps: rows by their place, and how neighbours change each
    /// other's cost, from one unknown for all that are alike to one for each two rows.
    pub(super) fn interactions(&self, typical: f64) -> Vec<Family> {
        let kind = |at| self.choice(at).kind.clone();
        let place = |at: Place| format!("{} in layer {}", self.choice(at).row, at.0 + 1);
        let mut families = vec![self.rows_by("each row by its layer", typical, place)];
        families.extend(self.crowding(typical));
        for (relation, word) in [(Relation::Before, "before"), (Relation::Beside, "beside")] {
            let pairs = Pairs::of(self, relation, typical);
            let first = |pair: &Pair| pair.first;
            let between = |pair: &Pair, name: &dyn Fn(Place) -> String| {
                let mut names = [name(pair.first), name(pair.second)];
                if relation == Relation::Beside {
                    names.sort();
                }
                Some(names.join(&format!(" {word} ")))
            };
            let all = format!("anything {word} anything");
            let kinds = pairs.family(format!("each kind {word} each kind"), first, |p| between(p, &kind));
            let alone = |term: &Term| Family { name: term.name.clone(), terms: vec![term.clone()] };
            families.extend(kinds.terms.iter().map(alone));
            families.push(kinds);
            families.push(pairs.family(all.clone(), first, |_| Some(all.clone())));
            families.push(pairs.family(format!("each row {word} each row"), first, |p| between(p, &place)));
        }
        let pairs = Pairs::of(self, Relation::Before, typical);
        for k in self.choices().map(kind).collect::<BTreeSet<String>>() {
            // The cost that changes is that of the end that can be anything.
            let ends: [(&str, End, End); 2] =
                [("before", |p| p.first, |p| p.second), ("after", |p| p.second, |p| p.first)];
            for (word, any, given) in ends {
                let is = |p: &Pair| self.choice(given(p)).kind == k;
                let all = format!("anything {word} {k}");
                let row = |p: &Pair| is(p).then(|| format!("{} {word} {k}", self.choice(any(p)).row));
                let shared = pairs.family(all.clone(), any, |p| is(p).then(|| all.clone()));
                let mut rows = pairs.family(format!("each row {word} {k}"), any, row);
                let alike = |name: fn(&Choice) -> &String| {
                    let name = |p: &Pair| is(p).then(|| format!("{} {word} {k}", name(self.choice(any(p)))));
                    pairs.family(String::new(), any, name)
                };
                // What all have in common, those of an op, and those of a kind, is said of those that few
                // networks have: the more have it in common, the freer the ridge leaves it.
                let levels = [alike(|choice| &choice.kind), alike(|choice| &choice.op), shared.clone()];
                for (level, freer) in levels.iter().zip([2.0, 4.0, 8.0]) {
                    rows.terms.splice(0..0, level.terms.iter().map(|term| term.scaled(freer)));
                }
                families.extend([shared, rows]);
            }
        }
        families.retain(|family| !family.terms.is_empty());
        families
    }

    /// How layers crowd each other's weights out of the caches; none where no two have weights.
    fn crowding(&self, typical: f64) -> Option<Family> {
        let weights: Vec<Vec<f64>> =
            self.layers.iter().map(|ops| ops.iter().map(|choice| choice.weights).collect()).collect();
        let most = Crowding::most_pairs(&weights);
        let name = "weights crowd each other out of the caches".to_string();
        let crowding = Some(Crowding { ns: typical / most, weights });
        let term = Term { name: name.clone(), products: vec![], rows: vec![], crowding };
        (self.wiring == Wiring::Chain && most > 0.0).then(|| Family { name, terms: vec![term] })
    }

    fn rows_by(&self, name: &str, typical: f64, key: impl Fn(Place) -> String) -> Family {
        let parts = self.choices().map(|at| {
            let scale = self.scale(at, typical);
            (key(at), self.alive(at), scale, Some(at))
        });
        family(name.into(), parts)
    }

    /// What a choice is thought to take: what it takes alone, or a layer's part of a typical network.
    fn scale(&self, at: Place, typical: f64) -> f64 {
        self.choice(at).isolated_ns.unwrap_or(typical / self.layers.len() as f64)
    }
}

/// One end of a pair.
type End = fn(&Pair) -> Place;

/// Neighbours of one relation.
struct Pairs<'a> {
    structure: &'a Structure,
    typical: f64,
    pairs: Vec<Pair>,
}

impl Pairs<'_> {
    fn of(structure: &Structure, relation: Relation, typical: f64) -> Pairs<'_> {
        let mut pairs = structure.pairs();
        pairs.retain(|pair| pair.relation == relation);
        Pairs { structure, typical, pairs }
    }

    /// Those that have a name, in terms by name, on the scale of that one of the two whose cost changes.
    fn family(
        &self,
        name: String,
        changed: impl Fn(&Pair) -> Place,
        term: impl Fn(&Pair) -> Option<String>,
    ) -> Family {
        let part = |pair: &Pair| {
            let scale = self.structure.scale(changed(pair), self.typical);
            Some((term(pair)?, pair.products.clone(), scale, None))
        };
        family(name, self.pairs.iter().filter_map(part))
    }
}

/// A family of such parts, in terms by name: products, their scale, and the row that they are; a scale
/// of 0 has no part.
fn family(
    name: String,
    parts: impl IntoIterator<Item = (String, Vec<Product>, f64, Option<Place>)>,
) -> Family {
    let mut terms: BTreeMap<String, Term> = BTreeMap::new();
    for (name, products, scale, row) in parts.into_iter().filter(|part| part.2 != 0.0) {
        let new = || Term { name: name.clone(), products: vec![], rows: vec![], crowding: None };
        let term = terms.entry(name.clone()).or_insert_with(new);
        term.products.extend(products.into_iter().map(|product| (product, scale)));
        term.rows.extend(row.map(|at| (at, scale)));
    }
    Family { name, terms: terms.into_values().collect() }
}
