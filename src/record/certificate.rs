use crate::latency::Latency;
use crate::search::{Candidate, Constraint, Limits, Unit};
use crate::space::{Genotype, Networks};
use serde::{Deserialize, Serialize};

/// Why a search chose a network, and what was left out for the limits: `certificate` in `genotype.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// What the scores are, and how the network was chosen by them.
    pub algorithm: String,
    /// What the network had to keep to, and what is predicted of it; the band is of the first.
    pub constraints: Vec<Held>,
    /// Of the network.
    pub score: f64,
    /// The best network by the same scores if there were no limits; absent where only networks within them are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconstrained: Option<Unconstrained>,
    /// The network within all limits that uses the most of the first one.
    pub nearest_below: NearestBelow,
    /// Of the network, where it was measured before it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_ns: Option<Latency>,
}

/// A constraint, and the predicted cost of the network that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// As `latency on host with ort`.
    pub cost: String,
    pub unit: Unit,
    /// What was asked for.
    pub target: f64,
    /// What a prediction must not exceed.
    pub limit: f64,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unconstrained {
    /// As in a genotype.
    pub ops: Vec<String>,
    pub score: f64,
    /// By how much its score is larger than that of the network that was chosen.
    pub score_cost_of_limit: f64,
    /// By constraint.
    pub costs: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearestBelow {
    /// As in a genotype.
    pub ops: Vec<String>,
    /// Its first cost.
    pub value: f64,
    /// By which share of the limit another network may be nearer; 0 where all were compared.
    pub resolution: f64,
}

impl Certificate {
    /// Of the network `chosen` within `limits`; none where no network is within them.
    pub fn new(
        algorithm: &str,
        networks: &Networks,
        limits: &Limits,
        chosen: &Candidate,
        unconstrained: Option<&Candidate>,
        measured: Option<Latency>,
    ) -> Option<Certificate> {
        let names = |choices: &[usize]| Genotype::new(networks.clone(), choices.to_vec()).names();
        let costs = |choices: &[usize]| limits.constraints.iter().map(|c| c.value(choices)).collect::<Vec<f64>>();
        let held = |constraint: &Constraint| Held {
            cost: constraint.cost.name.clone(),
            unit: constraint.cost.unit,
            target: constraint.target,
            limit: constraint.limit,
            value: constraint.value(&chosen.choices),
        };
        let nearest = limits.nearest_below(networks)?;
        Some(Certificate {
            algorithm: algorithm.into(),
            constraints: limits.constraints.iter().map(held).collect(),
            score: chosen.score,
            unconstrained: unconstrained.map(|best| Unconstrained {
                ops: names(&best.choices),
                score: best.score,
                score_cost_of_limit: best.score - chosen.score,
                costs: costs(&best.choices),
            }),
            nearest_below: NearestBelow {
                ops: names(&nearest.choices),
                value: costs(&nearest.choices).first().copied().unwrap_or_default(),
                resolution: nearest.resolution,
            },
            measured_ns: measured,
        })
    }
}

/// A genotype with the certificate of the search that found it: what `genotype.json` holds.
#[derive(Clone, Debug, Serialize)]
pub struct Certified {
    #[serde(flatten)]
    pub genotype: Genotype,
    pub certificate: Certificate,
}
