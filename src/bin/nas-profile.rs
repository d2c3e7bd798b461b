use clap::Parser;
use edge_nas::cli::{self, profile};

/// Measure the latency of the networks of a search space on a device; the same as `nas profile`
#[derive(Parser)]
#[command(name = "nas-profile", version, max_term_width = 100)]
struct Cli {
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    args: profile::Args,
}

/// Runs before the constructors of the libraries.
#[used]
#[unsafe(link_section = ".preinit_array")]
static FOLDER: extern "C" fn() = cli::check_folder;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    cli::main(cli.json, || cli.args.run(cli.json))
}
