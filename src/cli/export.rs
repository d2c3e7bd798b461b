use super::output::print;
use crate::bounded::ImageCount;
use crate::data::{Data, DataSpec};
use crate::record::RunDir;
use crate::run::{Export, export};
use nas_probe::Runtime;
use std::path::PathBuf;

/// Write a run's trained networks as ONNX, checked in both runtimes
///
/// Batch norm is folded into the convolutions. Each network is run in tract and ONNX Runtime on test images, and its
/// file is written only if no logit differs from that of libtorch by more than 1e-4 of the largest one.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// Data set that the networks were trained on
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    /// Number of test images on which the logits are compared
    #[arg(long, default_value_t = ImageCount::of(32))]
    images: ImageCount,
    /// Runtime to check in; may be repeated [default: both]
    #[arg(long = "runtime")]
    runtimes: Vec<Runtime>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let data = Data::load(&self.data)?;
        let _lock = RunDir(self.run.clone()).lock()?;
        let exported = export(&self.run, &data, &self.runtimes, self.images.into())?;
        print(json, &exported, || {
            let line = |e: &Export| {
                let checks: Vec<String> = e.differences.iter().map(|(r, d)| format!("{r} {d:.1e}")).collect();
                let Export { network, path, bytes, images, .. } = e;
                let (path, checks) = (path.display(), checks.join(", "));
                format!("{network}: {path}, {bytes} bytes; differs from libtorch on {images} images by {checks}")
            };
            exported.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }
}
