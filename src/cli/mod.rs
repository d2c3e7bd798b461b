//! The verbs, one file each: flags become settings, one call does the work, and its result is printed.

mod bench;
mod completions;
mod devices;
mod eval;
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
use std::io::Write;
use std::process::ExitCode;

/// Find the most accurate network within a target latency on your board
#[derive(Parser)]
#[command(name = "nas", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    Profile(Box<profile::Args>),
    #[cfg(feature = "torch")]
    Search(Box<search::Args>),
    #[cfg(feature = "torch")]
    Train(train::Args),
    #[cfg(feature = "torch")]
    Export(export::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Report(report::Args),
    #[cfg(feature = "torch")]
    Run(run::Args),
    Devices(devices::Args),
    Completions(completions::Args),
}

impl Cli {
    /// Returns whether the result is printed as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

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
            #[cfg(feature = "torch")]
            Verb::Eval(args) => trains(|| args.run(json)),
            #[cfg(not(feature = "torch"))]
            Verb::Eval(args) => args.run(json),
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

/// A command line that makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs a command, prints what the library logs on stderr, and turns an error into one line and an exit code.
pub fn main(json: bool, run: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    self::log::init();
    crate::environment::report_too_large_files();
    end_without_memory();
    let Err(error) = utf8(json).and_then(|()| run()) else { return ExitCode::SUCCESS };
    // If stderr cannot be written, the exit code still reports the error.
    let _ = writeln!(std::io::stderr(), "error: {}", output::shown(&format!("{error:#}")));
    #[cfg(feature = "torch")]
    if let Some(signal) = crate::train::interruption() {
        return ExitCode::from(128 + signal);
    }
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// Ends the program if the current folder was deleted. This is called before libraries are initialised, since
/// libtorch's MKL would fail in such a folder with a message that names another cause.
pub extern "C" fn check_folder() {
    if let Err(error) = std::env::current_dir() {
        let line = format!("error: the current folder cannot be used ({error}); change to one that exists");
        let _ = writeln!(std::io::stderr(), "{line}");
        std::process::exit(1);
    }
}

/// Reports in one line that libtorch ran out of memory. libtorch panics then, though the program is not at fault.
fn end_without_memory() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let Some(wanted) = panic.payload_as_str().and_then(out_of_memory) else { return usual(panic) };
        let line = "not enough memory: libtorch asked for";
        let _ = writeln!(
            std::io::stderr(),
            "error: {line} {wanted}; use a smaller network or, in training, a smaller --batch-size"
        );
        std::process::exit(1);
    }));
}

/// Returns how much memory libtorch failed to allocate, according to its message.
fn out_of_memory(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("can't allocate memory: you tried to allocate ")?;
    after.split('.').next()
}

/// Rejects arguments that are not UTF-8 if the result is JSON, which could not name them.
fn utf8(json: bool) -> anyhow::Result<()> {
    let mut args = std::env::args_os();
    match args.find(|arg| json && arg.to_str().is_none()) {
        Some(arg) => Err(Usage(format!("{arg:?} is not UTF-8, and cannot be named in JSON; leave out --json")).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_collide() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_all_built_in_spaces() {
        for verb in ["profile", "search"] {
            let mut cli = super::Cli::command();
            let verb = cli.find_subcommand_mut(verb).expect("it is a verb");
            let help = verb.render_long_help().to_string().replace('\n', " ");
            let missing = |name: &&str| !help.contains(*name);
            assert_eq!(crate::space::SearchSpace::names().into_iter().find(missing), None);
        }
    }

    #[test]
    fn the_cause_of_a_failed_allocation_is_found() {
        let message = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:121] err == 0. \
                       DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes. Error code 12\")";
        assert_eq!(super::out_of_memory(message), Some("400 bytes"));
        assert_eq!(super::out_of_memory("index out of bounds"), None);
    }
}
