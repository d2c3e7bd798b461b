use super::{CandidateRow, RunDir, SearchEpoch};
use crate::artifact::{self, ArtifactError, Digest};
use serde::{Deserialize, Serialize};

/// A search that has not ended: it is running, or was interrupted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begun {
    /// The epochs that have finished.
    pub log: Vec<SearchEpoch>,
    /// If there are several targets, the number of targets for which the comparison of networks has finished.
    pub targets_before: usize,
    /// What the search has found out so far about networks for the current target.
    pub candidates: Vec<CandidateRow>,
}

/// Which files of an unfinished search belong to the last one that began: the content of `checkpoint/begun.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BegunFiles {
    /// Key of the log. Absent if the algorithm has no supernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// Keys of what was found out about networks, one for each target that was begun.
    pub candidates: Vec<Digest>,
}

impl RunDir {
    /// Returns what the last search that began has written so far, or `None` if it has ended.
    ///
    /// # Errors
    /// Fails if a file is damaged.
    pub fn begun(&self) -> Result<Option<Begun>, ArtifactError> {
        let Some(files) = artifact::read_json_if_any::<BegunFiles>(&self.begun_files())? else { return Ok(None) };
        let unfinished = self.unfinished();
        let log = files.log.map(|key| artifact::read_lines(&unfinished.log(&key))).transpose()?;
        let current = files.candidates.last();
        let candidates = current.map(|key| artifact::read_lines(&unfinished.candidates(key))).transpose()?;
        Ok(Some(Begun {
            log: log.unwrap_or_default(),
            targets_before: files.candidates.len().saturating_sub(1),
            candidates: candidates.unwrap_or_default(),
        }))
    }
}
