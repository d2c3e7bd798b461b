use crate::data::{Data, DataSpec};
use crate::latency::Images;
use crate::space::SearchSpace;
use nas_exporters::Shape;

/// Which networks a table is of.
#[derive(Clone, Debug, clap::Args)]
pub struct SpaceArgs {
    /// Search space: a built-in name (chain, chain_small, mobile, mobile_224) or a TOML file
    #[arg(long, default_value = "chain")]
    pub space: String,
    /// Data set whose image shape and classes the networks are for
    #[arg(long, default_value = "embedded")]
    pub data: DataSpec,
    /// Image shape instead of a data set's, as 3x32x32
    #[arg(long, requires = "classes")]
    pub input: Option<Shape>,
    /// Number of classes, with --input
    #[arg(long, requires = "input")]
    pub classes: Option<usize>,
}

/// Those of a data set.
pub fn images(data: &Data) -> Images {
    Images { shape: data.train.shape.into(), classes: data.train.classes.len() }
}

impl SpaceArgs {
    pub fn load(&self) -> anyhow::Result<(SearchSpace, Images)> {
        let space = SearchSpace::load(&self.space)?;
        if let (Some(shape), Some(classes)) = (self.input, self.classes) {
            return Ok((space, Images { shape, classes }));
        }
        Ok((space, images(&Data::load(&self.data)?)))
    }

    /// These arguments, for a command that is to be given.
    pub fn words(&self) -> String {
        match (self.input, self.classes) {
            (Some(input), Some(classes)) => format!("--input {input} --classes {classes}"),
            _ => format!("--data {}", self.data),
        }
    }
}
