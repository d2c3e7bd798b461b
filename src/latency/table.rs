use super::header::FORMAT;
use super::{Difference, Header, Latency, Networks, Published, Row, Subject, Timing, Validation, timing};
use crate::artifact::{self, ArtifactError};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("there is no latency table {path}; measure it with `{command}`", path = path.display())]
    Absent { path: PathBuf, command: String },
    #[error(
        "the latency table {path} lacks {n} that {are} needed: {list}; measure with `{command}`",
        path = path.display(), n = missing.len(), are = if missing.len() == 1 { "is" } else { "are" }, list = shown(missing)
    )]
    Missing { path: PathBuf, missing: Vec<Subject>, command: String },
    #[error("the latency table {path} has no model: {reason}; measure with `{command}`", path = path.display())]
    Fit { path: PathBuf, reason: super::fit::FitError, command: String },
    #[error(
        "no network of the space is within {target}: the cheapest takes {cheapest}; raise --target-latency"
    )]
    Unreachable { target: Latency, cheapest: Latency },
    #[error(
        "{path} was measured with {difference}: the two do not mix; measure into another --profiles folder, or let `nas search` and `nas bench` use the table all the same by --allow-foreign-table",
        path = path.display()
    )]
    Foreign { path: PathBuf, difference: Difference },
    #[error("{path} is no latency table of format {FORMAT}: {reason}", path = path.display())]
    Format { path: PathBuf, reason: String },
}

/// The first of many subjects, and how many more there are.
fn shown(subjects: &[Subject]) -> String {
    const SHOWN: usize = 40;
    let mut list: Vec<String> = subjects.iter().take(SHOWN).map(Subject::to_string).collect();
    if subjects.len() > SHOWN {
        list.push(format!("and {} more", subjects.len() - SHOWN));
    }
    list.join("; ")
}

/// Latencies on one device with one runtime, as a file of JSON lines: a [`Header`], then [`Row`]s as they
/// were measured, or [`Published`] ones in their place.
#[derive(Debug)]
pub struct LatencyTable {
    path: PathBuf,
    /// What measures rows that are missing.
    command: String,
    pub header: Header,
    rows: Vec<Row>,
    published: Vec<Published>,
}

impl LatencyTable {
    /// Where the table of a space is kept below the folder `profiles`.
    pub fn path(
        profiles: &Path,
        device: &str,
        space: &str,
        runtime: impl Display,
        threads: usize,
    ) -> PathBuf {
        let threads = if threads == 1 { String::new() } else { format!(".{threads}threads") };
        profiles.join(device).join(format!("{space}.{runtime}{threads}.jsonl"))
    }

    /// Reads a table; `command` is what makes it.
    ///
    /// # Errors
    /// Where it is absent, or damaged.
    pub fn load(path: &Path, command: &str) -> Result<Self, TableError> {
        if !path.is_file() {
            return Err(TableError::Absent { path: path.into(), command: command.into() });
        }
        let mut lines: Vec<serde_json::Value> = artifact::read_lines(path)?;
        let format = |reason: String| TableError::Format { path: path.into(), reason };
        if lines.is_empty() {
            return Err(format("it is empty".into()));
        }
        let header = lines.remove(0);
        let version = header["latency_table"].as_u64();
        if version != Some(FORMAT.into()) {
            let version = version.map_or("none".into(), |version| format!("format {version}"));
            return Err(format(format!("it is of {version}; measure into another --profiles folder")));
        }
        let header = serde_json::from_value(header).map_err(|e| format(format!("line 1: {e}")))?;
        let (mut rows, mut published): (Vec<Row>, Vec<Published>) = (vec![], vec![]);
        let mut digests: HashMap<Subject, String> = HashMap::new();
        for (i, line) in lines.into_iter().enumerate() {
            let damaged = |reason: String| format(format!("line {}: {reason}", i + 2));
            let mut counts = |subject: &Subject, model: &str| {
                if !subject.is_sound() {
                    return Err(damaged("layers have a size of 0 or do not join".into()));
                }
                Ok(digests.entry(subject.clone()).or_insert_with_key(Subject::digest) == model)
            };
            if line.get("published").is_some() {
                let row: Published = serde_json::from_value(line).map_err(|e| damaged(e.to_string()))?;
                published.extend(counts(&row.subject, &row.model)?.then_some(row));
            } else {
                let row: Row = serde_json::from_value(line).map_err(|e| damaged(e.to_string()))?;
                rows.extend(counts(&row.subject, &row.model)?.then_some(row));
            }
        }
        Ok(LatencyTable { path: path.into(), command: command.into(), header, rows, published })
    }

