//! The networks of a space as the latency model sees them: which ops, and who is whose neighbour.

/// What a candidate op is to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It computes.
    Real,
    /// It hands on what it is given: its neighbours see through it.
    Identity,
    /// It gives zeros.
    Zero,
}

/// A candidate op of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Layers whose choices have one name do the same piece of work there.
    pub row: String,
    /// What it is like, to its neighbours and among the rows: `conv_3x3`, `skip/2`.
    pub kind: String,
    /// What kinds have in common that differ in their stride only: `skip`.
    pub op: String,
    pub role: Role,
    /// What it takes alone, in nanoseconds: what its row is thought to be before any network is
    /// measured. A row that is 0 here stays 0.
    pub isolated_ns: Option<f64>,
    /// How many weights it reads.
    pub weights: f64,
}

/// How the layers of a space are joined.
#[derive(Clone, Debug, PartialEq)]
pub enum Wiring {
    /// One after another. A `zero` costs nothing and parts its neighbours; the cost of what else it
    /// kills stays, so that an expectation is never the lower for it.
    Chain,
    /// A layer is an edge from node to node. Node 0 is the input, the last the output, and a node is the
    /// sum of the edges that end there.
    Cell {
        edges: Vec<(usize, usize)>,
        /// Whether the runtime computes on zeros: then only what the output does not use is dead, else
        /// also what gets nothing but zeros.
        on_zeros: bool,
    },
}

/// For each layer its choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    pub layers: Vec<Vec<Choice>>,
    pub wiring: Wiring,
}

/// "This layer holds one of these ops, and that one of those": layers and ops in rising order.
pub type Product = Vec<(usize, Vec<usize>)>;

/// A choice: layer and op.
pub type Place = (usize, usize);

/// How two choices are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The second works on what the first gives, with nothing but identities between.
    Before,
    /// Both are live, and added up.
    Beside,
}

/// Two choices that can be neighbours. Their products add up to 1 in a network where they are (where
/// there are several ways from one to the other, to their number), else to 0.
#[derive(Clone, Debug)]
pub struct Pair {
    pub relation: Relation,
    pub first: Place,
    pub second: Place,
    pub products: Vec<Product>,
}

impl Structure {
    pub fn choice(&self, (layer, op): Place) -> &Choice {
        &self.layers[layer][op]
    }

    /// All that can cost anything.
    pub fn choices(&self) -> impl Iterator<Item = Place> + '_ {
        let all = self.layers.iter().enumerate().flat_map(|(l, ops)| (0..ops.len()).map(move |o| (l, o)));
        all.filter(|at| self.choice(*at).role != Role::Zero)
    }

    /// The ops of a layer that networks to measure may hold.
    pub fn live(&self, layer: usize) -> Vec<usize> {
        self.having(layer, |role| role != Role::Zero)
    }

    /// Products that add up to 1 where a choice is in the network and alive, else to 0.
    pub fn alive(&self, (layer, op): Place) -> Vec<Product> {
        self.where_alive(vec![(layer, vec![op])], &[layer])
    }

    pub fn pairs(&self) -> Vec<Pair> {
        let all = self.choices().flat_map(|first| self.choices().map(move |second| (first, second)));
        let candidates = all.flat_map(|(first, second)| {
            let pair = |relation, products| Pair { relation, first, second, products };
            [
                pair(Relation::Before, self.before(first, second)),
                pair(Relation::Beside, self.beside(first, second)),
            ]
        });
        candidates.filter(|pair| !pair.products.is_empty()).collect()
    }

    fn before(&self, first: Place, second: Place) -> Vec<Product> {
        let (a, b) = (first.0, second.0);
        if [first, second].iter().any(|&at| self.choice(at).role != Role::Real) {
            return vec![];
        }
        let paths = match &self.wiring {
            Wiring::Chain if a < b => vec![(a + 1..b).collect()],
            Wiring::Chain => vec![],
            Wiring::Cell { edges, .. } => paths(edges, edges[a].1, edges[b].0),
        };
        let product = |path: Vec<usize>| {
            let identities = |l| (l, self.having(l, |role| role == Role::Identity));
            let mut product: Product = path.into_iter().map(identities).collect();
            product.extend([(a, vec![first.1]), (b, vec![second.1])]);
            product.sort();
            product
        };
        let products = paths.into_iter().map(product);
        let possible = products.filter(|product| product.iter().all(|(_, ops)| !ops.is_empty()));
        possible.flat_map(|product| self.where_alive(product, &[a, b])).collect()
    }

    fn beside(&self, first: Place, second: Place) -> Vec<Product> {
        let (a, b) = (first.0, second.0);
        match &self.wiring {
            Wiring::Cell { edges, .. } if a < b && edges[a].1 == edges[b].1 => {
                self.where_alive(vec![(a, vec![first.1]), (b, vec![second.1])], &[a, b])
            }
            _ => vec![],
        }
    }

    /// The ops of a layer whose role is such.
    fn having(&self, layer: usize, such: impl Fn(Role) -> bool) -> Vec<usize> {
        (0..self.layers[layer].len()).filter(|&op| such(self.layers[layer][op].role)).collect()
    }

    /// `product`, parted into disjoint ones that hold just where the layers `live` are alive: the layers
    /// that matter, one after another, are taken to be a zero or none.
    fn where_alive(&self, product: Product, live: &[usize]) -> Vec<Product> {
        let Wiring::Cell { edges, on_zeros } = &self.wiring else { return vec![product] };
        let decided = |layer: usize| product.iter().find(|(l, _)| *l == layer);
        let all_live = |undecided: bool| {
            let holds = |l| match decided(l) {
                Some((_, ops)) => ops.iter().all(|&op| self.choice((l, op)).role != Role::Zero),
                None => undecided,
            };
            let present: Vec<bool> = (0..edges.len()).map(holds).collect();
            live.iter().all(|&l| is_alive(edges, *on_zeros, &present, l))
        };
        if !all_live(true) {
            return vec![];
        }
        let next = (0..edges.len()).find(|&l| decided(l).is_none());
        let (false, Some(layer)) = (all_live(false), next) else { return vec![product] };
        let sets = [false, true].map(|zero| self.having(layer, |role| (role == Role::Zero) == zero));
        let parts = sets.into_iter().filter(|ops| !ops.is_empty()).map(|ops| {
            let mut part = [product.as_slice(), &[(layer, ops)]].concat();
            part.sort();
            part
        });
        parts.flat_map(|part| self.where_alive(part, live)).collect()
    }
}

