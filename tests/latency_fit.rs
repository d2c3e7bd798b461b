//! The latency model, tried on made-up boards for which the truth is known.
#![allow(clippy::unwrap_used)]

mod made_up;

use edge_nas::latency::Latency;
use edge_nas::model::{Fit, FitError, Measured, Polynomial, Role, balanced, d_optimal, random};
use edge_nas::search::{Constraint, Cost, Unit, best_within, range};
use made_up::{Board, Quirk};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

const NOISE: f64 = 0.003;

fn measured(board: &mut Board, networks: usize, seed: u64) -> Vec<Measured> {
    let design = balanced(&board.structure, networks, seed);
    design.iter().map(|ops| board.measure(ops, NOISE)).collect()
}

fn fitted(quirk: Quirk, isolated: bool, networks: usize, seed: u64) -> (Board, Fit) {
    let mut board = Board::new(quirk, isolated, seed);
    let measured = measured(&mut board, networks, seed);
    let fit = Fit::new(&board.structure, &measured).unwrap();
    (board, fit)
}

fn predict(model: &Polynomial, ops: &[usize]) -> Latency {
    Latency::from_ns(model.value(ops, 0))
}

fn names(fit: &Fit) -> Vec<&str> {
    fit.interactions.iter().map(|found| found.gain.interaction.as_str()).collect()
}

/// The selection allows an interaction in one of 20 fits. Of the 32 fits here, at most two may have one.
#[test]
fn finds_nothing_where_latencies_add_up() {
    let mut found = vec![];
    for (networks, most) in [(50, 0.0045), (100, 0.003)] {
        for (seed, isolated) in (0..8).flat_map(|seed| [(seed, true), (seed, false)]) {
            let (mut board, fit) = fitted(Quirk::None, isolated, networks, seed);
            found.extend(names(&fit).into_iter().map(String::from));
            let error = board.error(|ops| predict(&fit.polynomial, ops));
            assert!(error < most, "{networks} {seed} {isolated}: {error}");
        }
    }
    assert!(found.len() <= 2, "{found:?}");
}

#[test]
fn finds_that_strided_skips_are_pulled_forward() {
    for seed in 0..8 {
        let (mut board, fit) = fitted(Quirk::PullsStridedSkips, true, 100, seed);
        assert!(names(&fit)[0].ends_with(" before skip/2"), "{seed}: {:?}", names(&fit));
        let error = board.error(|ops| predict(&fit.polynomial, ops));
        assert!(error < 0.005, "{seed}: {error}");
        let gain = &fit.interactions[0].gain;
        assert!(gain.after < 0.7 * gain.before, "{gain:?}");
        let effects = &fit.interactions[0].effects;
        let of = |name: &str| effects.iter().find(|(n, _)| n == name).map(|(_, effect)| effect.latency.ns());
        for op in ["anything", "conv_5x5", "conv_5x5 64"] {
            assert!(of(&format!("{op} before skip/2")).unwrap() < 0.0, "{seed}: {op} {effects:?}");
        }
    }
}

/// For ten boards, compares the worst errors among 300 networks. The fits have equally many networks, either all from
/// the balanced design or a quarter of them chosen.
#[test]
fn d_optimal_networks_reduce_the_worst_errors() {
    let mut better = 0;
    for seed in 0..10 {
        let mut board = Board::new(Quirk::PullsStridedSkips, true, seed);
        let even = measured(&mut board, 120, seed);
        let mut chosen = measured(&mut board, 90, seed);
        let networks: Vec<Vec<usize>> = random(&board.structure, 2000, seed);
        for i in d_optimal(&board.structure, &chosen.clone(), &networks, 30).unwrap() {
            chosen.push(board.measure(&networks[i], NOISE));
        }
        let mut worst = |measured: &[Measured]| {
            let fit = Fit::new(&board.structure, measured).unwrap();
            board.worst(|ops| predict(&fit.polynomial, ops))
        };
        better += u32::from(worst(&chosen) < worst(&even));
    }
    assert!(better >= 8, "{better} of 10");
}

#[test]
fn finds_two_ops_that_do_not_go_together() {
    for seed in 0..8 {
        let (mut board, fit) = fitted(Quirk::SlowPair, true, 150, seed);
        assert!(
            names(&fit)[0].contains("before conv_3x3") || names(&fit)[0].contains("after sep_conv_5x5"),
            "{:?}",
            names(&fit)
        );
        assert!(board.error(|ops| predict(&fit.polynomial, ops)) < 0.005);
    }
}

