use super::goals::measured_for;
use super::measure_top::{Remeasured, TableCopy, choose, measured, refitted};
use super::{MeasureSettings, MeasureTop, RunError, Targets};
use crate::artifact::{self, Digest};
use crate::data::{Data, DataSpec};
use crate::latency::Latency;
use crate::record::{BegunFiles, CandidateRow, Certificate, Certified, Made, RunDir, SearchedOn};
use crate::search::{Candidate, Goal, Limits, Searched};
use crate::space::Genotype;
use crate::train::search::{Proposed, SearchSettings};
use crate::train::{self, TrainError};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to search, and for which targets.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folder of the run.
    pub run: PathBuf,
    pub targets: Targets,
    /// A built-in space or a TOML file.
    pub space: String,
    pub data: DataSpec,
    pub measure: MeasureSettings,
    pub settings: SearchSettings,
    /// Measure the best networks before choosing one.
    pub measure_top: Option<MeasureTop>,
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Folder of the network.
    pub run: PathBuf,
    pub genotype: Genotype,
    pub predicted_ns: Latency,
    pub target_ns: Latency,
    /// The measured latency, if the network was measured before it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_ns: Option<Latency>,
}

/// The networks that a search found, and why it found none for other targets.
#[derive(Debug)]
pub struct Outcome {
    pub found: Vec<Found>,
    pub missed: Vec<RunError>,
}

impl Outcome {
    /// Returns the networks if there is one for each target.
    ///
    /// # Errors
    /// Fails if there is none for a target.
    pub fn complete(mut self) -> Result<Vec<Found>, RunError> {
        let reasons: Vec<String> = self.missed.iter().map(RunError::to_string).collect();
        match (self.missed.len(), self.found.is_empty()) {
            (0, _) => Ok(self.found),
            (1, true) => Err(self.missed.remove(0)),
            (_, true) => Err(RunError::Missed { reasons: reasons.join("; ") }),
            (_, false) => Err(RunError::SomeMissed { reasons: reasons.join("; ") }),
        }
    }
}

/// The network chosen for a goal, and the limits that it was chosen by.
struct Chosen {
    candidate: Candidate,
    limits: Limits,
    measured: Option<Latency>,
    tables: Vec<Digest>,
}

/// Searches for the best network within the limits of each goal. Writes `search.jsonl`, in the folder of each goal
/// `candidates.jsonl`, `genotype.json` and `search.json`, and the names of several goals to `targets.json`.
///
/// # Errors
/// Fails if the loss of a supernet diverges, if a file cannot be written, or if networks that are to be measured cannot
/// be measured.
pub fn search(search: &Search, searched: &Searched, data: &Data) -> Result<Outcome, RunError> {
    let run = RunDir(search.run.clone());
    let measuring = search.measure_top.as_ref().map(|top| (top, table_copy(search, searched, &run)));
    if let Some((top, table_copy)) = &measuring {
        table_copy.check(&top.board, &searched.networks, searched.foreign.first().and_then(Option::as_deref))?;
    }
    let by = train::search::Search::new(searched, data, &search.settings, &run)?;
    let mut begun = BegunFiles { log: by.log_key(), candidates: vec![] };
    artifact::write_json(&run.begun_files(), &begun)?;
    let trained = by.train()?;
    let (mut found, mut missed) = (vec![], vec![]);
    for (goal, dir) in searched.goals.iter().zip(folders(&search.run, searched)) {
        begun.candidates.push(by.candidates_key(&goal.limits));
        artifact::write_json(&run.begun_files(), &begun)?;
        let proposed = match by.candidates(&trained, &goal.limits) {
            Err(diverged @ TrainError::AllDiverged { .. }) => {
                missed.push(diverged.into());
                continue;
            }
            proposed => proposed?,
        };
        match choice(measuring.as_ref(), searched, goal, &proposed.candidates) {
            Ok(chosen) => found.push((&goal.name, dir, certified(search, searched, chosen, &proposed), proposed.rows)),
            Err(error @ RunError::NoneMeets { .. }) => missed.push(error),
            Err(error) => return Err(error),
        }
    }
    let on = |genotype: &Genotype, tables: Vec<Digest>| SearchedOn {
        data: data.name.clone(),
        data_digest: by.data_digest().clone(),
        tables,
        genotype: Digest::of(genotype),
        log: Digest::of_lines(&trained.log),
        foreign_table: searched.foreign.iter().flatten().next().cloned(),
        made: Some(Made::here(search.settings.seed, by.processor())),
    };
    if !found.is_empty() {
        artifact::write_lines(&run.search_log(), &trained.log)?;
    }
    let (mut written, mut names) = (vec![], vec![]);
    for (name, dir, (found, tables), rows) in found {
        let on = on(&found.genotype, tables);
        written.push(write(dir, found, &on, &rows)?);
        names.push(name);
    }
    if !names.is_empty() {
        name_targets(&run, searched, &names)?;
    }
    if let Some((_, table_copy)) = &measuring {
        // Later searches predict by these rows too, even if no network meets the target.
        table_copy.move_rows(&searched.networks)?;
    }
    artifact::remove(&run.begun_files())?;
    Ok(Outcome { found: written, missed })
}

