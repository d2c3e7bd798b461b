use super::{ProfileError, Validation};
use crate::device::{DeviceError, Session};
use nas_probe::{Runtime, RuntimeInfo};
use serde::{Deserialize, Serialize};

/// Version of the file format.
pub const FORMAT: u32 = 2;

/// What all rows of a table share: its first line. A table never mixes any of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the file format.
    pub latency_table: u32,
    /// Name of the device file.
    pub device: String,
    pub cpu: String,
    pub arch: String,
    pub libc: String,
    /// What ran the layers: a [`Runtime`] of the probe, or whatever a published table is of.
    pub runtime: String,
    pub runtime_version: String,
    /// Of the runtime; nobody knows those of a published table.
    pub threads: Option<usize>,
    /// Of weights and activations: `fp32`.
    pub precision: String,
    /// ONNX Runtime's execution providers, the preferred one first; none for tract.
    pub providers: Vec<String>,
    /// Cores that the probe stayed on; any where empty.
    pub pinned: Vec<usize>,
    /// Whole networks that the latency model is to be fitted to; with none it is the plain sum of
    /// isolated layers.
    #[serde(default)]
    pub networks: usize,
    /// How well predictions held, by what they were asked of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validations: Vec<Validation>,
}

impl Header {
    /// Of what these boards measure together.
    ///
    /// # Errors
    /// Where one of them does not have the runtime, or is not of the others' kind.
    pub fn of(
        device: &str,
        boards: &[Session],
        runtime: Runtime,
        threads: usize,
    ) -> Result<Header, ProfileError> {
        let of = |session: &Session| {
            Ok::<_, DeviceError>(Self::new(device, session, session.require(runtime)?, threads))
        };
        let headers: Vec<Header> = boards.iter().map(of).collect::<Result<_, _>>()?;
        let mut all = boards.iter().zip(headers);
        let Some((first, header)) = all.next() else { return Err(ProfileError::NoBoard) };
        let differs = |(board, theirs): (&Session, Header)| {
            Some((board.board().to_string(), theirs.difference(&header)?))
        };
        match all.find_map(differs) {
            None => Ok(header),
            Some((board, difference)) => {
                Err(ProfileError::Mixed { board, first: first.board().into(), difference })
            }
        }
    }

    fn new(device: &str, session: &Session, info: &RuntimeInfo, threads: usize) -> Header {
        let hello = session.hello();
        Header {
            latency_table: FORMAT,
            device: device.into(),
            cpu: hello.cpu.clone(),
            arch: hello.arch.clone(),
            libc: hello.libc.clone(),
            runtime: info.runtime.to_string(),
            runtime_version: info.version.clone(),
            threads: Some(threads),
            precision: "fp32".into(),
            providers: info.providers.clone(),
            pinned: session.ready().pinned.clone(),
            networks: 0,
            validations: vec![],
        }
    }

    /// The probe's runtime and its threads.
    ///
    /// # Errors
    /// Where the table is a published one.
    pub fn measures(&self) -> Result<(Runtime, usize), ProfileError> {
        let published = || ProfileError::Published { runtime: self.runtime.clone() };
        Ok((self.runtime.parse().map_err(|_| published())?, self.threads.ok_or_else(published)?))
    }

    /// The first thing in which this header differs from `ours`, of what must not be mixed.
    pub fn difference(&self, ours: &Header) -> Option<Difference> {
        self.differences(ours).into_iter().next()
    }

    /// All in which this header differs from `ours`, of what must not be mixed.
    pub fn differences(&self, ours: &Header) -> Vec<Difference> {
        let said = |header: &Header| {
            let list = |parts: Vec<String>| if parts.is_empty() { "none".into() } else { parts.join(",") };
            [
                ("device", header.device.clone()),
                ("CPU", header.cpu.clone()),
                ("architecture", header.arch.clone()),
                ("libc", header.libc.clone()),
                ("runtime", header.runtime.clone()),
                ("runtime version", header.runtime_version.clone()),
                ("threads", header.threads.map_or("unknown".into(), |threads| threads.to_string())),
                ("precision", header.precision.clone()),
                ("execution providers", list(header.providers.clone())),
                ("pinned cores", list(header.pinned.iter().map(usize::to_string).collect())),
            ]
        };
        let pairs = said(self).into_iter().zip(said(ours)).filter(|(a, b)| a != b);
        pairs.map(|((what, theirs), (_, ours))| Difference { what, theirs, ours }).collect()
    }
}

/// What two headers differ in: `CPU A, not B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: &'static str,
    pub theirs: String,
    pub ours: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, not {}", self.what, self.theirs, self.ours)
    }
}