#[test]
fn disturbed_measurements_are_named_and_hardly_count() {
    for seed in 0..8 {
        let mut board = Board::new(Quirk::None, true, seed);
        let mut measured = measured(&mut board, 100, seed);
        for i in [3, 41, 90] {
            measured[i].latency = (1.1 + i as f64 / 300.0) * measured[i].latency;
        }
        let fit = Fit::new(&board.structure, &measured).unwrap();
        let error = board.error(|ops| predict(&fit.polynomial, ops));
        assert!(error < 0.003, "{seed}: {error}");
        // Each of these counts less than any network that was not disturbed.
        let least = (0..100).filter(|i| ![3, 41, 90].contains(i)).map(|i| fit.weights[i]).fold(1.0, f64::min);
        for i in [3, 41, 90] {
            assert!(fit.weights[i] < 0.25 && fit.weights[i] < least, "{seed} {i}: {} {least}", fit.weights[i]);
        }
    }
}

/// The difference of a contribution from the mean of its layer is within twice its standard error of the truth about as often as
/// it should be.
#[test]
fn standard_errors_hold() {
    let (mut inside, mut all) = (0, 0);
    for seed in 0..12 {
        let (board, fit) = fitted(Quirk::None, true, 120, seed);
        for layer in 0..board.structure.roles.len() {
            let parts = board.structure.parts.iter().zip(&fit.contributions);
            let live: Vec<(f64, f64, f64)> = parts
                .filter(|(part, _)| part.at.0 == layer)
                .map(|(part, contribution)| {
                    let effect = contribution.effect;
                    (effect.latency.ns(), board.contribution(layer, part.at.1), effect.standard_error.ns())
                })
                .collect();
            let mean = |of: fn(&(f64, f64, f64)) -> f64| live.iter().map(of).sum::<f64>() / live.len() as f64;
            let (fitted, truth) = (mean(|row| row.0), mean(|row| row.1));
            for (row, true_row, error) in &live {
                all += 1;
                inside += usize::from(((row - fitted) - (true_row - truth)).abs() < 2.0 * error);
                assert!(*error > 0.0 && *error < 0.03e6, "{error}");
            }
        }
    }
    let share = f64::from(u32::try_from(inside).unwrap()) / f64::from(all);
    assert!((0.88..0.99).contains(&share), "{share}");
}

#[test]
fn what_cannot_be_fitted_is_named() {
    let mut board = Board::new(Quirk::None, true, 0);
    let good = measured(&mut board, 30, 0);
    let fit = |measured: &[Measured]| Fit::new(&board.structure, measured).unwrap_err();
    assert_eq!(fit(&good[..9]), FitError::Few { measured: 9 });
    for bad in [
        Measured { choices: vec![0; 5], ..good[4].clone() },
        Measured { choices: vec![9; 6], ..good[4].clone() },
        Measured { latency: Latency::ZERO, ..good[4].clone() },
        Measured { latency: Latency::from_ns(f64::NAN), ..good[4].clone() },
        Measured { weight: 0.0, ..good[4].clone() },
    ] {
        let mut measured = good.clone();
        measured[4] = bad;
        assert!(matches!(fit(&measured), FitError::Network { network: 4, .. }));
    }
    let mut structure = board.structure.clone();
    structure.parts.iter_mut().find(|part| part.at == (2, 0)).unwrap().isolated_ns = None;
    assert_eq!(Fit::new(&structure, &good).unwrap_err(), FitError::Isolated { part: "conv_3x3 64/2".into() });
}

/// Returns a model with interactions for a space that is small enough to try every network.
fn small() -> &'static (Board, Polynomial) {
    static SMALL: std::sync::OnceLock<(Board, Polynomial)> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let (board, fit) = fitted(Quirk::PullsStridedSkips, false, 150, 5);
        assert!(fit.polynomial.monomials().iter().any(|monomial| monomial.holds.len() > 2));
        (board, fit.polynomial)
    })
}

