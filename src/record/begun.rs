use super::folder::modified;
use super::{CandidateRow, RunDir, SearchEpoch};
use crate::artifact::{self, ArtifactError};
use std::path::Path;

/// A search that has not ended: it is running, or was interrupted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begun {
    /// The epochs that have ended.
    pub log: Vec<SearchEpoch>,
    /// Of several targets, how many it has compared networks for, and does no longer.
    pub targets_before: usize,
    /// What it found out about networks so far, of the target that it is at.
    pub candidates: Vec<CandidateRow>,
}

impl RunDir {
    /// What a search has written since the results of the run were; none where they are of the last search.
    ///
    /// # Errors
    /// Where a file is damaged.
    pub fn begun(&self) -> Result<Option<Begun>, ArtifactError> {
        let ended = [self.search_log(), self.genotype()].iter().filter_map(|path| modified(path)).max();
        let log = self.unfinished().written().pop().filter(|(written, _)| Some(*written) > ended);
        // A search compares networks only after its last epoch.
        let after = log.as_ref().map(|(written, _)| *written).max(ended);
        let mut candidates = self.unfinished().compared().written();
        candidates.retain(|(written, _)| Some(*written) > after);

        let of_results = self.targets().into_iter().map(|(_, target)| target.candidates()).chain([self.candidates()]);
        let results: Vec<_> = of_results.filter_map(|path| std::fs::read(path).ok()).collect();
        let is_result = |path: &Path| std::fs::read(path).is_ok_and(|bytes| results.contains(&bytes));
        let log_of_results = std::fs::read(self.search_log()).unwrap_or_default();
        let same_log =
            |path: &Path| !log_of_results.is_empty() && std::fs::read(path).is_ok_and(|bytes| bytes == log_of_results);
        let new_log = log.as_ref().is_some_and(|(_, path)| !same_log(path));
        if !new_log && candidates.iter().all(|(_, path)| is_result(path)) {
            return Ok(None);
        }
        let mut begun = Begun { targets_before: candidates.len().saturating_sub(1), ..Begun::default() };
        if let Some((_, path)) = candidates.last() {
            begun.candidates = artifact::read_lines(path)?;
        }
        if let Some((_, path)) = &log {
            begun.log = artifact::read_lines(path)?;
        }
        // Networks of a supernet are first scored with its weights. If they are trained right away, the log is of an
        // earlier search, and the present one has none.
        let supernet = begun.log.last().is_some_and(|epoch| epoch.alpha.is_empty());
        if supernet && begun.candidates.first().is_some_and(|row| row.epochs > 0) {
            begun.log.clear();
        }
        Ok(Some(begun))
    }
}
