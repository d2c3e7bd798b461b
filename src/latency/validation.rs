use super::fit::Accuracy;
use super::timing::{Reading, by_subject};
use super::{Images, Latency, LatencyModel, LatencyTable, Networks, TableError, Timing};
use crate::space::CandidateOp;
use nas_exporters::Shape;
use serde::{Deserialize, Serialize};

/// How well predictions held on networks that no fit has seen: what a table's header says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Shape of the images, CHW.
    pub input: Shape,
    pub classes: usize,
    /// Of the latency model whose predictions they are.
    pub model: String,
    pub accuracy: Accuracy,
    /// Of the plain sum of isolated layers, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_sum: Option<Accuracy>,
    /// Of a + b·MACs, a and b by least squares over the networks that the model was fitted to; absent
    /// where it was fitted to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<Accuracy>,
    /// Mean absolute relative difference of what half of a network's rows say, every other one, from what
    /// the rest say: no prediction can do better.
    pub noise: Option<f64>,
}

/// A network that no fit has seen, and what it was thought to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unseen {
    pub ops: Vec<CandidateOp>,
    pub measured_ns: Latency,
    pub predicted_ns: Latency,
    pub plain_sum_ns: Option<Latency>,
    pub macs_ns: Option<Latency>,
}

impl Validation {
    /// Of the unseen networks that `table` has rows of; none where it has none.
    ///
    /// # Errors
    /// Where the table has no model of the networks.
    pub fn of(
        table: &LatencyTable,
        networks: &Networks,
    ) -> Result<Option<(Validation, Vec<Unseen>)>, TableError> {
        let model = LatencyModel::new(table, networks)?;
        let plain = LatencyModel::isolated(table, networks).ok();
        let macs = |ops: &[usize]| networks.network(ops).graph().cost().macs as f64;
        let fitted = networks.measured(table, false);
        let line = line(fitted.iter().map(|m| (macs(&m.ops), m.latency.ns())));
        let unseen: Vec<Unseen> = networks
            .measured(table, true)
            .into_iter()
            .map(|measured| {
                let ops: Vec<CandidateOp> =
                    measured.ops.iter().map(|&op| networks.space.candidates[op]).collect();
                Unseen {
                    measured_ns: measured.latency,
                    predicted_ns: model.predict(&ops),
                    plain_sum_ns: plain.as_ref().map(|plain| plain.predict(&ops)),
                    macs_ns: line.map(|(a, b)| Latency::from_ns(a + b * macs(&measured.ops))),
                    ops,
                }
            })
            .collect();
        let accuracy = |of: &dyn Fn(&Unseen) -> Option<Latency>| {
            let pairs: Option<Vec<_>> = unseen.iter().map(|u| Some((of(u)?, u.measured_ns))).collect();
            Accuracy::of(&pairs?)
        };
        let Some(held) = accuracy(&|u| Some(u.predicted_ns)) else { return Ok(None) };
        let Images { shape, classes } = networks.images;
        let validation = Validation {
            input: shape,
            classes,
            model: model.digest(),
            accuracy: held,
            plain_sum: accuracy(&|u| u.plain_sum_ns),
            macs: accuracy(&|u| u.macs_ns),
            noise: noise(table, networks),
        };
        Ok(Some((validation, unseen)))
    }

    /// That of `model` which the table's header has.
    pub fn find<'t>(table: &'t LatencyTable, model: &LatencyModel) -> Option<&'t Validation> {
        let digest = model.digest();
        table.header.validations.iter().find(|validation| validation.model == digest)
    }

    pub(super) fn same_images(&self, other: &Validation) -> bool {
        (self.input, self.classes) == (other.input, other.classes)
    }
}

fn noise(table: &LatencyTable, networks: &Networks) -> Option<f64> {
    let of = |readings: Vec<Reading>| -> Option<f64> {
        let counts = |reading: &Reading| reading.row.unseen && reading.row.disturbed.is_empty();
        let counted = || readings.iter().copied().filter(counts);
        let half = |skip: usize| Some(Timing::of(counted().skip(skip).step_by(2))?.fastest.ns());
        Some((half(1)? / half(0)? - 1.0).abs())
    };
    let readings = by_subject(table.rows()).into_iter();
    let of_networks = readings.filter(|(subject, _)| networks.ops(subject).is_some());
    let all: Vec<f64> = of_networks.filter_map(|(_, readings)| of(readings)).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// a and b of y = a + b·x by least squares; none for fewer than two different x.
fn line(points: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.collect();
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let (covariance, variance) = (mean(&|p| (p.0 - x) * (p.1 - y)), mean(&|p| (p.0 - x).powi(2)));
    let slope = covariance / variance;
    slope.is_finite().then_some((y - slope * x, slope))
}
