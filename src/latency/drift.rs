//! A device that gets slower or faster while a table is measured shows it by its anchor.

use super::{Row, Subject};
use statrs::statistics::{Data, OrderStatistics};

/// Fewer readings of the anchor tell nothing.
const FEWEST: usize = 8;
/// Readings before and after that a level is the median of.
const AROUND: usize = 2;
/// One in a hundred series without a drift is taken for one with, by a normal distribution.
const CHANCE_1_PERCENT: f64 = 2.33;

/// By row, how slow the device was at the time, 1 being its median; 1 for all where the anchor does not
/// show that it drifts. Rows are in the order in which they were measured.
pub fn levels(rows: &[Row]) -> Vec<f64> {
    let of_anchor = |(place, row): (usize, &Row)| (row.anchor && row.disturbed.is_empty()).then_some(place);
    let places: Vec<usize> = rows.iter().enumerate().filter_map(of_anchor).collect();
    // Tables of several images have an anchor for each.
    let usual = |anchor: &Subject| {
        let its = places.iter().map(|&place| &rows[place]).filter(|row| row.subject == *anchor);
        median(&its.map(|row| row.median_ns.ns()).collect::<Vec<_>>())
    };
    let reading = |row: &Row| row.median_ns.ns() / usual(&row.subject);
    let readings: Vec<f64> = places.iter().map(|&place| reading(&rows[place])).collect();
    if !drifts(&readings) {
        return vec![1.0; rows.len()];
    }
    let window = |i: usize| &readings[i.saturating_sub(AROUND)..(i + AROUND + 1).min(readings.len())];
    let smooth: Vec<f64> = (0..readings.len()).map(|i| median(window(i))).collect();
    (0..rows.len()).map(|row| between(&places, &smooth, row)).collect()
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

/// The value at `row`, on a straight line between the two known ones around it.
fn between(places: &[usize], values: &[f64], row: usize) -> f64 {
    let after = places.partition_point(|&place| place < row);
    match (after.checked_sub(1), places.get(after)) {
        (Some(before), Some(&right)) => {
            let left = places[before];
            let share = (row - left) as f64 / (right - left) as f64;
            values[before] + share * (values[after] - values[before])
        }
        (Some(before), None) => values[before],
        (None, _) => values[after],
    }
}
