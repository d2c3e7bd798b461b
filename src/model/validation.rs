use super::{Accuracy, LatencyModel, ModelError, measured};
use crate::artifact::{self, ArtifactError, Digest};
use crate::latency::Latency;
use crate::space::{Networks, chained};
use crate::table::{Drawn, Estimate, LatencyTable, Subject, Timing, by_subject};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How well predictions agree with networks that no fit has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    pub classes: usize,
    /// [`LatencyModel::digest`] of the model whose predictions these are.
    pub model: Digest,
    /// Accuracy on random networks, in which each choice of a layer occurs equally often.
    pub random: Accuracy,
    /// Accuracy on networks that were derived as a search derives them. Absent if none were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Accuracy>,
    /// Accuracy of the plain sum of isolated layers, on the random networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_sum: Option<Accuracy>,
    /// Accuracy of a + b·MACs on the random networks, where a and b come from least squares over the networks that the
    /// model was fitted to. Absent if it was fitted to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<Accuracy>,
    /// Mean absolute relative difference between two estimates of the same network, one from its even and one from its
    /// odd rows. If their errors are independent, that of the estimate from all rows, which no prediction can know, is
    /// half of it on average.
    pub noise: Option<f64>,
}

/// A network that no fit has seen, with its measured and predicted latencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unseen {
    pub drawn: Drawn,
    pub measured_ns: Latency,
    pub predicted_ns: Latency,
    pub plain_sum_ns: Option<Latency>,
    pub macs_ns: Option<Latency>,
}

impl Validation {
    /// Validates the table's model on its unseen networks. Returns `None` if there are no random ones.
    ///
    /// # Errors
    /// Fails if the table has no model of the networks.
    pub fn of(table: &LatencyTable, networks: &Networks) -> Result<Option<(Validation, Vec<Unseen>)>, ModelError> {
        let model = LatencyModel::new(table, networks)?;
        let plain = LatencyModel::isolated(table, networks).ok();
        let macs = |choices: &[usize]| chained(&networks.layers_of(choices)).cost().macs as f64;
        let estimates = table.estimates();
        let drawn = table.unseen();
        let fitted = estimates.iter().filter(|(subject, _)| !drawn.contains_key(*subject));
        let fitted = fitted.filter_map(|(subject, estimate)| measured(networks, subject, estimate));
        let line = line(fitted.map(|m| (macs(&m.choices), m.latency.ns())));
        let unseen = |(subject, estimate): (&&Subject, &Estimate)| {
            let choices = measured(networks, subject, estimate)?.choices;
            Some(Unseen {
                drawn: *drawn.get(subject)?,
                measured_ns: estimate.latency,
                predicted_ns: model.predict(&choices),
                plain_sum_ns: plain.as_ref().map(|plain| plain.predict(&choices)),
                macs_ns: line.map(|(a, b)| Latency::from_ns(a + b * macs(&choices))),
            })
        };
        let unseen: Vec<Unseen> = estimates.iter().filter_map(unseen).collect();
        let accuracy = |drawn: Drawn, of: &dyn Fn(&Unseen) -> Option<Latency>| {
            let chosen = unseen.iter().filter(|u| u.drawn == drawn);
            Accuracy::of(&chosen.map(|u| Some((of(u)?, u.measured_ns))).collect::<Option<Vec<_>>>()?)
        };
        let predicted = |u: &Unseen| Some(u.predicted_ns);
        let Some(random) = accuracy(Drawn::Random, &predicted) else { return Ok(None) };
        let validation = Validation {
            classes: networks.classes[0],
            model: model.digest(),
            random,
            derived: accuracy(Drawn::Derived, &predicted),
            plain_sum: accuracy(Drawn::Random, &|u| u.plain_sum_ns),
            macs: accuracy(Drawn::Random, &|u| u.macs_ns),
            noise: noise(table, networks),
        };
        Ok(Some((validation, unseen)))
    }
}

/// The validations of a table, one for each number of classes, stored in a file beside the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validations(pub Vec<Validation>);

impl Validations {
    /// Returns the path `NAME.validation.json` for a table `NAME.jsonl`.
    pub fn path(table: &Path) -> PathBuf {
        table.with_extension("validation.json")
    }

    /// Loads the validations of a table. There are none if the file does not exist.
    ///
    /// # Errors
    /// Fails if the file is damaged.
    pub fn load(table: &LatencyTable) -> Result<Self, ArtifactError> {
        Ok(artifact::read_json_if_any(&Self::path(table.path()))?.unwrap_or_default())
    }

    /// Returns the validation of `model`. A model that has changed since it was validated has none.
    pub fn of(&self, model: &LatencyModel) -> Option<&Validation> {
        let digest = model.digest();
        self.0.iter().find(|validation| validation.model == digest)
    }

    /// Stores a validation, replacing that for the same number of classes.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn save(mut self, table: &LatencyTable, validation: Validation) -> Result<(), ArtifactError> {
        self.0.retain(|old| old.classes != validation.classes);
        self.0.push(validation);
        artifact::write_json(&Self::path(table.path()), &self)
    }
}

fn noise(table: &LatencyTable, networks: &Networks) -> Option<f64> {
    let drawn = table.unseen();
    let of = |timings: Vec<Timing>| -> Option<f64> {
        let half = |skip: usize| Estimate::of(timings.iter().copied().skip(skip).step_by(2));
        Some((half(1)?.latency.ns() / half(0)?.latency.ns() - 1.0).abs())
    };
    let is_ours = |subject: &Subject| match subject {
        Subject::Network(layers) => drawn.contains_key(subject) && networks.choices_of(layers).is_some(),
        _ => false,
    };
    let rows = by_subject(table.rows()).into_iter().filter(|(subject, _)| is_ours(subject));
    let calm = rows.map(|(_, rows)| rows.into_iter().map(|(timing, _)| timing).filter(|t| !t.disturbed).collect());
    let all: Vec<f64> = calm.filter_map(of).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// Returns a and b of y = a + b·x by least squares, or `None` if there are fewer than two different x.
fn line(points: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.collect();
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let (covariance, variance) = (mean(&|p| (p.0 - x) * (p.1 - y)), mean(&|p| (p.0 - x).powi(2)));
    let slope = covariance / variance;
    slope.is_finite().then_some((y - slope * x, slope))
}
