//! `nas profile`, and its subcommands that work on latency tables.

mod diff;
mod export;
mod import;
mod measure;
mod merge;
mod show;
mod validate;

use crate::model::{LatencyModel, ModelError, Validations};
use crate::table::LatencyTable;
use std::path::Path;

/// Measure the latency of the networks of a search space on a device
///
/// Adds rows to a table in profiles/<device>/ as they are measured: rows of isolated layers, and rows of whole
/// networks, to which the latency model is fitted (--isolated leaves these out). Only what the table lacks is measured,
/// so the same command resumes an interrupted one, and another number of classes needs only a few more networks.
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
    Validate(Box<validate::Args>),
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

/// A table, and the model of its networks if it has one.
struct Opened {
    table: LatencyTable,
    /// Fitted to whole networks; `None` if there is no such fit.
    model: Option<LatencyModel>,
    /// Those of the models as they are now.
    validations: Validations,
    /// Why there is no model or no validation, and how to get one.
    note: Option<String>,
}

impl Opened {
    /// Loads a table, with the model for the first number of classes that networks were planned for.
    ///
    /// # Errors
    /// Fails if there is no such table, or if it is damaged. A table without a model is not an error.
    fn load(path: &Path) -> anyhow::Result<Opened> {
        anyhow::ensure!(path.is_file(), "there is no latency table {}", path.display());
        let table = LatencyTable::load(path, "nas-profile")?;
        let model_of = |classes: usize| -> Result<LatencyModel, ModelError> {
            LatencyModel::new(&table, &table.networks([classes])?)
        };
        let mut models: Vec<Result<LatencyModel, ModelError>> = table.classes().into_iter().map(model_of).collect();
        let all = Validations::load(&table)?;
        let apply = models.iter().flatten().filter_map(|model| all.of(model).cloned());
        let validations = Validations(apply.collect());
        let (model, note) = match models.is_empty() {
            true => (None, Some("the table has no whole networks, so it is not known what layers add to one".into())),
            false => match models.swap_remove(0) {
                Ok(model) => (Some(model), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        let outdated = all.0.len() > validations.0.len();
        let outdated = outdated.then(|| "the table has changed since it was validated; validate it again".to_string());
        Ok(Opened { table, model, validations, note: note.or(outdated) })
    }
}
