use super::output::print;
use crate::data::{Data, DataSpec};
use crate::device::{Board, Device, Session};
use crate::export::{Exported, export};
use crate::record::RunDir;
use nas_probe::Runtime;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Write a run's trained networks as ONNX, checked against both runtimes
///
/// Batch norm is folded. Each file is run through tract and ONNX Runtime on test images, and written
/// only if every logit is within 1e-4 of libtorch's.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    pub run: PathBuf,
    /// Data set that the networks were trained on
    #[arg(long, default_value = "embedded")]
    pub data: DataSpec,
    /// Test images to compare logits on
    #[arg(long, default_value = "32")]
    pub images: NonZeroUsize,
    /// Runtime to check with; may be given again [default: both]
    #[arg(long = "runtime")]
    pub runtimes: Vec<Runtime>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let exported = self.execute(&Data::load(&self.data)?)?;
        print(json, &exported, || {
            let line = |e: &Exported| {
                let checks: Vec<String> = e.differences.iter().map(|(r, d)| format!("{r} {d:.1e}")).collect();
                let Exported { network, path, bytes, images, .. } = e;
                let (path, checks) = (path.display(), checks.join(", "));
                format!(
                    "{network}: {path}, {bytes} bytes; differs from libtorch on {images} images by {checks}"
                )
            };
            exported.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    pub fn execute(&self, data: &Data) -> anyhow::Result<Vec<Exported>> {
        let trained = RunDir(self.run.clone()).trained();
        if trained.is_empty() {
            anyhow::bail!("{} holds no trained network; `nas train --run {0}` makes one", self.run.display());
        }
        let runtimes = if self.runtimes.is_empty() { Runtime::ALL.to_vec() } else { self.runtimes.clone() };
        let mut board = Board::local(Device::load("host")?);
        board.runtimes = runtimes.clone();
        let mut session = Session::open(&board)?;
        trained.iter().map(|dir| Ok(export(dir, data, &mut session, &runtimes, self.images)?)).collect()
    }
}
