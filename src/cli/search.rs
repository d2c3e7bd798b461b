use super::measure::MeasureArgs;
use super::output::print;
use crate::data::{Data, DataSpec};
use crate::latency::{Latency, LatencyModel, Target};
use crate::record::RunDir;
use crate::space::{Genotype, SearchSpace};
use crate::torch::search::{SearchSettings, search};
use nas_exporters::Shape;
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
    /// Search space: a built-in name (chain, chain_small) or a TOML file
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
        let found = self.execute(&Data::load(&self.data)?)?;
        print(json, &found, || {
            let Found { genotype, predicted_ns, target_ns } = &found;
            format!("{genotype}\npredicted {predicted_ns}, target {target_ns}")
        })
    }

    /// The space's latency model, and the target on it.
    pub fn model(&self, data: &Data) -> anyhow::Result<(SearchSpace, LatencyModel, Latency)> {
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
        let model =
            LatencyModel::new(&table, &space, Shape::from(data.train.shape), data.train.classes.len())?;
        let target = self.target_latency.resolve(&model);
        Ok((space, model, target))
    }

    pub fn execute(&self, data: &Data) -> anyhow::Result<Found> {
        let (space, model, target) = self.model(data)?;
        let genotype = search(&space, &model, target, data, &self.settings, &RunDir(self.run.clone()))?;
        Ok(Found { predicted_ns: model.predict(&genotype.ops), target_ns: target, genotype })
    }
}
