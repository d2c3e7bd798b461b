//! What a network's latency can be made of.

use super::{Pair, Part, Place, Product, Relation, Structure};
use std::collections::{BTreeMap, BTreeSet};

/// What one unknown of a fit means: a sum of products, each times a scale in nanoseconds. The unknown is a share
/// of that, so that all unknowns are alike in size.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub name: String,
    pub products: Vec<(Product, f64)>,
    /// The choices whose row it is a part of, and their scales.
    pub rows: Vec<(Place, f64)>,
}

impl Term {
    /// What the unknown counts for in a network, nanoseconds.
    pub fn ns(&self, choices: &[usize]) -> f64 {
        let holds = |product: &Product| product.iter().all(|(layer, set)| set.contains(&choices[*layer]));
        self.products.iter().filter(|(product, _)| holds(product)).map(|(_, ns)| ns).sum()
    }

    /// The same, of an unknown that is so many times smaller.
    fn scaled(&self, by: f64) -> Term {
        let scaled = |(product, ns): &(Product, f64)| (product.clone(), by * ns);
        Term { products: self.products.iter().map(scaled).collect(), ..self.clone() }
    }
}

/// Terms that are alike: their ridge has one strength, and a model has all of them or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub terms: Vec<Term>,
}

impl Structure {
    /// What every model has, from coarse to fine: a base, and one share of their scale for all rows; how each kind
    /// departs from that; how each row departs from its kind. `typical` is the latency of a network in the middle,
    /// nanoseconds.
    pub(super) fn rows(&self, typical: f64) -> Vec<Family> {
        let mut whole = self.rows_by("base", typical, |_| "all rows".into());
        let base = Term { name: "base".into(), products: vec![(vec![], typical)], rows: vec![] };
        whole.terms.insert(0, base);
        let kinds = self.rows_by("kinds", typical, |part| part.kind.clone());
        let rows = self.rows_by("rows", typical, |part| part.row.clone());
        vec![whole, kinds, rows]
    }

    /// What a model has besides where it helps: rows by their place, and how neighbours change each other's cost,
    /// from one unknown for all that are alike to one for each two rows.
    pub(super) fn interactions(&self, typical: f64) -> Vec<Family> {
        let mut families = vec![self.rows_by("each row by its layer", typical, by_place)];
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
            families.push(pairs.family(format!("each row {word} each row"), first, |p| between(p, by_place)));
        }
        let pairs = Pairs::of(self, Relation::Before, typical);
        for kind in self.parts.iter().map(|part| part.kind.as_str()).collect::<BTreeSet<_>>() {
            // The cost that changes is that of the end that can be anything.
            let ends: [(&str, End, End); 2] =
                [("before", |p| p.first, |p| p.second), ("after", |p| p.second, |p| p.first)];
            for (word, any, given) in ends {
                let is = |p: &Pair| self.parts[given(p)].kind == kind;
                let all = format!("anything {word} {kind}");
                let row = |p: &Pair| is(p).then(|| format!("{} {word} {kind}", self.parts[any(p)].row));
                let shared = pairs.family(all.clone(), any, |p| is(p).then(|| all.clone()));
                let mut rows = pairs.family(format!("each row {word} {kind}"), any, row);
                let alike = |name: fn(&Part) -> &String| {
                    let name = |p: &Pair| is(p).then(|| format!("{} {word} {kind}", name(&self.parts[any(p)])));
                    pairs.family(String::new(), any, name)
                };
                // What all have in common, those of an op, and those of a kind, predicts those that few networks
                // have: the more have it in common, the freer the ridge leaves it.
                let levels = [alike(|part| &part.kind), alike(|part| &part.op), shared.clone()];
                for (level, freer) in levels.iter().zip([2.0, 4.0, 8.0]) {
                    rows.terms.splice(0..0, level.terms.iter().map(|term| term.scaled(freer)));
                }
                families.extend([shared, rows]);
            }
        }
        families.retain(|family| !family.terms.is_empty());
        families
    }

    fn rows_by(&self, name: &str, typical: f64, key: impl Fn(&Part) -> String) -> Family {
        let parts = self.parts.iter().map(|part| {
            // What a choice adds is the mean over the inputs that it may get.
            let inputs = self.parts.iter().filter(|other| other.at == part.at).count() as f64;
            (key(part), part.products.clone(), self.scale(part, typical), Some((part.at, 1.0 / inputs)))
        });
        family(name.into(), parts)
    }

    /// What a part is expected to take: what it takes alone, or a layer's share of a typical network.
    fn scale(&self, part: &Part, typical: f64) -> f64 {
        part.isolated_ns.unwrap_or(typical / self.roles.len() as f64)
    }
}

fn by_place(part: &Part) -> String {
    format!("{} in layer {}", part.row, part.at.0)
}

/// One end of a pair: the index of a part.
type End = fn(&Pair) -> usize;

/// Neighbours of one relation.
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

    /// Those that have a name, in terms by name, on the scale of that one of the two whose cost changes.
    fn family(&self, name: String, changed: impl Fn(&Pair) -> usize, term: impl Fn(&Pair) -> Option<String>) -> Family {
        let part = |pair: &&Pair| {
            let scale = self.structure.scale(&self.structure.parts[changed(pair)], self.typical);
            Some((term(pair)?, pair.products.clone(), scale, None))
        };
        family(name, self.pairs.iter().filter_map(part))
    }
}

/// A family of such pieces, in terms by name: products, their scale, and the row that they are a share of. A scale of
/// 0 adds nothing.
fn family(name: String, pieces: impl IntoIterator<Item = (String, Vec<Product>, f64, Option<(Place, f64)>)>) -> Family {
    let mut terms: BTreeMap<String, Term> = BTreeMap::new();
    for (name, products, scale, row) in pieces.into_iter().filter(|piece| piece.2 != 0.0) {
        let new = || Term { name: name.clone(), products: vec![], rows: vec![] };
        let term = terms.entry(name.clone()).or_insert_with(new);
        term.products.extend(products.into_iter().map(|product| (product, scale)));
        term.rows.extend(row.map(|(at, share)| (at, scale * share)));
    }
    Family { name, terms: terms.into_values().collect() }
}
