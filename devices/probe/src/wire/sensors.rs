use serde::{Deserialize, Serialize};

/// Where a device tells its state. A list that is empty stands for the places that are the same on
/// every Linux. A file's path may hold `*`, and then stands for all that match it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// Files that hold the scaling governor, and take a new one.
    pub governor: Vec<String>,
    /// Files with a clock in kHz; the lowest counts.
    pub clock: Vec<String>,
    /// Files with thousandths of a degree Celsius; the hottest counts.
    pub temperature: Vec<String>,
    pub throttle: Vec<Throttle>,
    /// The rails whose sum is the power drawn; none are generic.
    pub power: Vec<Rail>,
}

/// A file that tells of throttling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    pub file: String,
    pub kind: ThrottleKind,
    /// Bits of a `mask` file that mean throttling now.
    #[serde(default)]
    pub mask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleKind {
    /// Bits in hex, such as `0x50005`: throttled while one of [`Throttle::mask`] is set.
    Mask,
    /// A count of events: throttled if it rose since the last reading.
    Counter,
    /// The state of a cooling device: throttled above 0.
    State,
}

/// One power rail, read from one of: a file of milliwatts; files of millivolts and milliamps; a
/// command that prints lines `NAME_A ...=0.5A` and `NAME_V ...=3.3V`, a rail each, as the Raspberry
/// Pi's `vcgencmd pmic_read_adc` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rail {
    /// For messages.
    pub name: String,
    pub milliwatts: Option<String>,
    pub millivolts: Option<String>,
    pub milliamps: Option<String>,
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
}

impl Sensors {
    /// # Errors
    /// What is said twice, left out or can't be meant.
    pub fn check(&self) -> Result<(), String> {
        for Throttle { file, kind, mask } in &self.throttle {
            match (kind, mask) {
                (ThrottleKind::Mask, 0) => {
                    return Err(format!(
                        "the throttle file {file} is a mask: give the bits that count as `mask`"
                    ));
                }
                (ThrottleKind::Counter | ThrottleKind::State, 1..) => {
                    return Err(format!("the throttle file {file} has a `mask` but is not of kind `mask`"));
                }
                _ => {}
            }
        }
        for rail in &self.power {
            match (&rail.milliwatts, &rail.millivolts, &rail.milliamps, rail.command.as_deref()) {
                (Some(_), None, None, None)
                | (None, Some(_), Some(_), None)
                | (None, None, None, Some([_, ..])) => {}
                _ => {
                    return Err(format!(
                        "the power rail `{}` needs one of: milliwatts; millivolts and milliamps; a command",
                        rail.name
                    ));
                }
            }
        }
        Ok(())
    }
}
