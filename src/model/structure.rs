//! The networks of a space as a fit sees them: which pieces of work they are made of, and which of these are
//! neighbours.

use super::{Place, Product};

/// What a choice is to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It computes something.
    Real,
    /// It passes its input on, so that its neighbours are next to each other.
    Identity,
    /// It gives zeros.
    Zero,
}

/// A choice of a layer, on one of the inputs that it may get.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub at: Place,
    /// Products of which one holds in a network where this is computed, and none elsewhere.
    pub products: Vec<Product>,
    /// Parts with one name do the same work.
    pub row: String,
    /// What it is to its neighbours, and among the rows: `conv_3x3`, `skip/2`.
    pub kind: String,
    /// What kinds have in common that differ in their stride only: `skip`.
    pub op: String,
    pub role: Role,
    /// What it takes alone, nanoseconds: what its row is expected to be before any network is measured. A row that
    /// is 0 here stays 0.
    pub isolated_ns: Option<f64>,
}

/// How two parts are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The second reads what the first gives, with nothing but identities between.
    Before,
    /// Both are computed, and added up.
    Beside,
}

/// Two parts, by index, that can be neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub relation: Relation,
    pub first: usize,
    pub second: usize,
    /// Their sum is 1 in a network where they are neighbours (or the number of ways from one to the other), else 0.
    pub products: Vec<Product>,
}

/// What the networks of a space are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    /// By layer and choice.
    pub roles: Vec<Vec<Role>>,
    /// All that can cost anything.
    pub parts: Vec<Part>,
    pub pairs: Vec<Pair>,
}

impl Structure {
    /// Layers one after another. A `zero` costs nothing and separates its neighbours; the cost of what is dead before
    /// it stays, so that an expectation is never lower for it.
    pub fn chain(roles: Vec<Vec<Role>>, parts: Vec<Part>) -> Structure {
        let mut structure = Structure { roles, parts, pairs: vec![] };
        let real = || (0..structure.parts.len()).filter(|&i| structure.parts[i].role == Role::Real);
        let pairs = real().flat_map(|first| real().map(move |second| (first, second)));
        let pair = |(first, second)| {
            let products = structure.chained(first, second);
            (!products.is_empty()).then_some(Pair { relation: Relation::Before, first, second, products })
        };
        structure.pairs = pairs.filter_map(pair).collect();
        structure
    }

    /// Products that hold where `second` reads what `first` gives.
    fn chained(&self, first: usize, second: usize) -> Vec<Product> {
        let (a, b) = (&self.parts[first], &self.parts[second]);
        if a.at.0 >= b.at.0 {
            return vec![];
        }
        let identities = |layer| (layer, self.having(layer, |role| role == Role::Identity));
        let between: Product = (a.at.0 + 1..b.at.0).map(identities).collect();
        let each = a.products.iter().flat_map(|a| b.products.iter().map(move |b| (a, b)));
        each.filter_map(|(a, b)| intersection(&[a, &between, b])).collect()
    }

    /// The choices of a layer that networks to measure may hold.
    pub fn live(&self, layer: usize) -> Vec<usize> {
        self.having(layer, |role| role != Role::Zero)
    }

    /// The choices of a layer whose role is such.
    pub fn having(&self, layer: usize, such: impl Fn(Role) -> bool) -> Vec<usize> {
        (0..self.roles[layer].len()).filter(|&choice| such(self.roles[layer][choice])).collect()
    }
}

/// The product that holds where all of these do; none where that is nowhere.
fn intersection(products: &[&Product]) -> Option<Product> {
    let mut all = Product::new();
    for (layer, set) in products.iter().copied().flatten() {
        match all.iter_mut().find(|(l, _)| l == layer) {
            Some((_, common)) => common.retain(|choice| set.contains(choice)),
            None => all.push((*layer, set.clone())),
        }
    }
    all.sort();
    all.iter().all(|(_, set)| !set.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_a_chain_see_through_identities_and_not_through_zeros() {
        let roles = vec![vec![Role::Real, Role::Identity, Role::Zero]; 4];
        let part = |layer| Part {
            at: (layer, 0),
            products: vec![vec![(layer, vec![0])]],
            row: "conv".into(),
            kind: "conv".into(),
            op: "conv".into(),
            role: Role::Real,
            isolated_ns: None,
        };
        let chain = Structure::chain(roles, (0..4).map(part).collect());
        let [conv, skip, zero] = [0, 1, 2];
        let of = |choices: [usize; 4]| {
            let holds = |product: &Product| product.iter().all(|(l, set)| set.contains(&choices[*l]));
            let there = chain.pairs.iter().filter(|pair| pair.products.iter().any(holds));
            there.map(|pair| (pair.first, pair.second)).collect::<Vec<_>>()
        };
        assert_eq!(of([conv; 4]), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(of([conv, skip, skip, conv]), [(0, 3)]);
        assert_eq!(of([conv, zero, conv, conv]), [(2, 3)]);
    }
}
