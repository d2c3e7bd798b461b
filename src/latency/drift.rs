//! A device that gets slower or faster while a table is measured shows it by its anchor.

use super::{Row, Subject};
use statrs::statistics::{Data, OrderStatistics};

/// Fewer readings of the anchor tell nothing.
const FEWEST: usize = 8;
/// Readings before and after that a level is the median of.
const AROUND: usize = 2;
/// One in a hundred series without a drift is taken for one with, by a normal distribution.
const CHANCE_1_PERCENT: f64 = 2.33;

/// By how much the slowest spell of the device was slower than its fastest, as a share, where the
/// anchor shows that it drifts. Rows are in the order in which they were measured.
pub fn drift(rows: &[Row]) -> Option<f64> {
    let anchors: Vec<&Row> = rows.iter().filter(|row| row.anchor && row.disturbed.is_empty()).collect();
    // Tables of several images have an anchor for each.
    let usual = |anchor: &Subject| {
        let its = anchors.iter().filter(|row| row.subject == *anchor);
        median(&its.map(|row| row.fastest().ns()).collect::<Vec<_>>())
    };
    let readings: Vec<f64> = anchors.iter().map(|row| row.fastest().ns() / usual(&row.subject)).collect();
    let window = |i: usize| &readings[i.saturating_sub(AROUND)..(i + AROUND + 1).min(readings.len())];
    let levels = (0..readings.len()).map(|i| median(window(i)));
    let (low, high) = levels.fold((f64::INFINITY, 0.0), |(low, high), l: f64| (l.min(low), l.max(high)));
    drifts(&readings).then_some(high / low - 1.0)
}

fn median(values: &[f64]) -> f64 {
    Data::new(values.to_vec()).median()
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
