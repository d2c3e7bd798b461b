use super::output::print;
use crate::record::RunDir;
use crate::report;
use std::path::PathBuf;

/// Write a run's report.html
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    pub run: PathBuf,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let path = self.execute()?;
        let run = report::Run::load(&RunDir(self.run))?;
        print(json, &run.rows(), || format!("{}\n{}", run.table(), path.display()))
    }

    pub fn execute(&self) -> anyhow::Result<PathBuf> {
        Ok(report::write(&RunDir(self.run.clone()))?)
    }
}
