//! Which stages of an experiment are done, and with which inputs.

use super::RunError;
use crate::artifact;
use crate::record::RunDir;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The finished stages of a run, each with a digest of what went into it: `stages.json`.
pub struct Stages {
    path: PathBuf,
    done: BTreeMap<String, String>,
}

impl Stages {
    /// # Errors
    /// Where the file is damaged.
    pub fn open(run: &RunDir) -> Result<Stages, RunError> {
        let path = run.0.join("stages.json");
        let done = if path.is_file() { artifact::read_json(&path, "nas run")? } else { BTreeMap::new() };
        Ok(Stages { path, done })
    }

    /// Does a stage, unless it was done with the same `inputs` and its `outputs` are there.
    ///
    /// # Errors
    /// Those of the stage, and where the file cannot be written.
    pub fn run(
        &mut self,
        stage: &str,
        inputs: &impl Serialize,
        outputs: &[PathBuf],
        work: impl FnOnce() -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let digest = artifact::digest(inputs);
        if self.done.get(stage) == Some(&digest) && outputs.iter().all(|path| path.is_file()) {
            log::info!("{stage}: done before with the same inputs");
            return Ok(());
        }
        // A stage that is interrupted is not done.
        if self.done.remove(stage).is_some() {
            artifact::write_json(&self.path, &self.done)?;
        }
        work()?;
        self.done.insert(stage.into(), digest);
        Ok(artifact::write_json(&self.path, &self.done)?)
    }
}
