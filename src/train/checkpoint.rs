use super::TrainError;
use super::epochs::{Metrics, Position};
use crate::artifact::{self, Digest, Draft};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// A file with everything that a training needs to resume after a step as if it had never stopped. It is bound to a
/// key, the digest of everything that the result depends on, and is ignored under any other key.
pub struct Checkpoint {
    pub path: PathBuf,
    pub key: Digest,
}

const METRICS: &str = "metrics";
const POSITION: &str = "position";
const KEY: &str = "key";

impl Checkpoint {
    /// Saves `state` as it is at `position`.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) fn save(&self, position: &Position, state: &[(String, Tensor)]) -> Result<(), TrainError> {
        let mut tensors: Vec<(String, Tensor)> =
            state.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let Position { epochs, step, metrics, seconds } = position;
        tensors.push((POSITION.into(), Tensor::from_slice(&[*epochs as i64, *step as i64])));
        tensors.push((METRICS.into(), Tensor::from_slice(&[metrics.values().as_slice(), &[*seconds]].concat())));
        tensors.push((KEY.into(), Tensor::from_slice(self.key.as_str().as_bytes())));
        write_tensors(&self.path, &tensors)
    }

    /// Fills `state` in place and returns its position. If there is no checkpoint for this key, leaves `state` as it is
    /// and returns the start.
    ///
    /// # Errors
    /// Fails if the file is damaged.
    pub(super) fn restore(&self, state: &[(String, Tensor)]) -> Result<Position, TrainError> {
        if !self.path.is_file() {
            return Ok(Position::default());
        }
        let damaged = |reason: String| TrainError::Checkpoint { path: self.path.clone(), reason };
        let saved = Tensor::read_safetensors(&self.path).map_err(|e| damaged(e.to_string()))?;
        let saved: HashMap<String, Tensor> = saved.into_iter().collect();
        let of = |name: &str| saved.get(name).ok_or_else(|| damaged(format!("it has no `{name}`")));
        let key = Vec::<u8>::try_from(of(KEY)?).map_err(|e| damaged(e.to_string()))?;
        if key != self.key.as_str().as_bytes() {
            return Ok(Position::default());
        }
        let _guard = tch::no_grad_guard();
        for (name, tensor) in state {
            let saved = of(name)?;
            if saved.size() != tensor.size() {
                return Err(damaged(format!("`{name}` is {:?}, not {:?}", saved.size(), tensor.size())));
            }
            tensor.shallow_clone().copy_(saved);
        }
        let position = Vec::<i64>::try_from(of(POSITION)?).map_err(|e| damaged(e.to_string()))?;
        let metrics = Vec::<f64>::try_from(of(METRICS)?).map_err(|e| damaged(e.to_string()))?;
        match (position.as_slice(), metrics.split_last()) {
            (&[epochs, step], Some((&seconds, values))) if epochs >= 0 && step >= 0 => {
                let metrics = Metrics::of(values).ok_or_else(|| damaged("its metrics are too few".into()))?;
                Ok(Position { epochs: epochs as usize, step: step as usize, metrics, seconds })
            }
            _ => Err(damaged("it has no position".into())),
        }
    }

    /// Reads the lines of the epochs that were finished at `position`, from a log with a line for each epoch.
    ///
    /// # Errors
    /// Fails if the log has fewer lines.
    pub(super) fn log<T: DeserializeOwned>(&self, position: &Position, log: &Path) -> Result<Vec<T>, TrainError> {
        if position.epochs == 0 {
            return Ok(vec![]);
        }
        let mut lines: Vec<T> = artifact::read_lines(log)?;
        let epochs = position.epochs;
        if lines.len() < epochs {
            let reason = format!("it is of epoch {epochs}, and {} has {} lines", log.display(), lines.len());
            return Err(TrainError::Checkpoint { path: self.path.clone(), reason });
        }
        lines.truncate(epochs);
        Ok(lines)
    }
}

/// Reads named tensors from a safetensors file.
pub(super) fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>, TrainError> {
    Tensor::read_safetensors(path).map_err(|e| TrainError::Damaged { path: path.into(), reason: e.to_string() })
}

/// Writes named tensors as safetensors.
pub(super) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
    let draft = Draft::of(path)?;
    let stored = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).contiguous();
    let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), stored(tensor))).collect();
    Tensor::write_safetensors(&tensors, draft.path())
        .map_err(|e| TrainError::Write { path: path.into(), reason: e.to_string() })?;
    Ok(draft.publish()?)
}
