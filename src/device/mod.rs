//! Devices, the links to them, and the session with the probe that runs there.

mod link;
mod session;

pub use link::Link;
pub use session::{Model, Session};

use crate::artifact::{self, ArtifactError};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("there is no device `{name}`: there are {known}, or give the path of a TOML file")]
    Unknown { name: String, known: String },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("the probe is not at {path}; build it with `cargo build --release -p nas-probe`, or set NAS_PROBE to it", path = path.display())]
    NoProbe { path: PathBuf },
    #[error("cannot start the probe {path}: {reason}", path = path.display())]
    Start { path: PathBuf, reason: String },
    #[error(
        "the probe speaks protocol {theirs} and this is {ours}; build both from one version: `cargo build --release`"
    )]
    Protocol { theirs: u32, ours: u32 },
    #[error("the probe did not answer within {seconds} s ({doing})")]
    Deadline { seconds: u64, doing: String },
    #[error("the probe ended ({doing}): {reason}")]
    Ended { doing: String, reason: String },
    #[error("the probe wrote something else than a reply ({doing}): {line}")]
    Garbage { doing: String, line: String },
    #[error("{runtime} is not to be had on {device}: {reason}")]
    NoRuntime { runtime: Runtime, device: String, reason: String },
    #[error("{model} failed with {runtime}: {reason}")]
    Failed { model: String, runtime: Runtime, reason: String },
}

/// A kind of board, as its file in `devices/` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name of its file.
    #[serde(skip_deserializing)]
    pub name: String,
    /// For people, a few words.
    pub description: String,
    pub link: LinkKind,
    /// What it is measured with where nothing else is asked for.
    pub runtimes: Vec<Runtime>,
    /// ONNX Runtime's shared library on the device; where absent, the one of `scripts/setup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ort_dylib: Option<PathBuf>,
}

/// How a device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The probe is a child process.
    Local,
}

const BUILT_IN: [(&str, &str); 1] = [("host", include_str!("../../devices/host.toml"))];

impl Device {
    /// The devices that ship.
    pub fn built_in() -> Vec<Device> {
        BUILT_IN.iter().filter_map(|(name, _)| Self::load(name).ok()).collect()
    }

    /// The device of that name, or the one in that TOML file.
    ///
    /// # Errors
    /// Where there is neither, or the file does not describe a device.
    pub fn load(name_or_file: &str) -> Result<Device, DeviceError> {
        let path = Path::new(name_or_file);
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            return Ok(Device { name: name.to_string(), ..artifact::parse_toml(path, text)? });
        }
        if !path.is_file() {
            let known = BUILT_IN.map(|(name, _)| name).join(", ");
            return Err(DeviceError::Unknown { name: name_or_file.into(), known });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Device { name, ..artifact::read_toml(path)? })
    }
}
