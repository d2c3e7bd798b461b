//! The networks of a run. Only those whose files belong together count.

use super::RunError;
use crate::artifact::ArtifactError;
use crate::record::{Exported, ModelDir, RunDir, Trained};

/// Returns the trained networks of a run, with their folders.
///
/// # Errors
/// Fails if there are none, or if the files of one do not come from a single training.
pub fn all_trained(run: &RunDir) -> Result<Vec<(ModelDir, Trained)>, RunError> {
    let mut all = vec![];
    for dir in run.models() {
        if let Some(network) = trained(run, &dir)? {
            all.push((dir, network));
        }
    }
    if all.is_empty() { Err(RunError::NothingTrained(run.0.clone())) } else { Ok(all) }
}

/// Returns the network that was trained in a folder of the run, or `None` if nothing was.
///
/// # Errors
/// Fails if the files do not come from a single training.
pub fn trained(run: &RunDir, dir: &ModelDir) -> Result<Option<Trained>, RunError> {
    let arch = if dir.0 == run.baseline().0 { " --arch ARCH" } else { "" };
    let mixed = |reason| RunError::Mixed { command: format!("nas train --run {}{arch}", run.0.display()), reason };
    dir.trained()?.transpose().map_err(mixed)
}

/// Returns the export of a network that was trained in a folder of the run.
///
/// # Errors
/// Fails if there is no export, or if it has other weights.
pub fn exported(run: &RunDir, dir: &ModelDir, trained: &Trained) -> Result<Exported, RunError> {
    let missing = || ArtifactError::Missing { path: dir.onnx(), maker: "nas export" };
    let stale = |reason| RunError::Stale { run: run.0.clone(), reason };
    dir.exported(trained)?.ok_or_else(missing)?.map_err(stale)
}
