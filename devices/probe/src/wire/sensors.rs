use serde::{Deserialize, Serialize};

/// The files that report the state of a device. An empty list stands for the standard files of Linux. A path
/// may contain `*` and then stands for all files that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// Files with the scaling governor, which are read and written.
    pub governor: Vec<String>,
    /// Files with a clock in kHz; the lowest is reported.
    pub clock: Vec<String>,
    /// Files with thousandths of a degree Celsius; the highest is reported.
    pub temperature: Vec<String>,
    pub throttle: Vec<Throttle>,
    /// Power rails, whose sum is reported. Linux has no standard files for them.
    pub power: Vec<Rail>,
}

/// A file that reports throttling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    pub file: String,
    pub kind: ThrottleKind,
    /// The bits of a file of kind `mask` that mean that the device is throttled now.
    #[serde(default)]
    pub mask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleKind {
    /// A hexadecimal number, such as `0x50005`: throttled while it has one of the bits of [`Throttle::mask`].
    Mask,
    /// A count of events: throttled if it has risen since the last reading.
    Counter,
    /// The state of a cooling device: throttled above 0.
    State,
}

/// A power rail. It has exactly one source: a file with milliwatts; two files with millivolts and milliamps;
/// or a command that prints lines `NAME_A ...=0.5A` and `NAME_V ...=3.3V` for each of several rails, which
/// are added up, as `vcgencmd pmic_read_adc` of the Raspberry Pi does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rail {
    /// Name for messages.
    pub name: String,
    pub milliwatts: Option<String>,
    pub millivolts: Option<String>,
    pub milliamps: Option<String>,
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
}

impl Sensors {
    /// Checks that masks and rails are complete and unambiguous.
    ///
    /// # Errors
    /// A one-line message that names the throttle file or the power rail.
    pub fn check(&self) -> Result<(), String> {
        for Throttle { file, kind, mask } in &self.throttle {
            match (kind, mask) {
                (ThrottleKind::Mask, 0) => {
                    return Err(format!("the throttle file {file} is of kind `mask` and needs a `mask` that is not 0"));
                }
                (ThrottleKind::Counter | ThrottleKind::State, 1..) => {
                    return Err(format!("the throttle file {file} has a `mask` but is not of kind `mask`"));
                }
                _ => {}
            }
        }
        for rail in &self.power {
            match (&rail.milliwatts, &rail.millivolts, &rail.milliamps, rail.command.as_deref()) {
                (Some(_), None, None, None) | (None, Some(_), Some(_), None) | (None, None, None, Some([_, ..])) => {}
                _ => {
                    return Err(format!(
                        "the power rail `{}` needs one of: milliwatts; millivolts and milliamps; command",
                        rail.name
                    ));
                }
            }
        }
        Ok(())
    }
}
