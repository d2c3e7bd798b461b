//! `nas profile`, and what is done with the tables that it makes.

mod diff;
mod export;
mod import;
mod known;
pub mod measure;
mod merge;
mod show;
mod space;
mod validate;

pub use space::{SpaceArgs, images};

/// Measure what the networks of a search space take on a device
///
/// Adds rows to profiles/<device>/<space>.<runtime>.jsonl as they are measured: lone layers, and whole
/// networks by which is found what a layer adds to a network (--isolated leaves those out). Only what
/// the table has no rows of is measured, so the same command goes on where a cut left it.
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
