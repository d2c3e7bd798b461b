//! What is known about a search.

use super::{counted, kept};
use crate::artifact::{self, ArtifactError};
use crate::record::{Begun, CandidateRow, RunDir, SearchEpoch};
use crate::space::Genotype;
use std::collections::BTreeSet;

/// The search that found a network.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Empty for algorithms without a supernet.
    pub log: Vec<SearchEpoch>,
    /// What it found out about networks, in order.
    pub candidates: Vec<CandidateRow>,
    /// How a latency table differs from the device's own, where that was allowed.
    pub foreign_table: Option<String>,
    /// Whether the log belongs to another search than the one that found the network, and was left out.
    pub(super) is_of_other: bool,
}

impl Search {
    /// Reads the search that found `genotype`. Anything that belongs to another search is left out, with a note.
    pub(super) fn of(dir: &RunDir, genotype: &Genotype, notes: &mut Vec<String>) -> Result<Search, ArtifactError> {
        let found = dir.searched(genotype)?;
        let is_of_other = matches!(found, Some(Err(_)));
        let (log, foreign_table) =
            kept(found, notes).map(|searched| (searched.log, searched.on.foreign_table)).unwrap_or_default();
        let mut candidates: Vec<CandidateRow> = artifact::read_lines(&dir.candidates())?;
        let names = genotype.names();
        if !candidates.is_empty() && candidates.iter().all(|row| row.ops != names) {
            notes.push("candidates.jsonl is of another search: the network is not in it".into());
            candidates.clear();
        }
        Ok(Search { log, candidates, foreign_table, is_of_other })
    }

    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && self.candidates.is_empty()
    }
}

/// Describes how far an unfinished search has got.
pub(super) fn so_far(begun: &Begun, has_results: bool) -> String {
    let Begun { log, targets_before, candidates } = begun;
    let networks: BTreeSet<&Vec<String>> = candidates.iter().map(|row| &row.ops).collect();
    let mut done = vec![];
    if !log.is_empty() {
        done.push(counted(log.len(), "epoch"));
    }
    if *targets_before > 0 {
        done.push(counted(*targets_before, "target"));
    }
    if !networks.is_empty() {
        let next = if *targets_before > 0 { " for the next one" } else { "" };
        done.push(format!("{}{next}", counted(networks.len(), "network")));
    }
    let (which, older) = match has_results {
        true => ("a later search", "; the results are those of the search before"),
        false => ("a search", ""),
    };
    let done = if done.is_empty() { "nothing is done".into() } else { done.join(", ") };
    format!("{which} has not ended: {done} so far{older}")
}
