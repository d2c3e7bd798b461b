//! Which stages of an experiment are done, and with which inputs.

use super::RunError;
use crate::artifact::{self, Digest};
use crate::record::RunDir;
use crate::train::interrupted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The finished stages of a run, each with digests of its inputs and of the files that it wrote: `stages.json`.
pub struct Stages {
    run: RunDir,
    done: BTreeMap<String, Done>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Done {
    inputs: Digest,
    /// By path in the run's folder.
    outputs: BTreeMap<PathBuf, Digest>,
}

impl Stages {
    /// Reads the finished stages of a run.
    ///
    /// # Errors
    /// Fails if the file is damaged.
    pub fn open(run: &RunDir) -> Result<Stages, RunError> {
        let path = path(run);
        let done = if path.is_file() { artifact::read_json(&path, "nas run")? } else { BTreeMap::new() };
        Ok(Stages { run: run.clone(), done })
    }

    /// Runs a stage, unless it was done with the same `inputs` and its `outputs` have not changed since.
    ///
    /// # Errors
    /// The errors of the stage. Also fails if `stages.json` cannot be written, or if a signal that came at the end of an
    /// earlier stage asks the program to end.
    pub fn run(
        &mut self,
        stage: &str,
        inputs: &impl Serialize,
        outputs: &[PathBuf],
        work: impl FnOnce() -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let inputs = Digest::of(inputs);
        if let Some(done) = self.done.get(stage)
            && done.inputs == inputs
            && done.outputs == self.digests(outputs)?
        {
            log::info!("{stage}: done before with the same inputs");
            return Ok(());
        }
        if interrupted() {
            return Err(RunError::Interrupted { stage: stage.into() });
        }
        // An interrupted stage is not done.
        if self.done.remove(stage).is_some() {
            artifact::write_json(&path(&self.run), &self.done)?;
        }
        work()?;
        let outputs = self.digests(outputs)?;
        self.done.insert(stage.into(), Done { inputs, outputs });
        Ok(artifact::write_json(&path(&self.run), &self.done)?)
    }

    /// Replaces the inputs of a finished stage, for one that changes what it reads.
    ///
    /// # Errors
    /// Fails if `stages.json` cannot be written.
    pub fn restate(&mut self, stage: &str, inputs: &impl Serialize) -> Result<(), RunError> {
        if let Some(done) = self.done.get_mut(stage) {
            done.inputs = Digest::of(inputs);
        }
        Ok(artifact::write_json(&path(&self.run), &self.done)?)
    }

    fn digests(&self, outputs: &[PathBuf]) -> Result<BTreeMap<PathBuf, Digest>, RunError> {
        let mut digests = BTreeMap::new();
        for output in outputs {
            let name = output.strip_prefix(&self.run.0).unwrap_or(output);
            digests.extend(Digest::of_file(output)?.map(|digest| (name.to_path_buf(), digest)));
        }
        Ok(digests)
    }
}

fn path(run: &RunDir) -> PathBuf {
    run.0.join("stages.json")
}
