use clap::Parser;
use edge_nas::cli::{self, Cli};

/// Runs before the constructors of the libraries.
#[used]
#[unsafe(link_section = ".preinit_array")]
static FOLDER: extern "C" fn() = cli::check_folder;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    cli::main(cli.json(), || cli.run())
}
