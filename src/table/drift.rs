//! Drift: changes of a device's speed while a table is measured, as seen by the anchor.

use super::{Row, Subject};
use std::collections::BTreeMap;

/// The number of anchor rows on either side of a row, the fastest of which gives the speed of the device at that time.
/// Other programs only ever slow down single rows, and a change of speed lasts longer than that.
const AROUND: usize = 3;

/// Returns by how much the device was slower at its slowest than at its fastest, as a share. `rows` are in the order in
/// which they were measured.
pub fn drift(rows: &[Row]) -> f64 {
    let slowness = slowness(rows);
    let (least, most) = slowness.iter().fold((f64::INFINITY, 1.0f64), |(l, m), s| (l.min(s.around), m.max(s.around)));
    if slowness.is_empty() { 0.0 } else { most / least - 1.0 }
}

/// How many times slower a device was than at its usual top speed.
#[derive(Clone, Copy, Debug)]
pub struct Slowness {
    pub around: f64,
    /// The larger of the values before and after the row: a speed that is about to change is not the usual one.
    pub either_side: f64,
}

/// Returns for each row how many times slower the device was at that time than at its usual top speed, which it reached
/// in the fastest eighth of the rows. Without an anchor, all values are 1.
pub(super) fn slowness(rows: &[Row]) -> Vec<Slowness> {
    let anchors: Vec<(usize, &Row)> = rows.iter().enumerate().filter(|(_, row)| row.anchor).collect();
    // Tables that were merged may each have an anchor of their own.
    let fastest = anchors.iter().fold(BTreeMap::<&Subject, f64>::new(), |mut fastest, (_, row)| {
        let ns = fastest.entry(&row.subject).or_insert(f64::INFINITY);
        *ns = ns.min(row.fastest_ns());
        fastest
    });
    let readings: Vec<f64> = anchors.iter().map(|(_, row)| row.fastest_ns() / fastest[&row.subject]).collect();
    let least = |readings: &[f64]| readings.iter().copied().reduce(f64::min);
    let slowness = |i: usize| {
        let next = anchors.partition_point(|(at, _)| *at <= i);
        let before = least(&readings[next.saturating_sub(AROUND)..next]);
        let after = least(&readings[next..(next + AROUND).min(readings.len())]);
        let sides = || before.into_iter().chain(after);
        Slowness {
            around: sides().reduce(f64::min).unwrap_or(1.0),
            either_side: sides().reduce(f64::max).unwrap_or(1.0),
        }
    };
    let levels: Vec<Slowness> = (0..rows.len()).map(slowness).collect();
    let mut sorted: Vec<f64> = levels.iter().map(|level| level.around).collect();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.get(sorted.len() / 8).copied().unwrap_or(1.0);
    let relative = |s: Slowness| Slowness { around: s.around / usual, either_side: s.either_side / usual };
    levels.into_iter().map(relative).collect()
}
