//! What a latency model makes of a table: predictions, expectations, targets.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::{Images, Latency, LatencyModel, LatencyTable, Networks, TableError, Target};
use edge_nas::space::{CandidateOp, Genotype, LayerSpec, SearchSpace, Stem};
use nas_exporters::Shape;
use proptest::prelude::*;
use table::filled;

const INPUT: Shape = Shape { channels: 3, height: 8, width: 8 };
const CLASSES: usize = 4;

fn op(name: &str) -> CandidateOp {
    name.parse().unwrap()
}

/// A small space, and its latency model from a table of random numbers.
#[derive(Debug)]
struct Case {
    space: SearchSpace,
    table: LatencyTable,
    model: LatencyModel,
}

fn case(candidates: Vec<CandidateOp>, layers: Vec<LayerSpec>, ns: &[f64]) -> Case {
    let stem = Stem { op: op("conv_3x3"), channels: 2, stride: 1 };
    let space = SearchSpace { name: "random".into(), stem, candidates, layers };
    let dir = tempfile::tempdir().unwrap();
    let mut next = ns.iter().cycle();
    let layers = space.distinct_layers(INPUT, CLASSES);
    let table = filled(&dir.path().join("t.jsonl"), &layers, 1, |_| *next.next().unwrap());
    let images = Images { shape: INPUT, classes: CLASSES };
    let model = LatencyModel::new(&table, &Networks { space: &space, images }).unwrap();
    Case { space, table, model }
}

/// Up to four layers of up to four candidates, one of which is not `zero`.
fn cases() -> impl Strategy<Value = Case> {
    let all: Vec<CandidateOp> = CandidateOp::names().into_iter().filter(|n| *n != "head").map(op).collect();
    let candidates = proptest::sample::subsequence(all, 1..5).prop_shuffle();
    let candidates = candidates.prop_filter("a network", |ops| ops.iter().any(|op| *op != CandidateOp::ZERO));
    let layer = (1..4usize, 1..3usize).prop_map(|(channels, stride)| LayerSpec { channels, stride });
    // Few round numbers among them, so that sums tie.
    let ns = prop_oneof![1e2..1e6, (1..4u32).prop_map(|n| f64::from(n) * 100.0)];
    let ns = proptest::collection::vec(ns, 18);
    (candidates, proptest::collection::vec(layer, 1..5), ns).prop_map(|(c, l, ns)| case(c, l, &ns))
}

/// Every way to fill the layers.
fn all_networks(space: &SearchSpace) -> Vec<Vec<usize>> {
    space.layers.iter().fold(vec![vec![]], |networks: Vec<Vec<usize>>, _| {
        let grow = |network: &Vec<usize>| {
            (0..space.candidates.len()).map(|i| [network.as_slice(), &[i]].concat()).collect::<Vec<_>>()
        };
        networks.iter().flat_map(grow).collect()
    })
}

fn ops(space: &SearchSpace, network: &[usize]) -> Vec<CandidateOp> {
    network.iter().map(|&i| space.candidates[i]).collect()
}

fn one_hot(space: &SearchSpace, network: &[usize]) -> Vec<Vec<f64>> {
    let row = |&chosen: &usize| (0..space.candidates.len()).map(|i| f64::from(i == chosen)).collect();
    network.iter().map(row).collect()
}

