//! The latency model on published measurements of real boards. Of the networks of NAS-Bench-201 (Dong and Yang 2020,
//! arXiv 2001.00326), some are used to fit and the rest to test.
//!
//! `cargo run --release --example nasbench201 -- FILE.csv [NETWORKS_TO_FIT [SPLITS]]`
//!
//! The file has the columns `arch` (`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`) and `latency_ms`.

use edge_nas::latency::Latency;
use edge_nas::model::{Accuracy, Fit, Measured, Pair, Part, Product, Relation, Role, Structure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use std::error::Error;

const OPS: [(&str, Role); 5] = [
    ("none", Role::Zero),
    ("skip_connect", Role::Identity),
    ("nor_conv_1x1", Role::Real),
    ("nor_conv_3x3", Role::Real),
    ("avg_pool_3x3", Role::Real),
];
/// The cell: four nodes, each joined to all before it, in the order of the cell's string. Node 0 is the input and the
/// last one is the output. A node is the sum of the edges that end there.
const EDGES: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
const OUTPUT: usize = 3;

/// What is computed in a cell.
#[derive(Clone, Copy)]
struct Cell {
    /// Whether the runtime computes on zeros. If so, only what the output does not use is dead. Otherwise, whatever
    /// gets nothing but zeros is dead as well.
    on_zeros: bool,
}

impl Cell {
    fn structure(self) -> Structure {
        let live = |op: &usize| OPS[*op].1 != Role::Zero;
        let places = (0..EDGES.len()).flat_map(|edge| (0..OPS.len()).filter(live).map(move |op| (edge, op)));
        let part = |(edge, op): (usize, usize)| {
            let ((from, to), (name, role)) = (EDGES[edge], OPS[op]);
            Part {
                at: (edge, op),
                products: self.where_alive(vec![(edge, vec![op])], &[edge]),
                work: format!("{name} {from}->{to}"),
                kind: name.into(),
                op: name.into(),
                role,
                isolated_ns: None,
            }
        };
        let parts: Vec<Part> = places.map(part).collect();
        let all = (0..parts.len()).flat_map(|first| (0..parts.len()).map(move |second| (first, second)));
        let pairs = all.flat_map(|(first, second)| {
            let (a, b) = (&parts[first], &parts[second]);
            let pair = |relation, products| Pair { relation, first, second, products };
            [pair(Relation::Before, self.before(a, b)), pair(Relation::Beside, self.beside(a, b))]
        });
        let pairs = pairs.filter(|pair| !pair.products.is_empty()).collect();
        Structure { roles: vec![OPS.map(|(_, role)| role).to_vec(); EDGES.len()], parts, pairs }
    }

    /// Returns the products that hold if `b` reads the output of `a`.
    fn before(self, a: &Part, b: &Part) -> Vec<Product> {
        if [a, b].iter().any(|part| part.role != Role::Real) {
            return vec![];
        }
        let ends = [a.at.0, b.at.0];
        let product = |path: Vec<usize>| {
            let mut product: Product = path.into_iter().map(|edge| (edge, having(Role::Identity, true))).collect();
            product.extend([a, b].map(|part| (part.at.0, vec![part.at.1])));
            product.sort();
            product
        };
        let products = paths(EDGES[ends[0]].1, EDGES[ends[1]].0).into_iter().map(product);
        products.flat_map(|product| self.where_alive(product, &ends)).collect()
    }

    /// Returns the products that hold if both are computed and end in the same node.
    fn beside(self, a: &Part, b: &Part) -> Vec<Product> {
        let ends = [a.at.0, b.at.0];
        if ends[0] >= ends[1] || EDGES[ends[0]].1 != EDGES[ends[1]].1 {
            return vec![];
        }
        self.where_alive([a, b].map(|part| (part.at.0, vec![part.at.1])).to_vec(), &ends)
    }

    /// Divides `product` into disjoint products that hold exactly where the edges `live` are alive. The edges that
    /// matter are, one after another, taken to be a zero or not.
    fn where_alive(self, product: Product, live: &[usize]) -> Vec<Product> {
        let decided = |edge: usize| product.iter().find(|(e, _)| *e == edge);
        let all_live = |undecided: bool| {
            let holds = |edge| match decided(edge) {
                Some((_, ops)) => ops.iter().all(|&op| OPS[op].1 != Role::Zero),
                None => undecided,
            };
            let present: Vec<bool> = (0..EDGES.len()).map(holds).collect();
            live.iter().all(|&edge| self.is_alive(&present, edge))
        };
        if !all_live(true) {
            return vec![];
        }
        let next = (0..EDGES.len()).find(|&edge| decided(edge).is_none());
        let (false, Some(edge)) = (all_live(false), next) else { return vec![product] };
        let parts = [true, false].map(|zero| {
            let mut part = [product.as_slice(), &[(edge, having(Role::Zero, zero))]].concat();
            part.sort();
            part
        });
        parts.into_iter().flat_map(|part| self.where_alive(part, live)).collect()
    }

    /// Returns whether the edge is computed if these edges are `present` and the others are zeros.
    fn is_alive(self, present: &[bool], edge: usize) -> bool {
        let joined = |from, to| paths(from, to).iter().any(|path| path.iter().all(|&e| present[e]));
        present[edge] && joined(EDGES[edge].1, OUTPUT) && (self.on_zeros || joined(0, EDGES[edge].0))
    }
}

/// Returns the ops that have this role, or those that do not.
fn having(role: Role, has: bool) -> Vec<usize> {
    (0..OPS.len()).filter(|&op| (OPS[op].1 == role) == has).collect()
}

/// Returns the paths from one node to another, as edges.
fn paths(from: usize, to: usize) -> Vec<Vec<usize>> {
    if from == to {
        return vec![vec![]];
    }
    let leaving = (0..EDGES.len()).filter(|&e| EDGES[e].0 == from && EDGES[e].1 <= to);
    let paths = leaving.flat_map(|e| paths(EDGES[e].1, to).into_iter().map(move |rest| (e, rest)));
    paths.map(|(e, rest)| [vec![e], rest].concat()).collect()
}

/// Reads the networks of a file that have any path to their output.
fn read(file: &str) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut networks = vec![];
    for record in csv::Reader::from_path(file)?.deserialize() {
        let (_, arch, ms): (usize, String, f64) = record?;
        let op = |edge: &str| OPS.iter().position(|(op, _)| edge.split('~').next() == Some(op));
        let edges = arch.split(['|', '+']).filter(|edge| !edge.is_empty());
        let ops: Option<Vec<usize>> = edges.map(op).collect();
        let ops = ops.ok_or_else(|| format!("{file}: `{arch}` has an op that is unknown"))?;
        networks.push(Measured { choices: ops, latency: Latency::from_ns(ms * 1e6), weight: 1.0 });
    }
    let path = |ops: &[usize]| {
        let through = |path: &[usize]| path.iter().all(|&edge| ops[edge] != 0);
        [&[3][..], &[0, 4], &[1, 5], &[0, 2, 5]].iter().any(|path| through(path))
    };
    networks.retain(|network| path(&network.choices));
    Ok(networks)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.first().ok_or("which file? see the head of this example")?;
    let number = |i: usize, default: u64| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (to_fit, splits) = (number(1, 900)? as usize, number(2, 5)?);
    let networks = read(file)?;
    println!("{} networks, {to_fit} to fit and the rest to test", networks.len());

    let mut accuracies = vec![];
    for seed in 0..splits {
        let mut shuffled = networks.clone();
        shuffled.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let (fitted, tested) = shuffled.split_at_checked(to_fit).ok_or("the file has fewer networks")?;
        // The networks to fit alone decide whether the runtime computes on zeros.
        let fit = |on_zeros| Ok::<_, Box<dyn Error>>((on_zeros, Fit::new(&Cell { on_zeros }.structure(), fitted)?));
        let (a, b) = (fit(false)?, fit(true)?);
        let (on_zeros, fit) = if a.1.leave_one_out_error() <= b.1.leave_one_out_error() { a } else { b };
        let predict = |m: &Measured| Latency::from_ns(fit.polynomial.value(&m.choices, 0));
        let pairs: Vec<_> = tested.iter().map(|m| (predict(m), m.latency)).collect();
        let accuracy = Accuracy::of(&pairs).ok_or("no networks are left to test")?;
        println!(
            "split {seed}: computes on zeros: {on_zeros}; leave-one-out error {:.2} %; {}",
            100.0 * fit.leave_one_out_error(),
            show(&accuracy)
        );
        for found in &fit.interactions {
            let gain = &found.gain;
            println!("  {}: {:.2} % -> {:.2} %", gain.interaction, 100.0 * gain.before, 100.0 * gain.after);
        }
        accuracies.push(accuracy);
    }
    let mean = |of: fn(&Accuracy) -> f64| accuracies.iter().map(of).sum::<f64>() / accuracies.len() as f64;
    println!(
        "mean: MAPE {:.2} %, within 5 % {:.1} %, within 10 % {:.1} %, RMSE {:.3} ms",
        100.0 * mean(|a| a.mape),
        100.0 * mean(|a| a.within_5),
        100.0 * mean(|a| a.within_10),
        mean(|a| a.rmse_ns.ms())
    );
    Ok(())
}

