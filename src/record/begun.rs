use super::folder::modified;
use super::{CandidateRow, RunDir, SearchEpoch};
use crate::artifact::{self, ArtifactError};
use std::path::Path;

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

impl RunDir {
    /// Returns what a search has written since the results of the run were written, or `None` if the results are those
    /// of the last search.
    ///
    /// # Errors
    /// Fails if a file is damaged.
    pub fn begun(&self) -> Result<Option<Begun>, ArtifactError> {
        let ended = [self.search_log(), self.genotype()].iter().filter_map(|path| modified(path)).max();
        let log = self.unfinished().written().pop().filter(|(written, _)| Some(*written) > ended);
        // A search compares networks only after its last epoch.
        let after = log.as_ref().map(|(written, _)| *written).max(ended);
        let mut candidates = self.unfinished().compared().written();
        candidates.retain(|(written, _)| Some(*written) > after);

        let of_results = self.targets()?.into_iter().map(|(_, target)| target.candidates()).chain([self.candidates()]);
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
        // The networks of a supernet are first scored with its weights. If the networks are trained right away, the log
        // belongs to an earlier search, and the present search has none.
        let supernet = begun.log.last().is_some_and(|epoch| epoch.alpha.is_empty());
        if supernet && begun.candidates.first().is_some_and(|row| row.epochs > 0) {
            begun.log.clear();
        }
        Ok(Some(begun))
    }
}
