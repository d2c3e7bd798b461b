use super::header::FORMAT;
use super::{Difference, Estimate, Header, Planned, Published, Row, Subject, estimate};
use crate::artifact::{self, ArtifactError, Digest, Lock};
use crate::space::Networks;
use nas_exporters::{Precision, Shape};
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
        "the latency table {path} lacks {n} that {are} needed ({examples}); measure with `{command}`",
        path = path.display(), n = models(missing.len()), are = if missing.len() == 1 { "is" } else { "are" },
        examples = examples(missing)
    )]
    Missing { path: PathBuf, missing: Vec<Subject>, command: String },
    #[error(
        "{path} was measured with {difference}: the two do not mix; measure into another --profiles folder, or allow `nas search` and `nas bench` to use it with --allow-foreign-table",
        path = path.display()
    )]
    Foreign { path: PathBuf, difference: Difference },
    #[error("the measurement of {subject} is not stored: {reason}")]
    Unsound { subject: String, reason: String },
    #[error("{path} is not a latency table of format {FORMAT}: {reason}", path = path.display())]
    Format { path: PathBuf, reason: String },
}

fn models(n: usize) -> String {
    if n == 1 { "1 model".into() } else { format!("{n} models") }
}

/// Three of many, for a message.
pub fn examples(all: &[impl Display]) -> String {
    const SHOWN: usize = 3;
    let shown = all.iter().take(SHOWN).map(|one| one.to_string()).collect::<Vec<_>>().join("; ");
    if all.len() > SHOWN { shown + "; …" } else { shown }
}

/// Latencies of the networks of one space on one device with one runtime, as a file of JSON lines: a [`Header`],
/// then [`Planned`] and [`Row`] lines as they were written, or [`Published`] ones.
#[derive(Debug)]
pub struct LatencyTable {
    path: PathBuf,
    /// What measures rows that are missing.
    command: String,
    pub header: Header,
    planned: Vec<Planned>,
    rows: Vec<Row>,
    published: Vec<Published>,
    stale: usize,
    damaged: usize,
    /// Held while rows are added.
    _lock: Option<Lock>,
}

/// What identifies a table beside its device.
#[derive(Clone, Copy, Debug)]
pub struct TableName<'n, R> {
    pub space: &'n str,
    pub input: Shape,
    pub runtime: R,
    pub precision: Precision,
    pub threads: usize,
}

impl<R: Display> TableName<'_, R> {
    /// Where the table is stored below the folder `profiles`, as `jetson/chain.3x32x32.ort.fp32.jsonl`.
    pub fn path(&self, profiles: &Path, device: &str) -> PathBuf {
        let TableName { space, input, runtime, precision, threads } = self;
        let threads = if *threads == 1 { String::new() } else { format!(".{threads}threads") };
        profiles.join(device).join(format!("{space}.{input}.{runtime}.{precision}{threads}.jsonl"))
    }
}

impl LatencyTable {
    /// Reads a table; `command` is what makes it. Rows that are damaged, and rows of models that have changed since, are
    /// left out, with a warning.
    ///
    /// # Errors
    /// Where it is absent or of another format, or its header is damaged.
    pub fn load(path: &Path, command: &str) -> Result<Self, TableError> {
        if !path.is_file() {
            return Err(TableError::Absent { path: path.into(), command: command.into() });
        }
        let mut lines = artifact::read_each_line::<serde_json::Value>(path)?.into_iter();
        let format = |reason: String| TableError::Format { path: path.into(), reason };
        let (_, header) = lines.next().ok_or_else(|| format("it is empty".into()))?;
        let header = header.map_err(|reason| format(format!("line 1: {reason}")))?;
        if header["latency_table"].as_u64() != Some(FORMAT.into()) {
            let version = header["latency_table"].as_u64();
            let version = version.map_or("no format number".into(), |version| format!("format {version}"));
            return Err(format(format!("it has {version}; measure it anew into another --profiles folder")));
        }
        let header = serde_json::from_value(header).map_err(|e| format(format!("line 1: {e}")))?;
        let (path, command) = (path.into(), command.into());
        let mut table = Self::empty(path, command, header);
        let (mut keys, mut damage) = (HashMap::new(), None);
        for (number, line) in lines {
            if let Err(reason) = line.and_then(|line| table.read_line(line, &mut keys)) {
                table.damaged += 1;
                damage.get_or_insert(format!("line {number}: {reason}"));
            }
        }
        if let Some(first) = damage {
            let (damaged, path) = (table.damaged, table.path.display());
            log::warn!("{path}: {damaged} damaged rows are left out; the first is {first}");
        }
        if table.stale > 0 {
            let (stale, path) = (table.stale, table.path.display());
            log::warn!("{path}: {stale} rows are of models that have changed since and are left out");
        }
        Ok(table)
    }

