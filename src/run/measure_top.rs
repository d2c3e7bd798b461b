//! Measures the networks that a search proposes before one of them is chosen.

use super::{BoardSettings, Images, MeasureSettings, RunError};
use crate::artifact::{self, Digest};
use crate::data::DataSpec;
use crate::device::{Device, Session};
use crate::latency::Latency;
use crate::model::LatencyModel;
use crate::profile::{self, PLAN};
use crate::search::{Candidate, Constraint, Cost, Limits};
use crate::space::Networks;
use crate::table::{Header, LatencyTable, Subject};
use nas_probe::Runtime;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How many of the best networks are measured, and how the board is set meanwhile.
#[derive(Clone, Debug)]
pub struct MeasureTop {
    pub networks: NonZeroUsize,
    pub board: BoardSettings,
}

/// Measured networks, and what their rows changed.
#[derive(Debug)]
pub struct Remeasured {
    /// The latency of each network.
    pub latencies: Vec<Latency>,
    /// The model after it was fitted again.
    pub model: LatencyModel,
    /// Digest of the table.
    pub table: Digest,
}

/// A copy of the latency table of the first target, which gets the rows of the networks that are measured.
///
/// A search depends on the predictions of the table, so the table itself gets the rows only at the end. Until then, the
/// same command resumes the search instead of starting another one.
pub struct TableCopy<'a> {
    pub measure: MeasureSettings,
    pub space: &'a str,
    pub data: &'a DataSpec,
    /// The file, in the run's folder.
    pub path: PathBuf,
}

impl TableCopy<'_> {
    /// Checks that networks can be measured, and that their rows can be added to the table.
    ///
    /// # Errors
    /// Fails if the device cannot be reached, or if the table belongs to another machine, was given as a file, or has
    /// rows of other settings of the board.
    pub fn check(&self, board: &BoardSettings, networks: &Networks, foreign: Option<&str>) -> Result<(), RunError> {
        match (&self.measure.table, foreign) {
            (Some(table), _) => Err(RunError::GivenTable { table: table.clone() }),
            (None, Some(difference)) => Err(RunError::ForeignTop { difference: difference.into() }),
            (None, None) => self.open(board, networks).map(drop),
        }
    }

    /// Starts the probe on the device, and returns the header of the rows that it measures.
    fn open(&self, board: &BoardSettings, networks: &Networks) -> Result<(Vec<Session>, Header), RunError> {
        let (device, runtime) = self.on()?;
        let sessions = board.open(&device, &[runtime])?;
        let header = self.measure.header(&device, &sessions, runtime, networks)?;
        LatencyTable::load(&self.table_path(networks)?, &self.command()?)?.check(&header)?;
        Ok((sessions, header))
    }

    /// Moves the rows of the copy to the latency table, if anything was measured.
    ///
    /// # Errors
    /// Fails if another process adds rows to the table, or a file cannot be read or written.
    pub fn move_rows(&self, networks: &Networks) -> Result<(), RunError> {
        if !self.path.is_file() {
            return Ok(());
        }
        let command = self.command()?;
        let measured = LatencyTable::load(&self.path, &command)?;
        let mut table = LatencyTable::reopen(&self.table_path(networks)?, &command)?;
        table.extend(measured.rows())?;
        // The rows are in the table, and a copy that is left is not used again.
        let _ = std::fs::remove_file(&self.path);
        Ok(())
    }

    fn on(&self) -> Result<(Device, Runtime), RunError> {
        let device = self.measure.device()?;
        let runtime = self.measure.first_runtime(&device)?;
        Ok((device, runtime))
    }

    fn table_path(&self, networks: &Networks) -> Result<PathBuf, RunError> {
        let (device, runtime) = self.on()?;
        Ok(self.measure.table_path(&device, networks, runtime))
    }

    /// Returns the command that measures the table.
    fn command(&self) -> Result<String, RunError> {
        let (_, runtime) = self.on()?;
        Ok(self.measure.command(self.space, &Images::Data(self.data.clone()), runtime))
    }
}

/// Measures the networks `ranked` on the device, adds their rows to the copy of the latency table, and fits a model to it.
///
/// # Errors
/// Fails if the device cannot be reached, if the table belongs to another one, or if a network cannot be measured.
pub fn measured(
    table_copy: &TableCopy,
    board: &BoardSettings,
    networks: &Networks,
    ranked: &[Vec<usize>],
) -> Result<Remeasured, RunError> {
    let (mut sessions, header) = table_copy.open(board, networks)?;
    let path = &table_copy.path;
    if !path.is_file() {
        artifact::write(path, &artifact::read(&table_copy.table_path(networks)?, "nas-profile")?)?;
    }
    let mut table = LatencyTable::open(path, header, &table_copy.command()?)?;
    let subjects: Vec<Subject> = ranked.iter().map(|choices| Subject::Network(networks.layers_of(choices))).collect();
    let Some(anchor) = table.anchor().or(subjects.first()).cloned() else {
        return Err(RunError::NoCandidate);
    };
    profile::rounds(&mut sessions, &mut table, &subjects, &anchor, &BTreeMap::new(), PLAN)?;
    let estimates = table.require(&subjects)?;
    let latencies = subjects.iter().filter_map(|subject| Some(estimates.get(subject)?.latency)).collect();
    let model = LatencyModel::new(&table, networks)?;
    Ok(Remeasured { latencies, table: table.digest(), model })
}

/// Returns the first of `ranked` whose measured latency meets the target.
///
/// # Errors
/// Fails if none of them does.
pub fn choose<'c>(
    ranked: &'c [Candidate],
    latencies: &[Latency],
    target: Latency,
) -> Result<(&'c Candidate, Latency), RunError> {
    let mut measured = ranked.iter().zip(latencies.iter().copied());
    let nearest = latencies.iter().copied().reduce(|a, b| if b < a { b } else { a }).unwrap_or_default();
    let missed = || RunError::NoneMeets { measured: latencies.len(), target, nearest };
    measured.find(|(_, latency)| *latency <= target).ok_or_else(missed)
}

/// Returns the same limits, with the first one by the model that was fitted again, and without its margin, since it is
/// measured latencies that must meet the target.
pub fn refitted(limits: &Limits, measured: &Remeasured) -> Limits {
    let mut limits = limits.clone();
    if let Some(first) = limits.constraints.first_mut() {
        let cost = Cost { name: first.cost.name.clone(), ..Cost::latency(&measured.model) };
        *first = Constraint::new(cost, first.target);
    }
    limits
}
