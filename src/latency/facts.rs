//! What a table says of each subject, and what its model says of each layer.

use super::fit::Estimate;
use super::timing::{Reading, by_subject};
use super::{Latency, LatencyModel, LatencyTable, Networks, Row, Subject, Timing};
use crate::space::Layer;
use nas_probe::Conditions;
use std::collections::BTreeMap;

impl Estimate {
    /// Half of the 95 % confidence interval.
    pub fn error(&self) -> Latency {
        1.96 * self.standard_error
    }
}

/// What the rows of a subject say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    pub timing: Timing,
    /// Microjoules of one inference: what the device drew on average, times the fastest timing. None
    /// where the device does not tell its power.
    pub energy_uj: Option<f64>,
    /// Most of its rows.
    pub peak_bytes: Option<u64>,
}

impl Facts {
    fn of(readings: &[Reading]) -> Option<Facts> {
        let timing = Timing::of(readings.iter().copied())?;
        let rows = || readings.iter().map(|reading| reading.row);
        let counts = |row: &&Row| timing.disturbed || row.disturbed.is_empty();
        let power = mean(rows().filter(counts).filter_map(power_mw));
        Some(Facts {
            timing,
            energy_uj: power.map(|mw| mw * timing.fastest.ns() / 1e6),
            peak_bytes: rows().filter_map(|row| row.peak_bytes).max(),
        })
    }
}

/// Milliwatts: the mean of those of the three readings that tell.
fn power_mw(row: &Row) -> Option<f64> {
    let readings: [&Conditions; 3] = [&row.before, &row.during, &row.after];
    mean(readings.iter().filter_map(|conditions| conditions.power_mw))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// What a layer adds to the networks that hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adds {
    /// Mean over the places where the space may have it.
    pub latency: Latency,
    /// Half of the 95 % confidence interval, at the place where that is widest: no less than that of
    /// the mean.
    pub error: Latency,
    /// The fitted networks that hold it.
    pub networks: usize,
    pub places: usize,
}

impl LatencyTable {
    /// By subject, what its rows say.
    pub fn facts(&self) -> BTreeMap<&Subject, Facts> {
        let readings = by_subject(self.rows()).into_iter();
        let measured = readings.filter_map(|(subject, readings)| Some((subject, Facts::of(&readings)?)));
        let published = self.published().iter().rev().map(|row| {
            let timing = Timing::published(row.published);
            (&row.subject, Facts { timing, energy_uj: None, peak_bytes: None })
        });
        published.chain(measured).collect()
    }

    /// By layer, what it adds after `model`, which is this table's model of `networks`; none where that
    /// is a plain sum.
    pub fn adds(&self, model: &LatencyModel, networks: &Networks) -> BTreeMap<Layer, Adds> {
        let Some(fit) = &model.fit else { return BTreeMap::new() };
        let measured = networks.measured(self, false);
        let mut places: BTreeMap<Layer, Vec<(usize, usize)>> = BTreeMap::new();
        for (l, choices) in networks.space.mixed_layers(networks.images.shape).into_iter().enumerate() {
            for (o, layer) in choices.into_iter().enumerate() {
                places.entry(layer).or_default().push((l, o));
            }
        }
        let of = |places: &[(usize, usize)]| {
            let estimates = places.iter().map(|&(l, o)| fit.rows.get(l + 1)?.get(o)?.as_ref());
            let estimates: Vec<Estimate> = estimates.map(|row| Some(row?.estimate)).collect::<Option<_>>()?;
            let holds = |ops: &[usize]| places.iter().any(|&(l, o)| ops[l] == o);
            let widest = estimates.iter().map(|e| e.error().ns()).fold(0.0, f64::max);
            Some(Adds {
                latency: (1.0 / places.len() as f64) * estimates.iter().map(|e| e.latency).sum::<Latency>(),
                error: Latency::from_ns(widest),
                networks: measured.iter().filter(|m| holds(&m.ops)).count(),
                places: places.len(),
            })
        };
        places.into_iter().filter_map(|(layer, places)| Some((layer, of(&places)?))).collect()
    }
}
