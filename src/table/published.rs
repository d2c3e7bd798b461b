//! Tables that others published: the YAML of ProxylessNAS (Cai et al. 2019, arXiv 1812.00332), which has a key for each
//! block, with its latency in milliseconds.

mod key;

pub use key::Misfit;

use super::header::FORMAT;
use super::{Header, Subject, file};
use crate::artifact::ArtifactError;
use crate::latency::Latency;
use crate::space::{Networks, SearchSpace, SpaceError};
use nas_exporters::{Precision, Shape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error(
        "{path} is not a published table: {reason}; every key needs count, mean, and std or var, in milliseconds",
        path = path.display()
    )]
    Yaml { path: PathBuf, reason: String },
    #[error("{path}, `{key}`: {reason}; correct it, or take the key out", path = path.display())]
    Value { path: PathBuf, key: String, reason: String },
    #[error(
        "none of the {keys} keys of {path} is a layer of space `{SPACE}` ({reasons}): only tables of ProxylessNAS can be imported",
        path = path.display()
    )]
    Nothing { path: PathBuf, keys: usize, reasons: String },
}

/// The space that published tables are about, and the shape of its images and its number of classes.
const SPACE: &str = "proxylessnas";
const INPUT: Shape = Shape { channels: 3, height: 224, width: 224 };
const CLASSES: usize = 1000;

/// What others published about a subject: a row of an imported table, in place of a measured row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    #[serde(flatten)]
    pub subject: Subject,
    /// [`Subject::key`] of the subject.
    pub key: String,
    pub published: Mean,
}

/// The published statistics of some timings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub mean_ns: Latency,
    /// Standard deviation.
    pub std_ns: Latency,
    /// Number of timings.
    pub count: u64,
}

impl Mean {
    /// Checks that the numbers can be those of timings.
    ///
    /// # Errors
    /// Fails if the mean is not positive, the deviation is negative, or the count is 0.
    pub fn check(&self) -> Result<(), String> {
        let fits = self.mean_ns > Latency::ZERO && self.std_ns >= Latency::ZERO && self.count > 0;
        if fits { Ok(()) } else { Err("its mean, deviation or count cannot be that of timings".into()) }
    }
}

/// A published table that was read.
#[derive(Debug)]
pub struct PublishedTable {
    pub networks: Networks,
    pub rows: Vec<Published>,
    /// Keys that do not describe a layer of the space, with the reasons.
    pub unfit: Vec<(String, Misfit)>,
}

/// The value of a key, with times in milliseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    count: u64,
    mean: f64,
    std: Option<f64>,
    /// The variance, in square milliseconds.
    var: Option<f64>,
}

impl Entry {
    fn read(&self) -> Result<Mean, String> {
        let deviation = match (self.std, self.var) {
            (Some(std), None) => std,
            (None, Some(var)) => var.sqrt(),
            _ => return Err("it needs either std or var".into()),
        };
        if self.count == 0 {
            return Err("its count is 0".into());
        }
        // The same check as when a latency is read from the table that is written.
        let latency = |ms: f64| Latency::try_from(1e6 * ms).ok();
        let mean_ns = latency(self.mean).filter(|mean| *mean > Latency::ZERO);
        let mean_ns = mean_ns.ok_or_else(|| format!("its mean is {}, which is not a latency", self.mean))?;
        let std_ns = latency(deviation).filter(|std| *std >= Latency::ZERO);
        let std_ns = std_ns.ok_or("its std or var is not a deviation")?;
        Ok(Mean { mean_ns, std_ns, count: self.count })
    }
}

impl PublishedTable {
    /// Reads a published table.
    ///
    /// # Errors
    /// Fails if the file cannot be read, if a value is not a number, or if no key describes a layer of the space.
    pub fn read(path: &Path) -> Result<Self, PublishedError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ArtifactError::Io {
            action: "read",
            path: path.into(),
            cause,
        })?;
        let entries: BTreeMap<String, Entry> = serde_saphyr::from_str(&text)
            .map_err(|e| PublishedError::Yaml { path: path.into(), reason: e.without_snippet().to_string() })?;
        let keys = entries.len();
        if keys == 0 {
            return Err(PublishedError::Yaml { path: path.into(), reason: "it has no keys".into() });
        }
        let networks = Networks::new(SearchSpace::load(SPACE)?, INPUT, [CLASSES])?;
        let (mut rows, mut unfit): (Vec<Published>, _) = (vec![], vec![]);
        for (key, entry) in entries {
            let published =
                entry.read().map_err(|reason| PublishedError::Value { path: path.into(), key: key.clone(), reason })?;
            match key::layer(&key, &networks).map(Subject::Layer) {
                Ok(subject) if rows.iter().any(|row| row.subject == subject) => {
                    unfit.push((key, Misfit::Repeated));
                }
                Ok(subject) => rows.push(Published { key: subject.key(), subject, published }),
                Err(why) => unfit.push((key, why)),
            }
        }
        let table = PublishedTable { networks, rows, unfit };
        if table.rows.is_empty() {
            let reasons = table.reasons().into_iter().map(|(why, keys)| format!("{keys}: {why}"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(PublishedError::Nothing { path: path.into(), keys, reasons });
        }
        Ok(table)
    }

    /// Returns the reasons why keys do not fit, each with the number of such keys.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        self.unfit.iter().fold(BTreeMap::new(), |mut reasons, (_, why)| {
            *reasons.entry(why.to_string()).or_default() += 1;
            reasons
        })
    }

    /// Writes the rows as a latency table. What was not published is `unknown` in its header.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&self, path: &Path, device: &str, runtime: &str) -> Result<(), ArtifactError> {
        let unknown = || "unknown".to_string();
        let header = Header {
            latency_table: FORMAT,
            device: device.into(),
            cpu: unknown(),
            arch: unknown(),
            libc: unknown(),
            runtime: runtime.into(),
            runtime_version: unknown(),
            threads: None,
            precision: Precision::Fp32,
            providers: vec![],
            pinned: vec![],
            space: self.networks.space.clone(),
            input: self.networks.input,
        };
        file::write(path, &header, &[], &[], &self.rows)
    }
}
