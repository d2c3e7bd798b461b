use super::output::print;
use crate::artifact;
use crate::record::RunDir;
use crate::report::Run;
use std::path::PathBuf;

/// Write a run's report.html
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// Replace a report.html that holds something else
    #[arg(long)]
    force: bool,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let dir = RunDir(self.run);
        let run = Run::load(&dir)?;
        let targets: Vec<RunDir> = run.targets.iter().map(|target| dir.target(&target.name)).collect();
        for dir in targets.iter().chain([&dir]) {
            artifact::check_output(&dir.report(), &[], self.force, Run::is_page)?;
        }
        for dir in &targets {
            Run::load(dir)?.write(dir)?;
        }
        let path = run.write(&dir)?;
        run.notes.iter().for_each(|note| log::warn!("{note}"));
        print(json, &run.rows(), || format!("{}\n{}", run.table(), path.display()).trim_start().to_string())
    }
}
