//! The latency model on published measurements of real boards: networks of NAS-Bench-201 (Dong and Yang
//! 2020, arXiv 2001.00326), some to fit and the rest to test.
//!
//! `cargo run --release --example nasbench201 -- FILE.csv [NETWORKS_TO_FIT [SPLITS]]`
//!
//! The file has the columns `arch` (`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`) and `latency_ms`.

use edge_nas::latency::Latency;
use edge_nas::latency::fit::{Accuracy, Choice, Fit, Measured, Role, Structure, Wiring};
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
/// The cell: four nodes, each joined to all before it, in the order in which its string has them.
const EDGES: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];

fn structure(on_zeros: bool) -> Structure {
    let choice = |(from, to): (usize, usize), (op, role): (&str, Role)| Choice {
        row: format!("{op} {from}->{to}"),
        kind: op.into(),
        op: op.into(),
        role,
        isolated_ns: None,
        weights: 0.0,
    };
    let layers = EDGES.map(|edge| OPS.map(|op| choice(edge, op)).to_vec()).to_vec();
    Structure { layers, wiring: Wiring::Cell { edges: EDGES.to_vec(), on_zeros } }
}

/// The networks of a file that have any path to their output.
fn read(file: &str) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut networks = vec![];
    for record in csv::Reader::from_path(file)?.deserialize() {
        let (_, arch, ms): (usize, String, f64) = record?;
        let op = |edge: &str| OPS.iter().position(|(op, _)| edge.split('~').next() == Some(op));
        let edges = arch.split(['|', '+']).filter(|edge| !edge.is_empty());
        let ops: Option<Vec<usize>> = edges.map(op).collect();
        let ops = ops.ok_or_else(|| format!("{file}: `{arch}` has an op that is unknown"))?;
        networks.push(Measured { ops, latency: Latency::from_ns(ms * 1e6), weight: 1.0 });
    }
    let path = |ops: &[usize]| {
        let through = |path: &[usize]| path.iter().all(|&edge| ops[edge] != 0);
        [&[3][..], &[0, 4], &[1, 5], &[0, 2, 5]].iter().any(|path| through(path))
    };
    networks.retain(|network| path(&network.ops));
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
        // Whether the runtime computes on zeros is told from the networks to fit alone.
        let fit = |on_zeros| Ok::<_, Box<dyn Error>>((on_zeros, Fit::new(&structure(on_zeros), fitted)?));
        let (a, b) = (fit(false)?, fit(true)?);
        let (on_zeros, fit) = if a.1.held_out_error() <= b.1.held_out_error() { a } else { b };
        let pairs: Vec<_> = tested.iter().map(|m| (fit.model.predict(&m.ops), m.latency)).collect();
        let accuracy = Accuracy::of(&pairs).ok_or("no networks are left to test")?;
        println!(
            "split {seed}: computes on zeros: {on_zeros}; held-out error {:.2} %; {}",
            100.0 * fit.held_out_error(),
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
