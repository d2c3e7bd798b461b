//! A device that gets slower and faster while a table is measured shows it by its anchor, and all rows
//! tell by how much.

use super::statistics::{MAD_TO_SIGMA, median};
use super::{Row, Subject};
use statrs::statistics::{Data, OrderStatistics};
use std::collections::BTreeMap;

/// Fewer readings of the anchor tell nothing.
const FEWEST: usize = 8;
/// Readings before and after that a level is the median of.
const AROUND: usize = 2;
/// One in a hundred series without a drift is taken for one with, by a normal distribution.
const CHANCE_1_PERCENT: f64 = 2.33;
/// A smaller drift is left alone: the fastest of a subject's rows stands above it.
const LEAST: f64 = 0.02;

/// By how much the slowest spell of the device was slower than its fastest, as a share, where the
/// anchor shows that it drifts by more than 2 %. Rows are in the order in which they were measured.
pub fn drift(rows: &[Row]) -> Option<f64> {
    let anchors: Vec<&Row> = rows.iter().filter(|row| row.anchor && row.disturbed.is_empty()).collect();
    // Tables of several images have an anchor for each.
    let usual = |anchor: &Subject| {
        let its = anchors.iter().filter(|row| row.subject == *anchor);
        median(its.map(|row| row.fastest_ns()).collect::<Vec<_>>())
    };
    let usual: BTreeMap<&Subject, f64> =
        anchors.iter().map(|row| &row.subject).map(|anchor| (anchor, usual(anchor))).collect();
    let readings: Vec<f64> = anchors.iter().map(|row| row.fastest_ns() / usual[&row.subject]).collect();
    let window = |i: usize| &readings[i.saturating_sub(AROUND)..(i + AROUND + 1).min(readings.len())];
    let levels = (0..readings.len()).map(|i| median(window(i).to_vec()));
    let (low, high) = levels.fold((f64::INFINITY, 0.0), |(low, high), l: f64| (l.min(low), l.max(high)));
    drifts(&readings).then_some(high / low - 1.0).filter(|drift| *drift > LEAST)
}

/// Whether readings that follow each other are more alike than any two: the mean square of successive
/// differences over twice the variance is 1 in a series without a drift, give or take 1/√n (von Neumann
/// 1941, Annals of Mathematical Statistics 12:367).
fn drifts(readings: &[f64]) -> bool {
    let n = readings.len() as f64;
    if readings.len() < FEWEST {
        return false;
    }
    let mean = readings.iter().sum::<f64>() / n;
    let variance = readings.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n;
    let steps = readings.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum::<f64>() / (n - 1.0);
    steps / (2.0 * variance) < 1.0 - CHANCE_1_PERCENT / n.sqrt()
}

/// The drift from one row to the next varies as much as a row's own noise; so it does once more with
/// each second that passes.
const NOISE_TO_STEP: f64 = 1.0;
/// Standard deviations from which on a row counts less (Huber 1964).
const IN_LINE: f64 = 2.0;
/// Weights are found anew so many times, the drift to them in at most so many steps.
const REWEIGHTED: usize = 8;
const MOST_STEPS: usize = 200;
const CONVERGED: f64 = 1e-6;
/// The spells that count as those of an undisturbed device: a share of all rows, the fastest.
const UNDISTURBED: f64 = 0.05;

/// By row, how many times slower than undisturbed the device was then.
///
/// A row's logarithm is its subject's, plus the device's, plus noise; the device's is a random walk from
/// row to row. Both by least squares with Huber's weights, in turn (backfitting: Buja, Hastie and
/// Tibshirani 1989, Annals of Statistics 17:453).
pub(super) fn slowness(rows: &[Row]) -> Vec<f64> {
    let mut numbers: BTreeMap<&Subject, usize> = BTreeMap::new();
    let subjects: Vec<usize> = rows
        .iter()
        .map(|row| {
            let next = numbers.len();
            *numbers.entry(&row.subject).or_insert(next)
        })
        .collect();
    let seconds = |pair: &[Row]| pair[1].measured_at.abs_diff(pair[0].measured_at) as f64;
    let ties: Vec<f64> = rows.windows(2).map(|pair| NOISE_TO_STEP / (1.0 + seconds(pair))).collect();
    let ns: Vec<f64> = rows.iter().map(|row| row.fastest_ns().ln()).collect();
    let walk = walk(&ns, &subjects, &ties);
    let undisturbed = Data::new(walk.clone()).quantile(UNDISTURBED);
    walk.into_iter().map(|device| (device - undisturbed).exp()).collect()
}

/// The device's part of each of `values`; `ties` say how strongly each is bound to the next.
fn walk(values: &[f64], subjects: &[usize], ties: &[f64]) -> Vec<f64> {
    let mut device = vec![0.0; values.len()];
    let mut weights = vec![1.0; values.len()];
    for _ in 0..REWEIGHTED {
        for _ in 0..MOST_STEPS {
            let levels = levels(values, subjects, &device, &weights);
            let rest: Vec<f64> = values.iter().zip(subjects).map(|(value, &s)| value - levels[s]).collect();
            let next = smooth(&rest, &weights, ties);
            let step = next.iter().zip(&device).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            device = next;
            if step < CONVERGED {
                break;
            }
        }
        let levels = levels(values, subjects, &device, &weights);
        let noise: Vec<f64> =
            (0..values.len()).map(|i| (values[i] - device[i] - levels[subjects[i]]).abs()).collect();
        let in_line = IN_LINE * MAD_TO_SIGMA * median(noise.clone());
        weights = noise.iter().map(|noise| (in_line / noise.max(f64::MIN_POSITIVE)).min(1.0)).collect();
        // Rows without any noise are all in line.
        if in_line == 0.0 {
            break;
        }
    }
    device
}

