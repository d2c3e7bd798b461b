use super::measure::{BoardArgs, MeasureArgs};
use super::output::{print, table};
use crate::data::{Data, DataSpec};
use crate::latency::{Header, LatencyTable, Profiled, profile};
use crate::space::SearchSpace;
use nas_exporters::Shape;
use nas_probe::MeasurePlan;
use serde::Serialize;
use std::path::PathBuf;

/// Measure every layer of a search space on a device
///
/// Adds rows to profiles/<device>/<space>.<runtime>.jsonl as they are measured; only layers that the
/// table has no row of are measured, so the same command goes on where a cut left it.
#[derive(clap::Args)]
pub struct Args {
    /// Search space: a built-in name (chain, chain_small) or a TOML file
    #[arg(long, default_value = "chain")]
    pub space: String,
    /// Data set whose image shape and classes the networks are for
    #[arg(long, default_value = "embedded")]
    pub data: DataSpec,
    /// Image shape instead of a data set's, as 3x32x32
    #[arg(long, requires = "classes")]
    pub input: Option<Shape>,
    /// Number of classes, with --input
    #[arg(long, requires = "input")]
    pub classes: Option<usize>,
    /// Measure the rows anew that were disturbed by throttling or load
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
    measured: usize,
    disturbed: usize,
    rows: usize,
}

/// Long enough for the median of a layer to repeat within a percent or two on a quiet machine.
const PLAN: MeasurePlan = MeasurePlan {
    warmup_ns: 50_000_000,
    min_sample_ns: 1_000_000,
    samples: 100,
    limit_ns: 300_000_000,
    precision: 0.01,
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
                ]
            };
            table(&["table", "version", "measured now", "rows"], profiled.iter().map(row).collect())
        })
    }

    pub fn execute(&self) -> anyhow::Result<Vec<Table>> {
        let device = self.measure.device()?;
        let space = SearchSpace::load(&self.space)?;
        let (input, classes) = self.images()?;
        let layers = space.distinct_layers(input, classes);
        let runtimes = self.measure.runtimes(&device);
        let mut sessions = self.board.open(&device, &runtimes)?;
        let mut profiled = vec![];
        for runtime in runtimes {
            let header = Header::of(&device.name, &sessions, runtime, self.measure.threads.get())?;
            let path = self.measure.table_path(&device, &space.name, runtime);
            let command = self.measure.command(&self.space, &format!("--data {}", self.data), runtime);
            let mut table = LatencyTable::open(&path, header, &command)?;
            if self.again {
                table.forget_disturbed();
            }
            let Profiled { measured, disturbed } = profile(&mut sessions, &mut table, &layers, PLAN)?;
            if disturbed > 0 {
                eprintln!(
                    "warning: {disturbed} rows of {} were disturbed by throttling or load each time; see `nas devices check {}`, then measure them anew with --again",
                    path.display(),
                    self.measure.device
                );
            }
            profiled.push(Table {
                table: path,
                runtime_version: table.header.runtime_version.clone(),
                measured,
                disturbed,
                rows: table.rows().count(),
            });
        }
        Ok(profiled)
    }

    fn images(&self) -> anyhow::Result<(Shape, usize)> {
        if let (Some(input), Some(classes)) = (self.input, self.classes) {
            return Ok((input, classes));
        }
        let data = Data::load(&self.data)?;
        Ok((data.train.shape.into(), data.train.classes.len()))
    }
}
