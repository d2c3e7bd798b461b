//! The verbs, one file each: flags become settings, one call does the work, and its result is printed.

mod bench;
mod completions;
mod devices;
#[cfg(feature = "torch")]
mod export;
mod flags;
mod log;
mod output;
pub mod profile;
mod report;
#[cfg(feature = "torch")]
mod run;
#[cfg(feature = "torch")]
mod search;
#[cfg(feature = "torch")]
mod train;

use clap::{Parser, Subcommand};

/// Find the most accurate network within a target latency on your board
#[derive(Parser)]
#[command(name = "nas", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = "Options")]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    Profile(Box<profile::Args>),
    #[cfg(feature = "torch")]
    Search(search::Args),
    #[cfg(feature = "torch")]
    Train(train::Args),
    #[cfg(feature = "torch")]
    Export(export::Args),
    Bench(bench::Args),
    Report(report::Args),
    #[cfg(feature = "torch")]
    Run(run::Args),
    Devices(devices::Args),
    Completions(completions::Args),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<()> {
        let json = self.json;
        match self.verb {
            Verb::Profile(args) => args.run(json),
            #[cfg(feature = "torch")]
            Verb::Search(args) => trains(|| args.run(json)),
            #[cfg(feature = "torch")]
            Verb::Train(args) => trains(|| args.run(json)),
            #[cfg(feature = "torch")]
            Verb::Export(args) => trains(|| args.run(json)),
            Verb::Bench(args) => args.run(json),
            Verb::Report(args) => args.run(json),
            #[cfg(feature = "torch")]
            Verb::Run(args) => trains(|| args.run(json)),
            Verb::Devices(args) => args.run(json),
            Verb::Completions(args) => args.run(),
        }
    }
}

/// Runs a verb that uses libtorch, with the environment variables that make it fast.
#[cfg(feature = "torch")]
fn trains(run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    crate::environment::start_again();
    run()
}

/// Runs a command, prints what the library logs on stderr, and turns an error into one line and an exit code.
pub fn main(run: impl FnOnce() -> anyhow::Result<()>) -> std::process::ExitCode {
    self::log::init();
    crate::environment::report_too_large_files();
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_collide() {
        super::Cli::command().debug_assert();
    }
}
