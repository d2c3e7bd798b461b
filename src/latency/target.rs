use super::{Latency, LatencyModel};
use serde::{Deserialize, Serialize};

/// The latency that a network may take: an absolute one, `1.5ms`, or a share of the way from the
/// cheapest to the dearest network of the space, `40%`, which means something on any device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    Latency(Latency),
    /// From 0 to 100.
    Percent(f64),
}

impl Target {
    /// As a latency on the device of `model`.
    pub fn resolve(self, model: &LatencyModel) -> Latency {
        let (cheapest, dearest) = model.range();
        match self {
            Target::Latency(latency) => latency,
            Target::Percent(percent) => {
                let share = percent / 100.0;
                let between = (1.0 - share) * cheapest + share * dearest;
                // Rounding must not ask for less than there is.
                if between < cheapest { cheapest } else { between }
            }
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let Some(percent) = s.strip_suffix('%') else { return s.parse().map(Target::Latency) };
        match percent.trim().parse::<f64>() {
            Ok(p) if (0.0..=100.0).contains(&p) => Ok(Target::Percent(p)),
            _ => Err(format!("`{s}` is no share; write 0% (the cheapest network) to 100% (the dearest)")),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Latency(latency) => write!(f, "{}ns", latency.ns()),
            Target::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