/// Writes which targets the results of the run are for: `names`. Removes what an earlier search found for other ones
/// from the run's own folder; folders of other targets stay as they are.
fn name_targets(run: &RunDir, searched: &Searched, names: &[&String]) -> Result<(), RunError> {
    if searched.goals.len() == 1 {
        return Ok(artifact::remove(&run.target_names())?);
    }
    for stale in [run.genotype(), run.candidates(), run.searched_on()] {
        artifact::remove(&stale)?;
    }
    Ok(artifact::write_json(&run.target_names(), &names)?)
}

/// Returns the folder of each goal's network.
pub fn folders(run: &Path, searched: &Searched) -> Vec<RunDir> {
    let run = RunDir(run.into());
    match searched.goals.as_slice() {
        [_] => vec![run],
        goals => goals.iter().map(|goal| run.target(&goal.name)).collect(),
    }
}

/// Returns the copy of the first latency table, which gets the rows of the networks that are measured.
fn table_copy<'s>(search: &'s Search, searched: &Searched, run: &RunDir) -> TableCopy<'s> {
    let measure = measured_for(&search.measure, search.targets.first());
    TableCopy {
        measure,
        space: &search.space,
        data: &search.data,
        path: run.unfinished().measured(&searched.tables[0]),
    }
}

/// Returns the best candidate of a goal. If candidates are measured, returns the best one whose measured latency meets
/// the target.
fn choice(
    measuring: Option<&(&MeasureTop, TableCopy)>,
    searched: &Searched,
    goal: &Goal,
    candidates: &[Candidate],
) -> Result<Chosen, RunError> {
    let networks = &searched.networks;
    let (limits, tables) = (goal.limits.clone(), searched.tables.clone());
    let Some((top, table_copy)) = measuring else {
        let candidate = candidates.first().cloned().ok_or(RunError::NoCandidate)?;
        return Ok(Chosen { candidate, limits, measured: None, tables });
    };
    if candidates.len() < top.networks.get() {
        log::warn!(
            "only {} networks are measured, since the search proposes no more; raise --candidates or --finalists",
            candidates.len()
        );
    }
    let candidates = &candidates[..candidates.len().min(top.networks.get())];
    let ranked: Vec<Vec<usize>> = candidates.iter().map(|candidate| candidate.choices.clone()).collect();
    let found: Remeasured = measured(table_copy, &top.board, networks, &ranked)?;
    let target = Latency::from_ns(limits.constraints[0].target);
    let (candidate, latency) = choose(candidates, &found.latencies, target)?;
    let tables = [std::slice::from_ref(&found.table), &tables[1..]].concat();
    let limits = refitted(&limits, &found);
    Ok(Chosen { candidate: candidate.clone(), limits, measured: Some(latency), tables })
}

fn certified(search: &Search, searched: &Searched, chosen: Chosen, proposed: &Proposed) -> (Certified, Vec<Digest>) {
    let Chosen { candidate, limits, measured, tables } = chosen;
    let networks = &searched.networks;
    let scores = (proposed.best_score, proposed.unconstrained.as_ref());
    let certificate = Certificate::new(search.settings.choice(), networks, &limits, &candidate, scores, measured);
    (Certified { genotype: Genotype::new(networks.clone(), candidate.choices), certificate }, tables)
}

fn write(dir: RunDir, found: Certified, on: &SearchedOn, rows: &[CandidateRow]) -> Result<Found, RunError> {
    artifact::write_lines(&dir.candidates(), rows)?;
    artifact::write_json(&dir.genotype(), &found)?;
    let Certified { genotype, certificate } = found;
    artifact::write_json(&dir.searched_on(), on)?;
    let first = &certificate.constraints[0];
    let (predicted_ns, target_ns) = (Latency::from_ns(first.value), Latency::from_ns(first.target));
    Ok(Found { run: dir.0, genotype, predicted_ns, target_ns, measured_ns: certificate.measured_ns })
}
