use crate::latency::Latency;
use crate::search::{Candidate, Constraint, Limits, Unit};
use crate::space::{Genotype, Networks};
use serde::{Deserialize, Serialize};

/// Why a search chose a network, and what it gave up to keep within the limits: `certificate` in `genotype.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// What the scores are, and how they decided the choice.
    pub algorithm: String,
    /// The constraints, with the predicted costs of the network. The band is that of the first.
    pub constraints: Vec<Held>,
    /// Score of the network.
    pub score: f64,
    /// The network with the best score if there were no limits. Absent if only networks within the limits are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconstrained: Option<Unconstrained>,
    /// The network within all limits that uses the most of the first one.
    pub nearest_below: NearestBelow,
    /// The measured latency of the network, if it was measured before it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_ns: Option<Latency>,
}

/// A constraint, with the predicted cost of the chosen network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// For example `latency on host with ort`.
    pub cost: String,
    pub unit: Unit,
    /// What was asked for.
    pub target: f64,
    /// The limit that a prediction must not exceed.
    pub limit: f64,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unconstrained {
    /// Choices, named as in a genotype.
    pub ops: Vec<String>,
    pub score: f64,
    /// The difference between this score and that of the chosen network.
    pub score_cost_of_limit: f64,
    /// The costs of this network, by constraint.
    pub costs: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearestBelow {
    /// Choices, named as in a genotype.
    pub ops: Vec<String>,
    /// The first cost of the network.
    pub value: f64,
    /// How much nearer to the limit another network may be, as a share of the limit. 0 if all networks were compared.
    pub resolution: f64,
}

impl Certificate {
    /// Certifies the network `chosen` within `limits`. Returns `None` if no network is within them.
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

/// A genotype with the certificate of the search that found it: the content of `genotype.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Certified {
    #[serde(flatten)]
    pub genotype: Genotype,
    pub certificate: Certificate,
}
