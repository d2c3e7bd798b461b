//! The best networks within limits and a band, compared with a full search.
#![allow(clippy::unwrap_used)]

use edge_nas::bounded::Share;
use edge_nas::model::{Polynomial, Product};
use edge_nas::search::{Constraint, Cost, Limits, Unit, best_of, extreme, near, nearest_below};
use edge_nas::space::{Networks, SearchSpace};
use nas_exporters::Shape;
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LAYERS: usize = 5;
const CHOICES: usize = 4;

/// Returns a random cost with interactions between neighbours, and between layers with one layer in between.
fn cost(rng: &mut ChaCha8Rng) -> Cost {
    let set = |rng: &mut ChaCha8Rng| {
        let mut all: Vec<usize> = (0..CHOICES).collect();
        all.shuffle(rng);
        all.truncate(rng.random_range(1..CHOICES));
        all.sort_unstable();
        all
    };
    let mut parts: Vec<(Product, f64)> = vec![(vec![], 500.0)];
    for layer in 0..LAYERS {
        for choice in 0..CHOICES {
            parts.push((vec![(layer, vec![choice])], rng.random_range(0..300) as f64));
        }
        for distance in [1, 2].into_iter().filter(|distance| layer + distance < LAYERS) {
            for _ in 0..rng.random_range(0..3) {
                let product = vec![(layer, set(rng)), (layer + distance, set(rng))];
                parts.push((product, rng.random_range(-200..200) as f64));
            }
        }
    }
    Cost { name: "made up".into(), unit: Unit::Nanoseconds, polynomial: Polynomial::sum(parts) }
}

fn all() -> Vec<Vec<usize>> {
    let of = |n: usize| (0..LAYERS).map(|l| n / CHOICES.pow(l as u32) % CHOICES).collect();
    (0..CHOICES.pow(LAYERS as u32)).map(of).collect()
}

fn total(scores: &[Vec<f64>], choices: &[usize]) -> f64 {
    choices.iter().zip(scores).map(|(&i, row)| row[i]).sum()
}

/// Returns a limit that this share of the networks is within.
fn quantile(cost: &Cost, networks: &[Vec<usize>], share: f64) -> f64 {
    let mut values: Vec<f64> = networks.iter().map(|choices| cost.polynomial.value(choices, 0)).collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

/// Nearly all networks of evenly drawn choices have a medium cost.
#[test]
fn networks_near_evenly_drawn_costs_have_evenly_spread_costs() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let additive = |layer: usize| (0..20).map(move |choice| (vec![(layer, vec![choice])], (choice * choice) as f64));
    let cost = Polynomial::sum((0..6).flat_map(additive));
    let choices = vec![(0..20).collect::<Vec<usize>>(); 6];
    let most = 6.0 * 19.0 * 19.0;
    let mut quarters = [0; 4];
    for _ in 0..2000 {
        let wanted = rng.random::<f64>() * most;
        let found = cost.value(&near(&cost, &choices, (wanted, 0.02 * most), &mut rng), 0);
        quarters[((4.0 * found / most) as usize).min(3)] += 1;
    }
    assert!(quarters.iter().all(|&count| (400..600).contains(&count)), "{quarters:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_n_best_in_a_band_are_those_of_a_full_search(
        seed: u64, share in 0.0..1.0f64, others in 0usize..3, band in 0.0..0.4f64, n in 1usize..12, coarse: bool,
    ) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let networks = all();
        let costs: Vec<Cost> = (0..=others).map(|_| cost(rng)).collect();
        let limit = |(i, cost): (usize, &Cost)| quantile(cost, &networks, if i == 0 { share } else { 0.6 });
        let constraints: Vec<Constraint> =
            costs.iter().enumerate().map(|c| Constraint::new(c.1.clone(), limit(c))).collect();
        let low = (1.0 - band) * constraints[0].limit;
        // Coarse scores have ties, and the others follow the first cost.
        let score = |l: usize, i: usize, random: f64| {
            if coarse { (random * 4.0).floor() } else { costs[0].polynomial.contribution((l, i)) + 50.0 * random }
        };
        let scores: Vec<Vec<f64>> =
            (0..LAYERS).map(|l| (0..CHOICES).map(|i| score(l, i, rng.random())).collect()).collect();
        let within = |choices: &&Vec<usize>| {
            constraints.iter().all(|c| c.value(choices) <= c.limit) && constraints[0].value(choices) >= low
        };
        let mut expected: Vec<f64> = networks.iter().filter(within).map(|choices| total(&scores, choices)).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        expected.truncate(n);
        let found = best_of(&scores, &constraints, low, n);
        prop_assert!(found.iter().all(|choices| within(&choices)));
        let mut distinct = found.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), found.len());
        let found: Vec<f64> = found.iter().map(|choices| total(&scores, choices)).collect();
        prop_assert_eq!(found.len(), expected.len());
        prop_assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?} {:?}", found, expected);
    }

    #[test]
    fn the_nearest_network_is_that_of_a_full_search(seed: u64, share in 0.0..1.0f64, others in 0usize..3) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let networks = all();
        let costs: Vec<Cost> = (0..=others).map(|_| cost(rng)).collect();
        let constraints: Vec<Constraint> =
            costs.iter().map(|cost| Constraint::new(cost.clone(), quantile(cost, &networks, share) + 0.5)).collect();
        let within = |choices: &&Vec<usize>| constraints.iter().all(|c| c.value(choices) <= c.limit);
        let most = networks.iter().filter(within).map(|choices| constraints[0].value(choices)).reduce(f64::max);
        let found = nearest_below(&vec![(0..CHOICES).collect(); LAYERS], &constraints);
        prop_assert_eq!(found.as_ref().map(|nearest| constraints[0].value(&nearest.choices)), most);
        if let Some(nearest) = found {
            prop_assert!(within(&&nearest.choices) && nearest.resolution == 0.0);
        }
        for sign in [1.0, -1.0] {
            let found = extreme(&costs[0].polynomial, &vec![(0..CHOICES).collect(); LAYERS], sign).unwrap();
            let values = networks.iter().map(|choices| sign * constraints[0].value(choices));
            prop_assert_eq!(Some(sign * constraints[0].value(&found)), values.reduce(f64::min));
        }
    }
}

