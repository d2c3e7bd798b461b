use super::flags::BoardFlags;
use super::output::{print, table};
use crate::bounded::ImageCount;
use crate::data::{Data, DataSpec};
use crate::record::{Evaluation, RunDir};
use crate::report::{METRICS, metrics_row};
use crate::run::{BoardSettings, Eval, Evaluated, OnDevice, eval};
use nas_probe::Runtime;
use std::path::PathBuf;

/// Evaluate trained networks on the test images of a data set
///
/// Evaluates the weights of the run's networks in libtorch. With --runtime or a flag of the device, evaluates the
/// exported models on the device; with --onnx, evaluates any ONNX file. Writes eval.json and confusion.svg beside each
/// network, or NAME.eval.json and NAME.confusion.svg beside NAME.onnx.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// An ONNX file to evaluate in place of the run's networks. If it was not written by `nas export`, the classes and
    /// the normalisation of the run are used
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    /// Data set whose test images are classified
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    /// Evaluate only this many test images, spread evenly over the data set
    #[arg(long)]
    images: Option<ImageCount>,
    /// Inference runtime, tract or ort [default: libtorch; with --device or --onnx, the first runtime of the device]
    #[arg(long)]
    runtime: Option<Runtime>,
    /// Device: a name that `nas devices` lists, or a TOML file [default: host]
    #[arg(long, help_heading = "Device")]
    device: Option<String>,
    #[command(flatten)]
    board: BoardFlags,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Args { run, onnx, data, images, runtime, device, board } = self;
        let data = Data::load(&data)?;
        let board = board.settings();
        let on_device = onnx.is_some() || runtime.is_some() || device.is_some() || board != BoardSettings::default();
        // Evaluating a separate file changes nothing in the run.
        let _lock = if onnx.is_none() { Some(RunDir(run.clone()).lock()?) } else { None };
        let device = device.unwrap_or_else(|| "host".into());
        let on = on_device.then_some(OnDevice { onnx, device, runtime, board });
        let images = images.map(Into::into);
        let evaluated = eval(&Eval { run, images, on }, &data)?;
        let records: Vec<&Evaluation> = evaluated.iter().map(|evaluated| &evaluated.evaluation).collect();
        print(json, &records, || {
            let header = [&["network"][..], &METRICS].concat();
            let row = |e: &&Evaluation| [vec![e.model.clone()], metrics_row(&e.metrics).into()].concat();
            let files = |e: &Evaluated| format!("{}\n{}", e.path.display(), e.confusion.display());
            let first = records.first().map(|e| e.describe()).unwrap_or_default();
            let files: Vec<String> = evaluated.iter().map(files).collect();
            format!("{first}\n{}\n{}", table(&header, records.iter().map(row).collect()), files.join("\n"))
        })
    }
}
