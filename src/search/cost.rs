use crate::bounded::rounded;
use crate::latency::Latency;
use crate::model::Polynomial;
use crate::space::{Networks, Variant};
use nas_exporters::Precision;
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("no network of the space is within {limits}: {reason}; raise the limit")]
    Unreachable { limits: String, reason: String },
}

/// The unit of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Nanoseconds,
    /// Multiply-accumulates of one inference.
    Macs,
    /// Trainable parameters.
    Params,
    Bytes,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Nanoseconds => Latency::from_ns(value).to_string(),
            Unit::Macs => format!("{} MACs", rounded(value)),
            Unit::Params => format!("{} parameters", rounded(value)),
            Unit::Bytes if value < 0.5 => "none".into(),
            Unit::Bytes => format!("{:.0} KiB", value / 1024.0),
        }
    }

    /// Returns a limit with the name of what it limits: `1.50 ms of latency on host with ort`, `40.0 M MACs`, or `no
    /// activations beyond 512 KiB`.
    pub fn show_limit(self, limit: f64, cost: &str) -> String {
        match self {
            _ if limit == 0.0 => format!("no {cost}"),
            Unit::Macs | Unit::Params => self.show(limit),
            Unit::Nanoseconds | Unit::Bytes => format!("{} of {cost}", self.show(limit)),
        }
    }
}

/// Returns the name of a latency as a cost: `latency on host with ort`, and the number of threads and the precision
/// unless they are the usual ones.
pub fn latency_name(device: &str, runtime: Runtime, threads: usize, precision: Precision) -> String {
    let threads = if threads == 1 { String::new() } else { format!(", {threads} threads") };
    let precision = if precision == Precision::Fp32 { String::new() } else { format!(", {precision}") };
    format!("latency on {device} with {runtime}{threads}{precision}")
}

/// What the networks of a space cost, as a polynomial of their choices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// For example `latency on host with ort`.
    pub name: String,
    pub unit: Unit,
    pub polynomial: Polynomial,
}

/// A cost that a network must not exceed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Constraint {
    pub cost: Cost,
    /// The limit for predictions. It is below the target by the error of predictions.
    pub limit: f64,
    /// The limit that was asked for.
    pub target: f64,
    /// What an excess of 100 % is, for the algorithms that weigh limits against the loss: usually the limit.
    #[serde(skip)]
    pub scale: f64,
}

impl Cost {
    /// Returns the multiply-accumulates of one inference.
    pub fn macs(networks: &Networks) -> Cost {
        let polynomial = additive(networks, |variant| variant.layer.graph().cost().macs as f64);
        Cost { name: "multiply-accumulates".into(), unit: Unit::Macs, polynomial }
    }

    /// Returns the number of trainable parameters.
    pub fn params(networks: &Networks) -> Cost {
        let polynomial = additive(networks, |variant| variant.layer.graph().cost().params as f64);
        Cost { name: "parameters".into(), unit: Unit::Params, polynomial }
    }

    pub fn show(&self, value: f64) -> String {
        self.unit.show(value)
    }
}

impl Constraint {
    /// Limits a cost that is known exactly to at most `target`.
    pub fn new(cost: Cost, target: f64) -> Constraint {
        Constraint { cost, limit: target, target, scale: target.max(1.0) }
    }

    /// Limits a cost whose predictions err by a share of `margin` to at most `target`. The limit is not below the cost
    /// of the cheapest network if that is within the target.
    pub fn with_margin(cost: Cost, target: f64, margin: f64, networks: &Networks) -> Constraint {
        let cheapest = cost.range(networks).0;
        let limit = (target * (1.0 - margin)).max(cheapest.min(target));
        Constraint { cost, limit, target, scale: limit.max(1.0) }
    }

    /// Returns the cost of a network.
    pub fn value(&self, choices: &[usize]) -> f64 {
        self.cost.polynomial.value(choices, 0)
    }

    /// Limits activations to at most `bytes` at any moment. In a chain, the peak is that of a single layer, so the cost
    /// is the sum of the bytes by which each layer exceeds the limit. It is 0 for a network within the limit.
    pub fn peak_activations(networks: &Networks, bytes: u64) -> Constraint {
        let excess =
            |variant: &Variant| variant.layer.graph().cost().peak_activation_bytes.saturating_sub(bytes) as f64;
        let name = format!("activations beyond {}", Unit::Bytes.show(bytes as f64));
        let cost = Cost { name, unit: Unit::Bytes, polynomial: additive(networks, excess) };
        Constraint { scale: (bytes as f64).max(1.0), ..Constraint::new(cost, 0.0) }
    }
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cost.unit.show_limit(self.target, &self.cost.name))
    }
}

/// Sums the costs of the layers.
fn additive(networks: &Networks, cost: impl Fn(&Variant) -> f64) -> Polynomial {
    let of_layer = |(layer, variants): (usize, &Vec<Variant>)| {
        variants.iter().map(|variant| (networks.product(layer, variant), cost(variant))).collect::<Vec<_>>()
    };
    Polynomial::sum(networks.variants().iter().enumerate().flat_map(of_layer))
}
