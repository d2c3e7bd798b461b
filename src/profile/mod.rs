//! What to measure on a device, and in which order: the networks of a space for a latency table, and any ONNX files.

mod bench;
mod design;
mod disturbance;
mod rounds;

pub use bench::{Benchmark, Benchmarked, bench};
pub use design::{
    FOR_A_HEAD, derived_unseen, design_size, first_to_fit, for_a_head, random_unseen, rest_to_fit, usual_number,
};
pub use rounds::{PLAN, Plan, ROW, Rounds, rounds};

use crate::bounded::{FEWEST_TO_FIT, FittedNetworks};
use crate::device::{DeviceError, Session};
use crate::model::{LatencyModel, ModelError, Unseen, Validation, Validations, isolated_subjects};
use crate::space::Networks;
use crate::table::{Difference, Drawn, FORMAT, Header, LatencyTable, Planned, Subject, TableError, drift};
use nas_exporters::Precision;
use nas_probe::Runtime;
use std::collections::BTreeMap;

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Artifact(#[from] crate::artifact::ArtifactError),
    #[error("{failed} of {all} models could not be measured: {reasons}")]
    Failed { failed: usize, all: usize, reasons: String },
    #[error("no board is left to measure on")]
    NoBoard,
    #[error("a table of {runtime} was published by others: none of its rows can be measured here")]
    Published { runtime: String },
    #[error("{board} is of another kind than {first}, {difference}: only boards of one kind share a table")]
    Mixed { board: String, first: String, difference: Difference },
    #[error("space `{space}` has no networks that the model of the table was not fitted to")]
    NothingUnseen { space: String },
}

/// Returns the header of a table that these boards measure together.
///
/// # Errors
/// Fails if one of them lacks the runtime, or is of another kind than the others.
pub fn header(
    device: &str,
    boards: &[Session],
    runtime: Runtime,
    threads: usize,
    precision: Precision,
    networks: &Networks,
) -> Result<Header, ProfileError> {
    let of = |session: &Session| -> Result<Header, DeviceError> {
        let (hello, info) = (session.hello(), session.require(runtime)?);
        Ok(Header {
            latency_table: FORMAT,
            device: device.into(),
            cpu: hello.cpu.clone(),
            arch: hello.arch.clone(),
            libc: hello.libc.clone(),
            runtime: runtime.to_string(),
            runtime_version: info.version.clone(),
            threads: Some(threads),
            precision,
            providers: info.providers.clone(),
            pinned: session.ready().pinned.clone(),
            space: networks.space.clone(),
            input: networks.input,
        })
    };
    let headers: Vec<Header> = boards.iter().map(of).collect::<Result<_, _>>()?;
    let Some(header) = headers.first() else { return Err(ProfileError::NoBoard) };
    let mut others = boards.iter().zip(&headers);
    match others.find_map(|(board, theirs)| Some((board.board(), theirs.difference(header)?))) {
        None => Ok(header.clone()),
        Some((board, difference)) => {
            Err(ProfileError::Mixed { board: board.into(), first: boards[0].board().into(), difference })
        }
    }
}

/// Which networks a table is to cover.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Whole networks to fit the latency model to. `None` for the usual number.
    pub networks: Option<FittedNetworks>,
    /// Measure isolated layers only. Predictions are then their plain sum.
    pub isolated: bool,
    /// Measure disturbed rows again.
    pub again: bool,
}

/// Returns a plan by which the rows that a table has so far are measured again if they were disturbed.
fn again(table: &LatencyTable, again: bool, plan: Plan) -> Plan {
    Plan { again: if again { table.rows().len() } else { 0 }, ..plan }
}