/// By subject, the weighted mean of what its values are without the device's part.
fn levels(values: &[f64], subjects: &[usize], device: &[f64], weights: &[f64]) -> Vec<f64> {
    let n = subjects.iter().max().map_or(0, |last| last + 1);
    let mut sums = vec![(0.0, 0.0); n];
    for (i, &subject) in subjects.iter().enumerate() {
        sums[subject].0 += weights[i] * (values[i] - device[i]);
        sums[subject].1 += weights[i];
    }
    sums.into_iter().map(|(sum, weight)| sum / weight).collect()
}

/// The x with the least Σ w·(x − value)² + Σ tie·(x − next x)²: a tridiagonal system, by elimination.
fn smooth(values: &[f64], weights: &[f64], ties: &[f64]) -> Vec<f64> {
    let n = values.len();
    let tie = |i: usize| ties.get(i).copied().unwrap_or(0.0);
    let mut pivots = vec![0.0; n];
    let mut x = vec![0.0; n];
    for i in 0..n {
        let before = if i > 0 { tie(i - 1) } else { 0.0 };
        pivots[i] = weights[i] + before + tie(i);
        x[i] = weights[i] * values[i];
        if i > 0 {
            let part = before / pivots[i - 1];
            pivots[i] -= part * before;
            x[i] += part * x[i - 1];
        }
    }
    for i in (0..n).rev() {
        let after = if i + 1 < n { tie(i) * x[i + 1] } else { 0.0 };
        x[i] = (x[i] + after) / pivots[i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, seq::SliceRandom};
    use rand_chacha::ChaCha8Rng;

    /// Ten rounds of 40 subjects with 1 % of noise, on a device of which `device` tells the part.
    fn rounds(device: impl Fn(usize) -> f64) -> (Vec<f64>, Vec<usize>, Vec<f64>) {
        let rng = &mut ChaCha8Rng::seed_from_u64(7);
        let mut subjects = vec![];
        for _ in 0..10 {
            let mut order: Vec<usize> = (0..40).collect();
            order.shuffle(rng);
            subjects.extend(order);
        }
        let truth: Vec<f64> = (0..subjects.len()).map(device).collect();
        let noise = (0..subjects.len()).map(|_| rng.random_range(-0.017..0.017));
        let values =
            noise.zip(&subjects).zip(&truth).map(|((noise, &s), device)| 0.1 * s as f64 + device + noise);
        (values.collect(), subjects, truth)
    }

    /// Standard deviation of what is left of the subjects' levels, where each stands 0.1 above the last.
    fn spread(levels: &[f64]) -> f64 {
        let rest: Vec<f64> = levels.iter().enumerate().map(|(s, level)| level - 0.1 * s as f64).collect();
        let mean = rest.iter().sum::<f64>() / rest.len() as f64;
        (rest.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / rest.len() as f64).sqrt()
    }

    #[test]
    fn levels_are_told_from_a_device_that_slows_down() {
        // Three spells that are 10 % slower, and a slow wave.
        let device = |i: usize| if i % 150 < 40 { 0.1 } else { 0.0 } + 0.05 * (i as f64 / 60.0).sin();
        let (values, subjects, truth) = rounds(device);
        let ties = vec![NOISE_TO_STEP; values.len() - 1];
        let walk = walk(&values, &subjects, &ties);
        let ones = vec![1.0; values.len()];
        let with = spread(&levels(&values, &subjects, &walk, &ones));
        let without = spread(&levels(&values, &subjects, &vec![0.0; values.len()], &ones));
        assert!(without > 0.01 && with < 0.006, "{without} {with}");
        let shift: f64 = walk.iter().zip(&truth).map(|(a, b)| a - b).sum::<f64>() / walk.len() as f64;
        let off =
            walk.iter().zip(&truth).map(|(a, b)| (a - b - shift).abs()).sum::<f64>() / walk.len() as f64;
        assert!(off < 0.01, "{off}");
    }

    #[test]
    fn without_noise_and_drift_there_is_none() {
        let values = [1.0, 2.0, 3.0, 2.0, 1.0, 3.0];
        let walk = walk(&values, &[0, 1, 2, 1, 0, 2], &[1.0; 5]);
        assert!(walk.iter().all(|device| device.abs() < 1e-9), "{walk:?}");
    }

    #[test]
    fn a_smooth_series_is_the_weighted_mean_where_it_is_bound_fast() {
        let x = smooth(&[1.0, 2.0, 6.0], &[1.0, 1.0, 2.0], &[1e9, 1e9]);
        assert!(x.iter().all(|x| (x - 3.75).abs() < 1e-6), "{x:?}");
        let free = smooth(&[1.0, 2.0, 6.0], &[1.0, 1.0, 2.0], &[0.0, 0.0]);
        assert_eq!(free, [1.0, 2.0, 6.0]);
    }
}
