use super::Usage;
use super::flags::{BoardFlags, PredictFlags, SearchFlags};
use super::output::print;
use crate::bounded::{Bytes, Count, NetworkCount, Percent};
use crate::data::{Data, DataSpec};
use crate::latency::{Target, TargetFor};
use crate::record::RunDir;
use crate::run::{self, Found, MeasureTop, Search, Targets};
use std::path::PathBuf;

/// Search for the best network within a target latency
///
/// Compares networks of the space that the latency table predicts to be within the target, and writes the best one to
/// genotype.json in the run's folder. --algorithm says how they are found. If it is interrupted, the same command
/// resumes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    #[command(flatten)]
    limits: LimitFlags,
    /// Search space: a built-in name (chain, chain_small, residual, resnet, pooled, mobile, mobile_224, proxylessnas)
    /// or a TOML file
    #[arg(long, default_value = "chain")]
    space: String,
    /// Data set: embedded, cifar10:DIR, idx:DIR, folder:DIR, folder:DIR@64 (scaled to 64x64), or only DIR
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    #[command(flatten)]
    measure: PredictFlags,
    #[command(flatten)]
    board: BoardFlags,
    #[command(flatten)]
    settings: SearchFlags,
}

/// What networks may cost.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// Target latency, such as 1.5ms, or 40% of the way from the space's fastest to its slowest network; for another
    /// device or runtime, jetson=10ms, jetson:tract=10ms or :tract=2ms. If it is repeated, the network meets all
    /// targets
    #[arg(long, value_name = "TARGET", required_unless_present = "targets")]
    target_latency: Vec<TargetFor>,
    /// Several targets, such as 0.3ms,0.5ms,0.8ms: the search finds a network for each, in the folder targets/NAME. The
    /// network of a single one is in the folder of the run itself
    #[arg(long, value_name = "TARGETS", value_delimiter = ',', conflicts_with = "target_latency")]
    targets: Vec<Target>,
    /// At most this many parameters, such as 300k
    #[arg(long, value_name = "NUMBER")]
    max_params: Option<Count>,
    /// At most this many multiply-accumulates, such as 40M
    #[arg(long, value_name = "NUMBER")]
    max_macs: Option<Count>,
    /// At most this much memory for activations, such as 512KiB
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Bytes>,
    /// By how much a network may be below the first target, as a share of the target
    #[arg(long, value_name = "SHARE", default_value_t)]
    band: Percent,
    /// Measure this many of the best networks on the device, and take the best one whose measured latency meets the
    /// target
    #[arg(long, value_name = "NUMBER")]
    measure_top: Option<NetworkCount>,
}

impl LimitFlags {
    fn targets(self) -> Targets {
        let LimitFlags { target_latency, targets, max_params, max_macs, max_memory, band, .. } = self;
        Targets { target_latency, targets, max_params, max_macs, max_memory, band }
    }
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Args { run, limits, space, data, measure, board, settings } = self;
        let (measure, settings) = (measure.settings(), settings.settings());
        if measure.runtimes.len() > 1 {
            let reason = "a search is for one runtime; give --runtime once, for the one that the target is for";
            return Err(Usage(reason.into()).into());
        }
        settings.check()?;
        let measure_top =
            limits.measure_top.map(|networks| MeasureTop { networks: networks.into(), board: board.settings() });
        let search = Search { run, targets: limits.targets(), space, data, measure, settings, measure_top };
        let data = Data::load(&search.data)?;
        let _lock = RunDir(search.run.clone()).lock()?;
        let searched = run::searched(&search, &data)?;
        let outcome = run::search(&search, &searched, &data)?;
        match outcome.found.as_slice() {
            [] => {}
            [one] if searched.goals.len() == 1 => print(json, one, || shown(one))?,
            several => print(json, &several, || several.iter().map(shown).collect::<Vec<_>>().join("\n"))?,
        }
        Ok(outcome.complete().map(drop)?)
    }
}

fn shown(found: &Found) -> String {
    let Found { run, genotype, predicted_ns, target_ns, measured_ns } = found;
    let measured = measured_ns.map_or(String::new(), |measured| format!(", measured {measured}"));
    format!("{genotype}\npredicted {predicted_ns}{measured}, target {target_ns}\n{}", run.display())
}
