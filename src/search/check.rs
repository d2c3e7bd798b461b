use super::{Constraint, Cost, SearchError, Unit, best_within, range};
use crate::latency::Latency;
use crate::model::LatencyModel;
use crate::space::{CandidateOp, Networks};

impl Cost {
    /// Returns the latency that a latency model predicts.
    pub fn latency(model: &LatencyModel) -> Cost {
        Cost { name: "latency".into(), unit: Unit::Nanoseconds, polynomial: model.polynomial.clone() }
    }

    /// Returns the costs of the cheapest and of the most expensive network without a `zero`.
    pub fn range(&self, networks: &Networks) -> (f64, f64) {
        let live = networks.all_live();
        range(&self.polynomial, &live).unwrap_or_default()
    }
}

/// Returns the latencies of the fastest and of the slowest network without a `zero`.
pub fn latency_range(model: &LatencyModel) -> (Latency, Latency) {
    let (fastest, slowest) = Cost::latency(model).range(&model.networks);
    (Latency::from_ns(fastest), Latency::from_ns(slowest))
}

/// Returns the score of each choice, by layer. A `zero`, which no network needs, gets minus infinity.
pub fn scores_of(networks: &Networks, mut score: impl FnMut(usize, usize) -> f64) -> Vec<Vec<f64>> {
    let of_layer = |layer: usize| {
        let mut of = |choice: usize| {
            let zero = networks.choices()[layer][choice].op == CandidateOp::Zero;
            if zero { f64::NEG_INFINITY } else { score(layer, choice) }
        };
        (0..networks.choices()[layer].len()).map(&mut of).collect()
    };
    (0..networks.len()).map(of_layer).collect()
}

/// Warns of each limit that every network is within.
///
/// # Errors
/// [`SearchError::Unreachable`] if no network is within all constraints.
pub fn check(networks: &Networks, constraints: &[Constraint]) -> Result<(), SearchError> {
    for constraint in constraints {
        let Constraint { cost, target, .. } = constraint;
        let most = cost.range(networks).1;
        if *target > most {
            let most = cost.show(most);
            log::warn!("{constraint} does not limit the search: no network of the space has more than {most}");
        }
    }
    let even = scores_of(networks, |_, _| 0.0);
    best_within(&even, constraints).map(drop).ok_or_else(|| unreachable(networks, constraints))
}

pub(super) fn unreachable(networks: &Networks, constraints: &[Constraint]) -> SearchError {
    let limits: Vec<String> = constraints.iter().map(Constraint::to_string).collect();
    let cheapest = |c: &Constraint| {
        let least = c.cost.range(networks).0;
        (least > c.limit).then(|| format!("no network has less than {}", c.cost.unit.show_limit(least, &c.cost.name)))
    };
    let reasons: Vec<String> = constraints.iter().filter_map(cheapest).collect();
    let reason =
        if reasons.is_empty() { "each limit can be met, but not all together".into() } else { reasons.join("; ") };
    SearchError::Unreachable { limits: limits.join(" and "), reason }
}