/// The paths from node to node, as edges.
fn paths(edges: &[(usize, usize)], from: usize, to: usize) -> Vec<Vec<usize>> {
    if from == to {
        return vec![vec![]];
    }
    let leaving = (0..edges.len()).filter(|&e| edges[e].0 == from && edges[e].1 <= to);
    let on = leaving.flat_map(|e| paths(edges, edges[e].1, to).into_iter().map(move |rest| (e, rest)));
    on.map(|(e, rest)| [vec![e], rest].concat()).collect()
}

/// Whether the edge is computed where these edges are `present` and the others zeros.
fn is_alive(edges: &[(usize, usize)], on_zeros: bool, present: &[bool], edge: usize) -> bool {
    let output = edges.iter().map(|e| e.1).max().unwrap_or(0);
    let joined = |from, to| paths(edges, from, to).iter().any(|path| path.iter().all(|&e| present[e]));
    present[edge] && joined(edges[edge].1, output) && (on_zeros || joined(0, edges[edge].0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(kind: &str, role: Role) -> Choice {
        Choice { row: kind.into(), kind: kind.into(), op: kind.into(), role, isolated_ns: None, weights: 0.0 }
    }

    fn structure(layers: usize, wiring: Wiring) -> Structure {
        let choices = [("conv", Role::Real), ("skip", Role::Identity), ("zero", Role::Zero)];
        let choices: Vec<Choice> = choices.into_iter().map(|(kind, role)| choice(kind, role)).collect();
        Structure { layers: vec![choices; layers], wiring }
    }

    fn holds(products: &[Product], ops: &[usize]) -> usize {
        let holds = |product: &&Product| product.iter().all(|(l, set)| set.contains(&ops[*l]));
        products.iter().filter(holds).count()
    }

    #[test]
    fn neighbours_in_a_chain_see_through_identities_and_not_through_zeros() {
        let chain = structure(4, Wiring::Chain);
        let pairs = chain.pairs();
        let [conv, skip, zero] = [0, 1, 2];
        let of = |ops: [usize; 4]| {
            let there = pairs.iter().filter(|pair| holds(&pair.products, &ops) > 0);
            there.map(|pair| (pair.first.0, pair.second.0)).collect::<Vec<_>>()
        };
        assert_eq!(of([conv; 4]), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(of([conv, skip, skip, conv]), [(0, 3)]);
        assert_eq!(of([conv, zero, conv, conv]), [(2, 3)]);
    }

    /// Against a search from both ends, for all 729 networks of the cell of NAS-Bench-201.
    #[test]
    fn what_is_alive_in_a_cell() {
        let edges = vec![(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
        for on_zeros in [false, true] {
            let cell = structure(6, Wiring::Cell { edges: edges.clone(), on_zeros });
            let alive: Vec<_> = cell.choices().map(|at| (at, cell.alive(at))).collect();
            for n in 0..3usize.pow(6) {
                let ops: Vec<usize> = (0..6u32).map(|l| n / 3usize.pow(l) % 3).collect();
                let (mut fed, mut used) = ([true, false, false, false], [false, false, false, true]);
                for l in 0..6 {
                    fed[edges[l].1] |= ops[l] != 2 && fed[edges[l].0];
                    let back = 5 - l;
                    used[edges[back].0] |= ops[back] != 2 && used[edges[back].1];
                }
                for ((layer, op), products) in &alive {
                    let (from, to) = edges[*layer];
                    let expected = ops[*layer] == *op && used[to] && (on_zeros || fed[from]);
                    assert_eq!(holds(products, &ops), usize::from(expected), "{ops:?} {layer} {op}");
                }
            }
        }
    }
}
