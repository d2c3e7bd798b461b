use clap::CommandFactory;

/// Print shell completions
#[derive(clap::Args)]
pub struct Args {
    shell: clap_complete::Shell,
}

impl Args {
    pub fn run(self) -> anyhow::Result<()> {
        let mut command = super::Cli::command();
        // `generate` panics if it cannot write, so it writes to memory.
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut command, "nas", &mut script);
        super::output::write(&script)
    }
}
