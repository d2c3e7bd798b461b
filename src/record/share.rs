use serde::{Deserialize, Serialize};

/// A part of a whole, from 0 to 1, such as an accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

impl Share {
    /// `part` of `whole`; none where `whole` is not positive, or `part` not between 0 and it.
    pub fn of(part: f64, whole: f64) -> Option<Share> {
        Share::try_from(part / whole).ok()
    }

    pub fn get(self) -> f64 {
        self.0
    }

    pub fn percent(self) -> f64 {
        100.0 * self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) { Ok(Share(share)) } else { Err(format!("{share} is not a share from 0 to 1")) }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

/// `91.25 %`
impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.2} %", self.percent()))
    }
}
