//! Tables of others: the YAML of ProxylessNAS (Cai et al. 2019, arXiv 1812.00332) and of Once-for-All (Cai
//! et al. 2020, arXiv 1908.09791), a key a block and, in milliseconds, what it takes.

mod key;

pub use key::Misfit;

use super::header::FORMAT;
use super::{Header, Latency, Subject, table};
use crate::artifact::ArtifactError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(
        "{path} is no published table: {reason}; every key needs count, mean, and std or var, in milliseconds",
        path = path.display()
    )]
    Yaml { path: PathBuf, reason: String },
    #[error("{path}, `{key}`: {reason}; correct it, or take the key out", path = path.display())]
    Value { path: PathBuf, key: String, reason: String },
    #[error(
        "none of the {keys} keys of {path} is an op of ours ({reasons}); only inverted residuals can be imported",
        path = path.display()
    )]
    Nothing { path: PathBuf, keys: usize, reasons: String },
}

/// What others say of a subject. A row of a table that was imported, in the place of one that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    #[serde(flatten)]
    pub subject: Subject,
    /// [`Subject::digest`]
    pub model: String,
    pub published: Mean,
}

/// What is left of timings where only these numbers of them were published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub mean_ns: Latency,
    /// Standard deviation.
    pub std_ns: Latency,
    /// Timings that there were.
    pub count: u64,
}

/// A published table, read.
#[derive(Debug)]
pub struct PublishedTable {
    pub rows: Vec<Published>,
    /// Keys that are no layer of ours.
    pub unfit: Vec<(String, Misfit)>,
}

/// The value of a key, in milliseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    count: u64,
    mean: f64,
    std: Option<f64>,
    /// Of the square of milliseconds.
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
        if !(self.mean > 0.0 && self.mean.is_finite()) {
            return Err(format!("its mean is {}, and no latency", self.mean));
        }
        if !(deviation >= 0.0 && deviation.is_finite()) {
            return Err("its std or var is no deviation".into());
        }
        let ns = |ms: f64| Latency::from_ns(1e6 * ms);
        Ok(Mean { mean_ns: ns(self.mean), std_ns: ns(deviation), count: self.count })
    }
}

impl PublishedTable {
    /// # Errors
    /// Where the file cannot be read, a value is none, or no key is a layer of ours.
    pub fn read(path: &Path) -> Result<Self, PublishedError> {
        let text = std::fs::read_to_string(path).map_err(|source| ArtifactError::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        let entries: BTreeMap<String, Entry> = serde_saphyr::from_str(&text).map_err(|e| {
            PublishedError::Yaml { path: path.into(), reason: e.without_snippet().to_string() }
        })?;
        let keys = entries.len();
        if keys == 0 {
            return Err(PublishedError::Yaml { path: path.into(), reason: "it has no keys".into() });
        }
        let (mut rows, mut unfit): (Vec<Published>, _) = (vec![], vec![]);
        for (key, entry) in entries {
            let published = entry.read().map_err(|reason| PublishedError::Value {
                path: path.into(),
                key: key.clone(),
                reason,
            })?;
            match key::layer(&key).map(Subject::Layer) {
                Ok(subject) if rows.iter().any(|row| row.subject == subject) => {
                    unfit.push((key, Misfit::Twice));
                }
                Ok(subject) => rows.push(Published { model: subject.digest(), subject, published }),
                Err(why) => unfit.push((key, why)),
            }
        }
        let table = PublishedTable { rows, unfit };
        if table.rows.is_empty() {
            let reasons = table.reasons().into_iter().map(|(why, keys)| format!("{keys}: {why}"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(PublishedError::Nothing { path: path.into(), keys, reasons });
        }
        Ok(table)
    }

    /// Why keys do not fit, and how many for each reason.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        self.unfit.iter().fold(BTreeMap::new(), |mut reasons, (_, why)| {
            *reasons.entry(why.to_string()).or_default() += 1;
            reasons
        })
    }

    /// Writes it as a latency table of its own. What was not published is `unknown` in its header.
    ///
    /// # Errors
    /// Where the file cannot be written.
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
            precision: unknown(),
            providers: vec![],
            pinned: vec![],
            networks: 0,
            validations: vec![],
        };
        table::write(path, &header, &[], &self.rows)
    }
}
