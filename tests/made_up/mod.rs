//! A made-up board: networks of a chain whose true latency is known.

use edge_nas::latency::Latency;
use edge_nas::model::{Measured, Part, Role, Structure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Ops, with their costs in isolation at stride 1.
const OPS: [(&str, f64); 8] = [
    ("conv_3x3", 0.9e6),
    ("conv_5x5", 2.5e6),
    ("sep_conv_3x3", 0.25e6),
    ("sep_conv_5x5", 0.4e6),
    ("skip", 0.0),
    ("zero", 0.0),
    ("avg_pool_3x3", 0.1e6),
    ("max_pool_3x3", 0.12e6),
];
/// Layers with the same name do the same work.
const LAYERS: [&str; 6] = ["32", "32", "64/2", "64", "128/2", "128"];
/// The share of a layer's cost that is gone if a strided skip is pulled forward through it.
const PULLED: f64 = 0.3;

/// A behaviour of the board that a sum of contributions cannot express.
#[derive(Clone, Copy, PartialEq)]
pub enum Quirk {
    None,
    /// It pulls a strided skip forward through the op before it.
    PullsStridedSkips,
    /// One op after one particular other op costs more.
    SlowPair,
}

pub struct Board {
    pub structure: Structure,
    pub quirk: Quirk,
    all: Vec<Part>,
    contributions: BTreeMap<String, f64>,
    rng: ChaCha8Rng,
}

impl Board {
    pub fn new(quirk: Quirk, isolated: bool, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut contributions = BTreeMap::new();
        let mut part = |(at, layer, op, cost): ((usize, usize), &str, &str, f64)| {
            let stride = if layer.ends_with("/2") { "/2" } else { "" };
            let role = role(layer, op);
            let cost = if stride.is_empty() || op == "zero" { cost } else { 0.5 * cost + 0.06e6 };
            let work = format!("{op} {layer}");
            let share = 0.75 + 0.15 * normal(&mut rng);
            contributions.entry(work.clone()).or_insert(cost * share.max(0.2));
            let isolated_ns = (isolated || role != Role::Real).then_some(cost);
            let products = vec![vec![(at.0, vec![at.1])]];
            Part { at, products, work, kind: format!("{op}{stride}"), op: op.into(), role, isolated_ns }
        };
        let all = LAYERS
            .iter()
            .enumerate()
            .flat_map(|(l, layer)| OPS.iter().enumerate().map(move |(o, (op, cost))| ((l, o), *layer, *op, *cost)));
        let all: Vec<Part> = all.map(&mut part).collect();
        let roles = LAYERS.map(|layer| OPS.map(|(op, _)| role(layer, op)).to_vec()).to_vec();
        let parts = all.iter().filter(|part| part.role != Role::Zero).cloned().collect();
        Board { structure: Structure::chain(roles, parts), quirk, all, contributions, rng }
    }

    pub fn contribution(&self, layer: usize, op: usize) -> f64 {
        self.contributions[&self.part(layer, op).work]
    }

    fn part(&self, layer: usize, op: usize) -> &Part {
        &self.all[layer * OPS.len() + op]
    }

    /// Returns the latency without noise, in nanoseconds.
    pub fn truth(&self, ops: &[usize]) -> f64 {
        let mut ns = 1.5e6;
        let mut last: Option<(usize, usize)> = None;
        for (layer, &op) in ops.iter().enumerate() {
            ns += self.contribution(layer, op);
            let choice = self.part(layer, op);
            if choice.role == Role::Identity {
                continue;
            }
            if let Some((l, o)) = last {
                let before = self.part(l, o);
                match self.quirk {
                    Quirk::PullsStridedSkips if choice.kind == "skip/2" => ns -= PULLED * self.contribution(l, o),
                    Quirk::SlowPair if before.kind == "sep_conv_5x5" && choice.kind == "conv_3x3" => ns += 0.4e6,
                    _ => {}
                }
            }
            last = Some((layer, op));
        }
        ns
    }

    /// Returns the latency with `noise`, a relative standard deviation.
    pub fn measure(&mut self, ops: &[usize], noise: f64) -> Measured {
        let ns = self.truth(ops) * (1.0 + noise * normal(&mut self.rng));
        Measured { choices: ops.to_vec(), latency: Latency::from_ns(ns), weight: 1.0 }
    }

    /// Returns a random network without a zero.
    pub fn network(&mut self) -> Vec<usize> {
        let op = |rng: &mut ChaCha8Rng| [0, 1, 2, 3, 4, 6, 7][rng.random_range(0..7)];
        (0..LAYERS.len()).map(|_| op(&mut self.rng)).collect()
    }

    /// Returns the mean absolute relative error over fresh networks.
    pub fn error(&mut self, predict: impl Fn(&[usize]) -> Latency) -> f64 {
        let errors = self.errors(predict);
        errors.iter().sum::<f64>() / errors.len() as f64
    }

    /// Returns the largest absolute relative error over fresh networks.
    pub fn worst(&mut self, predict: impl Fn(&[usize]) -> Latency) -> f64 {
        self.errors(predict).into_iter().fold(0.0, f64::max)
    }

    fn errors(&mut self, predict: impl Fn(&[usize]) -> Latency) -> Vec<f64> {
        let networks: Vec<Vec<usize>> = (0..300).map(|_| self.network()).collect();
        networks.iter().map(|ops| (predict(ops).ns() / self.truth(ops) - 1.0).abs()).collect()
    }
}

/// Returns an approximately normal number.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

fn role(layer: &str, op: &str) -> Role {
    match op {
        "zero" => Role::Zero,
        "skip" if !layer.ends_with("/2") => Role::Identity,
        _ => Role::Real,
    }
}
