use super::measure::networks_for;
use super::{Images, MeasureSettings, RunError};
use crate::artifact::{self, Digest};
use crate::data::{Data, DataSpec};
use crate::latency::{Latency, Target};
use crate::model::{LatencyModel, Validations};
use crate::record::{RunDir, SearchedOn};
use crate::search::Limits;
use crate::search::{self, Constraint, Cost, latency_range};
use crate::space::Networks;
use crate::space::{Genotype, SearchSpace};
use crate::table::LatencyTable;
use crate::train::search::{self as train_search, SearchSettings};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to search, and for what.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folder of the run.
    pub run: PathBuf,
    /// Of the first runtime.
    pub target_latency: Target,
    /// A built-in space or a TOML file.
    pub space: String,
    pub data: DataSpec,
    pub measure: MeasureSettings,
    pub settings: SearchSettings,
}

/// What is searched, and what for.
pub struct Searched {
    pub networks: Networks,
    pub constraints: Vec<Constraint>,
    /// Of the latency table that they are by.
    pub table: Digest,
    /// In what the latency table differs from the device's own, where that was allowed.
    pub foreign: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    pub genotype: Genotype,
    pub predicted_ns: Latency,
    pub target_ns: Latency,
}

/// The networks that are searched, with the constraints that they have to meet by the device's latency table.
///
/// # Errors
/// Where the table is missing, of another device, or lacks rows; and where no network meets the target.
pub fn searched(search: &Search, data: &Data) -> Result<Searched, RunError> {
    let Search { measure, space, .. } = search;
    let networks = networks_for(SearchSpace::load(space)?, data)?;
    let device = measure.device()?;
    let runtimes = measure.runtimes(&device);
    let no_runtime = || RunError::NoRuntime { device: device.name.clone() };
    let runtime = *runtimes.first().ok_or_else(no_runtime)?;
    let images = Images::Data(search.data.clone());
    let table = measure.load_table(&device, &networks, (space, &images), runtime)?;
    let foreign = measure.foreign(&table, &measure.header_now(&device, &table, runtime, &networks)?)?;
    if let Some(difference) = &foreign {
        log::warn!("the latency table that is used was measured with {difference}");
    }
    let model = LatencyModel::new(&table, &networks)?;
    warn_unvalidated(&table, &model)?;
    let limit = search.target_latency.resolve(latency_range(&model)).ns();
    let cost = Cost { name: format!("latency on {} with {runtime}", device.name), ..Cost::latency(&model) };
    let constraints = vec![Constraint { cost, limit }];
    search::check(&networks, &constraints)?;
    Ok(Searched {
        networks,
        constraints,
        table: table.digest(),
        foreign: foreign.map(|difference| difference.to_string()),
    })
}

/// Trains a supernet, derives the best network within the constraints from it, and writes `search.jsonl`,
/// `genotype.json` and `search.json`.
///
/// # Errors
/// Where the loss diverges, or a file cannot be written.
pub fn search(run: &Path, searched: &Searched, data: &Data, settings: &SearchSettings) -> Result<Found, RunError> {
    let run = RunDir(run.into());
    let Searched { networks, constraints, foreign, .. } = searched;
    let search = train_search::Search::new(networks, constraints, foreign.clone(), data, settings, &run)?;
    let trained = search.train()?;
    let limits = Limits { constraints: constraints.clone(), band: 0.05 };
    let (candidates, rows) = search.candidates(&trained, &limits)?;
    let genotype = Genotype::new(networks.clone(), candidates[0].choices.clone());
    let log = trained.log;
    artifact::write_lines(&run.candidates(), &rows)?;
    artifact::write_lines(&run.search_log(), &log)?;
    artifact::write_json(&run.genotype(), &genotype)?;
    let on = SearchedOn {
        data: data.name.clone(),
        data_digest: data.fingerprint(),
        table: searched.table.clone(),
        genotype: Digest::of(&genotype),
        log: Digest::of_lines(&log),
    };
    artifact::write_json(&run.searched_on(), &on)?;
    let Constraint { cost, limit } = &searched.constraints[0];
    let predicted_ns = Latency::from_ns(cost.polynomial.value(&genotype.choices, 0));
    Ok(Found { genotype, predicted_ns, target_ns: Latency::from_ns(*limit) })
}

/// Whether it is known how well a table predicts; warns where it is not.
fn warn_unvalidated(table: &LatencyTable, model: &LatencyModel) -> Result<(), RunError> {
    if Validations::load(table)?.of(model).is_none() {
        let table = table.path().display();
        log::warn!("it is not known how well {table} predicts; `nas-profile validate` with the same flags measures it");
    }
    Ok(())
}
