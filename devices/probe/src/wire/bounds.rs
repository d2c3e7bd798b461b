//! Bounds of the numbers and texts that a device sends, which are checked when they are read.

use super::printable;
use serde::{Deserialize, Deserializer, de::Error};
use std::fmt::Display;

/// Reads a text in the form in which a terminal can show it.
pub fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(d)?))
}

pub fn texts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<String>::deserialize(d)?.iter().map(|text| printable(text)).collect())
}

pub fn some_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.map(|text| printable(&text)))
}

/// Reads a number that is at least 1.
pub fn positive<'de, D: Deserializer<'de>, T>(d: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Display + PartialOrd + From<u8>,
{
    checked(T::deserialize(d)?, |n| *n >= T::from(1), "must be at least 1")
}

/// Reads durations of inferences in nanoseconds, at least one, which are positive and at most [`LONGEST_NS`].
pub fn durations<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
    let ns = Vec::<f64>::deserialize(d)?;
    if ns.is_empty() {
        return Err(serde::de::Error::custom("there is no duration"));
    }
    let is = |ns: &f64| *ns > 0.0 && *ns <= LONGEST_NS;
    ns.into_iter().map(|ns| checked(ns, is, "is not a duration in nanoseconds")).collect()
}

/// About eleven days.
const LONGEST_NS: f64 = 1e15;

/// Reads a number of cores or a load, which is not negative.
pub fn load<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    optional(d, is_load, "is not a load")
}

pub fn khz<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    optional(d, is_khz, "is not a clock in kHz")
}

pub fn millicelsius<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    optional(d, is_millicelsius, "is not a temperature in thousandths of a degree Celsius")
}

pub fn milliwatts<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    optional(d, is_milliwatts, "is not a power in milliwatts")
}

pub fn is_load(load: &f64) -> bool {
    (0.0..=1e6).contains(load)
}

/// Accepts clocks up to 1 THz.
pub fn is_khz(khz: &u64) -> bool {
    (1..=1_000_000_000).contains(khz)
}

/// Accepts temperatures from absolute zero to 1000 °C.
pub fn is_millicelsius(millicelsius: &i64) -> bool {
    (-273_150..=1_000_000).contains(millicelsius)
}

/// Accepts powers up to 1 MW. The power of a rail that feeds back is negative.
pub fn is_milliwatts(power: &f64) -> bool {
    power.abs() <= 1e9
}

fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de> + Display>(
    d: D,
    is: fn(&T) -> bool,
    what: &str,
) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(d)?.map(|value| checked(value, is, what)).transpose()
}

fn checked<T: Display, E: Error>(value: T, is: impl Fn(&T) -> bool, what: &str) -> Result<T, E> {
    if is(&value) { Ok(value) } else { Err(E::custom(format_args!("{value} {what}"))) }
}
