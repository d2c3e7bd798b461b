use super::estimate::by_subject;
use super::{Estimate, LatencyTable, Row, Subject, Timing};
use nas_probe::Conditions;
use std::collections::BTreeMap;

/// What all rows of a subject say about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    pub estimate: Estimate,
    /// Microjoules per inference: the mean power of the device times the mean time of an inference. Rows that were
    /// disturbed count only if there are no others. `None` if the device does not report its power.
    pub energy_uj: Option<f64>,
    /// The largest peak memory of the rows.
    pub peak_bytes: Option<u64>,
}

impl Facts {
    fn of(rows: &[(Timing, &Row)]) -> Option<Facts> {
        let estimate = Estimate::of(rows.iter().map(|(timing, _)| *timing))?;
        let counts = |timing: &Timing| estimate.disturbed || !timing.disturbed;
        let counted = || rows.iter().filter(|(timing, _)| counts(timing)).map(|(_, row)| *row);
        let power = mean(counted().filter_map(power_mw));
        let time_ns = mean(counted().flat_map(|row| row.samples_ns.iter().copied()));
        Some(Facts {
            estimate,
            energy_uj: power.zip(time_ns).map(|(mw, ns)| mw * ns / 1e6),
            peak_bytes: rows.iter().filter_map(|(_, row)| row.peak_bytes).max(),
        })
    }
}

/// Returns the mean power in milliwatts over those of the row's three readings that include it.
fn power_mw(row: &Row) -> Option<f64> {
    let readings: [&Conditions; 3] = [&row.before, &row.during, &row.after];
    mean(readings.iter().filter_map(|conditions| conditions.power_mw))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

impl LatencyTable {
    /// Returns what the rows say about each subject.
    pub fn facts(&self) -> BTreeMap<&Subject, Facts> {
        let measured = by_subject(self.rows()).into_iter();
        let measured = measured.filter_map(|(subject, rows)| Some((subject, Facts::of(&rows)?)));
        let published = self.published().iter().rev().map(|row| {
            let estimate = Estimate::published(row.published);
            (&row.subject, Facts { estimate, energy_uj: None, peak_bytes: None })
        });
        published.chain(measured).collect()
    }
}
