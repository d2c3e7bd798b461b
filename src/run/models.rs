//! The networks of a run, of which only those count whose files belong together.

use super::RunError;
use crate::artifact::ArtifactError;
use crate::record::{Exported, ModelDir, RunDir, Trained};

/// The networks of a run that were trained, with their folders.
///
/// # Errors
/// Fails if there is none, or the files of one are not of one training.
pub fn all_trained(run: &RunDir) -> Result<Vec<(ModelDir, Trained)>, RunError> {
    let mut all = vec![];
    for dir in run.models() {
        if let Some(network) = trained(run, &dir)? {
            all.push((dir, network));
        }
    }
    if all.is_empty() { Err(RunError::NothingTrained(run.0.clone())) } else { Ok(all) }
}

/// The network that was trained in a folder of the run; none where nothing was.
///
/// # Errors
/// Fails if the files are not of one training.
pub fn trained(run: &RunDir, dir: &ModelDir) -> Result<Option<Trained>, RunError> {
    let mixed = |reason| RunError::Mixed { run: run.0.clone(), reason };
    dir.trained()?.transpose().map_err(mixed)
}

/// The export of a network that was trained in a folder of the run.
///
/// # Errors
/// Fails if there is none, or it is of other weights.
pub fn exported(run: &RunDir, dir: &ModelDir, trained: &Trained) -> Result<Exported, RunError> {
    let missing = || ArtifactError::Missing { path: dir.onnx(), maker: "nas export" };
    let stale = |reason| RunError::Stale { run: run.0.clone(), reason };
    dir.exported(trained)?.ok_or_else(missing)?.map_err(stale)
}
