use crate::named::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a device may take for a part of its work, or be silent: from one second to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub struct Timeout(Duration);

as_text!(Timeout, String);

impl Timeout {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Creates a timeout.
    ///
    /// # Errors
    /// A one-line message if the timeout is out of bounds.
    pub fn new(timeout: Duration) -> Result<Timeout, String> {
        match timeout {
            _ if timeout < Self::SHORTEST => Err("a timeout is at least 1 second".into()),
            _ if timeout > Self::LONGEST => Err("a timeout is at most 24 hours".into()),
            _ => Ok(Timeout(timeout)),
        }
    }

    pub fn duration(self) -> Duration {
        self.0
    }
}

/// Formats a timeout as `90s`.
impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Timeout, String> {
        let wrong = |_| format!("`{text}` is not a duration; write it with a unit, such as 60s or 5min");
        Timeout::new(humantime::parse_duration(text).map_err(wrong)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_a_unit_and_bounds() {
        let read = |text: &str| text.parse::<Timeout>();
        assert_eq!(read("90s").unwrap().duration(), Duration::from_secs(90));
        assert_eq!(read("5min").unwrap().to_string(), "5m");
        assert!(read("60").unwrap_err().contains("unit"));
        for wrong in ["0s", "1ms", "25h", "9999999999y", "-1s", "nan", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