/// A space of at least 7⁸ networks is searched without trying all of them, whether or not it has several widths.
#[test]
fn a_band_of_a_large_space_is_searched_exactly() {
    for widths in ["[16]", "[8, 12, 16]"] {
        let layer = |stride: usize| {
            format!(
                "{{ ops = [\"conv_3x3\", \"conv_5x5\", \"sep_conv_3x3\", \"sep_conv_5x5\", \"max_pool_3x3\", \"avg_pool_3x3\", \"zero\"], channels = {widths}, stride = {stride} }}"
            )
        };
        let layers: Vec<String> = (0..8).map(|i| layer(1 + usize::from(i == 3))).collect();
        let toml =
            format!("name = \"large\"\nlayers = [{{ ops = [\"conv_3x3\"], channels = 16 }}, {}]", layers.join(", "));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.toml");
        std::fs::write(&path, toml).unwrap();
        let space = SearchSpace::load(path.to_str().unwrap()).unwrap();
        let networks = Networks::new(space, Shape::new(3, 16, 16), [10]).unwrap();
        assert!(networks.count() > 1_000_000);
        let (macs, params) = (Cost::macs(&networks), Cost::params(&networks));
        let rng = &mut ChaCha8Rng::seed_from_u64(7);
        let at = |cost: &Cost, share: f64| {
            let (least, most) = cost.range(&networks);
            least + share * (most - least)
        };
        for share in [0.1, 0.5] {
            let constraints = vec![
                Constraint::new(macs.clone(), at(&macs, share)),
                Constraint::new(params.clone(), at(&params, share)),
            ];
            let limits = Limits::new(&networks, constraints, Share::of(0.05)).unwrap();
            assert_eq!(limits.band, Share::of(0.05));
            let scores: Vec<Vec<f64>> = networks
                .choices()
                .iter()
                .enumerate()
                .map(|(l, choices)| {
                    (0..choices.len())
                        .map(|i| rng.random::<f64>() + 1e-7 * macs.polynomial.contribution((l, i)))
                        .collect()
                })
                .collect();
            let best = limits.best(&networks, &scores, 20).unwrap();
            assert_eq!(best.len(), 20);
            let values: Vec<f64> = best.iter().map(|choices| total(&scores, choices)).collect();
            assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
            assert!(best.iter().all(|choices| limits.allow(choices)));
            // No exchange of one or two choices is better than the best.
            for (a, b) in (0..networks.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                for (i, j) in
                    networks.live(a).into_iter().flat_map(|i| networks.live(b).into_iter().map(move |j| (i, j)))
                {
                    let mut other = best[0].clone();
                    (other[a], other[b]) = (i, j);
                    assert!(!limits.allow(&other) || total(&scores, &other) <= values[0] + 1e-6);
                }
            }
            let nearest = limits.nearest_below(&networks).unwrap();
            let value = limits.constraints[0].value(&nearest.choices);
            assert!(
                value <= limits.constraints[0].limit
                    && best.iter().all(|best| limits.constraints[0].value(best) <= value)
            );
            assert!(limits.allow(&limits.sample(&networks, rng).unwrap()));
        }
    }
}
