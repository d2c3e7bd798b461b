//! Latencies and target latencies.

use crate::named::as_text;
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};

/// The duration of one inference. Files store it as a number of nanoseconds, in a field whose name ends in `_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Latency {
    ns: f64,
}

/// No inference takes a day.
const LONGEST_NS: f64 = 24.0 * 3600e9;

impl TryFrom<f64> for Latency {
    type Error = String;

    fn try_from(ns: f64) -> Result<Self, String> {
        if ns.abs() <= LONGEST_NS { Ok(Latency { ns }) } else { Err(format!("{ns} ns is no latency")) }
    }
}

impl From<Latency> for f64 {
    fn from(latency: Latency) -> f64 {
        latency.ns
    }
}

impl Latency {
    pub const ZERO: Latency = Latency { ns: 0.0 };

    pub fn from_ns(ns: f64) -> Self {
        Latency { ns }
    }

    pub fn ns(self) -> f64 {
        self.ns
    }

    pub fn ms(self) -> f64 {
        self.ns / 1e6
    }
}

impl std::ops::Add for Latency {
    type Output = Latency;

    fn add(self, other: Latency) -> Latency {
        Latency { ns: self.ns + other.ns }
    }
}

impl std::ops::Mul<Latency> for f64 {
    type Output = Latency;

    fn mul(self, latency: Latency) -> Latency {
        Latency { ns: self * latency.ns }
    }
}

impl std::iter::Sum for Latency {
    fn sum<I: Iterator<Item = Latency>>(latencies: I) -> Latency {
        latencies.fold(Latency::ZERO, |a, b| a + b)
    }
}

/// Formats a latency with three digits and a suitable unit: `845 ns`, `12.3 µs`, `1.25 ms`, `2.10 s`.
impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (value, unit) = match self.ns.abs() {
            // Adding 0 turns a −0 that comes from rounding into 0.
            ns if ns < 999.5 => return f.pad(&format!("{:.0} ns", self.ns.round() + 0.0)),
            ns if ns < 999.5e3 => (self.ns / 1e3, "µs"),
            ns if ns < 999.5e6 => (self.ns / 1e6, "ms"),
            _ => (self.ns / 1e9, "s"),
        };
        let digits = match value.abs() {
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

/// Reads a number with its unit: `12ms`, `0.8 ms`, `850us`, `1s`. A bare number is rejected, since its unit would be a
/// guess.
impl std::str::FromStr for Latency {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let split = s.find(|c: char| c.is_alphabetic()).unwrap_or(s.len());
        let (number, unit) = s.split_at(split);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "" => return Err(format!("`{s}` has no unit; write {s}ms, {s}us or {s}s")),
            _ => return Err(format!("`{unit}` is no unit of time; there are ns, us, ms and s")),
        };
        match number.trim().parse::<f64>() {
            Ok(n) if n > 0.0 && n * scale <= LONGEST_NS => Ok(Latency { ns: n * scale }),
            _ => Err(format!("`{s}` is no latency; write a positive number and its unit, as in 1.5ms")),
        }
    }
}

/// The latency that a network may have: an absolute one, such as `1.5ms`, or a share of the way from the fastest to
/// the slowest network of the space, such as `40%`, which is meaningful on any device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub enum Target {
    Latency(Latency),
    /// From 0 to 100.
    Percent(f64),
}

