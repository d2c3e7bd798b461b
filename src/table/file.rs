use super::header::FORMAT;
use super::{Difference, Drawn, Estimate, Header, Planned, Published, Row, Subject, estimate};
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
        "{path} was measured with {difference}, and a table cannot hold both; measure into another --profiles folder, or allow `nas search` and `nas bench` to use it with --allow-foreign-table",
        path = path.display()
    )]
    Foreign { path: PathBuf, difference: Difference },
    #[error(
        "{path} was measured with {difference}: its latencies are no estimate of others; give the flags that it was measured with, or another table",
        path = path.display()
    )]
    Settings { path: PathBuf, difference: Difference },
    #[error(
        "{path} was measured with {difference}, and a table cannot hold both; give the same --pin, or measure into another --profiles folder",
        path = path.display()
    )]
    Pinned { path: PathBuf, difference: Difference },
    #[error("the measurement of {subject} is not stored: {reason}")]
    Unsound { subject: String, reason: String },
    #[error("{path} is not a latency table of format {FORMAT}: {reason}", path = path.display())]
    Format { path: PathBuf, reason: String },
}

fn models(n: usize) -> String {
    if n == 1 { "1 model".into() } else { format!("{n} models") }
}

/// Lists the first three of `all`, for a message.
pub fn examples(all: &[impl Display]) -> String {
    const SHOWN: usize = 3;
    let shown = all.iter().take(SHOWN).map(|one| one.to_string()).collect::<Vec<_>>().join("; ");
    if all.len() > SHOWN { shown + "; …" } else { shown }
}

/// Latencies of the networks of one space on one device with one runtime. The file consists of JSON lines: a
/// [`Header`], followed by [`Planned`] and [`Row`] lines in the order in which they were written, or by [`Published`]
/// ones.
#[derive(Debug)]
pub struct LatencyTable {
    path: PathBuf,
    /// The command that measures missing rows.
    command: String,
    pub header: Header,
    planned: Vec<Planned>,
    rows: Vec<Row>,
    published: Vec<Published>,
    stale: usize,
    damaged: usize,
    /// Held while rows are being added.
    _lock: Option<Lock>,
}

/// What identifies a table besides its device.
#[derive(Clone, Copy, Debug)]
pub struct TableName<'n, R> {
    pub space: &'n str,
    pub input: Shape,
    pub runtime: R,
    pub precision: Precision,
    pub threads: usize,
}

impl<R: Display> TableName<'_, R> {
    /// Returns where the table is stored below the folder `profiles`, such as `jetson/chain.3x32x32.ort.fp32.jsonl`.
    pub fn path(&self, profiles: &Path, device: &str) -> PathBuf {
        let TableName { space, input, runtime, precision, threads } = self;
        let threads = if *threads == 1 { String::new() } else { format!(".{threads}threads") };
        profiles.join(device).join(format!("{space}.{input}.{runtime}.{precision}{threads}.jsonl"))
    }
}

impl LatencyTable {
    /// Reads a table that `command` makes. Damaged rows, and rows of models that have changed since, are left out with
    /// a warning.
    ///
    /// # Errors
    /// Fails if the file is missing or has another format, or if its header is damaged.
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
            return Err(format(format!("it has {version}; measure it again into another --profiles folder")));
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

