use clap::Parser;
use edge_nas::cli::{self, Cli};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    cli::main(cli.json(), || cli.run())
}
