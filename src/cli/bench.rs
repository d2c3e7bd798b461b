use super::measure::{BoardArgs, MeasureArgs};
use super::output::{print, table};
use crate::artifact;
use crate::bench::{Subject, bench, save};
use crate::device::Device;
use crate::latency::{Header, LatencyTable, TableError};
use crate::record::{BenchRow, Network, RunDir};
use crate::space::{Genotype, SearchSpace};
use anyhow::Context;
use nas_probe::{MeasurePlan, Runtime};
use std::path::PathBuf;

/// Measure exported networks on a device, beside the prediction
///
/// Measures the run's networks, and any other ONNX files with fixed shapes, in turn, and writes
/// bench.jsonl in the run's folder.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    pub run: PathBuf,
    /// Other ONNX files to measure alongside
    pub models: Vec<PathBuf>,
    /// Rounds in which all networks are measured in turn
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub board: BoardArgs,
}

/// One round of one network.
const PLAN: MeasurePlan = MeasurePlan {
    warmup_ns: 30_000_000,
    min_sample_ns: 1_000_000,
    samples: 30,
    limit_ns: 300_000_000,
    precision: 0.01,
};

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let rows = self.execute()?;
        print(json, &rows, || {
            let row = |r: &BenchRow| {
                let predicted = r.predicted_ns.map_or("-".into(), |p| p.to_string());
                let spread = format!("{} .. {}", r.p5_ns, r.p95_ns);
                vec![
                    r.model.clone(),
                    r.runtime.to_string(),
                    r.median_ns.to_string(),
                    r.fastest_ns.map_or("-".into(), |fastest| fastest.to_string()),
                    spread,
                    r.samples.to_string(),
                    predicted,
                ]
            };
            let header = ["model", "runtime", "median", "fastest", "p5 .. p95", "samples", "predicted"];
            table(&header, rows.iter().map(row).collect())
        })
    }

    pub fn execute(&self) -> anyhow::Result<Vec<BenchRow>> {
        let device = self.measure.device()?;
        let run = RunDir(self.run.clone());
        let (mut subjects, mut networks) = (vec![], vec![]);
        for dir in run.trained() {
            let network: Network = artifact::read_json(&dir.network(), "nas train")?;
            subjects
                .push(Subject { name: network.name(), model: artifact::read(&dir.onnx(), "nas export")? });
            networks.push(network);
        }
        for path in &self.models {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let model = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            subjects.push(Subject { name, model });
        }
        if subjects.is_empty() {
            anyhow::bail!(
                "{} holds no exported network; `nas export --run {0}` makes one",
                self.run.display()
            );
        }
        let runtimes = self.measure.runtimes(&device);
        let mut sessions = self.board.open(&device, &runtimes)?;
        let [session] = sessions.as_mut_slice() else {
            anyhow::bail!("a benchmark is of one board; name it with --ssh");
        };
        let mut rows =
            bench(session, &device, &runtimes, self.measure.threads.get(), &subjects, self.rounds, PLAN)?;
        for row in &mut rows {
            let network = networks.iter().find(|network| network.name() == row.model);
            let Some(Network::Genotype(genotype)) = network else { continue };
            let table = match self.table(&device, genotype, row.runtime) {
                Err(absent @ TableError::Absent { .. }) => {
                    eprintln!("warning: no prediction for {}: {absent}", row.runtime);
                    continue;
                }
                table => table?,
            };
            let ours = Header::of(&device.name, std::slice::from_ref(session), row.runtime, row.threads)?;
            row.foreign_table = self.measure.foreign(&table, &ours)?.map(|difference| difference.to_string());
            match table.predict(genotype) {
                Ok(prediction) => row.predict(prediction),
                Err(error) => eprintln!("warning: no prediction for {}: {error}", row.runtime),
            }
        }
        let disturbed = rows.iter().map(|row| row.disturbed_rounds).max().unwrap_or_default();
        if disturbed > 0 {
            let (rounds, device) = (self.rounds, &self.measure.device);
            eprintln!(
                "warning: up to {disturbed} of {rounds} rounds were disturbed by throttling or load; see `nas devices check {device}`"
            );
        }
        save(&run.bench(), &rows)?;
        Ok(rows)
    }

    fn table(
        &self,
        device: &Device,
        genotype: &Genotype,
        runtime: Runtime,
    ) -> Result<LatencyTable, TableError> {
        let Genotype { space: SearchSpace { name, .. }, input, classes, .. } = genotype;
        let images = format!("--input {input} --classes {classes}");
        self.measure.table(device, (name, name), &images, runtime)
    }
}
