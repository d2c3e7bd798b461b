//! Which networks to measure.

use super::{Place, Structure};
use nalgebra::DMatrix;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// Exchanges that are tried per network and layer.
const EXCHANGES: usize = 40;

/// Returns `networks` networks for a fit, which depend only on the seed. In each layer, every choice (except `zero`)
/// occurs equally often, give or take one. So does, as nearly as exchanges achieve it, every pair of choices of two
/// layers. All rows are therefore known equally well and can be told apart, and neighbours of every kind occur.
pub fn balanced(structure: &Structure, networks: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let column = |ops: Vec<usize>, rng: &mut ChaCha8Rng| {
        let mut order = ops;
        order.shuffle(rng);
        let mut column: Vec<usize> = order.iter().copied().cycle().take(networks).collect();
        column.shuffle(rng);
        column
    };
    let mut columns: Vec<Vec<usize>> =
        (0..structure.roles.len()).map(|layer| column(structure.live(layer), &mut rng)).collect();
    let mut together = Together::of(&columns);
    for _ in 0..EXCHANGES * networks * columns.len() {
        let [a, b] = [(); 2].map(|()| rng.random_range(0..networks));
        let layer = rng.random_range(0..columns.len());
        if together.growth(&columns, layer, a, b) <= 0 {
            together.count(&columns, layer, [a, b], -1);
            columns[layer].swap(a, b);
            together.count(&columns, layer, [a, b], 1);
        }
    }
    (0..networks).map(|i| columns.iter().map(|column| column[i]).collect()).collect()
}

/// Returns `networks` networks, which depend only on the seed. In each layer, every choice (except `zero`) is equally
/// likely.
pub fn random(structure: &Structure, networks: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let live: Vec<Vec<usize>> = (0..structure.roles.len()).map(|layer| structure.live(layer)).collect();
    (0..networks).map(|_| live.iter().map(|ops| ops[rng.random_range(0..ops.len())]).collect()).collect()
}

/// Returns the indices of the `most` networks with the largest predictive variance, chosen one after another as if all
/// earlier ones had been measured: a sequential D-optimal design (Fedorov 1972, Theory of Optimal Experiments). A row
/// of `x` is a network, and a column is what an unknown counts for in it. `inverse` is the inverse of the normal
/// matrix.
pub fn d_optimal(x: &DMatrix<f64>, mut inverse: DMatrix<f64>, most: usize) -> Vec<usize> {
    let mut variances = (x * &inverse).component_mul(x).column_sum();
    let mut chosen = vec![];
    for _ in 0..most.min(x.nrows()) {
        let left = (0..x.nrows()).filter(|i| !chosen.contains(i));
        let Some(best) = left.max_by(|&a, &b| variances[a].total_cmp(&variances[b])) else { break };
        let known = 1.0 / (1.0 + variances[best]);
        let covariances = &inverse * x.row(best).transpose();
        let with_best = x * &covariances;
        variances -= known * with_best.component_mul(&with_best);
        inverse.ger(-known, &covariances, &covariances, 1.0);
        chosen.push(best);
    }
    chosen
}

/// How often two choices occur together in two layers of a network.
struct Together(HashMap<(Place, Place), i64>);

impl Together {
    fn of(columns: &[Vec<usize>]) -> Self {
        let mut together = Together(HashMap::new());
        for layer in 1..columns.len() {
            together.count(&columns[..=layer], layer, 0..columns[layer].len(), 1);
        }
        together
    }

    fn times(&self, a: Place, b: Place) -> i64 {
        self.0.get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }

    /// Adds `by` to the pairs of the choices of `layer` with those of all other layers, in these networks.
    fn count(&mut self, columns: &[Vec<usize>], layer: usize, networks: impl IntoIterator<Item = usize>, by: i64) {
        for i in networks {
            for other in (0..columns.len()).filter(|&other| other != layer) {
                let (a, b) = ((layer, columns[layer][i]), (other, columns[other][i]));
                *self.0.entry((a.min(b), a.max(b))).or_default() += by;
            }
        }
    }

    /// Returns by how much the sum of squares grows if networks `a` and `b` exchange their choices in `layer`. The sum
    /// is least if all pairs occur equally often.
    fn growth(&self, columns: &[Vec<usize>], layer: usize, a: usize, b: usize) -> i64 {
        let [op_a, op_b] = [a, b].map(|i| (layer, columns[layer][i]));
        if op_a == op_b {
            return 1;
        }
        let others = (0..columns.len()).filter(|&other| other != layer && columns[other][a] != columns[other][b]);
        others
            .map(|other| {
                let [with_a, with_b] = [a, b].map(|i| (other, columns[other][i]));
                2 * (self.times(op_b, with_a) + self.times(op_a, with_b)
                    - self.times(op_a, with_a)
                    - self.times(op_b, with_b))
                    + 4
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    fn structure(layers: usize, ops: usize) -> Structure {
        let role = |op: usize| if op == 1 { Role::Zero } else { Role::Real };
        Structure::chain(vec![(0..ops).map(role).collect(); layers], vec![])
    }

    #[test]
    fn ops_occur_equally_often_and_pairs_nearly() {
        let networks = balanced(&structure(6, 8), 98, 3);
        for (l, op) in (0..6).flat_map(|l| (0..8).map(move |op| (l, op))) {
            let times = networks.iter().filter(|ops| ops[l] == op).count();
            assert_eq!(times, if op == 1 { 0 } else { 14 });
            for (m, other) in (0..l).flat_map(|m| (0..8).map(move |op| (m, op))) {
                let times = networks.iter().filter(|ops| ops[l] == op && ops[m] == other).count();
                let expected = if op == 1 || other == 1 { 0..=0 } else { 1..=3 };
                assert!(expected.contains(&times), "{l} {op} {m} {other}: {times}");
            }
        }
        assert_eq!(networks, balanced(&structure(6, 8), 98, 3));
        assert_ne!(networks, balanced(&structure(6, 8), 98, 4));
    }

    #[test]
    fn random_networks_hold_all_ops_but_zero() {
        let networks = random(&structure(4, 6), 200, 0);
        for op in 0..6 {
            assert_eq!(networks.iter().any(|ops| ops.contains(&op)), op != 1, "{op}");
        }
        assert_eq!(networks, random(&structure(4, 6), 200, 0));
    }

    /// Three unknowns, of which the last is not known yet.
    #[test]
    fn the_least_known_comes_first_and_nothing_twice() {
        let inverse = DMatrix::from_diagonal(&[0.01, 0.02, 1.0].to_vec().into());
        let x = DMatrix::from_row_slice(4, 3, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.1, 0.1, 0.8, 0.1, 0.1, 0.7]);
        assert_eq!(d_optimal(&x, inverse.clone(), 2)[0], 2);
        let mut all = d_optimal(&x, inverse, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn a_number_that_does_not_divide_leaves_one_more_or_less() {
        let networks = balanced(&structure(4, 6), 23, 0);
        for op in [0, 2, 3, 4, 5] {
            let times = networks.iter().filter(|ops| ops[2] == op).count();
            assert!((4..=5).contains(&times), "{op}: {times}");
        }
    }
}