fn one_hot(ops: &[usize]) -> Vec<Vec<f64>> {
    ops.iter().map(|&op| (0..8).map(|o| f64::from(o == op)).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn one_hot_expectation_has_the_digits_of_the_prediction(ops in prop::collection::vec(0usize..8, 6)) {
        let model = &small().1;
        let predicted = model.value(&ops, 0);
        prop_assert_eq!(model.expected(&one_hot(&ops)), predicted);
        let holds = |holds: &[(usize, Vec<usize>)]| holds.iter().all(|(l, set)| set.contains(&ops[*l]));
        let backwards: f64 =
            model.monomials().iter().rev().filter(|m| holds(&m.holds)).map(|m| m.coefficient).sum();
        prop_assert_eq!(backwards, predicted);
    }

    #[test]
    fn with_a_layer_fixed_a_model_predicts_the_same(ops in prop::collection::vec(0usize..8, 6), layer in 0usize..6) {
        let model = &small().1;
        let given = model.given(layer, ops[layer]);
        let mut others = ops.clone();
        others[layer] = 0;
        prop_assert_eq!(given.value(&others, 0), model.value(&ops, 0));
    }

    #[test]
    fn no_network_costs_less_than_the_floor(ops in prop::collection::vec(0usize..8, 6), share in 0.5f64..1.5) {
        let model = small().1.clone();
        let value = model.value(&ops, 0);
        let floored = model.with_floor(share * value);
        prop_assert_eq!(floored.value(&ops, 0), value.max(share * value));
        prop_assert_eq!(floored.expected(&one_hot(&ops)), value.max(share * value));
    }

    /// In each layer, the expectation is the mean of those of its ops, weighted by their probabilities. Its slope
    /// equals the gradient.
    #[test]
    fn the_expectation_is_multilinear(seed in 0u64..1000, layer in 0usize..6) {
        let model = &small().1;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut row = || { let p: [f64; 8] = std::array::from_fn(|_| rng.random()); p.map(|x| x / p.iter().sum::<f64>()).to_vec() };
        let mixed: Vec<Vec<f64>> = (0..6).map(|_| row()).collect();
        let gradient = model.gradient(&mixed);
        let at = |op: usize| {
            let mut probabilities = mixed.clone();
            probabilities[layer] = one_hot(&[op])[0].clone();
            model.expected(&probabilities)
        };
        let expected = model.expected(&mixed);
        let sum = (0..8).map(|op| mixed[layer][op] * at(op)).sum::<f64>();
        prop_assert!((sum / expected - 1.0).abs() < 1e-12);
        for op in 0..8 {
            let slope = gradient[layer][op] - gradient[layer][0];
            prop_assert!((slope - (at(op) - at(0))).abs() < 1e-6 * expected, "{op}: {slope}");
        }
    }

    /// The best network within a limit on latency, and also within a limit on another cost.
    #[test]
    fn the_best_network_within_limits_is_that_of_a_full_search(
        seed in 0u64..1000, share in 0.05f64..0.9, other_share in 0.3f64..1.0,
    ) {
        let (board, model) = small();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        // Three ops per layer, so that all networks can be tried.
        let choices: Vec<Vec<usize>> = (0..6).map(|_| {
            let live = board.structure.having(0, |role| role != Role::Zero);
            let start = rng.random_range(0..5);
            live[start..start + 3].to_vec()
        }).collect();
        let scores: Vec<Vec<f64>> = choices.iter().map(|ops| (0..8).map(|op| {
            if ops.contains(&op) { rng.random::<f64>() } else { f64::NEG_INFINITY }
        }).collect()).collect();
        let other = Polynomial::sum((0..6).flat_map(|l| (0..8).map(move |o| (l, o)))
            .map(|(l, o)| (vec![(l, vec![o])], rng.random_range(0..1000) as f64)).collect::<Vec<_>>());
        let networks: Vec<Vec<usize>> =
            (0..729usize).map(|n| (0..6).map(|l| choices[l][n / 3usize.pow(l as u32) % 3]).collect()).collect();
        let limit = |cost: &Polynomial, share: f64| {
            let (least, most) = range(cost, &choices).unwrap();
            let values = || networks.iter().map(|ops| cost.value(ops, 0));
            assert_eq!(least, values().reduce(f64::min).unwrap());
            assert_eq!(most, values().reduce(f64::max).unwrap());
            least + share * (most - least)
        };
        let constraint = |cost: &Polynomial, limit: f64| {
            Constraint::new(Cost { name: "latency".into(), unit: Unit::Nanoseconds, polynomial: cost.clone() }, limit)
        };
        let (a, b) = (limit(model, share), limit(&other, other_share));
        let constraints = [constraint(model, a), constraint(&other, b)];
        let score = |ops: &Vec<usize>| ops.iter().enumerate().map(|(l, &op)| scores[l][op]).sum::<f64>();
        for constraints in [&constraints[..1], &constraints] {
            let within = |ops: &&Vec<usize>| constraints.iter().all(|c| c.cost.polynomial.value(ops, 0) <= c.limit);
            let best = networks.iter().filter(within).map(score).reduce(f64::max);
            let found = best_within(&scores, constraints);
            prop_assert_eq!(found.is_some(), best.is_some());
            if let (Some(found), Some(best)) = (found, best) {
                prop_assert!(within(&&found) && (score(&found) - best).abs() < 1e-9);
            }
        }
        let below = range(model, &choices).unwrap().0 - 1.0;
        prop_assert_eq!(best_within(&scores, &[constraint(model, below)]), None);
    }
}
