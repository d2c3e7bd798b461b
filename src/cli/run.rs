use super::output::print;
use crate::artifact;
use crate::record::RunDir;
use crate::report::Run;
use crate::run::Experiment;
use std::path::PathBuf;

/// Run all stages of an experiment file: profile, search, train, export, bench, report
///
/// The results are written to runs/<name>, together with the experiment with all defaults filled in. Stages whose
/// inputs have not changed are skipped. If it is interrupted, the same command resumes.
#[derive(clap::Args)]
pub struct Args {
    /// Experiment file; scripts/quickstart.toml is an example
    experiment: PathBuf,
    /// Folder of the run [default: runs/<name of the experiment>]
    #[arg(long)]
    run: Option<PathBuf>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let experiment: Experiment = artifact::read_toml(&self.experiment)?;
        let run = self.run.map_or_else(|| experiment.default_run(), RunDir);
        let _lock = run.lock()?;
        experiment.execute(&run)?;
        let done = Run::load(&run)?;
        print(json, &done.rows(), || format!("{}\n{}", done.table(), run.report().display()))
    }
}
