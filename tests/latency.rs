//! What a latency model derives from a table: predictions, expectations, targets.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::{Latency, Target};
use edge_nas::model::LatencyModel;
use edge_nas::run::predict;
use edge_nas::search::{Constraint, Cost, best_within, check, latency_range, scores_of};
use edge_nas::space::{CandidateOp, Channels, Genotype, LayerSpec, Networks};
use edge_nas::table::LatencyTable;
use nas_exporters::Shape;
use proptest::prelude::*;
use table::{filled, op, space};

const INPUT: Shape = Shape { channels: 3, height: 8, width: 8 };
const CLASSES: usize = 4;

const OPS: [&str; 12] = [
    "conv_3x3",
    "conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "skip",
    "zero",
    "avg_pool_3x3",
    "max_pool_3x3",
    "mb_3x3_e1",
    "mb_5x5_e3_se",
    "mb_7x7_e6",
    "fused_3x3_e3",
];

/// A small space, and its latency model from a table of random numbers.
#[derive(Debug)]
struct Case {
    table: LatencyTable,
    model: LatencyModel,
}

fn case(layers: Vec<LayerSpec>, ns: &[f64]) -> Case {
    let mut space =
        space("random", LayerSpec { ops: vec![op("conv_3x3")], channels: vec![2].into(), stride: 1 }, &[], &[]);
    space.layers.extend(layers);
    let networks = Networks::new(space, INPUT, [CLASSES]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut next = ns.iter().cycle();
    let table = filled(&dir.path().join("t.jsonl"), &networks, 1, |_| *next.next().unwrap());
    let model = LatencyModel::new(&table, &networks).unwrap();
    Case { table, model }
}

/// Up to four layers, each of up to four ops of its own, one of which is not `zero`, and up to two widths.
fn cases() -> impl Strategy<Value = Case> {
    let ops = proptest::sample::subsequence(OPS.map(op).to_vec(), 1..5).prop_shuffle();
    let ops = ops.prop_filter("a network", |ops| ops.iter().any(|op| *op != CandidateOp::Zero));
    let widths = proptest::sample::subsequence(vec![1usize, 2, 3], 1..3).prop_map(Channels::Widths);
    let channels = prop_oneof![widths, Just(Channels::Same)];
    let layer = (ops, channels, 1..3usize).prop_map(|(ops, channels, stride)| LayerSpec { ops, channels, stride });
    // There are a few round numbers among them, so that sums tie.
    let ns = prop_oneof![1e2..1e6, (1..4u32).prop_map(|n| f64::from(n) * 100.0)];
    let ns = proptest::collection::vec(ns, 18);
    (proptest::collection::vec(layer, 1..4), ns).prop_map(|(layers, ns)| case(layers, &ns))
}

/// Returns every way to fill the layers.
fn all_networks(networks: &Networks) -> Vec<Vec<usize>> {
    networks.choices().iter().fold(vec![vec![]], |all: Vec<Vec<usize>>, choices| {
        let grow =
            |network: &Vec<usize>| (0..choices.len()).map(|i| [network.as_slice(), &[i]].concat()).collect::<Vec<_>>();
        all.iter().flat_map(grow).collect()
    })
}

fn is_live(networks: &Networks, network: &[usize]) -> bool {
    networks.first_live(network) == 0
}

fn one_hot(networks: &Networks, network: &[usize]) -> Vec<Vec<f64>> {
    let row = |(chosen, n): (&usize, usize)| (0..n).map(|i| f64::from(i == *chosen)).collect();
    network.iter().zip(networks.choices().iter().map(Vec::len)).map(row).collect()
}

/// Returns reproducible numbers from 0 to 1 for each layer and choice, with ties.
fn scores(networks: &Networks, seed: u64) -> Vec<Vec<f64>> {
    let score = |l: usize, i: usize| {
        let mixed = (seed ^ (l * 31 + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        mixed as f64 / 16.0
    };
    let layers = networks.choices().iter().enumerate();
    layers.map(|(l, choices)| (0..choices.len()).map(|i| score(l, i)).collect()).collect()
}

fn within(model: &LatencyModel, limit: Latency) -> Constraint {
    Constraint::new(Cost::latency(model), limit.ns())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn prediction_is_expectation_at_a_one_hot_distribution(case in cases()) {
        let Case { table, model } = &case;
        let networks = &model.networks;
        for network in all_networks(networks) {
            let predicted = model.polynomial.value(&network, 0);
            let expected = model.polynomial.expected(&one_hot(networks, &network));
            prop_assert_eq!(predicted.to_bits(), expected.to_bits());

            let genotype = Genotype::new(networks.clone(), network.clone());
            let said = predict(table, &genotype).unwrap();
            prop_assert_eq!(said.latency_ns, model.predict(&network));
            if is_live(networks, &network) {
                let by_layer: Option<Latency> = said.layers.iter().map(|l| l.adds_ns).sum();
                for latency in [by_layer, said.isolated_ns, Some(said.latency_ns)] {
                    prop_assert!((latency.unwrap().ns() / predicted - 1.0).abs() < 1e-5);
                }
            } else {
                prop_assert!(said.latency_ns.ns() <= predicted);
            }
        }
    }

    /// On the line between two distributions that differ in one layer, the expectation is on the line between their
    /// expectations.
    #[test]
    fn expectation_is_linear_in_each_layer(case in cases(), seed: u64, at in 0.0..1.0f64, which: usize) {
        let Case { model, .. } = &case;
        let networks = &model.networks;
        let distribution = |seed| -> Vec<Vec<f64>> {
            scores(networks, seed)
                .into_iter()
                .map(|row| {
                    let sum: f64 = row.iter().map(|s| s + 0.1).sum();
                    row.iter().map(|s| (s + 0.1) / sum).collect()
                })
                .collect()
        };
        let which = which % networks.len();
        let a = distribution(seed);
        let (mut b, mut between) = (a.clone(), a.clone());
        b[which] = distribution(!seed)[which].clone();
        between[which] = a[which].iter().zip(&b[which]).map(|(a, b)| (1.0 - at) * a + at * b).collect();
        let expected = |p: &[Vec<f64>]| model.polynomial.expected(p);
        let mixed = (1.0 - at) * expected(&a) + at * expected(&b);
        let (found, (fastest, slowest)) = (expected(&between), latency_range(model));
        prop_assert!((found / mixed - 1.0).abs() < 1e-12, "{found} {mixed}");
        prop_assert!(found <= 1.000_001 * slowest.ns());
        if !networks.choices().iter().flatten().any(|choice| choice.op == CandidateOp::Zero) {
            prop_assert!(1.000_001 * found >= fastest.ns());
        }
    }

    #[test]
    fn the_derived_network_is_that_of_brute_force(
        case in cases(), seed: u64, percent in prop_oneof![Just(0.0), Just(100.0), 0.0..100.0f64],
    ) {
        let Case { model, .. } = &case;
        let networks = &model.networks;
        let scores = scores(networks, seed);
        let target = Target::Percent(percent).resolve(latency_range(model));
        let score = |network: &[usize]| network.iter().zip(&scores).fold(0.0, |sum, (&i, row)| sum + row[i]);
        let mut live = all_networks(networks);
        live.retain(|network| is_live(networks, network));
        let fits = |network: &&Vec<usize>| model.predict(network) <= target;
        let best = live.iter().filter(fits).map(|network| score(network)).reduce(f64::max).unwrap();

        let of_live = scores_of(networks, |layer, choice| scores[layer][choice]);
        let found = best_within(&of_live, &[within(model, target)]).unwrap();
        prop_assert!(is_live(networks, &found));
        prop_assert!(model.predict(&found) <= target);
        prop_assert_eq!(score(&found), best);
        if percent == 100.0 {
            prop_assert_eq!(best, live.iter().map(|network| score(network)).reduce(f64::max).unwrap());
        }
    }

    #[test]
    fn a_target_is_met_from_the_fastest_network_on(case in cases()) {
        let Case { model, .. } = &case;
        let networks = &model.networks;
        let (fastest, slowest) = latency_range(model);
        let mut live = all_networks(networks);
        live.retain(|network| is_live(networks, network));
        let latencies: Vec<f64> = live.iter().map(|network| model.predict(network).ns()).collect();
        prop_assert_eq!(Some(fastest.ns()), latencies.iter().copied().reduce(f64::min));
        prop_assert_eq!(Some(slowest.ns()), latencies.iter().copied().reduce(f64::max));

        prop_assert!(check(networks, &[within(model, fastest)]).is_ok());
        let below = [within(model, Latency::from_ns(fastest.ns().next_down()))];
        let error = check(networks, &below).unwrap_err().to_string();
        prop_assert!(error.contains("raise the limit"), "{error}");
    }

    /// Multiply-accumulates and parameters are polynomials like latency, and a limit on activations limits what exceeds
    /// it.
    #[test]
    fn costs_are_those_of_the_networks(case in cases()) {
        let networks = &case.model.networks;
        let (macs, params) = (Cost::macs(networks), Cost::params(networks));
        for network in all_networks(networks) {
            let graph = Genotype::new(networks.clone(), network.clone()).graph();
            let (cost, first) = (graph.cost(), networks.first_live(&network));
            prop_assert_eq!(macs.polynomial.value(&network, first), cost.macs as f64);
            prop_assert_eq!(params.polynomial.value(&network, first), cost.params as f64);
            // A zero, which no derived network contains, costs nothing by definition, although its output takes memory.
            let limits = [cost.peak_activation_bytes, cost.peak_activation_bytes - 4];
            for limit in limits.into_iter().filter(|_| is_live(networks, &network)) {
                let constraint = Constraint::peak_activations(networks, limit);
                let excess = constraint.cost.polynomial.value(&network, first);
                prop_assert_eq!(excess <= constraint.limit, limit == cost.peak_activation_bytes);
            }
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

/// Ten layers with twenty choices each, and scores that follow the costs. Few networks dominate others, but the best
/// one is still found at once.
#[test]
fn large_spaces_are_searched_exactly_where_scores_follow_costs() {
    use edge_nas::model::Polynomial;
    use edge_nas::search::{Unit, best_within, range};
    let noise = |layer: usize, choice: usize| ((layer * 37 + choice * 101) as f64).sin();
    let row = |layer: usize, choice: usize| {
        (vec![(layer, vec![choice])], 1000.0 * (choice as f64 + 1.0 + noise(layer, choice)))
    };
    let pair = |layer: usize| (vec![(layer, vec![3, 7, 9]), (layer + 1, vec![2])], -500.0 * layer as f64);
    let rows = (0..10).flat_map(|layer| (0..20).map(move |choice| row(layer, choice)));
    let polynomial = Polynomial::sum(rows.chain((0..9).map(pair)));
    let (least, most) = range(&polynomial, &vec![(0..20).collect(); 10]).unwrap();
    let cost = Cost { name: "made up".into(), unit: Unit::Nanoseconds, polynomial };
    let score =
        |layer: usize, choice: usize| cost.polynomial.contribution((layer, choice)) + 100.0 * noise(choice, layer);
    let scores: Vec<Vec<f64>> = (0..10).map(|l| (0..20).map(|i| score(l, i)).collect()).collect();
    let total = |choices: &[usize]| choices.iter().zip(&scores).fold(0.0, |sum, (&i, row)| sum + row[i]);
    for share in [0.1, 0.5, 0.9] {
        let limit = least + share * (most - least);
        let best = best_within(&scores, &[Constraint::new(cost.clone(), limit)]).unwrap();
        assert!(cost.polynomial.value(&best, 0) <= limit);
        // No exchange of one or two choices is better.
        for layers in (0..10).flat_map(|a| (0..=a).map(move |b| [a, b])) {
            for choices in (0..20).flat_map(|i| (0..20).map(move |j| [i, j])) {
                let mut other = best.clone();
                (other[layers[0]], other[layers[1]]) = (choices[0], choices[1]);
                let within = cost.polynomial.value(&other, 0) <= limit;
                assert!(!within || total(&other) <= total(&best) + 1e-6, "{best:?} {other:?}");
            }
        }
    }
}

#[test]
fn a_target_is_a_latency_or_a_share_of_the_range() {
    let layer =
        LayerSpec { ops: ["conv_3x3", "zero", "conv_5x5"].map(op).to_vec(), channels: vec![2].into(), stride: 1 };
    // Stem, the choices, head.
    let Case { model, .. } = case(vec![layer], &[60.0, 10.0, 100.0, 50.0]);
    let range = latency_range(&model);
    assert_eq!(range, (Latency::from_ns(120.0), Latency::from_ns(210.0)));
    for (text, ns) in [("0%", 120.0), ("100%", 210.0), ("50 %", 165.0), ("1us", 1000.0), ("0.2 µs", 200.0)] {
        assert_eq!(text.parse::<Target>().unwrap().resolve(range).ns(), ns, "{text}");
    }
    for text in ["-1%", "101%", "%", "NaN%", "5", "", "5 miles"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}