    fn empty(path: PathBuf, mut command: String, header: Header) -> Self {
        let cores: Vec<String> = header.pinned.iter().map(usize::to_string).collect();
        if !cores.is_empty() {
            command += &format!(" --pin={}", cores.join(","));
        }
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

    /// Opens the table at `path` to add rows to it, or creates it. No other process can add rows until it is dropped.
    ///
    /// # Errors
    /// Fails if another process is adding rows to it, or if the existing table was measured under another header.
    pub fn open(path: &Path, header: Header, command: &str) -> Result<Self, TableError> {
        let lock = Lock::of_file(path)?;
        if !path.is_file() {
            artifact::write_lines(path, std::slice::from_ref(&header))?;
        }
        let table = Self::reopen_with(lock, path, command)?;
        table.check(&header)?;
        Ok(table)
    }

    /// Opens an existing table to add rows to it. No other process can add rows until it is dropped.
    ///
    /// # Errors
    /// Same as [`LatencyTable::load`]. Also fails if another process is adding rows to the table.
    pub fn reopen(path: &Path, command: &str) -> Result<Self, TableError> {
        Self::reopen_with(Lock::of_file(path)?, path, command)
    }

    fn reopen_with(lock: Lock, path: &Path, command: &str) -> Result<Self, TableError> {
        if path.is_file() {
            artifact::drop_torn_line(path)?;
        }
        Ok(LatencyTable { _lock: Some(lock), ..Self::load(path, command)? })
    }

    /// Checks that the table was measured under the header `ours`.
    ///
    /// # Errors
    /// [`TableError::Settings`] if it was measured with another runtime, number of threads, precision or space;
    /// [`TableError::Foreign`] if the header differs in something else, and [`TableError::Pinned`] if only in the cores.
    pub fn check(&self, ours: &Header) -> Result<(), TableError> {
        let (path, mut differences) = (self.path.clone(), self.header.differences(ours));
        if let Some(i) = differences.iter().position(Difference::is_of_settings) {
            return Err(TableError::Settings { path, difference: differences.swap_remove(i) });
        }
        differences.sort_by_key(Difference::is_of_cores);
        match differences.into_iter().next() {
            Some(difference) if difference.is_of_cores() => Err(TableError::Pinned { path, difference }),
            Some(difference) => Err(TableError::Foreign { path, difference }),
            None => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the digest of the header and of all lines that are used.
    pub fn digest(&self) -> Digest {
        Digest::of(&(&self.header, &self.planned, &self.rows, &self.published))
    }

    /// Returns the command that measures missing rows.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Records how many networks a latency model is fitted to, if that is more than before.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn plan(&mut self, planned: Planned) -> Result<(), TableError> {
        if planned.networks > self.planned(planned.classes) {
            artifact::append_line(&self.path, &Line::Planned(&planned))?;
            self.planned.push(planned);
        }
        Ok(())
    }

    /// Returns how many networks the latency model for this number of classes is fitted to, or 0 if none are planned.
    pub fn planned(&self, classes: usize) -> usize {
        let of_classes = self.planned.iter().rev().find(|planned| planned.classes == classes);
        of_classes.map_or(0, |planned| planned.networks)
    }

    /// Returns how many networks were planned for this number of classes at first, if more than `most`.
    pub fn first_planned(&self, classes: usize, most: usize) -> Option<usize> {
        let numbers = self.planned.iter().filter(|planned| planned.classes == classes).map(|planned| planned.networks);
        numbers.into_iter().find(|networks| *networks > most)
    }

    /// Returns the numbers of classes for which networks were planned, in the order of planning.
    pub fn classes(&self) -> Vec<usize> {
        let mut classes = vec![];
        for planned in &self.planned {
            if !classes.contains(&planned.classes) {
                classes.push(planned.classes);
            }
        }
        classes
    }

    /// Adds a row, first to the file and then in memory.
    ///
    /// # Errors
    /// Fails if the row could not be read back, or if the file cannot be written.
    pub fn append(&mut self, row: Row) -> Result<(), TableError> {
        let unsound = |reason| TableError::Unsound { subject: row.subject.to_string(), reason };
        row.subject.check().and_then(|()| row.check()).map_err(unsound)?;
        artifact::append_line(&self.path, &row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Adds those of `rows` that the table does not have, all at once.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn extend(&mut self, rows: &[Row]) -> Result<(), TableError> {
        let new: Vec<Row> = rows.iter().filter(|row| !self.rows.contains(row)).cloned().collect();
        artifact::append_lines(&self.path, &new)?;
        self.rows.extend(new);
        Ok(())
    }

    /// Returns the rows in the order in which they were measured.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the networks that are kept out of every fit, and how each was drawn.
    pub fn unseen(&self) -> BTreeMap<&Subject, Drawn> {
        self.rows.iter().filter_map(|row| Some((&row.subject, row.unseen?))).collect()
    }

    /// Returns the rows that others published instead of being measured here.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// Returns the number of lines that cannot be read and are left out.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Returns the number of rows whose models have changed since.
    pub fn stale(&self) -> usize {
        self.stale
    }

    /// Returns the subject that shows drift: the first one that was used as an anchor.
    pub fn anchor(&self) -> Option<&Subject> {
        self.rows.iter().find(|row| row.anchor).map(|row| &row.subject)
    }

    /// Estimates each subject from its rows, or from what is published about it if it has none.
    pub fn estimates(&self) -> BTreeMap<&Subject, Estimate> {
        let mut estimates = estimate::estimates(&self.rows);
        for Published { subject, published, .. } in &self.published {
            estimates.entry(subject).or_insert_with(|| Estimate::published(*published));
        }
        estimates
    }

    /// Returns [`LatencyTable::estimates`] if each of `subjects` has an estimate.
    ///
    /// # Errors
    /// [`TableError::Missing`], with all of `subjects` that have none.
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

    /// Returns the networks of the table's space, for these numbers of classes.
    ///
    /// # Errors
    /// Fails if there are no classes.
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

/// Writes a whole table, replacing an existing file.
///
/// # Errors
/// Fails if the file cannot be written.
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
