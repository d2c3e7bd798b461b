use crate::cli::output::print;
use crate::latency::{LatencyTable, Merged};
use serde::Serialize;
use std::path::PathBuf;

/// Put the rows of latency tables that were measured alike into one
///
/// Equal rows are taken once. Rows of ops that have changed since are left out. Validations are
/// dropped, as they were of other models: `nas-profile validate` makes new ones.
#[derive(clap::Args)]
pub struct Args {
    /// Latency tables, two or more
    #[arg(required = true, num_args = 2..)]
    tables: Vec<PathBuf>,
    /// File that the new table is written to
    #[arg(long)]
    out: PathBuf,
    /// Write it in the place of a file that is there
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Written {
    table: PathBuf,
    rows: usize,
    /// Rows that were there twice.
    equal: usize,
    /// Whole networks that the latency model is to be fitted to.
    networks: usize,
    dropped_validations: usize,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let written = self.execute()?;
        print(json, &written, || {
            let Written { table, rows, equal, networks, dropped_validations } = &written;
            let mut text = format!(
                "{}: {rows} rows, for a model of {networks} networks; {equal} equal ones taken once",
                table.display()
            );
            if *dropped_validations > 0 {
                text += &format!(
                    "\n{dropped_validations} validations were of other models and are dropped; make new ones by `nas-profile validate`"
                );
            }
            text
        })
    }

    fn execute(&self) -> anyhow::Result<Written> {
        if self.out.exists() && !self.force {
            anyhow::bail!("{} is there already; write it anew with --force", self.out.display());
        }
        let load = |path: &PathBuf| LatencyTable::load(path, "nas-profile");
        let mut tables: Vec<LatencyTable> = self.tables.iter().map(load).collect::<Result<_, _>>()?;
        let first = tables.remove(0);
        let merged = Merged::of(&first, &tables).map_err(|(other, difference)| {
            anyhow::anyhow!(
                "{} was measured with {difference} as {}: such tables do not mix; see `nas-profile diff`",
                self.tables[other + 1].display(),
                self.tables[0].display()
            )
        })?;
        merged.write(&self.out)?;
        Ok(Written {
            table: self.out.clone(),
            rows: merged.rows.len(),
            equal: merged.equal,
            networks: merged.header.networks,
            dropped_validations: merged.dropped_validations,
        })
    }
}
