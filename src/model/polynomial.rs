use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// "This layer has one of these choices, and that layer one of those", with layers and choices in ascending order.
pub type Product = Vec<(usize, Vec<usize>)>;

/// A choice of a layer, as the indices of the layer and of the choice.
pub type Place = (usize, usize);

/// What a network costs if each of some layers has one of its given choices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monomial {
    pub coefficient: f64,
    /// Empty for what all networks cost.
    pub holds: Product,
}

/// What the networks of a space cost, in any unit: a multilinear polynomial of the probabilities with which layers have
/// choices. The value for a network without a `zero` equals the expectation if all of its choices are certain, to the last
/// digit. A `zero` makes the layers before it cost nothing, but only in the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polynomial {
    /// First what all networks cost, then what depends on one layer, then what depends on several.
    monomials: Vec<Monomial>,
    /// No network costs less.
    floor: f64,
}

/// Coefficients are multiples of 1/PARTS, so that sums up to 2⁴³ are exact in any order.
const PARTS: f64 = 1024.0;

impl Polynomial {
    /// Sums parts, each a coefficient that counts where its product holds. Equal products are combined.
    pub fn sum(parts: impl IntoIterator<Item = (Product, f64)>) -> Self {
        let mut sums: BTreeMap<(usize, Product), f64> = BTreeMap::new();
        for (product, coefficient) in parts {
            *sums.entry((product.len(), product)).or_default() += coefficient;
        }
        let monomial =
            |((_, holds), sum): ((usize, Product), f64)| Monomial { coefficient: (sum * PARTS).round() / PARTS, holds };
        let monomials = sums.into_iter().map(monomial).filter(|m| m.coefficient != 0.0).collect();
        Polynomial { monomials, floor: 0.0 }
    }

    /// Returns the same polynomial for networks of which none costs less than `floor`.
    pub fn with_floor(self, floor: f64) -> Self {
        Polynomial { floor, ..self }
    }

    pub fn monomials(&self) -> &[Monomial] {
        &self.monomials
    }

    /// Returns a lower bound on the cost of all networks.
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// Returns what all networks have in common.
    pub fn base(&self) -> f64 {
        self.monomials.first().filter(|m| m.holds.is_empty()).map_or(0.0, |m| m.coefficient)
    }

    /// Returns what a choice adds irrespective of the other layers.
    pub fn contribution(&self, (layer, choice): Place) -> f64 {
        let is = |product: &Product| matches!(product.as_slice(), [(l, set)] if *l == layer && set.contains(&choice));
        self.monomials.iter().filter(|m| is(&m.holds)).map(|m| m.coefficient).sum()
    }

    /// Returns the polynomial of the networks in which `layer` has `choice`.
    pub fn given(&self, layer: usize, choice: usize) -> Polynomial {
        let part = |m: &Monomial| {
            let possible = m.holds.iter().all(|(l, set)| *l != layer || set.contains(&choice));
            let rest = || m.holds.iter().filter(|(l, _)| *l != layer).cloned().collect();
            possible.then(|| (rest(), m.coefficient))
        };
        Polynomial { floor: self.floor, ..Self::sum(self.monomials.iter().filter_map(part)) }
    }

    /// Returns the cost of a network. `first_live` is the first of its layers that is computed
    /// ([`crate::space::Networks::first_live`]).
    pub fn value(&self, choices: &[usize], first_live: usize) -> f64 {
        // All that a dead layer shares with a live one is the shape of its output.
        let alive = |m: &&Monomial| m.holds.last().is_none_or(|(layer, _)| *layer >= first_live);
        let holds = |m: &Monomial| m.holds.iter().all(|(layer, set)| set.contains(&choices[*layer]));
        let sum: f64 = self.monomials.iter().filter(alive).filter(|m| holds(m)).map(|m| m.coefficient).sum();
        sum.max(self.floor)
    }

    /// Returns the expected cost if layer l has choice i with probability `probabilities[l][i]`, independently of other
    /// layers.
    pub fn expected(&self, probabilities: &[Vec<f64>]) -> f64 {
        let term =
            |m: &Monomial| m.holds.iter().map(|part| factor(part, probabilities)).product::<f64>() * m.coefficient;
        self.monomials.iter().map(term).sum::<f64>().max(self.floor)
    }

    /// Returns the derivative of [`Polynomial::expected`], by layer and choice.
    pub fn gradient(&self, probabilities: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut gradient: Vec<Vec<f64>> = probabilities.iter().map(|layer| vec![0.0; layer.len()]).collect();
        if self.expected(probabilities) <= self.floor {
            return gradient;
        }
        for m in &self.monomials {
            for (i, (layer, set)) in m.holds.iter().enumerate() {
                let others = m.holds.iter().enumerate().filter(|(j, _)| *j != i);
                let rest = others.map(|(_, part)| factor(part, probabilities)).product::<f64>();
                set.iter().for_each(|&choice| gradient[*layer][choice] += rest * m.coefficient);
            }
        }
        gradient
    }
}

fn factor((layer, set): &(usize, Vec<usize>), probabilities: &[Vec<f64>]) -> f64 {
    set.iter().map(|&choice| probabilities[*layer][choice]).sum()
}
