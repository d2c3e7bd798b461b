use super::goals::measured_for;
use super::measure_top::{Place, Remeasured, choose, measured, refitted};
use super::{MeasureSettings, MeasureTop, RunError, Targets};
use crate::artifact::{self, Digest};
use crate::data::{Data, DataSpec};
use crate::latency::Latency;
use crate::record::{Certificate, Certified, RunDir, SearchEpoch, SearchedOn};
use crate::search::{Candidate, Goal, Limits, SearchError, Searched, best_of, scores_of};
use crate::space::Genotype;
use crate::train::search::{SearchSettings, train_supernet};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to search, and for what.
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
    /// Measure the best networks before one is chosen.
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
    /// Where it was measured before it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_ns: Option<Latency>,
}

/// How networks are scored and chosen, for certificates.
const ALGORITHM: &str = "the largest sum of log-probabilities of a mixture (DARTS), exact within the limits";

/// By which networks are proposed.
struct Scores<'s> {
    searched: &'s Searched,
    /// By layer and choice.
    of: Vec<Vec<f64>>,
}

impl Scores<'_> {
    fn candidate(&self, choices: Vec<usize>) -> Candidate {
        Candidate { score: choices.iter().zip(&self.of).map(|(&choice, of)| of[choice]).sum(), choices }
    }

    /// The `n` networks that are proposed for a goal, the best first.
    fn candidates(&self, goal: &Goal, n: usize) -> Result<Vec<Candidate>, SearchError> {
        let best = goal.limits.best(&self.searched.networks, &self.of, n)?;
        Ok(best.into_iter().map(|choices| self.candidate(choices)).collect())
    }

    /// The network that would be proposed without limits.
    fn unconstrained(&self) -> Candidate {
        let live = scores_of(&self.searched.networks, |layer, choice| self.of[layer][choice]);
        self.candidate(best_of(&live, &[], f64::NEG_INFINITY, 1).pop().unwrap_or_default())
    }
}

/// What is chosen for a goal, and by which limits.
struct Chosen {
    candidate: Candidate,
    limits: Limits,
    measured: Option<Latency>,
    tables: Vec<Digest>,
}

/// Trains a supernet, derives the best network within the limits of each goal from it, and writes `search.jsonl`, and
/// `genotype.json` and `search.json`, for several targets in a folder of each.
///
/// # Errors
/// Where the loss diverges, a file cannot be written, or networks that are to be measured cannot be, or miss the target.
pub fn search(search: &Search, searched: &Searched, data: &Data) -> Result<Vec<Found>, RunError> {
    let run = RunDir(search.run.clone());
    if search.measure_top.is_some() {
        place(search).check(searched.foreign.as_deref())?;
    }
    let (log, scores) = train_supernet(searched, data, &search.settings, &run)?;
    let scores = Scores { searched, of: scores };
    let chosen = searched.goals.iter().map(|goal| choice(search, &scores, goal)).collect::<Result<Vec<_>, _>>()?;
    let unconstrained = scores.unconstrained();
    let certify = |chosen: Chosen| certified(searched, chosen, &unconstrained);
    let certified = chosen.into_iter().map(certify).collect::<Result<Vec<_>, _>>()?;
    artifact::write_lines(&run.search_log(), &log)?;
    let folders = folders(&search.run, searched);
    folders
        .into_iter()
        .zip(certified)
        .map(|(dir, (genotype, tables))| write(dir, genotype, tables, &log, data))
        .collect()
}

/// The folder of each goal's network.
pub fn folders(run: &Path, searched: &Searched) -> Vec<RunDir> {
    let run = RunDir(run.into());
    match searched.goals.as_slice() {
        [_] => vec![run],
        goals => goals.iter().map(|goal| run.target(&goal.name)).collect(),
    }
}

/// Where networks are measured before one is chosen.
fn place(search: &Search) -> Place<'_> {
    let measure = measured_for(&search.measure, search.targets.first());
    Place { measure, space: &search.space, data: &search.data }
}

/// The best candidate of a goal, or, where they are measured, the best that was measured to meet the target.
fn choice(search: &Search, scores: &Scores, goal: &Goal) -> Result<Chosen, RunError> {
    let networks = &scores.searched.networks;
    let n = search.measure_top.as_ref().map_or(1, |top| top.networks.get());
    let candidates = scores.candidates(goal, n)?;
    let (limits, tables) = (goal.limits.clone(), scores.searched.tables.clone());
    let Some(top) = &search.measure_top else {
        let candidate = candidates.into_iter().next().ok_or(RunError::NoCandidate)?;
        return Ok(Chosen { candidate, limits, measured: None, tables });
    };
    let ranked: Vec<Vec<usize>> = candidates.iter().map(|candidate| candidate.choices.clone()).collect();
    let found: Remeasured = measured(&place(search), &top.board, networks, &ranked)?;
    let target = Latency::from_ns(limits.constraints[0].target);
    let (candidate, latency) = choose(&candidates, &found.latencies, target)?;
    let tables = [std::slice::from_ref(&found.table), &tables[1..]].concat();
    let limits = refitted(&limits, networks, &found);
    Ok(Chosen { candidate: candidate.clone(), limits, measured: Some(latency), tables })
}

fn certified(
    searched: &Searched,
    chosen: Chosen,
    unconstrained: &Candidate,
) -> Result<(Certified, Vec<Digest>), RunError> {
    let Chosen { candidate, limits, measured, tables } = chosen;
    let networks = &searched.networks;
    let certificate = Certificate::new(ALGORITHM, networks, &limits, &candidate, unconstrained, measured);
    let certificate = certificate.ok_or(RunError::NoCandidate)?;
    Ok((Certified { genotype: Genotype::new(networks.clone(), candidate.choices), certificate }, tables))
}

fn write(
    dir: RunDir,
    found: Certified,
    tables: Vec<Digest>,
    log: &[SearchEpoch],
    data: &Data,
) -> Result<Found, RunError> {
    artifact::write_json(&dir.genotype(), &found)?;
    let Certified { genotype, certificate } = found;
    let on = SearchedOn {
        data: data.name.clone(),
        data_digest: data.fingerprint(),
        tables,
        genotype: Digest::of(&genotype),
        log: Digest::of_lines(log),
    };
    artifact::write_json(&dir.searched_on(), &on)?;
    let first = &certificate.constraints[0];
    let (predicted_ns, target_ns) = (Latency::from_ns(first.value), Latency::from_ns(first.target));
    Ok(Found { run: dir.0, genotype, predicted_ns, target_ns, measured_ns: certificate.measured_ns })
}