fn show(accuracy: &Accuracy) -> String {
    format!(
        "MAPE {:.2} %, within 5 % {:.1} %, within 10 % {:.1} %, RMSE {:.3} ms, Spearman {:.4}, Kendall {:.4}",
        100.0 * accuracy.mape,
        100.0 * accuracy.within_5,
        100.0 * accuracy.within_10,
        accuracy.rmse_ns.ms(),
        accuracy.spearman.unwrap_or(f64::NAN),
        accuracy.kendall.unwrap_or(f64::NAN),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurements_that_ship_are_predicted() -> Result<(), Box<dyn Error>> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/published/nasbench201_jetson_nano_fp32_ms.csv");
        let networks = read(file)?;
        let fit = Fit::new(&Cell { on_zeros: false }.structure(), &networks[..150])?;
        let pairs: Vec<(Latency, Latency)> = networks[150..]
            .iter()
            .map(|m| (Latency::from_ns(fit.polynomial.value(&m.choices, 0)), m.latency))
            .collect();
        let accuracy = Accuracy::of(&pairs).ok_or("no networks")?;
        assert!(accuracy.networks > 1700 && accuracy.mape < 0.05, "{accuracy:?}");
        Ok(())
    }

    /// Compares with a search from both ends, for all 729 networks in which each edge is a convolution, an identity or
    /// nothing.
    #[test]
    fn what_is_alive_in_a_cell() {
        let holds = |products: &[Product], ops: &[usize]| {
            products.iter().filter(|product| product.iter().all(|(e, set)| set.contains(&ops[*e]))).count()
        };
        for on_zeros in [false, true] {
            let parts = Cell { on_zeros }.structure().parts;
            for n in 0..3usize.pow(6) {
                let ops: Vec<usize> = (0..6u32).map(|e| n / 3usize.pow(e) % 3).collect();
                let (mut fed, mut used) = ([true, false, false, false], [false, false, false, true]);
                for e in 0..6 {
                    fed[EDGES[e].1] |= ops[e] != 0 && fed[EDGES[e].0];
                    let back = 5 - e;
                    used[EDGES[back].0] |= ops[back] != 0 && used[EDGES[back].1];
                }
                for Part { at: (edge, op), products, .. } in &parts {
                    let (from, to) = EDGES[*edge];
                    let expected = ops[*edge] == *op && used[to] && (on_zeros || fed[from]);
                    assert_eq!(holds(products, &ops), usize::from(expected), "{ops:?} {edge} {op}");
                }
            }
        }
    }
}
