use super::{ProfileError, disturbance};
use crate::device::{DeviceError, Fleet, Session, Source};
use crate::progress;
use crate::table::{Drawn, Estimate, LatencyTable, Row, Subject, Summary, examples, uncorrected};
use nas_probe::{MeasurePlan, Runtime, Samples};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// How precisely subjects are to be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How to measure a row.
    pub measure: MeasurePlan,
    /// The number of rows that every subject gets, one per round.
    pub fewest: usize,
    /// The most rows of a subject. It gets more than `fewest` while its gap is wider than `precision`.
    pub most: usize,
    /// The widest acceptable gap, as a share of the latency.
    pub precision: f64,
    /// Of this number of rows at the start of the table, those that were disturbed count as missing.
    pub again: usize,
}

/// Short rows, several for each subject, so that whatever slows the device for a second affects only one of them.
pub const PLAN: Plan = Plan { measure: ROW, fewest: 8, most: 16, precision: 0.005, again: 0 };

/// How to measure a row of a table and a round of a benchmark. They are alike so that latencies can be compared.
pub const ROW: MeasurePlan =
    MeasurePlan { warmup_ns: 10_000_000, min_sample_ns: 1_000_000, samples: 100, limit_ns: 40_000_000 };

/// What [`rounds`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rounds {
    /// Rows that were added.
    pub rows: usize,
    /// Subjects that were disturbed each time they were measured.
    pub disturbed: usize,
    /// Subjects whose latency does not repeat as precisely as planned.
    pub unsettled: usize,
}

/// Rows between two rows of the anchor.
const BETWEEN_ANCHORS: usize = 12;

/// Adds rows for `subjects` until each is known as precisely as planned. Each round has a new random order, with rows
/// of `anchor` in between to show drift. `unseen` are networks that no fit may see. Several boards share the work.
///
/// # Errors
/// Fails if every board is lost. If a subject cannot be measured, fails after all others were measured.
pub fn rounds(
    sessions: &mut Vec<Session>,
    table: &mut LatencyTable,
    subjects: &[Subject],
    anchor: &Subject,
    unseen: &BTreeMap<Subject, Drawn>,
    plan: Plan,
) -> Result<Rounds, ProfileError> {
    let mut rejected: BTreeMap<Subject, String> = BTreeMap::new();
    let first = remaining(table, subjects, plan, &rejected);
    if first.is_empty() {
        return Ok(summary(table, subjects, plan, 0));
    }
    let mut all = first.clone();
    if !all.contains(anchor) {
        all.push(anchor.clone());
    }
    let number = |subject: &Subject| all.iter().position(|known| known == subject);
    let precision = table.header.precision;
    let model = |subject: &Subject| (subject.to_string(), Source::Graph { graph: subject.graph(), precision });
    let models: Vec<(String, Source)> = all.iter().map(model).collect();
    let (runtime, threads) = measured_with(table)?;
    let anchor_number = number(anchor).unwrap_or(0);
    let mut fleet = Fleet::open(sessions, &models, anchor_number, runtime, threads, plan.measure)?;
    let without_peak: Vec<usize> = (0..first.len()).filter(|&i| has_no_peak(table, &all[i])).collect();
    let mut peaks = fleet.peaks(&without_peak)?;
    let bar = progress::bar("profile", &table.header.runtime.clone(), to_come(table, &first, plan));
    let mut added = 0;
    for round in 0.. {
        let remaining = remaining(table, &first, plan, &rejected);
        if remaining.is_empty() {
            break;
        }
        bar.set_length(bar.position() + to_come(table, &remaining, plan) as u64);
        let mut order: Vec<usize> = remaining.iter().filter_map(number).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(round));
        let mut left: BTreeSet<usize> = order.iter().copied().collect();
        let jobs =
            order.chunks(BETWEEN_ANCHORS).flat_map(|block| [anchor_number].into_iter().chain(block.iter().copied()));
        fleet.measure(jobs.collect(), |i, measured, cores| {
            let subject = &all[i];
            match measured.and_then(|samples| row(subject, samples, (runtime, threads), cores)) {
                Ok(row) => {
                    let unseen = unseen.get(subject).copied();
                    table.append(Row { anchor: i == anchor_number, unseen, peak_bytes: peaks.remove(&i), ..row })?;
                    added += 1;
                }
                Err(why) => drop(rejected.insert(subject.clone(), why.to_string())),
            }
            bar.inc(u64::from(left.remove(&i)));
            Ok::<(), ProfileError>(())
        })?;
    }
    bar.finish_and_clear();
    if !rejected.is_empty() {
        let (failed, all) = (rejected.len(), subjects.len());
        let reasons = examples(&rejected.into_values().collect::<Vec<_>>());
        return Err(ProfileError::Failed { failed, all, reasons });
    }
    Ok(summary(table, subjects, plan, added))
}

