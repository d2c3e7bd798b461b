//! Devices, the links to them, and the session with the probe that runs there.

mod check;
mod fleet;
mod link;
mod parts;
mod session;
mod site;
mod ssh;
mod stderr;
mod timeout;

pub use check::{Finding, findings};
pub use fleet::Fleet;
pub use session::{Model, Session, Source, Ticket};
pub use site::Site;
pub use ssh::SshError;
pub use timeout::Timeout;

use crate::artifact::{self, ArtifactError};
use crate::bounded::Name;
use nas_probe::{Runtime, Sensors};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("there is no device `{name}`; use one of {known}, or the path of a TOML file")]
    Unknown { name: String, known: String },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("{path}: {reason}", path = path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "the address of {device} is not known: write `ssh = \"user@host\"` below `[{device}]` in {file}, or add a `Host \
         {device}` to ~/.ssh/config; all verbs but `nas run` also take --ssh user@host",
        file = file.display()
    )]
    NoAddress { device: String, file: PathBuf },
    #[error("`{address}` is not the address of a board: {reason}")]
    Address { address: String, reason: String },
    #[error("{device} is this machine and is not reached over SSH; leave out --ssh, or give another --device")]
    NotABoard { device: String },
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(
        "{device} is `{found}` (uname -m), but its device file says {target}; copy the file, correct its target, and give the copy as --device"
    )]
    WrongArch { device: String, target: String, found: String },
    #[error("there is no probe at {path}; build it with `cargo build --release`, or set NAS_PROBE to its path", path = path.display())]
    NoProbe { path: PathBuf },
    #[error(
        "`{command}` is needed, but this program is not in the clone of edge-nas in which it was built; run target/release/nas of a clone, or set NAS_PROBE to a probe for the board and `ort_dylib` in the device file to a library on the board"
    )]
    NoScript { command: String },
    #[error("`{command}` failed ({reason}); see its messages above")]
    Script { command: String, reason: String },
    #[error("cannot start the probe {path}: {reason}", path = path.display())]
    Start { path: PathBuf, reason: String },
    #[error(
        "the probe uses protocol {theirs} and this program protocol {ours}; build both from the same version: `cargo build --release`"
    )]
    Protocol { theirs: u32, ours: u32 },
    #[error("the probe did not answer within {seconds} s ({doing})")]
    Deadline { seconds: u64, doing: String },
    #[error("the probe ended ({doing}): {reason}")]
    Ended { doing: String, reason: String },
    #[error("the probe wrote something that is not a reply ({doing}): {line}")]
    Garbage { doing: String, line: String },
    #[error("{model} has about {bytes} bytes, but at most {most} can be sent to a device")]
    TooLarge { model: String, bytes: usize, most: u64 },
    #[error("{device} has a static musl probe, which cannot load ONNX Runtime; leave out --runtime ort")]
    Static { device: String },
    #[error("no folder for models is known: set HOME or XDG_CACHE_HOME, or `folder` in the device file")]
    NoCache,
    #[error("HOME is not set; set it to the folder that has .ssh, with the keys and the hosts that are known")]
    NoHome,
    #[error("{one} and {other} are the same board; name each board once")]
    Twice { one: String, other: String },
    #[error("{runtime} is not available on {device}: {reason}")]
    NoRuntime { runtime: Runtime, device: String, reason: String },
    #[error("{model} failed with {runtime}: {reason}")]
    Failed { model: String, runtime: Runtime, reason: String },
    #[error("{device}: {doing}: {reason}")]
    Refused { device: String, doing: String, reason: String },
    #[error(transparent)]
    Encode(#[from] nas_exporters::EncodeError),
}

impl DeviceError {
    /// Returns whether the error concerns only one model, so that the probe still serves others.
    pub fn is_of_model(&self) -> bool {
        matches!(self, DeviceError::Failed { .. })
    }
}

/// A kind of board, as its file in `devices/` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name of the device file, without its extension.
    #[serde(skip_deserializing)]
    pub name: String,
    /// A few words for people.
    pub description: String,
    pub link: LinkKind,
    /// Target triple of the probe, as Rust names it. If absent, that of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The oldest glibc that boards of this kind have; the probe needs 2.27.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glibc: Option<String>,
    /// Runtimes that are used unless others are named. A search uses the first.
    pub runtimes: Vec<Runtime>,
    /// Cores that `--pin` selects if it is given without a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<usize>,
    /// Folder for the probe, the libraries and the models: absolute, or relative to the home of the user who logs in.
    /// For a local device it holds models only, and a relative path is relative to the current folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Port of the board's sshd, if it is not 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of ONNX Runtime's shared library on the device. If absent, that of the official wheels is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ort_dylib: Option<PathBuf>,
    /// Execution providers of ONNX Runtime in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Files that report the state of the device.
    #[serde(default)]
    pub sensors: Sensors,
}

/// How a device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The probe is a child process.
    Local,
    /// The probe is started on the board over SSH.
    Ssh,
}

