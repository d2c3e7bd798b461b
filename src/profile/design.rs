//! Which networks to measure.

use crate::latency::Target;
use crate::model::{
    FitData, LatencyModel, ModelError, Structure, balanced, d_optimal, isolated_subjects, random, structure, unfit,
};
use crate::search::{Constraint, Cost, best_within, extreme, latency_range, scores_of};
use crate::space::{CandidateOp, Networks};
use crate::table::{LatencyTable, Subject};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};

/// Seed of the networks that models are fitted to.
const TO_FIT: u64 = 0;
/// The D-optimal networks of a space are chosen from all of its networks if these are not more than [`ALL`], and
/// otherwise from this number of random ones.
const CANDIDATES: usize = 4000;
const CANDIDATES_SEED: u64 = 0;
const ALL: usize = 2 * CANDIDATES;
/// The number of networks that determine the cost of another classifier, once the other layers are known.
pub const FOR_A_HEAD: usize = 12;

/// Returns the number of networks that usually determines all rows and interactions.
pub fn usual_number(networks: &Networks) -> usize {
    3 * isolated_subjects(networks).len() + 60
}

/// Returns `number`, or the number of networks that a fit may see if that is smaller.
pub fn at_most(number: usize, table: &LatencyTable, networks: &Networks) -> usize {
    let ours = |subject: &&Subject| is_of(networks, subject);
    number.min(networks.count().saturating_sub(table.unseen().into_keys().filter(ours).count()))
}

/// Returns the number of networks that [`first_to_fit`] is to be called with. If the table has at least half of `number`
/// networks, it is what they were planned for, so that those that are measured first stay the same.
pub fn design_size(table: &LatencyTable, classes: usize, number: usize) -> usize {
    let first = table.first_planned(classes, FOR_A_HEAD);
    first.filter(|first| (number / 2..=number).contains(first)).unwrap_or(number)
}

/// Returns the networks that are measured first, of `number` networks for a fit: the [`corners`] and a balanced design.
/// They are the same every time, except for those of `table` that no fit sees. The rest are chosen after these have been
/// measured.
pub fn first_to_fit(table: &LatencyTable, networks: &Networks, number: usize) -> Vec<Subject> {
    let first = number - number / 4;
    let mut chosen = corners(networks);
    // Too many extremes among few networks would leave the others unknown.
    chosen.truncate(first / 4);
    let structure = bare(networks);
    chosen.extend(balanced(&structure, first - chosen.len(), TO_FIT));
    seen(table, distinct(networks, chosen))
}

/// Returns the extreme networks: those with the fewest and the most multiply-accumulates, and those with one op
/// throughout.
fn corners(networks: &Networks) -> Vec<Vec<usize>> {
    let live = networks.all_live();
    let macs = Cost::macs(networks).polynomial;
    let of_macs = [1.0, -1.0].into_iter().filter_map(|sign| extreme(&macs, &live, sign));
    let mut ops: Vec<CandidateOp> = vec![];
    for choice in networks.searched().flat_map(|layer| &networks.choices()[layer]) {
        if choice.op != CandidateOp::Zero && !ops.contains(&choice.op) {
            ops.push(choice.op);
        }
    }
    let throughout = |op: &CandidateOp| {
        let of_layer = |layer: usize| {
            let same = live[layer].iter().copied().find(|&choice| networks.choices()[layer][choice].op == *op);
            same.unwrap_or(live[layer][0])
        };
        (0..networks.len()).map(of_layer).collect()
    };
    of_macs.chain(ops.iter().map(throughout)).collect()
}