    fn empty(path: PathBuf, command: String, header: Header) -> Self {
        LatencyTable {
            path,
            command,
            header,
            planned: vec![],
            rows: vec![],
            published: vec![],
            stale: 0,
            damaged: 0,
            _lock: None,
        }
    }

    fn read_line(&mut self, mut line: serde_json::Value, keys: &mut HashMap<Subject, String>) -> Result<(), String> {
        let damaged = |e: serde_json::Error| e.to_string();
        if let Some(planned) = line.get_mut("planned") {
            let planned: Planned = serde_json::from_value(planned.take()).map_err(damaged)?;
            planned.check()?;
            self.planned.push(planned);
            return Ok(());
        }
        let mut is_current = |subject: &Subject, key: &str| -> Result<bool, String> {
            subject.check()?;
            Ok(keys.entry(subject.clone()).or_insert_with_key(Subject::key) == key)
        };
        let current = if line.get("published").is_some() {
            let row: Published = serde_json::from_value(line).map_err(damaged)?;
            row.published.check()?;
            let current = is_current(&row.subject, &row.key)?;
            self.published.extend(current.then_some(row));
            current
        } else {
            let row: Row = serde_json::from_value(line).map_err(damaged)?;
            row.check()?;
            let current = is_current(&row.subject, &row.key)?;
            self.rows.extend(current.then_some(row));
            current
        };
        self.stale += usize::from(!current);
        Ok(())
    }

    /// Opens the table at `path` to add rows to, or begins it. No other process can add rows until it is dropped.
    ///
    /// # Errors
    /// Where another process adds rows to it, or the table that is there was measured under another header.
    pub fn open(path: &Path, header: Header, command: &str) -> Result<Self, TableError> {
        let lock = Lock::of_file(path)?;
        if !path.is_file() {
            artifact::write_lines(path, std::slice::from_ref(&header))?;
        }
        let table = Self::reopen_with(lock, path, command)?;
        table.check(&header)?;
        Ok(table)
    }

    /// Opens a table that is there to add rows to. No other process can add rows until it is dropped.
    ///
    /// # Errors
    /// As [`LatencyTable::load`], and where another process adds rows to it.
    pub fn reopen(path: &Path, command: &str) -> Result<Self, TableError> {
        Self::reopen_with(Lock::of_file(path)?, path, command)
    }

    fn reopen_with(lock: Lock, path: &Path, command: &str) -> Result<Self, TableError> {
        if path.is_file() {
            artifact::drop_torn_line(path)?;
        }
        Ok(LatencyTable { _lock: Some(lock), ..Self::load(path, command)? })
    }