/// Reproducible numbers in 0..1 for each layer and candidate, with ties.
fn scores(space: &SearchSpace, seed: u64) -> Vec<Vec<f64>> {
    let score = |l: usize, i: usize| {
        let mixed = (seed ^ (l * 31 + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        mixed as f64 / 16.0
    };
    (0..space.layers.len()).map(|l| (0..space.candidates.len()).map(|i| score(l, i)).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn prediction_is_expectation_at_a_one_hot_distribution(case in cases()) {
        let Case { space, table, model } = &case;
        for network in all_networks(space) {
            let predicted = model.predict(&ops(space, &network));
            let expected = model.expected(&one_hot(space, &network));
            prop_assert_eq!(predicted.ns().to_bits(), expected.ns().to_bits());

            let genotype = Genotype::new(space.clone(), ops(space, &network), INPUT, CLASSES).unwrap();
            if !genotype.ops.contains(&CandidateOp::ZERO) {
                let said = table.predict(&genotype).unwrap();
                let by_layer: Option<Latency> = said.layers.iter().map(|l| l.ns).sum();
                for latency in [by_layer, said.isolated, Some(said.latency)] {
                    prop_assert!((latency.unwrap().ns() / predicted.ns() - 1.0).abs() < 1e-5);
                }
            }
        }
    }

    /// On the line between two distributions that differ in one layer, expectation is on the line
    /// between their expectations.
    #[test]
    fn expectation_is_linear_in_each_layer(case in cases(), seed: u64, at in 0.0..1.0f64, which: usize) {
        let Case { space, model, .. } = &case;
        let distribution = |seed| -> Vec<Vec<f64>> {
            scores(space, seed)
                .into_iter()
                .map(|row| {
                    let sum: f64 = row.iter().map(|s| s + 0.1).sum();
                    row.iter().map(|s| (s + 0.1) / sum).collect()
                })
                .collect()
        };
        let which = which % space.layers.len();
        let a = distribution(seed);
        let (mut b, mut between) = (a.clone(), a.clone());
        b[which] = distribution(!seed)[which].clone();
        between[which] = a[which].iter().zip(&b[which]).map(|(a, b)| (1.0 - at) * a + at * b).collect();
        let mixed = (1.0 - at) * model.expected(&a) + at * model.expected(&b);
        let (found, (cheapest, dearest)) = (model.expected(&between), model.range());
        prop_assert!((found.ns() / mixed.ns() - 1.0).abs() < 1e-12, "{found} {mixed}");
        prop_assert!(found <= 1.000_001 * dearest);
        if !space.candidates.contains(&CandidateOp::ZERO) {
            prop_assert!(1.000_001 * found >= cheapest);
        }
    }

    #[test]
    fn the_likeliest_network_within_a_target_is_that_of_brute_force(
        case in cases(), seed: u64, percent in prop_oneof![Just(0.0), Just(100.0), 0.0..100.0f64],
    ) {
        let Case { space, model, .. } = &case;
        let scores = scores(space, seed);
        let target = Target::Percent(percent).resolve(model);
        let score = |network: &[usize]| network.iter().zip(&scores).fold(0.0, |sum, (&i, row)| sum + row[i]);
        let live: Vec<Vec<usize>> = all_networks(space)
            .into_iter()
            .filter(|network| !ops(space, network).contains(&CandidateOp::ZERO))
            .collect();
        let within = |network: &&Vec<usize>| model.predict(&ops(space, network)) <= target;
        let best = live.iter().filter(within).map(|network| score(network)).reduce(f64::max).unwrap();

        let found = model.likeliest_within(&scores, target).unwrap();
        let network: Vec<usize> =
            found.iter().map(|op| space.candidates.iter().position(|c| c == op).unwrap()).collect();
        prop_assert!(!found.contains(&CandidateOp::ZERO));
        prop_assert!(model.predict(&found) <= target);
        prop_assert_eq!(score(&network), best);
        if percent == 100.0 {
            prop_assert_eq!(best, live.iter().map(|network| score(network)).reduce(f64::max).unwrap());
        }
    }

    #[test]
    fn a_target_is_met_from_the_cheapest_network_on(case in cases()) {
        let Case { space, model, .. } = &case;
        let scores = scores(space, 0);
        let (cheapest, dearest) = model.range();
        let live = all_networks(space).into_iter().map(|network| ops(space, &network));
        let latencies: Vec<f64> = live
            .filter(|ops| !ops.contains(&CandidateOp::ZERO))
            .map(|ops| model.predict(&ops).ns())
            .collect();
        prop_assert_eq!(Some(cheapest.ns()), latencies.iter().copied().reduce(f64::min));
        prop_assert_eq!(Some(dearest.ns()), latencies.iter().copied().reduce(f64::max));

        prop_assert!(model.check_target(cheapest).is_ok());
        prop_assert!(model.likeliest_within(&scores, cheapest).is_ok());
        let below = Latency::from_ns(cheapest.ns().next_down());
        let (checked, chosen) = (model.check_target(below), model.likeliest_within(&scores, below).map(drop));
        for refused in [checked, chosen] {
            let unreachable = matches!(refused, Err(TableError::Unreachable { .. }));
            prop_assert!(unreachable, "{refused:?}");
        }
    }

    #[test]
    fn targets_are_read_as_they_are_shown(percent in 0.0..=100.0f64, whole in 0..=100u32, ns in 1e-3..1e12f64) {
        for target in [
            Target::Percent(percent),
            Target::Percent(whole.into()),
            Target::Latency(Latency::from_ns(ns)),
        ] {
            prop_assert_eq!(target.to_string().parse(), Ok(target));
            let json = serde_json::to_string(&target).unwrap();
            prop_assert_eq!(serde_json::from_str::<Target>(&json).unwrap(), target);
        }
        prop_assert_eq!(Target::Percent(whole.into()).to_string(), format!("{whole}%"));
    }

    #[test]
    fn latencies_are_read_as_they_are_shown_to_three_digits(ns in 1.0..1e12f64) {
        let shown = Latency::from_ns(ns).to_string();
        let read: Latency = shown.parse().unwrap();
        prop_assert!((read.ns() / ns - 1.0).abs() < 5.1e-3 || (read.ns() - ns).abs() <= 0.5, "{shown} for {ns}");
        prop_assert_eq!(read.to_string(), shown);
    }
}

#[test]
fn a_target_is_a_latency_or_a_share_of_the_range() {
    let layers = vec![LayerSpec { channels: 2, stride: 1 }];
    // Stem, the candidates, head.
    let Case { model, .. } =
        case(vec![op("conv_3x3"), op("zero"), op("conv_5x5")], layers, &[60.0, 10.0, 100.0, 50.0]);
    assert_eq!(model.range(), (Latency::from_ns(120.0), Latency::from_ns(210.0)));
    for (text, ns) in [("0%", 120.0), ("100%", 210.0), ("50 %", 165.0), ("1us", 1000.0), ("0.2 µs", 200.0)] {
        assert_eq!(text.parse::<Target>().unwrap().resolve(&model).ns(), ns, "{text}");
    }
    for text in ["-1%", "101%", "%", "NaN%", "5", "", "5 miles"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}