/// Adds to `table` the rows that it lacks for a latency model of `networks`: first isolated layers, then whole
/// networks. If it has a model for another number of classes, a few networks with the new classifier are enough.
///
/// # Errors
/// Same as [`rounds`]. Also fails if the networks cannot be fitted.
pub fn profile(
    sessions: &mut Vec<Session>,
    table: &mut LatencyTable,
    networks: &Networks,
    wanted: Wanted,
) -> Result<Rounds, ProfileError> {
    let classes = networks.classes[0];
    let has_model = |classes: usize| {
        let networks = table.networks([classes]);
        networks.is_ok_and(|networks| LatencyModel::new(table, &networks).is_ok_and(|model| model.fit.is_some()))
    };
    let other_head = table.classes().into_iter().any(|known| known != classes && has_model(known));
    let planned = table.planned(classes);
    let mut subjects = vec![Subject::Call(networks.input)];
    subjects.extend(isolated_subjects(networks));
    let usual = || wanted.networks.map_or_else(|| usual_number(networks), FittedNetworks::get).max(planned);
    let number = design::at_most(usual(), table, networks);
    let by_head = other_head && wanted.networks.is_none() && planned <= FOR_A_HEAD;
    let fits = !wanted.isolated && (by_head || number >= FEWEST_TO_FIT);
    let first = first_to_fit(table, networks, design_size(table, classes, number));
    if by_head && fits {
        subjects.extend(for_a_head(table, networks));
        let networks = subjects.iter().filter(|subject| matches!(subject, Subject::Network(_))).count();
        table.plan(Planned { networks, classes })?;
    } else if fits {
        subjects.extend(first.clone());
        table.plan(Planned { networks: number, classes })?;
    } else if !wanted.isolated {
        let space = &networks.space.name;
        log::warn!(
            "{space} has too few networks to fit a latency model to: predictions are the plain sum of isolated layers"
        );
    }
    let anchor = table.anchor().unwrap_or(&subjects[subjects.len() - 1]).clone();
    let none = BTreeMap::new();
    let plan = again(table, wanted.again, PLAN);
    let mut done = rounds(sessions, table, &subjects, &anchor, &none, plan)?;
    if fits && !by_head {
        subjects.extend(rest_to_fit(table, networks, &first, number)?);
        let rest = rounds(sessions, table, &subjects, &anchor, &none, plan)?;
        done = Rounds { rows: done.rows + rest.rows, ..rest };
    }
    warn(table, done, subjects.len(), plan);
    Ok(done)
}

fn warn(table: &LatencyTable, done: Rounds, models: usize, plan: Plan) {
    let path = table.path().display();
    if done.disturbed > 0 {
        log::warn!(
            "{path}: {} of {models} models were disturbed by throttling or load each time; `nas devices check` shows what disturbs a device, and --again measures them again",
            done.disturbed
        );
    }
    if done.unsettled > 0 {
        log::warn!(
            "{path}: the latencies of {} of {models} models do not repeat to within {} % after {} rows: the device is busy, or its speed drifts",
            done.unsettled,
            100.0 * plan.precision,
            plan.most
        );
    }
    let drift = drift(table.rows());
    if drift > NOTABLE_DRIFT {
        log::warn!("{path}: the speed of the device changed by {:.1} % while it was measured", 100.0 * drift);
    }
}

/// A smaller drift is not worth a warning.
const NOTABLE_DRIFT: f64 = 0.05;

/// Networks for validation are measured more precisely than those that predictions are based on.
const THOROUGH: Plan = Plan { fewest: 2 * PLAN.fewest, most: 2 * PLAN.most, ..PLAN };

/// Measures networks that no fit sees: `number` random ones, and a third as many derived ones. Stores beside the table
/// how well they were predicted. `disturbed` also measures those again that were disturbed.
///
/// # Errors
/// Same as [`rounds`]. Also fails if the table has no model of the networks.
pub fn validate(
    sessions: &mut Vec<Session>,
    table: &mut LatencyTable,
    networks: &Networks,
    number: usize,
    seed: u64,
    disturbed: bool,
) -> Result<(Validation, Vec<Unseen>), ProfileError> {
    let model = LatencyModel::new(table, networks)?;
    let random = random_unseen(table, networks, number, seed);
    let derived = derived_unseen(table, &model, number.div_ceil(3), seed);
    let drawn = derived.into_iter().map(|network| (network, Drawn::Derived));
    let unseen: BTreeMap<Subject, Drawn> =
        drawn.chain(random.into_iter().map(|network| (network, Drawn::Random))).collect();
    let subjects: Vec<Subject> = unseen.keys().cloned().collect();
    let nothing = || ProfileError::NothingUnseen { space: networks.space.name.clone() };
    let anchor = table.anchor().or(subjects.first()).cloned().ok_or_else(nothing)?;
    let plan = again(table, disturbed, THOROUGH);
    let done = rounds(sessions, table, &subjects, &anchor, &unseen, plan)?;
    warn(table, done, subjects.len(), plan);
    let (validation, unseen) = Validation::of(table, networks)?.ok_or_else(nothing)?;
    Validations::load(table)?.save(table, validation.clone())?;
    Ok((validation, unseen))
}
