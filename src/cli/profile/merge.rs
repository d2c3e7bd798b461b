use crate::artifact;
use crate::cli::output::print;
use crate::table::{LatencyTable, Merged, Planned};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Merge latency tables that were measured with the same device, runtime and settings
///
/// Equal rows are kept once, and rows that were measured with an older version of an op are left out. The merged table
/// has a model of its own: `nas-profile validate` measures how well it predicts.
#[derive(clap::Args)]
pub struct Args {
    /// Latency tables, two or more
    #[arg(required = true, num_args = 2.., value_name = "TABLE")]
    tables: Vec<PathBuf>,
    /// File to write the merged table to
    #[arg(long)]
    out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Written {
    table: PathBuf,
    rows: usize,
    /// Equal rows that were left out.
    equal: usize,
    planned: Vec<Planned>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let written = self.execute()?;
        print(json, &written, || {
            let Written { table, rows, equal, .. } = &written;
            format!("{}: {rows} rows; {equal} duplicates were left out", table.display())
        })
    }

    fn execute(&self) -> anyhow::Result<Written> {
        let inputs: Vec<&Path> = self.tables.iter().map(PathBuf::as_path).collect();
        artifact::check_output(&self.out, &inputs, self.force, |_| false)?;
        let load = |path: &PathBuf| LatencyTable::load(path, "nas-profile");
        let mut tables: Vec<LatencyTable> = self.tables.iter().map(load).collect::<Result<_, _>>()?;
        let first = tables.remove(0);
        let merged = Merged::of(&first, &tables).map_err(|(other, difference)| {
            anyhow::anyhow!(
                "{} was measured with {difference} as in {}: such tables cannot be merged; see `nas-profile diff`",
                self.tables[other + 1].display(),
                self.tables[0].display()
            )
        })?;
        merged.write(&self.out)?;
        Ok(Written { table: self.out.clone(), rows: merged.rows.len(), equal: merged.equal, planned: merged.planned })
    }
}