/// Returns the rest of `number` networks for a fit, once `table` has the `first` ([`first_to_fit`]): those that were
/// chosen before, the cheapest and the most expensive network by the current model, and the D-optimal ones of many
/// random networks.
///
/// # Errors
/// Fails if the networks that were measured cannot be fitted.
pub fn rest_to_fit(
    table: &LatencyTable,
    networks: &Networks,
    first: &[Subject],
    number: usize,
) -> Result<Vec<Subject>, ModelError> {
    let first: HashSet<&Subject> = first.iter().collect();
    let data = FitData::new(table, networks)?;
    let subject = |choices: &[usize]| Subject::Network(data.networks.layers_of(choices));
    let head = (networks.len() - 1, networks.classes[0]);
    let ours = |choices: &[usize]| data.networks.classes[choices[head.0]] == head.1;
    let fitted = data.measured.iter().filter(|m| ours(&m.choices)).map(|m| subject(&m.choices));
    let mut chosen: Vec<Subject> = fitted.filter(|network| !first.contains(network)).collect();
    let rest = number.saturating_sub(first.len());
    if chosen.len() >= rest {
        return Ok(chosen);
    }
    let mut known: HashSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
    let polynomial = data.fit(table)?.polynomial.given(head.0, head_index(&data.networks, head.1));
    let live = networks.all_live();
    let corners = [1.0, -1.0].into_iter().filter_map(|sign| extreme(&polynomial, &live, sign));
    let corners = corners.map(|choices| Subject::Network(networks.layers_of(&choices)));
    let corners = corners.filter(|corner| known.insert(corner.clone()));
    chosen.extend(corners.take(rest - chosen.len()));
    let mut others = if networks.count() <= ALL {
        every(&networks.all_live())
    } else {
        random(&data.structure, CANDIDATES, CANDIDATES_SEED)
    };
    others.iter_mut().for_each(|choices| choices[head.0] = head_index(&data.networks, head.1));
    others.retain(|choices| known.insert(subject(choices)));
    let left = rest.saturating_sub(chosen.len());
    let best = d_optimal(&data.structure, &data.measured, &others, left);
    let best = best.map_err(|reason| unfit(table, reason))?;
    chosen.extend(best.into_iter().map(|i| subject(&others[i])));
    Ok(chosen)
}

/// Returns a few networks with another classifier, to find out what that classifier costs.
pub fn for_a_head(table: &LatencyTable, networks: &Networks) -> Vec<Subject> {
    seen(table, distinct(networks, balanced(&bare(networks), FOR_A_HEAD, TO_FIT)))
}

/// Returns networks that no fit of `table` sees, in which each layer has each choice equally often.
pub fn random_unseen(table: &LatencyTable, networks: &Networks, number: usize, seed: u64) -> Vec<Subject> {
    not_fitted(table, distinct(networks, balanced(&bare(networks), number, seed)))
}

/// Returns networks that no fit of `table` sees, derived as a search derives them: the best by random scores within a
/// target. The targets are spread over the whole range of latencies.
pub fn derived_unseen(table: &LatencyTable, model: &LatencyModel, number: usize, seed: u64) -> Vec<Subject> {
    let networks = &model.networks;
    let cost = Cost::latency(model);
    let all = latency_range(model);
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let derive = |i: usize| {
        let share = Target::Percent(100.0 * (i as f64 + 0.5) / number as f64);
        let constraint = Constraint::new(cost.clone(), share.resolve(all).ns());
        best_within(&scores_of(networks, |_, _| rng.random()), &[constraint])
    };
    let derived: Vec<Vec<usize>> = (0..number).filter_map(derive).collect();
    not_fitted(table, distinct(networks, derived))
}

fn head_index(networks: &Networks, classes: usize) -> usize {
    networks.classes.iter().position(|known| *known == classes).unwrap_or(0)
}

/// Returns whether a subject is one of these networks.
fn is_of(networks: &Networks, subject: &Subject) -> bool {
    matches!(subject, Subject::Network(layers) if networks.choices_of(layers).is_some())
}

/// Returns every combination of these choices, one for each layer.
fn every(choices: &[Vec<usize>]) -> Vec<Vec<usize>> {
    choices.iter().fold(vec![vec![]], |networks, choices| {
        networks
            .iter()
            .flat_map(|network| choices.iter().map(|&choice| [network.as_slice(), &[choice]].concat()))
            .collect()
    })
}

/// Returns the networks that a fit may see.
fn seen(table: &LatencyTable, mut networks: Vec<Subject>) -> Vec<Subject> {
    let unseen = table.unseen();
    networks.retain(|network| !unseen.contains_key(network));
    networks
}

fn not_fitted(table: &LatencyTable, mut networks: Vec<Subject>) -> Vec<Subject> {
    let fitted: HashSet<&Subject> =
        table.rows().iter().filter(|row| row.unseen.is_none()).map(|row| &row.subject).collect();
    networks.retain(|network| !fitted.contains(network));
    networks
}

/// Returns the structure of networks of which nothing was measured.
fn bare(networks: &Networks) -> Structure {
    structure(networks, &BTreeMap::new())
}

fn distinct(networks: &Networks, choices: Vec<Vec<usize>>) -> Vec<Subject> {
    let mut seen = HashSet::new();
    let subjects = choices.iter().map(|choices| Subject::Network(networks.layers_of(choices)));
    subjects.filter(|subject| seen.insert(subject.clone())).collect()
}