/// A single device, and how it is set up for measuring.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    pub device: Device,
    /// `None` for this machine.
    pub site: Option<Site>,
    /// Runtimes that the probe must have.
    pub runtimes: Vec<Runtime>,
    /// Cores that the probe is pinned to. If empty, it is not pinned.
    pub pin: Vec<usize>,
    /// Scaling governor to set while the probe runs.
    pub governor: Option<String>,
    /// How long loading a model, its first inference, and a measurement beyond its planned time may each take; `None`
    /// for the timeout of the site, or two minutes on this machine.
    pub timeout: Option<Timeout>,
    /// Whether nothing else may measure on the device at the same time.
    pub alone: bool,
}

/// How long a part of a request may take on this machine.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(120);

impl Board {
    /// Creates the board that is this machine, with all runtimes of the device.
    pub fn local(device: Device) -> Board {
        let runtimes = device.runtimes.clone();
        Board { device, site: None, runtimes, pin: vec![], governor: None, timeout: None, alone: false }
    }

    /// How long a part of a request may take.
    fn timeout(&self) -> Duration {
        let own = || self.site.as_ref().map_or(LOCAL_TIMEOUT, |site| site.timeout);
        self.timeout.map_or_else(own, Timeout::duration)
    }
}

/// Formats a board as `host`, or as `jetson (user@address:22)`.
impl std::fmt::Display for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.site {
            Some(site) => write!(f, "{} ({site})", self.device.name),
            None => f.write_str(&self.device.name),
        }
    }
}

/// The glibc version that `scripts/build-probe` links the probe against.
const PROBE_GLIBC: (u32, u32) = (2, 27);

/// The files of `devices/`, by name.
macro_rules! built_in {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../devices/", $name, ".toml")))),*] };
}

const BUILT_IN: [(&str, &str); 8] = built_in![
    "host",
    "raspberry-pi-3",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2w",
    "jetson",
    "jetson-orin",
    "android"
];

impl Device {
    /// Returns the built-in devices.
    ///
    /// # Errors
    /// Fails if the file of one of them does not describe a device.
    pub fn built_in() -> Result<Vec<Device>, DeviceError> {
        BUILT_IN.iter().map(|(name, _)| Self::load(name)).collect()
    }

    /// Loads the built-in device of this name, or the device in this TOML file.
    ///
    /// # Errors
    /// Fails if there is neither, or if the file does not describe a device.
    pub fn load(name_or_file: &str) -> Result<Device, DeviceError> {
        let path = Path::new(name_or_file);
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            return Device { name: name.to_string(), ..artifact::parse_toml(path, text)? }.checked(path);
        }
        if !path.is_file() {
            let known = BUILT_IN.map(|(name, _)| name).join(", ");
            return Err(DeviceError::Unknown { name: name_or_file.into(), known });
        }
        let name: Result<Name, String> = path.file_stem().unwrap_or_default().to_string_lossy().parse();
        let name = name.map_err(|reason| DeviceError::Invalid { path: path.into(), reason })?;
        Device { name: name.into(), ..artifact::read_toml(path)? }.checked(path)
    }

    /// Checks that the probe of the device can have these runtimes.
    ///
    /// # Errors
    /// Fails if ONNX Runtime is to be loaded by a static probe.
    pub fn check_runtimes(&self, runtimes: &[Runtime]) -> Result<(), DeviceError> {
        match self.is_static() && runtimes.contains(&Runtime::Ort) {
            true => Err(DeviceError::Static { device: self.name.clone() }),
            false => Ok(()),
        }
    }

    fn is_static(&self) -> bool {
        self.target.as_deref().is_some_and(|target| target.ends_with("musl"))
    }

    /// Returns the device if its keys fit together.
    fn checked(self, path: &Path) -> Result<Device, DeviceError> {
        let version = |glibc: &String| -> Option<(u32, u32)> {
            let (major, minor) = glibc.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let old = self.glibc.as_ref().is_some_and(|glibc| version(glibc).is_none_or(|v| v < PROBE_GLIBC));
        let wrong = if old {
            "`glibc` must be a version from 2.27 on, which the probe needs; for an older one use target = \"aarch64-unknown-linux-musl\" without `glibc`"
        } else if self.runtimes.is_empty() {
            "`runtimes` is empty; it must name tract, ort or both"
        } else if self.link == LinkKind::Ssh && self.target.is_none() {
            "a device with link = \"ssh\" needs a `target`, such as aarch64-unknown-linux-gnu"
        } else if let Some(wrong) = wrong_folder(self.folder.as_deref()) {
            wrong
        } else if self.is_static() && self.runtimes.contains(&Runtime::Ort) {
            "a static musl probe cannot load ONNX Runtime; leave \"ort\" out of `runtimes`"
        } else {
            let reason = |reason| DeviceError::Invalid { path: path.into(), reason };
            self.sensors.check().map_err(reason)?;
            return Ok(self);
        };
        Err(DeviceError::Invalid { path: path.into(), reason: wrong.into() })
    }
}

/// Returns what is wrong with a `folder`.
fn wrong_folder(folder: Option<&str>) -> Option<&'static str> {
    match folder? {
        "" => Some("`folder` is empty; name a folder, or leave the key out"),
        folder if folder.starts_with('~') => Some(
            "`folder` starts with ~, which is not expanded; give an absolute path or, for a board, one relative to the home folder",
        ),
        _ => None,
    }
}
