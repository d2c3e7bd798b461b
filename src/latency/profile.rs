use super::fleet::Boards;
use super::{Disturbance, LatencyTable, Row, Subject, Summary, TableError, Timing};
use crate::device::{DeviceError, Session};
use crate::progress;
use nas_probe::{MeasurePlan, Runtime, Samples};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Weights(#[from] nas_exporters::WeightsError),
    #[error("{failed} of {all} models could not be measured, and the table has no rows of them: {reasons}")]
    Failed { failed: usize, all: usize, reasons: String },
    #[error("no board is left to measure on")]
    NoBoard,
    #[error("a table of {runtime} was published by others: none of its rows can be measured here")]
    Published { runtime: String },
    #[error("{board} is of another kind than {first}, {difference}: only boards of one kind share a table")]
    Mixed { board: String, first: String, difference: super::Difference },
}

/// How well subjects are to be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// One row.
    pub measure: MeasurePlan,
    /// Every subject gets so many rows, in as many rounds.
    pub fewest: usize,
    /// A subject whose gap is wider than `precision` after those gets more, up to so many.
    pub most: usize,
    /// A share of the latency.
    pub precision: f64,
}

/// What [`profile`] did.
#[derive(Clone, Debug, Default)]
pub struct Profiled {
    /// Rows that were added.
    pub rows: usize,
    /// Subjects that were disturbed each time they were measured.
    pub disturbed: usize,
    /// Subjects whose fastest timing does not repeat as well as planned.
    pub unsettled: usize,
}

/// Rows between two readings of the anchor.
const BETWEEN_ANCHORS: usize = 12;

/// Adds rows for `subjects` until each is known as well as planned, in rounds of another random order
/// each; now and then one of `anchor`, by which drift is seen. The networks of `unseen` are no fit's.
/// Several boards share the work, after the anchor has shown that they are alike; a board that is lost
/// leaves its part to the others.
///
/// # Errors
/// Where every board is lost; and, after all others were measured, where a subject could not be.
pub fn profile(
    sessions: &mut Vec<Session>,
    table: &mut LatencyTable,
    subjects: &[Subject],
    anchor: &Subject,
    unseen: &BTreeSet<Subject>,
    plan: Plan,
) -> Result<Profiled, ProfileError> {
    let mut rejected: BTreeMap<Subject, String> = BTreeMap::new();
    let first = due(table, subjects, plan, &rejected);
    if first.is_empty() {
        return Ok(summary(table, subjects, plan, 0));
    }
    let all: Vec<&Subject> =
        if first.contains(anchor) { first.iter().collect() } else { first.iter().chain([anchor]).collect() };
    let header = table.header.clone();
    let with = header.measures()?;
    let mut boards = Boards::open(sessions, &all, anchor, &header, plan.measure)?;
    let mut peaks = boards.peaks(first.iter().filter(|subject| has_no_peak(table, subject)))?;
    let bar = progress::bar("profile", &header.runtime, to_come(table, &first, plan));
    let mut added = 0;
    for round in 0.. {
        // One that was settled may look less so by the rows of others; its model lies on no board.
        let mut order = due(table, &first, plan, &rejected);
        if order.is_empty() {
            break;
        }
        bar.set_length(bar.position() + to_come(table, &order, plan) as u64);
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(round));
        let mut left = order.iter().cloned().collect::<BTreeSet<_>>();
        let blocks = order.chunks(BETWEEN_ANCHORS);
        let jobs = blocks.flat_map(|block| [anchor].into_iter().chain(block)).cloned();
        boards.measure(jobs.collect(), |subject, measured, cores| {
            let planned = left.remove(subject);
            match measured.and_then(|samples| row(subject, samples, with, cores)) {
                Ok(row) => {
                    let (anchor, unseen) = (subject == anchor, unseen.contains(subject));
                    let peak_bytes = peaks.remove(subject);
                    table.append(Row { anchor, unseen, peak_bytes, ..row })?;
                    added += 1;
                }
                Err(why) => drop(rejected.insert(subject.clone(), why.to_string())),
            }
            bar.inc(u64::from(planned));
            Ok(())
        })?;
    }
    bar.finish();
    if !rejected.is_empty() {
        let (failed, all) = (rejected.len(), subjects.len());
        let reasons = rejected.into_values().collect::<Vec<_>>().join("; ");
        return Err(ProfileError::Failed { failed, all, reasons });
    }
    Ok(summary(table, subjects, plan, added))
}

/// Those that are not known well enough and may have more rows.
fn due(
    table: &LatencyTable,
    subjects: &[Subject],
    plan: Plan,
    rejected: &BTreeMap<Subject, String>,
) -> Vec<Subject> {
    let rows = rows(table);
    let timings = table.timings();
    let is_due = |subject: &&Subject| {
        let rows = rows.get(subject).copied().unwrap_or(0);
        let settled = timings.get(subject).is_some_and(|timing| plan.is_settled(timing));
        rows < plan.most && !settled && !rejected.contains_key(*subject)
    };
    subjects.iter().filter(is_due).cloned().collect()
}

/// Whether it is a whole network, and nobody knows what that takes of the memory.
fn has_no_peak(table: &LatencyTable, subject: &Subject) -> bool {
    let known = |row: &Row| row.subject == *subject && row.peak_bytes.is_some();
    matches!(subject, Subject::Network(_)) && !table.rows().iter().any(known)
}

/// By subject, its rows.
fn rows(table: &LatencyTable) -> BTreeMap<&Subject, usize> {
    table.rows().iter().fold(BTreeMap::new(), |mut rows, row| {
        *rows.entry(&row.subject).or_default() += 1;
        rows
    })
}

/// Rows that are sure to be measured of subjects that are due.
fn to_come(table: &LatencyTable, due: &[Subject], plan: Plan) -> usize {
    let rows = rows(table);
    let to_come = |s: &Subject| plan.fewest.saturating_sub(rows.get(s).copied().unwrap_or(0)).max(1);
    due.iter().map(to_come).sum()
}

impl Plan {
    fn is_settled(&self, timing: &Timing) -> bool {
        let repeats = timing.relative_gap().is_some_and(|gap| gap <= self.precision);
        !timing.disturbed && timing.rows >= self.fewest && repeats
    }
}

fn summary(table: &LatencyTable, subjects: &[Subject], plan: Plan, rows: usize) -> Profiled {
    let timings = table.timings();
    let of = |is: &dyn Fn(&Timing) -> bool| {
        subjects.iter().filter(|subject| timings.get(subject).is_some_and(is)).count()
    };
    let unsettled = |timing: &Timing| !timing.disturbed && !plan.is_settled(timing);
    Profiled { rows, disturbed: of(&|timing| timing.disturbed), unsettled: of(&unsettled) }
}

fn row(
    subject: &Subject,
    samples: Samples,
    (runtime, threads): (Runtime, usize),
    cores: usize,
) -> Result<Row, DeviceError> {
    let median_ns = Summary::measured(&samples.ns, &subject.to_string(), runtime)?.median;
    let disturbed = Disturbance::of(&samples, threads, cores);
    let Samples { ns, batch, before, during, after, others } = samples;
    Ok(Row {
        subject: subject.clone(),
        model: subject.digest(),
        median_ns,
        samples_ns: ns,
        batch,
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        before,
        during,
        after,
        others,
        disturbed,
        anchor: false,
        unseen: false,
        peak_bytes: None,
    })
}