    /// Opens the table at `path` to add rows to, or begins it.
    ///
    /// # Errors
    /// Where the table that is there was measured under another header.
    pub fn open(path: &Path, header: Header, command: &str) -> Result<Self, TableError> {
        if !path.is_file() {
            artifact::write_lines(path, std::slice::from_ref(&header))?;
            let (path, command) = (path.into(), command.into());
            return Ok(LatencyTable { path, command, header, rows: vec![], published: vec![] });
        }
        artifact::drop_torn_line(path)?;
        let table = Self::load(path, command)?;
        table.check(&header)?;
        Ok(table)
    }

    /// # Errors
    /// Where the table was measured under another header than `ours`.
    pub fn check(&self, ours: &Header) -> Result<(), TableError> {
        match self.header.difference(ours) {
            Some(difference) => Err(TableError::Foreign { path: self.path.clone(), difference }),
            None => Ok(()),
        }
    }

    /// Writes down that the model is to be fitted to so many networks, where that is more than before.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn plan_networks(&mut self, networks: usize) -> Result<(), TableError> {
        if networks <= self.header.networks {
            return Ok(());
        }
        self.header.networks = networks;
        self.rewrite_header()
    }

    /// Puts into the header how well predictions held, in the place of what it says of the same images.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_validation(&mut self, validation: Validation) -> Result<(), TableError> {
        self.header.validations.retain(|old| !old.same_images(&validation));
        self.header.validations.push(validation);
        self.rewrite_header()
    }

    /// Changes the file's first line and nothing else of it.
    fn rewrite_header(&self) -> Result<(), TableError> {
        let bytes = artifact::read(&self.path, "nas-profile")?;
        let header = serde_json::to_string(&self.header).unwrap_or_default();
        let rows = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        Ok(artifact::write(&self.path, &[header.as_bytes(), &bytes[rows..]].concat())?)
    }

    /// Adds a row, to the file first.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn append(&mut self, row: Row) -> Result<(), TableError> {
        artifact::append_line(&self.path, &row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Takes the rows that were disturbed for missing; in the file they stay.
    pub fn forget_disturbed(&mut self) {
        self.rows.retain(|row| row.disturbed.is_empty());
    }

    /// In the order in which they were measured.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What was not measured but published by others.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// What drift is seen by, on these images: what was taken for it first.
    pub fn anchor(&self, networks: &Networks) -> Option<&Subject> {
        let on_images = |subject: &&Subject| subject.graph().input_shape() == networks.images.shape;
        self.rows.iter().filter(|row| row.anchor).map(|row| &row.subject).find(on_images)
    }

    /// By subject, what all its rows say, or what is published of it where it has none.
    pub fn timings(&self) -> BTreeMap<&Subject, Timing> {
        let mut timings = timing::timings(&self.rows);
        for Published { subject, published, .. } in &self.published {
            timings.entry(subject).or_insert_with(|| Timing::published(*published));
        }
        timings
    }

    /// # Errors
    /// [`TableError::Missing`], with all of `subjects` that have no row.
    pub fn require<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
    ) -> Result<BTreeMap<&Subject, Timing>, TableError> {
        let timings = self.timings();
        let missing: Vec<Subject> =
            subjects.into_iter().filter(|subject| !timings.contains_key(subject)).cloned().collect();
        if missing.is_empty() { Ok(timings) } else { Err(self.lacks(missing)) }
    }

    pub(super) fn lacks(&self, missing: Vec<Subject>) -> TableError {
        TableError::Missing { path: self.path.clone(), missing, command: self.command.clone() }
    }

    pub(super) fn unfit(&self, reason: super::fit::FitError) -> TableError {
        TableError::Fit { path: self.path.clone(), reason, command: self.command.clone() }
    }
}

/// Writes a whole table, in the place of what is there.
///
/// # Errors
/// Where the file cannot be written.
pub(super) fn write(
    path: &Path,
    header: &Header,
    rows: &[Row],
    published: &[Published],
) -> Result<(), ArtifactError> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Line<'t> {
        Header(&'t Header),
        Row(&'t Row),
        Published(&'t Published),
    }
    let rows = rows.iter().map(Line::Row).chain(published.iter().map(Line::Published));
    artifact::write_lines(path, &[Line::Header(header)].into_iter().chain(rows).collect::<Vec<_>>())
}
