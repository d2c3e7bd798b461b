use super::{BoardSettings, Images, MeasureSettings, RunError};
use crate::model::{LatencyModel, Validation};
use crate::profile::{self, ProfileError, Rounds, Wanted};
use crate::report;
use crate::space::{Networks, SearchSpace};
use crate::table::LatencyTable;
use nas_exporters::Graph;
use nas_probe::Runtime;
use serde::Serialize;
use std::path::PathBuf;

/// What to profile.
#[derive(Clone, Debug)]
pub struct Profile {
    /// A built-in space or a TOML file.
    pub space: String,
    pub images: Images,
    pub measure: MeasureSettings,
    pub board: BoardSettings,
}

/// A latency table after profiling.
#[derive(Clone, Debug, Serialize)]
pub struct Profiled {
    pub table: PathBuf,
    pub runtime_version: String,
    /// Rows that were added.
    pub measured: usize,
    pub rows: usize,
    pub disturbed: usize,
    pub unsettled: usize,
    /// Mean absolute relative error of the model on networks that are left out of its fit, one after another. Absent if
    /// the model is a plain sum.
    pub leave_one_out_error: Option<f64>,
}

impl Profile {
    fn networks(&self) -> Result<Networks, RunError> {
        self.images.networks(SearchSpace::load(&self.space)?)
    }
}

/// Measures the rows that the latency tables of a space lack, with one table for each runtime. If a runtime rejects
/// models, the others are measured before the error is returned.
///
/// # Errors
/// Fails if no board can be reached, if a table belongs to another device, or if a model cannot be measured.
pub fn profile(settings: &Profile, wanted: Wanted) -> Result<Vec<Profiled>, RunError> {
    let Profile { space, images, measure, board } = settings;
    let device = measure.device()?;
    let networks = settings.networks()?;
    let runtimes = measure.profiled(&device)?;
    // If the precision cannot be written, no table is created.
    nas_exporters::onnx::untrained(&Graph::new(networks.input), measure.precision)?;
    let mut sessions = board.open(&device, &runtimes)?;
    let (mut tables, mut failed) = (vec![], None);
    for runtime in runtimes {
        let header = measure.header(&device, &sessions, runtime, &networks)?;
        let path = measure.table_path(&device, &networks, runtime);
        let mut table = LatencyTable::open(&path, header, &measure.command(space, images, runtime))?;
        let Rounds { rows, disturbed, unsettled } = match profile::profile(&mut sessions, &mut table, &networks, wanted)
        {
            // The other runtimes may accept what this one rejects, as tract rejects several threads.
            Err(error @ ProfileError::Failed { .. }) => {
                if let Some(before) = failed.replace(error) {
                    log::warn!("{before}");
                }
                continue;
            }
            other => other?,
        };
        let model = LatencyModel::new(&table, &networks)?;
        tables.push(Profiled {
            table: path,
            runtime_version: table.header.runtime_version.clone(),
            measured: rows,
            rows: table.rows().len(),
            disturbed,
            unsettled,
            leave_one_out_error: model.fit.map(|fit| fit.leave_one_out_error()),
        });
    }
    failed.map_or(Ok(tables), |error| Err(error.into()))
}

/// How well a latency table predicts latencies.
#[derive(Clone, Debug, Serialize)]
pub struct Validated {
    pub table: PathBuf,
    pub runtime: Runtime,
    pub validation: Validation,
    /// Predicted against measured latencies, as an SVG file.
    pub plot: PathBuf,
}

/// Measures `number` random networks that no fit sees, and some derived ones, and stores beside each table how well it
/// predicted them. `again` also measures those again that were disturbed.
///
/// # Errors
/// Same as [`profile`]. Also fails if a table has no model.
pub fn validate(settings: &Profile, number: usize, seed: u64, again: bool) -> Result<Vec<Validated>, RunError> {
    let Profile { space, images, measure, board } = settings;
    let device = measure.device()?;
    let networks = settings.networks()?;
    let runtimes = measure.profiled(&device)?;
    let mut sessions = board.open(&device, &runtimes)?;
    let mut validated = vec![];
    for runtime in runtimes {
        let path = measure.table_path(&device, &networks, runtime);
        let mut table = LatencyTable::reopen(&path, &measure.command(space, images, runtime))?;
        table.check(&measure.header(&device, &sessions, runtime, &networks)?)?;
        let (validation, unseen) = profile::validate(&mut sessions, &mut table, &networks, number, seed, again)?;
        let plot = table.path().with_extension("validation.svg");
        report::scatter(&plot, &unseen, &validation)?;
        validated.push(Validated { table: table.path().into(), runtime, validation, plot });
    }
    Ok(validated)
}
