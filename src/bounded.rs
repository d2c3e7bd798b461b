//! Numbers and names restricted to the values that the program can use. A flag or a file with any other value is
//! rejected when it is read, before any work begins.

use crate::named::as_text;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

/// Declares number types, each with its bounds as text and as a condition.
macro_rules! bounded {
    ($($(#[$doc:meta])* $name:ident($number:ty): $words:literal, |$n:ident| $within:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name($number);

        impl $name {
            /// Returns `None` if the number is out of bounds.
            pub const fn new($n: $number) -> Option<$name> {
                if $within { Some($name($n)) } else { None }
            }

            /// Creates a number from a constant in the code.
            ///
            /// # Panics
            /// Panics if it is out of bounds.
            pub const fn of(number: $number) -> $name {
                $name::new(number).expect($words)
            }

            pub const fn get(self) -> $number {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let number = text.parse().ok().and_then($name::new);
                number.ok_or_else(|| format!("`{text}` is not {}", $words))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let number = <$number>::deserialize(deserializer)?;
                $name::new(number).ok_or_else(|| D::Error::custom(format!("{number} is not {}", $words)))
            }
        }
    )*};
}

/// The least [`FittedNetworks`].
pub const FEWEST_TO_FIT: usize = 20;

bounded! {
    /// Passes over the training images. There is at least one, since otherwise nothing is trained.
    EpochCount(usize): "a number of epochs, from 1 to 100000", |n| n >= 1 && n <= 100_000;
    /// Images per step.
    BatchSize(usize): "a batch size from 1 to 65536", |n| n >= 1 && n <= 1 << 16;
    /// Threads of a runtime or of libtorch.
    Threads(usize): "a number of threads from 1 to 1024", |n| n >= 1 && n <= 1024;
    /// Height and width of images, in pixels.
    Side(u32): "a number of pixels from 1 to 4096", |n| n >= 1 && n <= 4096;
    /// Classes of a data set.
    Classes(usize): "a number of classes from 1 to 100000", |n| n >= 1 && n <= 100_000;
    /// Whole networks that a latency model is fitted to. A fit of fewer is no better than a plain sum.
    FittedNetworks(usize): "a number of networks from 20 to 10000", |n| n >= FEWEST_TO_FIT && n <= 10_000;
    /// Networks that a search compares.
    NetworkCount(usize): "a number of networks from 1 to 100000", |n| n >= 1 && n <= 100_000;
    /// Images on which networks are compared or evaluated.
    ImageCount(usize): "a number of images, at least 1", |n| n >= 1;
    /// Rounds of a benchmark.
    Rounds(usize): "a number of rounds from 1 to 65535", |n| n >= 1 && n <= 65_535;
    /// Step size of an optimizer.
    LearningRate(f64): "a learning rate, a number above 0", |n| n > 0.0 && n.is_finite();
    /// Momentum of SGD: the share of the previous step that it keeps.
    Momentum(f64): "a momentum, a number from 0 to below 1", |n| n >= 0.0 && n < 1.0;
    /// Weight of a term of a loss, such as a weight decay.
    Weight(f64): "a weight, a number from 0 upwards", |n| n >= 0.0 && n.is_finite();
    /// A share of the images to hold out: neither none nor all of them.
    HeldOut(f64): "a share to hold out, a number above 0 and below 1", |n| n > 0.0 && n < 1.0;
    /// A share of the images to use: not none of them.
    ImageShare(f64): "a share of the images, a number above 0, at most 1", |n| n > 0.0 && n <= 1.0;
    /// A part of a whole, such as an accuracy.
    Share(f64): "a share from 0 to 1", |n| n >= 0.0 && n <= 1.0;
    /// What logits are divided by before the softmax.
    Temperature(f64): "a temperature, a number above 0", |n| n > 0.0 && n.is_finite();
    /// Width multiplier of a published network, which scales its channels.
    Width(f64): "a width from 0.05 to 10", |n| n >= 0.05 && n <= 10.0;
}

/// Numbers of which there is at least one.
macro_rules! non_zero {
    ($($name:ident),*) => {$(
        impl From<$name> for NonZeroUsize {
            fn from(number: $name) -> NonZeroUsize {
                NonZeroUsize::MIN.saturating_add(number.0 - 1)
            }
        }
    )*};
}

non_zero!(BatchSize, ImageCount, NetworkCount);

/// Declares number types that are written with a suffix, which stands for a factor.
macro_rules! suffixed {
    ($($(#[$doc:meta])* $name:ident($number:ty): $words:literal, [$(($suffix:literal, $factor:expr)),*], |$n:ident| $within:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "crate::named::Text", into = "String")]
        pub struct $name($number);

        impl $name {
            pub fn get(self) -> $number {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let wrong = || format!("`{text}` is not {}", $words);
                let digits = text.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(text.len());
                let (number, suffix) = text.split_at(digits);
                let factors: &[(&str, f64)] = &[$(($suffix, $factor)),*];
                let (_, factor) = factors.iter().find(|(known, _)| *known == suffix).ok_or_else(wrong)?;
                let $n = factor * number.trim().parse::<f64>().map_err(|_| wrong())?;
                if $within { Ok($name($n as $number)) } else { Err(wrong()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let factors: &[(&str, f64)] = &[$(($suffix, $factor)),*];
                let number = self.0 as f64;
                let whole = |(_, factor): &&(&str, f64)| number % factor == 0.0;
                let (suffix, factor) = factors.iter().rev().find(whole).unwrap_or(&factors[0]);
                write!(f, "{}{suffix}", number / factor)
            }
        }

        as_text!($name, String);
    )*};
}

suffixed! {
    /// A number of parameters or of multiply-accumulates.
    Count(u64): "a number such as 300k, 40M or 1.5G, from 1", [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)],
        |n| (1.0..=1e15).contains(&n);
    /// An amount of memory, in bytes.
    Bytes(u64): "an amount of memory such as 512KiB or 1.5MiB, from 1B",
        [("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("KiB", 1024.0), ("MiB", 1_048_576.0)], |n| (1.0..=1e15).contains(&n);
    /// A share, in percent.
    Percent(f64): "a share such as 5%, from 0.1% to 100%", [("%", 1.0)], |n| (0.1..=100.0).contains(&n);
}

/// Formats a number to three digits, with a suffix as in [`Count`]: `10`, `3.15 k`, `40.0 M`.
pub fn rounded(number: f64) -> String {
    let suffixes = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    let (factor, suffix) = suffixes.into_iter().find(|(factor, _)| number >= 0.9995 * factor).unwrap_or((1.0, ""));
    let digits = match number / factor {
        _ if suffix.is_empty() => 0,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{:.digits$}{suffix}", number / factor)
}

impl Percent {
    pub fn share(self) -> Share {
        Share((self.0 / 100.0).clamp(0.0, 1.0))
    }
}

impl Default for Percent {
    /// Returns the default band of a search.
    fn default() -> Percent {
        Percent(5.0)
    }
}

/// The name that a person gives to a space, a device or an experiment. It becomes part of paths, so it has at most 64
/// of the characters a-z, A-Z, 0-9, `-`, `_` and `.`, and starts with neither `.` nor `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub struct Name(String);

const LONGEST_NAME: usize = 64;

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if (1..=LONGEST_NAME).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(allowed) {
            return Ok(Name(text.into()));
        }
        Err(format!(
            "{text:?} is not a name: use up to {LONGEST_NAME} letters a-z, digits, `-`, `_` and `.`, and start with none of `.` and `-`"
        ))
    }
}

as_text!(Name, String);

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_within_their_bounds_only() {
        for text in ["nan", "inf", "-inf", "-0.1", "0", "1e999", "", "x"] {
            assert!(text.parse::<LearningRate>().is_err(), "{text}");
        }
        for (text, within) in [("0", true), ("0.9", true), ("1", false), ("-0.1", false), ("NaN", false)] {
            assert_eq!(text.parse::<Momentum>().is_ok(), within, "{text}");
        }
        for (text, within) in [("0.05", true), ("10", true), ("0.049", false), ("1e5", false), ("inf", false)] {
            assert_eq!(text.parse::<Width>().is_ok(), within, "{text}");
        }
        for (text, within) in [("0", false), ("1", true), ("1024", true), ("1025", false), ("4294967296", false)] {
            assert_eq!(text.parse::<Threads>().is_ok(), within, "{text}");
        }
        let error = serde_json::from_str::<HeldOut>("1.0").unwrap_err().to_string();
        assert!(error.contains("1 is not a share to hold out, a number above 0 and below 1"), "{error}");
        assert_eq!(serde_json::to_string(&"0.5".parse::<HeldOut>().unwrap()).unwrap(), "0.5");
        assert_eq!(NonZeroUsize::from("64".parse::<BatchSize>().unwrap()).get(), 64);
    }

    #[test]
    fn suffixes_are_factors() {
        for (text, n) in [("300k", 300_000), ("1.5M", 1_500_000), ("7", 7), ("2G", 2_000_000_000)] {
            assert_eq!(text.parse::<Count>().unwrap().get(), n);
            assert_eq!(text.parse::<Count>().unwrap().to_string().parse::<Count>().unwrap().get(), n);
        }
        for (text, n) in [("512KiB", 524_288), ("1.5MiB", 1_572_864), ("10 kB", 10_000), ("3B", 3)] {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), n);
            assert_eq!(text.parse::<Bytes>().unwrap().to_string().parse::<Bytes>().unwrap().get(), n);
        }
        assert_eq!("5%".parse::<Percent>().unwrap().share(), Share::of(0.05));
        assert_eq!(Percent::default().to_string(), "5%");
        for text in ["x", "", "k", "-1k", "0", "1e30", "nan", "5%", "300K", "10kk"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
        for text in ["5", "0%", "101%", "%", "5 %%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        assert!("512".parse::<Bytes>().is_err() && "1e3KiB".parse::<Bytes>().is_err());
    }

    #[test]
    fn numbers_are_rounded_to_three_digits() {
        let all =
            [(0.0, "0"), (10.0, "10"), (999.4, "999"), (999.6, "1.00 k"), (3154.0, "3.15 k"), (52_100.0, "52.1 k")];
        let more = [(696_000.0, "696 k"), (40e6, "40.0 M"), (2.24e6, "2.24 M"), (1.5e9, "1.50 G")];
        for (number, text) in all.into_iter().chain(more) {
            assert_eq!(rounded(number), text);
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for text in ["a", "chain_small", "pixel-1", "v2.1", "_x", &"n".repeat(64)] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
        for text in ["", ".", "..", ".x", "-x", "a/b", "../a", "/a", "a b", "ä", "a\n", "a\0", &"n".repeat(65)] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }
}
