//! The networks of a space as a fit sees them: the pieces of work that they consist of, and which of these are
//! neighbours.

use super::{Place, Product};

/// The role of a choice for its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It computes something.
    Real,
    /// It passes its input on, so its neighbours are adjacent.
    Identity,
    /// It outputs zeros.
    Zero,
}

/// A choice of a layer, with one of the inputs that the layer may get.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub at: Place,
    /// Products of which exactly one holds in a network where this part is computed, and none elsewhere.
    pub products: Vec<Product>,
    /// Parts with the same name do the same work.
    pub work: String,
    /// The kind of work, by which neighbours and layers are grouped: `conv_3x3`, `skip/2`.
    pub kind: String,
    /// What is common to kinds that differ only in their stride: `skip`.
    pub op: String,
    pub role: Role,
    /// The latency in isolation, in nanoseconds: what the contribution is expected to be before any network is
    /// measured. A contribution for which this is 0 stays 0.
    pub isolated_ns: Option<f64>,
}

impl Part {
    /// Returns whether the network with these choices has this part.
    pub fn is_in(&self, choices: &[usize]) -> bool {
        self.products.iter().any(|product| product.iter().all(|(layer, set)| set.contains(&choices[*layer])))
    }

    /// Returns whether the parts, which may be the same, are choices of one layer with the same input.
    pub fn is_alternative_to(&self, other: &Part) -> bool {
        let input = |part: &Part| -> Vec<Product> {
            let of_others = |product: &Product| product.iter().filter(|(l, _)| *l != part.at.0).cloned().collect();
            part.products.iter().map(of_others).collect()
        };
        self.at.0 == other.at.0 && input(self) == input(other)
    }
}

/// How two parts are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The second reads the output of the first, with nothing but identities in between.
    Before,
    /// Both are computed, and their outputs are added.
    Beside,
}

/// Two parts, by index, that can be neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub relation: Relation,
    pub first: usize,
    pub second: usize,
    /// The number of products that hold is 1 (or the number of paths from one part to the other) if the parts are
    /// neighbours, and otherwise 0.
    pub products: Vec<Product>,
}

/// What the networks of a space are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    /// By layer and choice.
    pub roles: Vec<Vec<Role>>,
    /// All parts that can cost anything.
    pub parts: Vec<Part>,
    pub pairs: Vec<Pair>,
}

impl Structure {
    /// Creates the structure of a chain of layers. A `zero` costs nothing and separates its neighbours. Layers before
    /// it are dead but keep their cost here, so that a `zero` never makes an expectation lower.
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

    /// Returns the products that hold if `second` reads the output of `first`.
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

    /// Returns the choices of a layer that networks to be measured may have.
    pub fn live(&self, layer: usize) -> Vec<usize> {
        self.having(layer, |role| role != Role::Zero)
    }

    /// Returns the choices of a layer whose role satisfies `such`.
    pub fn having(&self, layer: usize, such: impl Fn(Role) -> bool) -> Vec<usize> {
        (0..self.roles[layer].len()).filter(|&choice| such(self.roles[layer][choice])).collect()
    }
}

/// Returns the product that holds where all of these products hold, or `None` if they never do.
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
            work: "conv".into(),
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
