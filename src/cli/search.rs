use super::Usage;
use super::flags::{MeasureFlags, SearchFlags};
use super::output::print;
use crate::data::{Data, DataSpec};
use crate::latency::Target;
use crate::record::RunDir;
use crate::run::{self, Found, Search};
use std::path::PathBuf;

/// Search for the best network within a target latency
///
/// Trains a supernet of all choices on the data, with the predicted latency in its loss, and writes genotype.json and
/// search.jsonl to the run's folder. If it is interrupted, the same command resumes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// Target latency, such as 1.5ms, or 40% of the way from the space's fastest to its slowest network
    #[arg(long)]
    target_latency: Target,
    /// Search space: a built-in name (chain, chain_small, residual, mobile, mobile_224, proxylessnas) or a TOML file
    #[arg(long, default_value = "chain")]
    space: String,
    /// Data set: embedded, cifar10:DIR, idx:DIR, folder:DIR, or only DIR, whose format is then recognised
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    #[command(flatten)]
    measure: MeasureFlags,
    #[command(flatten)]
    settings: SearchFlags,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Args { run, target_latency, space, data, measure, settings } = self;
        let (measure, settings) = (measure.settings(), settings.settings());
        if measure.runtimes.len() > 1 {
            let reason = "a search is for one runtime; give --runtime once, for the one that the target is for";
            return Err(Usage(reason.into()).into());
        }
        settings.check()?;
        let search = Search { run, target_latency, space, data, measure, settings };
        let data = Data::load(&search.data)?;
        let _lock = RunDir(search.run.clone()).lock()?;
        let searched = run::searched(&search, &data)?;
        let found = run::search(&search.run, &searched, &data, &search.settings)?;
        print(json, &found, || {
            let Found { genotype, predicted_ns, target_ns } = &found;
            format!("{genotype}\npredicted {predicted_ns}, target {target_ns}")
        })
    }
}
