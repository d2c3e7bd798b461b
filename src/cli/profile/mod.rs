//! `nas profile`, and what is done with the tables that it makes.

mod diff;
mod export;
mod import;
mod measure;
mod merge;
mod show;
mod validate;

use crate::model::{LatencyModel, Validations};
use crate::table::LatencyTable;
use std::path::Path;

/// Measure what the networks of a search space take on a device
///
/// Adds rows to a table in profiles/<device>/ as they are measured: of lone layers, and of whole networks, to which the
/// latency model is fitted (--isolated leaves those out). Only what the table lacks is measured, so the same command
/// resumes, and another number of classes takes a few networks only.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    measure: measure::Args,
}

#[derive(clap::Subcommand)]
enum Verb {
    Import(import::Args),
    Validate(validate::Args),
    Show(show::Args),
    Diff(diff::Args),
    Merge(merge::Args),
    Export(export::Args),
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        match self.verb {
            None => self.measure.run(json),
            Some(Verb::Import(args)) => args.run(json),
            Some(Verb::Validate(args)) => args.run(json),
            Some(Verb::Show(args)) => args.run(json),
            Some(Verb::Diff(args)) => args.run(json),
            Some(Verb::Merge(args)) => args.run(json),
            Some(Verb::Export(args)) => args.run(json),
        }
    }
}

/// A table, and the model of its networks where it has one.
struct Opened {
    table: LatencyTable,
    /// Fitted to whole networks; none where it would be a plain sum.
    model: Option<LatencyModel>,
    validations: Validations,
    /// Why there is no model, and how to get one.
    note: Option<String>,
}

impl Opened {
    /// With the model for the first number of classes that networks were planned for.
    ///
    /// # Errors
    /// Where there is no such table, or it is damaged; that it has no model is none.
    fn load(path: &Path) -> anyhow::Result<Opened> {
        let table = LatencyTable::load(path, "nas-profile")?;
        let validations = Validations::load(&table)?;
        let model = match table.classes().first() {
            Some(&classes) => {
                LatencyModel::new(&table, &table.networks([classes])?).map_err(|e| e.to_string())
            }
            None => Err("the table has no whole networks, so it is not known what layers add to one".into()),
        };
        let note = model.as_ref().err().cloned();
        Ok(Opened { table, model: model.ok(), validations, note })
    }
}
