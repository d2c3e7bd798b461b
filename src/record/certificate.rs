use crate::latency::Latency;
use crate::search::{Candidate, Constraint, Limits, Nearest, Unit};
use crate::space::{Genotype, Networks};
use serde::{Deserialize, Serialize};

/// Why a search chose a network, and what it gave up to keep within the limits: `certificate` in `genotype.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// What the scores are, and how one of the networks was chosen.
    pub algorithm: String,
    /// The constraints, with the predicted costs of the network. The band is that of the first.
    pub constraints: Vec<Held>,
    /// Score of the network. Absent if the algorithm gives networks no scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The network with the best score if there were no limits. Absent if only networks within the limits have scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconstrained: Option<Unconstrained>,
    /// The network within all limits that uses the most of the first one. Absent if no network is within them, which
    /// can be the case after the latency model was fitted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_below: Option<NearestBelow>,
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
    /// The difference between this score and the best one within the limits. The chosen network may have another score,
    /// since short training runs or measurements may have decided.
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
    /// Certifies the network `chosen` within `limits`. `best_score` is the best score within them, if networks have
    /// scores.
    pub fn new(
        algorithm: String,
        networks: &Networks,
        limits: &Limits,
        chosen: &Candidate,
        (best_score, unconstrained): (Option<f64>, Option<&Candidate>),
        measured: Option<Latency>,
    ) -> Certificate {
        let names = |choices: &[usize]| Genotype::new(networks.clone(), choices.to_vec()).names();
        let costs = |choices: &[usize]| limits.constraints.iter().map(|c| c.value(choices)).collect::<Vec<f64>>();
        let held = |constraint: &Constraint| Held {
            cost: constraint.cost.name.clone(),
            unit: constraint.cost.unit,
            target: constraint.target,
            limit: constraint.limit,
            value: constraint.value(&chosen.choices),
        };
        let nearest = |nearest: Nearest| NearestBelow {
            ops: names(&nearest.choices),
            value: costs(&nearest.choices).first().copied().unwrap_or_default(),
            resolution: nearest.resolution,
        };
        Certificate {
            algorithm,
            constraints: limits.constraints.iter().map(held).collect(),
            score: best_score.map(|_| chosen.score),
            unconstrained: unconstrained.map(|best| Unconstrained {
                ops: names(&best.choices),
                score: best.score,
                score_cost_of_limit: best.score - best_score.unwrap_or(chosen.score),
                costs: costs(&best.choices),
            }),
            nearest_below: limits.nearest_below(networks).map(nearest),
            measured_ns: measured,
        }
    }
}

/// A genotype with the certificate of the search that found it: the content of `genotype.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Certified {
    #[serde(flatten)]
    pub genotype: Genotype,
    pub certificate: Certificate,
}
