//! Gradient-free searches on made-up scores: what they propose, and when they end.
#![allow(clippy::unwrap_used)]

use edge_nas::bounded::Share;
use edge_nas::search::{Candidate, Constraint, Cost, Limits, SearchError, evolve, fitted, propose, sample};
use edge_nas::space::{Networks, SearchSpace};
use nas_exporters::Shape;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 256 networks without a `zero`, of two widths.
const SPACE: &str = r#"
name = "made_up"
candidates = ["conv_3x3", "conv_5x5", "max_pool_3x3", "skip", "zero"]
layers = [
  { ops = ["conv_3x3"], channels = 8 },
  { ops = ["conv_3x3", "conv_5x5", "zero"], channels = [8, 12] },
  { channels = "same" },
  { channels = 16, stride = 2 },
  { channels = "same" },
]
"#;

fn networks() -> Networks {
    let space: SearchSpace = toml::from_str(SPACE).unwrap();
    Networks::new(space.checked().unwrap(), Shape::new(3, 8, 8), [3]).unwrap()
}

/// All networks without a `zero`.
fn all(networks: &Networks) -> Vec<Vec<usize>> {
    (0..networks.len()).fold(vec![vec![]], |all, layer| {
        let with = |one: &Vec<usize>, choice: usize| [one.as_slice(), &[choice]].concat();
        let live = networks.live(layer);
        all.iter().flat_map(|one| live.iter().map(|&choice| with(one, choice)).collect::<Vec<_>>()).collect()
    })
}

/// Returns limits with a band of this share below a target, which is a share of the way from the least cost to the most.
fn limits(networks: &Networks, at: f64, band: f64) -> Limits {
    let macs = Cost::macs(networks);
    let (least, most) = macs.range(networks);
    Limits::new(networks, vec![Constraint::new(macs, least + at * (most - least))], Share::of(band)).unwrap()
}

fn random_scores(networks: &Networks, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    networks.choices().iter().map(|choices| choices.iter().map(|_| rng.random()).collect()).collect()
}

fn total(scores: &[Vec<f64>], choices: &[usize]) -> f64 {
    choices.iter().zip(scores).map(|(&i, row)| row[i]).sum()
}

#[derive(Clone, Copy, Debug)]
enum How {
    Propose,
    Evolve,
    Sample,
}

const WAYS: [How; 3] = [How::Propose, How::Evolve, How::Sample];

/// Returns what is found, best first, and everything that was scored, in order.
fn found(
    how: How,
    (networks, limits): (&Networks, &Limits),
    number: usize,
    seed: u64,
    mut score: impl FnMut(&[usize]) -> f64,
) -> (Vec<Candidate>, Vec<Vec<usize>>) {
    let (rng, mut scored) = (&mut ChaCha8Rng::seed_from_u64(seed), vec![]);
    let score = |choices: &[usize]| {
        scored.push(choices.to_vec());
        Ok::<f64, SearchError>(score(choices))
    };
    let found = match how {
        How::Propose => propose(networks, limits, number, rng, score),
        How::Evolve => evolve(networks, limits, number, rng, score),
        How::Sample => sample(networks, limits, number, rng, score),
    };
    (found.unwrap(), scored)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn candidates_are_different_networks_within_the_limits(
        seed: u64, at in 0.0..1.0f64, band in 0.01..0.5f64, number in 1usize..40,
    ) {
        let networks = networks();
        let limits = limits(&networks, at, band);
        let there_are = all(&networks).iter().filter(|choices| limits.allow(choices)).count();
        let scores = random_scores(&networks, &mut ChaCha8Rng::seed_from_u64(seed));
        for how in WAYS {
            let (best_first, scored) = found(how, (&networks, &limits), number, seed, |c| total(&scores, c));
            prop_assert!(scored.iter().all(|choices| limits.allow(choices)), "{:?}", how);
            let mut distinct = scored.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), scored.len());
            // A band of a few networks may contain one that no mutation of a known network reaches.
            prop_assert!(scored.len() <= number.min(there_are) && !scored.is_empty());
            if there_are >= 2 * number {
                prop_assert_eq!(scored.len(), number, "{:?} of {}", how, there_are);
            }
            prop_assert!(best_first.is_sorted_by(|a, b| a.score >= b.score));
            let mut of_found: Vec<Vec<usize>> = best_first.iter().map(|c| c.choices.clone()).collect();
            of_found.sort();
            prop_assert_eq!(of_found, distinct);
            prop_assert!(best_first.iter().all(|c| c.score == total(&scores, &c.choices)));
            let again = found(how, (&networks, &limits), number, seed, |c| total(&scores, c));
            prop_assert_eq!((best_first, scored), again);
        }
    }

    #[test]
    fn additive_scores_are_recovered(seed: u64) {
        let networks = networks();
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let scores = random_scores(&networks, rng);
        let found: Vec<Candidate> = all(&networks)
            .into_iter()
            .map(|choices| Candidate { score: total(&scores, &choices) + 5.0, choices })
            .collect();
        let fitted = fitted(&networks, &found);
        // Only differences count, since a constant may be in any layer.
        for layer in networks.searched() {
            for choice in networks.live(layer) {
                let first = networks.live(layer)[0];
                let (wanted, got) =
                    (scores[layer][choice] - scores[layer][first], fitted[layer][choice] - fitted[layer][first]);
                prop_assert!((wanted - got).abs() < 0.05, "layer {}: {} instead of {}", layer, got, wanted);
            }
        }
    }
}