impl Target {
    /// Returns the target as a latency, given that the networks of the space take from `fastest` to `slowest`.
    pub fn resolve(self, (fastest, slowest): (Latency, Latency)) -> Latency {
        match self {
            Target::Latency(latency) => latency,
            Target::Percent(percent) => {
                let share = percent / 100.0;
                let between = (1.0 - share) * fastest + share * slowest;
                // Rounding must not give less than the fastest network takes.
                if between < fastest { fastest } else { between }
            }
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let Some(percent) = s.strip_suffix('%') else {
            let share = s.trim().parse::<f64>().is_ok_and(|share| (0.0..=100.0).contains(&share));
            let or_share = |e: String| {
                if share {
                    format!("{e}; or {s}%, the share of the way from the fastest network to the slowest")
                } else {
                    e
                }
            };
            return s.parse().map(Target::Latency).map_err(or_share);
        };
        match percent.trim().parse::<f64>() {
            Ok(p) if (0.0..=100.0).contains(&p) => Ok(Target::Percent(p)),
            _ => Err(format!("`{s}` is no share; write 0% (the fastest network) to 100% (the slowest)")),
        }
    }
}

as_text!(Target, String);

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Latency(latency) => write!(f, "{}ns", latency.ns()),
            Target::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Target {
    /// Returns a name for a folder, such as `1.2ms` or `40percent`.
    pub fn name(self) -> String {
        match self {
            Target::Latency(latency) => format!("{}ms", (latency.ns()).round() / 1e6),
            Target::Percent(percent) => format!("{percent}percent"),
        }
    }
}

/// A target and what it is for: `2ms`, `jetson=10ms`, `jetson:tract=10ms` or `:tract=2ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub struct TargetFor {
    /// `None` stands for the default device.
    pub device: Option<String>,
    /// `None` stands for the default runtime.
    pub runtime: Option<Runtime>,
    pub target: Target,
}

impl From<Target> for TargetFor {
    fn from(target: Target) -> TargetFor {
        TargetFor { device: None, runtime: None, target }
    }
}

impl std::str::FromStr for TargetFor {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let Some((key, target)) = s.rsplit_once('=') else {
            let key = !s.is_empty() && !s.contains(|c: char| c.is_ascii_digit());
            let hint = |e: String| if key { format!("`{s}` has no target; write {s}=10ms or {s}=40%") } else { e };
            return s.parse().map(|target: Target| target.into()).map_err(hint);
        };
        let (device, runtime) = match key.rsplit_once(':') {
            Some((device, runtime)) => (device, Some(runtime.parse()?)),
            None => (key, None),
        };
        if device.is_empty() && runtime.is_none() {
            return Err(format!(
                "`{s}` names no device before `=`; write jetson=10ms, jetson:tract=10ms or :tract=10ms"
            ));
        }
        let device = (!device.is_empty()).then(|| device.to_string());
        Ok(TargetFor { device, runtime, target: target.parse()? })
    }
}

impl std::fmt::Display for TargetFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TargetFor { device, runtime, target } = self;
        let device = device.as_deref().unwrap_or_default();
        match runtime {
            Some(runtime) => write!(f, "{device}:{runtime}={target}"),
            None if device.is_empty() => target.fmt(f),
            None => write!(f, "{device}={target}"),
        }
    }
}

as_text!(TargetFor, String);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_refuses_bare_numbers() {
        for (text, ns) in [("12ms", 12e6), ("0.8 ms", 8e5), ("850us", 85e4), ("3µs", 3e3), ("1s", 1e9), ("7ns", 7.0)] {
            assert_eq!(text.parse::<Latency>().unwrap().ns(), ns, "{text}");
        }
        for text in ["12", "", "ms", "-1ms", "nanms", "infms", "0ms", "5 min"] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }

    #[test]
    fn targets_name_devices_and_runtimes() {
        for text in ["2000000ns", "40%", "jetson=40%", "jetson:tract=10000000ns", ":ort=5000000ns", "a/b.toml=1000ns"] {
            assert_eq!(text.parse::<TargetFor>().unwrap().to_string(), text);
        }
        for (text, said) in [
            ("jetson", "write jetson=10ms or jetson=40%"),
            ("=2ms", "names no device"),
            ("jetson=", "no"),
            ("jetson:fast=2ms", "fast"),
            ("jetson=2", "has no unit"),
            ("2", "has no unit"),
        ] {
            let error = text.parse::<TargetFor>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!("850us".parse::<Target>().unwrap().name(), "0.85ms");
        assert_eq!("40%".parse::<Target>().unwrap().name(), "40percent");
    }

    #[test]
    fn shows_three_digits() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (-0.2, "0 ns"),
            (845.2, "845 ns"),
            (999.7, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (1.25e6, "1.25 ms"),
            (2.1e9, "2.10 s"),
        ] {
            assert_eq!(Latency::from_ns(ns).to_string(), text);
        }
    }
}
