use super::Usage;
use super::flags::TrainFlags;
use super::output::{percent, print};
use crate::artifact::{self, ArtifactError};
use crate::bounded::{Width, rounded};
use crate::data::{Data, DataSpec};
use crate::record::{ModelDir, RunDir};
use crate::report::counted;
use crate::run::{RunError, single, taught};
use crate::space::{Genotype, Network, Networks, SearchSpace};
use crate::train::fit::fit;
use anyhow::Context;
use clap::builder::PossibleValuesParser;
use std::path::{Path, PathBuf};

/// Train a network from scratch
///
/// Without --genotype and --arch, trains the network that `nas search` found in the same run. Writes
/// weights.safetensors and train.jsonl to the run's folder. If it is interrupted, the same command resumes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, default_value = "runs/default")]
    run: PathBuf,
    /// A genotype.json, or the choice of each layer that has several: conv_3x3,skip,...
    #[arg(long, conflicts_with = "arch")]
    genotype: Option<String>,
    /// Search space that the ops of --genotype belong to: a built-in name or a TOML file [default: chain]
    #[arg(long, requires = "genotype")]
    space: Option<String>,
    /// Train a published network, in the subfolder `baseline` of the run's folder
    #[arg(long, value_parser = PossibleValuesParser::new(Network::baselines()))]
    arch: Option<String>,
    /// Width multiplier of the published network; 1 is its published size [default: 0.5 for mobilenet_v2, else 1]
    #[arg(long, requires = "arch")]
    width: Option<Width>,
    /// Data set: embedded, cifar10:DIR, idx:DIR, folder:DIR, folder:DIR@64 (scaled to 64x64), or only DIR
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    /// Distil the network of this run, which is usually larger, into the trained one
    #[arg(long, value_name = "RUN")]
    teacher: Option<PathBuf>,
    #[command(flatten)]
    settings: TrainFlags,
}

/// Returns the network that a search found.
fn found(path: &Path) -> anyhow::Result<Genotype> {
    artifact::read_json(path, "nas search").map_err(|error| match error {
        ArtifactError::Missing { .. } => RunError::NothingFound(path.into()).into(),
        error => error.into(),
    })
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let data = Data::load(&self.data)?;
        let run = RunDir(self.run.clone());
        let _lock = run.lock()?;
        let (network, dir) = self.network(&data)?;
        let taught = self.teacher.clone().map(|teacher| taught(&RunDir(teacher), &run)).transpose()?;
        let log = fit(&network, &data, &self.settings.settings(), taught.as_ref(), &dir)?;
        let last = log.last().context("no epoch was trained")?;
        let cost = network.graph().cost();
        print(json, last, || {
            format!(
                "{}: test accuracy {} after {}, {} parameters, {} MACs\n{}",
                network.name(),
                last.test_accuracy.map_or("-".into(), |share| percent(share.get())),
                counted(last.epoch, "epoch"),
                rounded(cost.params as f64),
                rounded(cost.macs as f64),
                dir.weights().display(),
            )
        })
    }

    fn network(&self, data: &Data) -> anyhow::Result<(Network, ModelDir)> {
        let run = RunDir(self.run.clone());
        let (input, classes) = (data.train.shape.into(), data.train.classes.len());
        if let Some(arch) = &self.arch {
            return Ok((Network::baseline(arch, self.width, input, classes)?, run.baseline()));
        }
        let dir = single(&run)?;
        let genotype = match &self.genotype {
            None => found(&run.genotype())?,
            Some(file) if file.ends_with(".json") && self.space.is_some() => {
                let reason = format!("{file} holds its own space; leave out --space, or give --genotype as ops");
                return Err(Usage(reason).into());
            }
            Some(file) if file.ends_with(".json") => {
                let file: &Path = file.as_ref();
                anyhow::ensure!(file.is_file(), RunError::NoFile(file.into()));
                artifact::read_json(file, "nas search")?
            }
            Some(ops) => {
                let space = SearchSpace::load(self.space.as_deref().unwrap_or("chain"))?;
                Genotype::parse(Networks::new(space, input, [classes])?, ops)?
            }
        };
        Ok((Network::Genotype(genotype), dir))
    }
}