/// Half of the networks are enough to find one of the best three, even with a little noise.
#[test]
fn the_best_networks_of_the_band_are_proposed() {
    let networks = networks();
    let limits = limits(&networks, 0.7, 0.4);
    let within: Vec<Vec<usize>> = all(&networks).into_iter().filter(|choices| limits.allow(choices)).collect();
    assert!(within.len() > 60, "{}", within.len());
    for noise in [0.0, 0.05] {
        for seed in 0..20 {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            let scores = random_scores(&networks, rng);
            let mut ranked: Vec<&Vec<usize>> = within.iter().collect();
            ranked.sort_by(|a, b| total(&scores, b).total_cmp(&total(&scores, a)));
            let score = |choices: &[usize]| total(&scores, choices) + noise * (rng.random::<f64>() - 0.5);
            let (_, scored) = found(How::Propose, (&networks, &limits), within.len() / 2, seed, score);
            let best = ranked.iter().position(|choices| scored.contains(choices)).unwrap();
            assert!(best < 3, "seed {seed}, noise {noise}: the best that was scored is number {} of all", best + 1);
        }
    }
}

#[test]
fn a_space_with_fewer_networks_than_asked_for_ends() {
    let networks = networks();
    let limits = limits(&networks, 1.0, 1.0);
    let all = all(&networks);
    for how in WAYS {
        let (best_first, _) = found(how, (&networks, &limits), 3 * all.len(), 0, |choices| choices[1] as f64);
        assert!(
            best_first.len() <= all.len() && best_first.len() > all.len() * 9 / 10,
            "{how:?}: {}",
            best_first.len()
        );
    }
}

#[test]
fn scores_of_nothing_are_none() {
    let networks = networks();
    let zero = |layer: usize, choice: usize| !networks.live(layer).contains(&choice);
    let diverged = Candidate { choices: all(&networks).swap_remove(7), score: f64::NEG_INFINITY };
    for found in [vec![], vec![diverged]] {
        for (layer, scores) in fitted(&networks, &found).iter().enumerate() {
            for (choice, score) in scores.iter().enumerate() {
                assert_eq!(*score, if zero(layer, choice) { f64::NEG_INFINITY } else { 0.0 });
            }
        }
    }
}

#[test]
fn an_error_of_a_score_ends_the_search() {
    let networks = networks();
    let limits = limits(&networks, 1.0, 0.9);
    let failed = || SearchError::Unreachable { limits: "made up".into(), reason: "made up".into() };
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let mut scored = 0;
    let error = propose(&networks, &limits, 20, rng, |_| {
        scored += 1;
        if scored == 15 { Err(failed()) } else { Ok(0.0) }
    });
    assert!(error.unwrap_err().to_string().contains("made up"));
    assert_eq!(scored, 15);
}