    /// # Errors
    /// Where the table was measured under another header than `ours`.
    pub fn check(&self, ours: &Header) -> Result<(), TableError> {
        match self.header.difference(ours) {
            Some(difference) => Err(TableError::Foreign { path: self.path.clone(), difference }),
            None => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of its header and of all that is used of its lines.
    pub fn digest(&self) -> Digest {
        Digest::of(&(&self.header, &self.planned, &self.rows, &self.published))
    }

    /// The command that measures what is missing.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Records how many networks a latency model is fitted to, where that is more than before.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn plan(&mut self, planned: Planned) -> Result<(), TableError> {
        if planned.networks > self.planned(planned.classes) {
            artifact::append_line(&self.path, &Line::Planned(&planned))?;
            self.planned.push(planned);
        }
        Ok(())
    }

    /// How many networks a latency model for so many classes is fitted to; 0 where none was planned.
    pub fn planned(&self, classes: usize) -> usize {
        let of_classes = self.planned.iter().rev().find(|planned| planned.classes == classes);
        of_classes.map_or(0, |planned| planned.networks)
    }

    /// The numbers of classes that networks were planned for, in the order in which they were.
    pub fn classes(&self) -> Vec<usize> {
        let mut classes = vec![];
        for planned in &self.planned {
            if !classes.contains(&planned.classes) {
                classes.push(planned.classes);
            }
        }
        classes
    }

    /// Adds a row, to the file first.
    ///
    /// # Errors
    /// Where the row could not be read back, or the file cannot be written.
    pub fn append(&mut self, row: Row) -> Result<(), TableError> {
        let unsound = |reason| TableError::Unsound { subject: row.subject.to_string(), reason };
        row.subject.check().and_then(|()| row.check()).map_err(unsound)?;
        artifact::append_line(&self.path, &row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Adds those of `rows` that it does not have, all at once.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn extend(&mut self, rows: &[Row]) -> Result<(), TableError> {
        let new: Vec<Row> = rows.iter().filter(|row| !self.rows.contains(row)).cloned().collect();
        artifact::append_lines(&self.path, &new)?;
        self.rows.extend(new);
        Ok(())
    }

    /// Treats rows that were disturbed as missing; they stay in the file.
    pub fn ignore_disturbed(&mut self) {
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

    /// Lines that cannot be read, and are left out.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Rows of models that have changed since.
    pub fn stale(&self) -> usize {
        self.stale
    }

    /// The subject by which drift is seen: what was taken for it first.
    pub fn anchor(&self) -> Option<&Subject> {
        self.rows.iter().find(|row| row.anchor).map(|row| &row.subject)
    }

    /// By subject, what its rows say together, or what is published of it where it has none.
    pub fn estimates(&self) -> BTreeMap<&Subject, Estimate> {
        let mut estimates = estimate::estimates(&self.rows);
        for Published { subject, published, .. } in &self.published {
            estimates.entry(subject).or_insert_with(|| Estimate::published(*published));
        }
        estimates
    }

    /// # Errors
    /// [`TableError::Missing`], with all of `subjects` that have no row.
    pub fn require<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
    ) -> Result<BTreeMap<&Subject, Estimate>, TableError> {
        let estimates = self.estimates();
        let missing: Vec<Subject> =
            subjects.into_iter().filter(|subject| !estimates.contains_key(subject)).cloned().collect();
        if missing.is_empty() { Ok(estimates) } else { Err(self.lacks(missing)) }
    }

    pub fn lacks(&self, missing: Vec<Subject>) -> TableError {
        TableError::Missing { path: self.path.clone(), missing, command: self.command.clone() }
    }

    /// Its networks, for so many classes.
    ///
    /// # Errors
    /// Where there are no classes.
    pub fn networks(&self, classes: impl Into<Vec<usize>>) -> Result<Networks, crate::space::SpaceError> {
        Networks::new(self.header.space.clone(), self.header.input, classes)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'t> {
    Planned(&'t Planned),
    #[serde(untagged)]
    Header(&'t Header),
    #[serde(untagged)]
    Row(&'t Row),
    #[serde(untagged)]
    Published(&'t Published),
}

/// Writes a whole table, in the place of what is there.
///
/// # Errors
/// Where the file cannot be written.
pub(super) fn write(
    path: &Path,
    header: &Header,
    planned: &[Planned],
    rows: &[Row],
    published: &[Published],
) -> Result<(), ArtifactError> {
    let lines = [Line::Header(header)].into_iter().chain(planned.iter().map(Line::Planned));
    let lines = lines.chain(rows.iter().map(Line::Row)).chain(published.iter().map(Line::Published));
    artifact::write_lines(path, &lines.collect::<Vec<_>>())
}
