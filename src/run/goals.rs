//! What a search aims for: targets and other limits, by the latency tables of the devices that they name.

use super::measure::networks_for;
use super::{Images, MeasureSettings, RunError, Search};
use crate::artifact::Digest;
use crate::bounded::{Bytes, Count, Percent};
use crate::data::Data;
use crate::latency::{Latency, Target, TargetFor};
use crate::model::{LatencyModel, Validation, Validations};
use crate::search::{Constraint, Cost, Goal, Limits, Searched, latency_name, latency_range};
use crate::space::{Networks, SearchSpace};

/// What networks may cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// Targets that a single network must meet together, each for another device or runtime. The band is that of the
    /// first.
    pub target_latency: Vec<TargetFor>,
    /// Targets that each get a network of their own.
    pub targets: Vec<Target>,
    pub max_params: Option<Count>,
    pub max_macs: Option<Count>,
    /// Memory of the activations, at any moment.
    pub max_memory: Option<Bytes>,
    /// By how much a network may be below its target, as a share of the target.
    pub band: Percent,
}

impl Targets {
    /// Checks that there are targets, and only one kind of them.
    ///
    /// # Errors
    /// Fails if there is no target, or if there are targets of both kinds.
    pub fn check(&self) -> Result<(), RunError> {
        self.by_goal().map(drop)
    }

    /// Returns, for each goal, the targets that one network must meet.
    fn by_goal(&self) -> Result<Vec<Vec<TargetFor>>, RunError> {
        match (self.target_latency.as_slice(), self.targets.as_slice()) {
            ([], []) => Err(RunError::NoTarget),
            (together, []) => Ok(vec![together.to_vec()]),
            ([], each) => Ok(each.iter().map(|&target| vec![target.into()]).collect()),
            _ => Err(RunError::BothTargets),
        }
    }

    /// Returns the target to which the band applies. Only its device and runtime matter, which are the same for all
    /// goals.
    pub(super) fn first(&self) -> Option<&TargetFor> {
        self.target_latency.first()
    }

    /// Returns the limits on costs that are known without a table.
    fn exact(&self, networks: &Networks) -> Vec<Constraint> {
        let limit = |cost: fn(&Networks) -> Cost, most: Option<Count>| {
            most.map(|most| Constraint::new(cost(networks), most.get() as f64))
        };
        let memory = self.max_memory.map(|bytes| Constraint::peak_activations(networks, bytes.get()));
        [limit(Cost::params, self.max_params), limit(Cost::macs, self.max_macs), memory].into_iter().flatten().collect()
    }
}

/// Returns the settings with which networks are measured for a target.
pub(super) fn measured_for(measure: &MeasureSettings, target: Option<&TargetFor>) -> MeasureSettings {
    let mut measure = measure.clone();
    if let Some(device) = target.and_then(|target| target.device.clone()) {
        measure.device = device;
    }
    if let Some(runtime) = target.and_then(|target| target.runtime) {
        measure.runtimes = vec![runtime];
    }
    measure
}

/// Predicted latencies on a device with a runtime.
struct Predicted {
    cost: Cost,
    margin: f64,
    range: (Latency, Latency),
    table: Digest,
    foreign: Option<String>,
}

/// Returns the networks to search, with the limits that follow from the latency tables of the devices.
///
/// # Errors
/// Fails if a table is missing, belongs to another device, or lacks rows. Also fails if two targets are for the same
/// device and runtime, or if no network meets them.
pub fn searched(search: &Search, data: &Data) -> Result<Searched, RunError> {
    let Search { space, targets, measure, .. } = search;
    let networks = networks_for(SearchSpace::load(space)?, data)?;
    let by_goal = targets.by_goal()?;
    if measure.table.is_some() && targets.target_latency.len() > 1 {
        return Err(RunError::OneTable);
    }
    let predicted: Vec<Predicted> =
        by_goal[0].iter().map(|target| predicted(search, target, &networks)).collect::<Result<_, _>>()?;
    let names: Vec<&String> = predicted.iter().map(|predicted| &predicted.cost.name).collect();
    twice(&names)?;
    let goal = |together: &Vec<TargetFor>| -> Result<Goal, RunError> {
        let constraint = |(target, predicted): (&TargetFor, &Predicted)| {
            let Predicted { cost, margin, range, .. } = predicted;
            Constraint::with_margin(cost.clone(), target.target.resolve(*range).ns(), *margin, &networks)
        };
        let mut constraints: Vec<Constraint> = together.iter().zip(&predicted).map(constraint).collect();
        constraints.extend(targets.exact(&networks));
        let limits = Limits::new(&networks, constraints, targets.band.share())?;
        Ok(Goal { name: together[0].target.name(), limits })
    };
    let goals: Vec<Goal> = by_goal.iter().map(goal).collect::<Result<_, _>>()?;
    twice(&goals.iter().map(|goal| &goal.name).collect::<Vec<_>>())?;
    Ok(Searched {
        networks,
        goals,
        foreign: predicted.iter().map(|predicted| predicted.foreign.clone()).collect(),
        tables: predicted.into_iter().map(|predicted| predicted.table).collect(),
    })
}

fn twice(names: &[&String]) -> Result<(), RunError> {
    let again = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    again.map_or(Ok(()), |(_, name)| Err(RunError::TwoTargets { what: name.to_string() }))
}

fn predicted(search: &Search, target: &TargetFor, networks: &Networks) -> Result<Predicted, RunError> {
    let measure = measured_for(&search.measure, Some(target));
    let device = measure.device()?;
    let runtime = measure.first_runtime(&device)?;
    let images = Images::Data(search.data.clone());
    let table = measure.load_table(&device, networks, (&search.space, &images), runtime)?;
    let foreign = measure.foreign(&table, &measure.header_now(&device, &table, runtime, networks)?)?;
    if let Some(difference) = &foreign {
        log::warn!("the latency table that is used was measured with {difference}");
    }
    let model = LatencyModel::new(&table, networks)?;
    let validations = Validations::load(&table)?;
    let validation = validations.of(&model);
    if validation.is_none() {
        let why = if validations.0.is_empty() { "" } else { ", which has changed since it was validated" };
        let validate = table.command().replacen("nas-profile", "nas-profile validate", 1);
        log::warn!("it is not known how well {}{why} predicts; `{validate}` measures it", table.path().display());
    }
    let name = latency_name(&device.name, runtime, measure.threads.get(), measure.precision);
    Ok(Predicted {
        cost: Cost { name, ..Cost::latency(&model) },
        margin: margin(&model, validation),
        range: latency_range(&model),
        table: table.digest(),
        foreign: foreign.map(|difference| difference.to_string()),
    })
}

/// The largest margin.
const MOST_MARGIN: f64 = 0.05;

/// Returns the share of a target by which predictions must be below it, so that measured latencies meet the target. It
/// is twice the mean absolute error of predictions on derived networks or, if none were measured, on networks left out
/// of the fit.
fn margin(model: &LatencyModel, validation: Option<&Validation>) -> f64 {
    let derived = validation.and_then(|validation| validation.derived).map(|derived| derived.mape);
    let error = derived.or_else(|| model.fit.as_ref().map(|fit| fit.leave_one_out_error()));
    (2.0 * error.unwrap_or(0.0)).min(MOST_MARGIN)
}
