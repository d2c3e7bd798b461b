use super::TrainError;
use crate::artifact;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A file with everything that a training needs to go on after an epoch as if it had not stopped. It
/// is bound to a key, the digest of the settings, and ignored under any other.
pub struct Checkpoint {
    pub path: PathBuf,
    pub key: String,
}

impl Checkpoint {
    /// Saves `state` as it is after `epoch`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, epoch: usize, state: &[(String, Tensor)]) -> Result<(), TrainError> {
        let mut tensors: Vec<(String, Tensor)> =
            state.iter().map(|(name, tensor)| (name.clone(), tensor.detach().contiguous())).collect();
        tensors.push(("epoch".into(), Tensor::from(epoch as i64)));
        tensors.push(("key".into(), Tensor::from_slice(self.key.as_bytes())));
        write_tensors(&self.path, &tensors)
    }

    /// Fills `state` in place and gives the epoch it is of; 0, and `state` as it was, where there is
    /// no checkpoint for this key.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn restore(&self, state: &[(String, Tensor)]) -> Result<usize, TrainError> {
        if !self.path.is_file() {
            return Ok(0);
        }
        let damaged = |reason: String| TrainError::Checkpoint { path: self.path.clone(), reason };
        let saved = Tensor::read_safetensors(&self.path).map_err(|e| damaged(e.to_string()))?;
        let saved: HashMap<String, Tensor> = saved.into_iter().collect();
        let of = |name: &str| saved.get(name).ok_or_else(|| damaged(format!("it has no `{name}`")));
        let key = Vec::<u8>::try_from(of("key")?).map_err(|e| damaged(e.to_string()))?;
        if key != self.key.as_bytes() {
            return Ok(0);
        }
        let _guard = tch::no_grad_guard();
        for (name, tensor) in state {
            let saved = of(name)?;
            if saved.size() != tensor.size() {
                return Err(damaged(format!("`{name}` is {:?}, not {:?}", saved.size(), tensor.size())));
            }
            tensor.shallow_clone().copy_(saved);
        }
        let epoch = i64::try_from(of("epoch")?).map_err(|e| damaged(e.to_string()))?;
        Ok(epoch as usize)
    }

    /// The lines of the first `done` epochs of a log that has one for each. Where none is done, whatever
    /// another training left is taken away: this checkpoint, and its `results`.
    ///
    /// # Errors
    /// Where the log has fewer lines.
    pub fn log<T: DeserializeOwned>(
        &self,
        done: usize,
        log: &Path,
        results: &[PathBuf],
    ) -> Result<Vec<T>, TrainError> {
        if done == 0 {
            artifact::remove(&self.path)?;
            results.iter().try_for_each(|path| artifact::remove(path))?;
            return Ok(vec![]);
        }
        let mut lines: Vec<T> = artifact::read_lines(log)?;
        if lines.len() < done {
            let reason = format!("it is of epoch {done}, and {} has {} lines", log.display(), lines.len());
            return Err(TrainError::Checkpoint { path: self.path.clone(), reason });
        }
        lines.truncate(done);
        Ok(lines)
    }
}

/// Writes named tensors as safetensors.
pub(super) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
    let part = artifact::part(path)?;
    Tensor::write_safetensors(tensors, &part)
        .map_err(|e| TrainError::Write { path: path.into(), reason: e.to_string() })?;
    Ok(artifact::publish(path)?)
}
