use super::space::SpaceArgs;
use crate::cli::measure::{BoardArgs, MeasureArgs};
use crate::cli::output::{print, table};
use crate::latency::{Header, LatencyModel, LatencyTable, Networks, Plan, Profiled, Subject, drift, profile};
use nas_probe::MeasurePlan;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub space: SpaceArgs,
    /// Whole networks to fit the latency model to [default: three a layer of the space, and 50]
    #[arg(long, value_parser = clap::value_parser!(u16).range(FEWEST as i64..))]
    pub networks: Option<u16>,
    /// Measure lone layers only: predictions are then their plain sum, and miss by a third
    #[arg(long, conflicts_with = "networks")]
    pub isolated: bool,
    /// Measure anew what throttling or load disturbed
    #[arg(long)]
    pub again: bool,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub board: BoardArgs,
}

/// One table after profiling.
#[derive(Serialize)]
pub struct Table {
    table: PathBuf,
    runtime_version: String,
    /// Rows that were added.
    measured: usize,
    rows: usize,
    disturbed: usize,
    unsettled: usize,
    /// Mean absolute relative error of the model on networks that are left out of its fit, one after
    /// another.
    held_out_error: Option<f64>,
}

/// Networks that a fit needs, to be any better than a sum.
const FEWEST: usize = 20;

/// Those of them that every fit begins with.
const FEWEST_FIRST: usize = 15;

/// Short rows, several a subject, so that whatever slows the device for a second meets one of them.
pub const PLAN: Plan = Plan {
    measure: MeasurePlan {
        warmup_ns: 10_000_000,
        min_sample_ns: 1_000_000,
        samples: 100,
        precision: 0.01,
        limit_ns: 40_000_000,
    },
    fewest: 8,
    most: 16,
    precision: 0.005,
};

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let profiled = self.execute()?;
        print(json, &profiled, || {
            let row = |p: &Table| {
                vec![
                    p.table.display().to_string(),
                    p.runtime_version.clone(),
                    p.measured.to_string(),
                    p.rows.to_string(),
                    p.held_out_error.map_or("-".into(), |error| format!("{:.2} %", 100.0 * error)),
                ]
            };
            let header = ["table", "version", "measured now", "rows", "error held out"];
            table(&header, profiled.iter().map(row).collect())
        })
    }

    pub fn execute(&self) -> anyhow::Result<Vec<Table>> {
        let device = self.measure.device()?;
        let (space, images) = self.space.load()?;
        let networks = Networks { space: &space, images };
        let runtimes = self.measure.runtimes(&device);
        let mut sessions = self.board.open(&device, &runtimes)?;
        let mut tables = vec![];
        for runtime in runtimes {
            let header = Header::of(&device.name, &sessions, runtime, self.measure.threads.get())?;
            let path = self.measure.table_path(&device, &space.name, runtime);
            let command = self.measure.command(&self.space.space, &self.space.words(), runtime);
            let mut table = LatencyTable::open(&path, header, &command)?;
            if self.again {
                table.forget_disturbed();
            }
            let to_fit = self.plan(&mut table, &networks)?;
            let with_networks = !to_fit.is_empty();
            let mut subjects = [vec![Subject::Call(images.shape)], networks.isolated(), to_fit].concat();
            let Some(anchor) = table.anchor(&networks).or(subjects.last()).cloned() else {
                anyhow::bail!("{} has no layers", space.name)
            };
            let mut profiled =
                profile(&mut sessions, &mut table, &subjects, &anchor, &BTreeSet::new(), PLAN)?;
            if with_networks {
                subjects.extend(networks.telling(&table, table.header.networks)?);
                let rest = profile(&mut sessions, &mut table, &subjects, &anchor, &BTreeSet::new(), PLAN)?;
                profiled = Profiled { rows: profiled.rows + rest.rows, ..rest };
            }
            let Profiled { rows, disturbed, unsettled } = profiled;
            let again = format!(
                "see `nas devices check {}`, then measure them anew with --again",
                self.measure.device
            );
            if disturbed > 0 {
                eprintln!(
                    "warning: {disturbed} models of {} were disturbed by throttling or load each time; {again}",
                    path.display()
                );
            }
            if unsettled > 0 {
                let (percent, rows) = (100.0 * PLAN.precision, PLAN.most);
                eprintln!(
                    "warning: of {unsettled} of {} models the fastest timing does not repeat to {percent} % in {rows} rows: the device is not quiet",
                    subjects.len()
                );
            }
            if let Some(drift) = drift(table.rows()) {
                eprintln!(
                    "warning: the device got slower and faster by {:.1} % while it was measured",
                    100.0 * drift
                );
            }
            let model = LatencyModel::new(&table, &networks)?;
            tables.push(Table {
                table: path,
                runtime_version: table.header.runtime_version.clone(),
                measured: rows,
                rows: table.rows().len(),
                disturbed,
                unsettled,
                held_out_error: model.fit.map(|fit| fit.held_out_error()),
            });
        }
        Ok(tables)
    }

    /// The whole networks to measure, written down in the table.
    fn plan(&self, table: &mut LatencyTable, networks: &Networks) -> anyhow::Result<Vec<Subject>> {
        if self.isolated {
            return Ok(vec![]);
        }
        let asked = self.networks.map_or(networks.usual_number(), usize::from);
        let to_fit = networks.to_fit(asked.max(table.header.networks));
        if to_fit.len() < FEWEST_FIRST {
            eprintln!(
                "warning: {} has too few networks to fit a latency model to: predictions are the plain sum of lone layers",
                networks.space.name
            );
            return Ok(vec![]);
        }
        table.plan_networks(asked)?;
        Ok(to_fit)
    }
}
