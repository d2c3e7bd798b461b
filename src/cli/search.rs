use super::measure::MeasureArgs;
use super::output::print;
use super::profile::images;
use crate::data::{Data, DataSpec};
use crate::device::{Board, Device, LinkKind, Session};
use crate::latency::{Header, Latency, LatencyModel, LatencyTable, Networks, Target, Validation};
use crate::record::RunDir;
use crate::space::{Genotype, SearchSpace};
use crate::torch::search::{SearchSettings, Searched, search};
use nas_probe::Runtime;
use serde::Serialize;
use std::path::PathBuf;

/// Search for the best network within a target latency
///
/// Trains a supernet of all candidates against the data and the latency table, and writes
/// genotype.json and search.jsonl. The same command goes on where a cut left it.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    pub run: PathBuf,
    /// What the network may take: 1.5ms, or 40% of the way from the space's cheapest to its dearest
    #[arg(long)]
    pub target_latency: Target,
    /// Search space: a built-in name (chain, chain_small, mobile, mobile_224) or a TOML file
    #[arg(long, default_value = "chain")]
    pub space: String,
    /// Data set: embedded, cifar10:DIR, idx:DIR, folder:DIR, or a DIR of one of these
    #[arg(long, default_value = "embedded")]
    pub data: DataSpec,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub settings: SearchSettings,
}

#[derive(Serialize)]
pub struct Found {
    genotype: Genotype,
    predicted_ns: Latency,
    target_ns: Latency,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let data = Data::load(&self.data)?;
        let found = self.execute(&self.searched(&data)?, &data)?;
        print(json, &found, || {
            let Found { genotype, predicted_ns, target_ns } = &found;
            format!("{genotype}\npredicted {predicted_ns}, target {target_ns}")
        })
    }

    /// The space's latency model, and the target on it.
    pub fn searched(&self, data: &Data) -> anyhow::Result<Searched> {
        let space = SearchSpace::load(&self.space)?;
        let device = self.measure.device()?;
        let runtimes = self.measure.runtimes(&device);
        let Some(&runtime) = runtimes.first() else {
            anyhow::bail!("{} names no runtime; give --runtime", device.name)
        };
        let table = self.measure.table(
            &device,
            (&space.name, &self.space),
            &format!("--data {}", self.data),
            runtime,
        )?;
        let foreign = self.measure.foreign(&table, &self.header(&device, &table, runtime)?)?;
        if let Some(difference) = &foreign {
            eprintln!("warning: searching with a table that was measured with {difference}");
        }
        let model = LatencyModel::new(&table, &Networks { space: &space, images: images(data) })?;
        if Validation::find(&table, &model).is_none() {
            eprintln!(
                "warning: nobody knows how well this table predicts; `nas-profile validate` with the same flags measures it"
            );
        }
        let target = self.target_latency.resolve(&model);
        Ok(Searched { space, model, target, foreign: foreign.map(|difference| difference.to_string()) })
    }

    /// What would be measured now. A board is not asked: its table is told by the device's name.
    fn header(&self, device: &Device, table: &LatencyTable, runtime: Runtime) -> anyhow::Result<Header> {
        let threads = self.measure.threads.get();
        if device.link == LinkKind::Ssh {
            let (device, runtime) = (device.name.clone(), runtime.to_string());
            return Ok(Header { device, runtime, threads: Some(threads), ..table.header.clone() });
        }
        let session = Session::open(&Board { runtimes: vec![runtime], ..Board::local(device.clone()) })?;
        let ours = Header::of(&device.name, &[session], runtime, threads)?;
        // How the probe was held is the owner's choice, not a fact of the device.
        Ok(Header { pinned: table.header.pinned.clone(), ..ours })
    }

    pub fn execute(&self, searched: &Searched, data: &Data) -> anyhow::Result<Found> {
        let genotype = search(searched, data, &self.settings, &RunDir(self.run.clone()))?;
        let predicted_ns = searched.model.predict(&genotype.ops);
        Ok(Found { predicted_ns, target_ns: searched.target, genotype })
    }
}
