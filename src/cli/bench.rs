use super::flags::{BoardFlags, PredictFlags};
use super::output::{or_dash, print, table};
use crate::bounded::Rounds;
use crate::record::{BenchRow, RunDir};
use crate::report::signed;
use crate::run::{Bench, bench};
use std::path::PathBuf;

/// Measure exported networks on a device, and compare the latencies with the predictions
///
/// Measures the run's networks in turn with any other ONNX files, which need fixed shapes, float inputs, and their
/// weights inside the file. Writes bench.jsonl to the run's folder.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// Other ONNX files to measure together with the run's networks; they need fixed shapes, float inputs, and their
    /// weights inside the file
    models: Vec<PathBuf>,
    /// Rounds in which all networks are measured in turn
    #[arg(long, default_value_t = Rounds::of(10))]
    rounds: Rounds,
    #[command(flatten)]
    measure: PredictFlags,
    #[command(flatten)]
    board: BoardFlags,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Args { run, models, rounds, measure, board } = self;
        let (measure, board) = (measure.settings(), board.settings());
        let _lock = RunDir(run.clone()).lock()?;
        let benched = bench(&Bench { run, models, rounds: rounds.get(), measure, board })?;
        let rows = &benched.rows;
        if rows.is_empty() {
            benched.complete()?;
            return Ok(());
        }
        print(json, rows, || {
            let row = |r: &BenchRow| {
                vec![
                    r.title(),
                    r.runtime.to_string(),
                    r.latency_ns.to_string(),
                    or_dash(r.prediction.as_ref().map(|prediction| prediction.latency_ns)),
                    or_dash(r.slower_by().map(signed)),
                    or_dash(r.error().map(signed)),
                    r.median_ns.to_string(),
                    format!("{} .. {}", r.p5_ns, r.p95_ns),
                    r.samples.to_string(),
                ]
            };
            let header =
                ["model", "runtime", "latency", "predicted", "slower by", "error", "median", "p5 .. p95", "samples"];
            let mut text = table(&header, rows.iter().map(row).collect());
            if rows.iter().any(|row| row.slower_by().is_some()) {
                text += "\nslower by: how much slower the device is than when its latency table was measured; error: of the prediction, after correction for that (positive: predicted too high)";
            }
            text
        })?;
        benched.complete()?;
        Ok(())
    }
}
