//! The networks of a run. Only those whose files belong together count.

use super::RunError;
use crate::artifact::{self, ArtifactError};
use crate::record::{Exported, ModelDir, RunDir, Trained};
use crate::space::Genotype;
#[cfg(feature = "torch")]
use crate::train::Taught;
use std::path::PathBuf;

/// Returns the trained networks of a run, with their folders. Warns if the run's own network is not the one that was
/// found.
///
/// # Errors
/// Fails if there are none, or if the files of one do not come from a single training.
pub fn all_trained(run: &RunDir) -> Result<Vec<(ModelDir, Trained)>, RunError> {
    let mut all = vec![];
    for dir in models(run)? {
        if let Some(network) = trained(run, &dir)? {
            warn_of_other(run, &dir, &network)?;
            all.push((dir, network));
        }
    }
    if all.is_empty() { Err(nothing(run, RunError::NothingTrained)) } else { Ok(all) }
}

/// Returns the folders of a run's networks. Warns if that of the run's own folder is left out.
///
/// # Errors
/// Fails if the names of the targets cannot be read.
pub fn models(run: &RunDir) -> Result<Vec<ModelDir>, RunError> {
    if let Some(left_out) = run.left_out()? {
        log::warn!("{left_out}");
    }
    Ok(run.models()?)
}

/// Warns if a network that was trained in the run's own folder is not the one that was found.
///
/// # Errors
/// Fails if the genotype is damaged.
pub fn warn_of_other(run: &RunDir, dir: &ModelDir, trained: &Trained) -> Result<(), RunError> {
    let found: Option<Genotype> = artifact::read_json_if_any(&run.genotype())?;
    if dir.0 == run.found().0
        && let Some(found) = found
        && trained.network.genotype() != Some(&found)
    {
        let run = run.0.display();
        log::warn!(
            "the network that was trained, {}, is not the one that was found, {found}; `nas train --run {run}` trains that one",
            trained.network.described()
        );
    }
    Ok(())
}

/// Returns the folder of the network that a run has for its single target.
///
/// # Errors
/// [`RunError::ManyTargets`] if the last search had several targets.
pub fn single(run: &RunDir) -> Result<ModelDir, RunError> {
    let targets = run.targets()?;
    if targets.is_empty() {
        return Ok(run.found());
    }
    let runs: Vec<String> = targets.iter().map(|(_, dir)| dir.0.display().to_string()).collect();
    Err(RunError::ManyTargets { run: run.0.clone(), runs: runs.join(", ") })
}

/// Returns the error of a folder that has no networks: that it has those of several targets, or `otherwise`.
pub fn nothing(run: &RunDir, otherwise: fn(PathBuf) -> RunError) -> RunError {
    match single(run) {
        Err(several @ RunError::ManyTargets { .. }) => several,
        _ => otherwise(run.0.clone()),
    }
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

/// Returns the network of a run as a teacher of networks that are trained in the run `student`.
///
/// # Errors
/// Fails if nothing was trained, or if both are the same run.
#[cfg(feature = "torch")]
pub fn taught(teacher: &RunDir, student: &RunDir) -> Result<Taught, RunError> {
    if let (Ok(teacher), Ok(student)) = (teacher.0.canonicalize(), student.0.canonicalize())
        && teacher == student
    {
        return Err(RunError::OwnTeacher(student));
    }
    let dir = single(teacher)?;
    let trained = trained(teacher, &dir)?.ok_or_else(|| RunError::NothingTrained(teacher.0.clone()))?;
    Ok(Taught { dir, trained })
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