/// Returns the probe's runtime for a table, and its number of threads.
fn measured_with(table: &LatencyTable) -> Result<(Runtime, usize), ProfileError> {
    let published = || ProfileError::Published { runtime: table.header.runtime.clone() };
    let runtime = table.header.runtime.parse().map_err(|_| published())?;
    Ok((runtime, table.header.threads.ok_or_else(published)?))
}

/// Returns the subjects that are not known precisely enough and may get more rows.
fn remaining(
    table: &LatencyTable,
    subjects: &[Subject],
    plan: Plan,
    rejected: &BTreeMap<Subject, String>,
) -> Vec<Subject> {
    let rows = plan.count_rows(table);
    let estimates = uncorrected(table.rows());
    let needs_more = |subject: &&Subject| {
        let rows = rows.get(subject).copied().unwrap_or(0);
        let settled = estimates.get(subject).is_some_and(|estimate| plan.is_settled(estimate));
        rows < plan.most && !settled && !rejected.contains_key(*subject)
    };
    subjects.iter().filter(needs_more).cloned().collect()
}

/// Returns whether this is a whole network whose peak memory is not known.
fn has_no_peak(table: &LatencyTable, subject: &Subject) -> bool {
    let known = |row: &Row| row.subject == *subject && row.peak_bytes.is_some();
    matches!(subject, Subject::Network(_)) && !table.rows().iter().any(known)
}

/// Returns the least number of rows that are still to be measured, for the subjects that need more.
fn to_come(table: &LatencyTable, remaining: &[Subject], plan: Plan) -> usize {
    let rows = plan.count_rows(table);
    let to_come = |s: &Subject| plan.fewest.saturating_sub(rows.get(s).copied().unwrap_or(0)).max(1);
    remaining.iter().map(to_come).sum()
}

impl Plan {
    fn count_rows(self, table: &LatencyTable) -> BTreeMap<&Subject, usize> {
        let counts = |&(i, row): &(usize, &Row)| i >= self.again || row.disturbed.is_empty();
        table.rows().iter().enumerate().filter(counts).fold(BTreeMap::new(), |mut rows, (_, row)| {
            *rows.entry(&row.subject).or_default() += 1;
            rows
        })
    }

    fn is_settled(&self, estimate: &Estimate) -> bool {
        let repeats = estimate.relative_gap().is_some_and(|gap| gap <= self.precision);
        !estimate.disturbed && estimate.rows >= self.fewest && repeats
    }
}

fn summary(table: &LatencyTable, subjects: &[Subject], plan: Plan, rows: usize) -> Rounds {
    let estimates = uncorrected(table.rows());
    let count = |is: &dyn Fn(&Estimate) -> bool| {
        subjects.iter().filter(|subject| estimates.get(subject).is_some_and(is)).count()
    };
    let unsettled = |estimate: &Estimate| !estimate.disturbed && !plan.is_settled(estimate);
    Rounds { rows, disturbed: count(&|estimate| estimate.disturbed), unsettled: count(&unsettled) }
}

fn row(
    subject: &Subject,
    samples: Samples,
    (runtime, threads): (Runtime, usize),
    cores: usize,
) -> Result<Row, DeviceError> {
    let Some(Summary { median, .. }) = Summary::of(&samples.ns) else {
        let (model, reason) = (subject.to_string(), "the probe sent no samples".into());
        return Err(DeviceError::Failed { model, runtime, reason });
    };
    let disturbed = disturbance::of(&samples, threads, cores);
    let Samples { ns, batch, before, during, after, others } = samples;
    // This is finer than any clock.
    let hundredths = |ns: f64| (ns * 100.0).round() / 100.0;
    Ok(Row {
        subject: subject.clone(),
        key: subject.key(),
        median_ns: median,
        samples_ns: ns.into_iter().map(hundredths).collect(),
        batch,
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        before,
        during,
        after,
        others,
        disturbed,
        anchor: false,
        unseen: None,
        peak_bytes: None,
    })
}
