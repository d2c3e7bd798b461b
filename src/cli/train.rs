use super::output::{percent, print};
use crate::artifact;
use crate::data::{Data, DataSpec};
use crate::record::{ModelDir, Network, RunDir};
use crate::space::{Genotype, SearchSpace};
use crate::torch::fit::{TrainSettings, fit};
use anyhow::Context;
use nas_exporters::Shape;
use std::path::PathBuf;

/// Train a network from scratch
///
/// Without --genotype and --arch, the one that `nas search` found in the run's folder. Writes
/// weights.safetensors and train.jsonl there, and goes on where a cut left it.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// A genotype.json, or the ops of each layer: conv_3x3,skip,...
    #[arg(long, conflicts_with = "arch")]
    genotype: Option<String>,
    /// Search space of a genotype that is given by its ops: a built-in name or a TOML file
    #[arg(long, default_value = "chain")]
    space: String,
    /// Train the baseline, into the run's folder `baseline`
    #[arg(long, value_parser = ["mobilenet_v2"])]
    arch: Option<String>,
    /// Scales the baseline's channels
    #[arg(long, default_value_t = 0.5, requires = "arch")]
    width: f64,
    /// Data set: embedded, cifar10:DIR, idx:DIR, folder:DIR, or a DIR of one of these
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    #[command(flatten)]
    settings: TrainSettings,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let data = Data::load(&self.data)?;
        let (network, dir) = self.network(&data)?;
        let log = fit(&network, &data, &self.settings, &dir)?;
        let last = log.last().context("no epoch was trained: --epochs is 0")?;
        let cost = network.graph().cost();
        print(json, last, || {
            format!(
                "{}: test accuracy {} after {} epochs, {:.2} M parameters, {:.1} M MACs\n{}",
                network.name(),
                percent(last.test_accuracy),
                last.epoch,
                cost.params as f64 / 1e6,
                cost.macs as f64 / 1e6,
                dir.weights().display(),
            )
        })
    }

    fn network(&self, data: &Data) -> anyhow::Result<(Network, ModelDir)> {
        let run = RunDir(self.run.clone());
        let (input, classes) = (Shape::from(data.train.shape), data.train.classes.len());
        if self.arch.is_some() {
            return Ok((Network::MobilenetV2 { width: self.width, input, classes }, run.baseline()));
        }
        let genotype = match &self.genotype {
            None => artifact::read_json(&run.genotype(), "nas search")?,
            Some(file) if file.ends_with(".json") => artifact::read_json(file.as_ref(), "nas search")?,
            Some(ops) => Genotype::parse(SearchSpace::load(&self.space)?, ops, input, classes)?,
        };
        Ok((Network::Genotype(genotype), run.found()))
    }
}
