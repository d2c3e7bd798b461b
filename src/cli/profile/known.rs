//! A table that is there, whatever it is of, and the model of its networks where it has one.

use super::space;
use crate::data::{Data, DataSpec};
use crate::latency::{Images, LatencyModel, LatencyTable, Networks, Subject, TableError};
use crate::space::SearchSpace;
use nas_exporters::Shape;
use std::path::{Path, PathBuf};

/// Which networks a table is of, where it does not tell itself.
#[derive(Clone, Debug, clap::Args)]
pub struct KnownArgs {
    /// Search space: a built-in name or a TOML file [default: the built-in one that the file is named
    /// after]
    #[arg(long)]
    pub space: Option<String>,
    /// Data set whose image shape and classes the networks are for [default: those of the table]
    #[arg(long, conflicts_with = "input")]
    pub data: Option<DataSpec>,
    /// Image shape instead of a data set's, as 3x32x32
    #[arg(long, requires = "classes")]
    pub input: Option<Shape>,
    /// Number of classes, with --input
    #[arg(long, requires = "input")]
    pub classes: Option<usize>,
}

/// A table, and what could be found out of its networks.
pub struct Known {
    pub path: PathBuf,
    pub table: LatencyTable,
    pub networks: Option<(SearchSpace, Images)>,
    /// Fitted to whole networks; none where it would be a plain sum.
    pub model: Option<LatencyModel>,
    /// Why there is no model, and how to get one.
    pub note: Option<String>,
}

impl KnownArgs {
    /// # Errors
    /// Where there is no such table, space or data set; that a table has no model is none.
    pub fn open(&self, path: &Path) -> anyhow::Result<Known> {
        let table = LatencyTable::load(path, "nas-profile")?;
        let mut known = Known { path: path.into(), table, networks: None, model: None, note: None };
        match self.networks(path, &known.table)? {
            Ok(networks) => known.fit(networks),
            Err(note) => known.note = Some(note),
        }
        Ok(known)
    }

    /// The space and the images, or why they cannot be known.
    fn networks(
        &self,
        path: &Path,
        table: &LatencyTable,
    ) -> anyhow::Result<Result<(SearchSpace, Images), String>> {
        let space = match &self.space {
            Some(space) => SearchSpace::load(space)?,
            None => match named_after(path) {
                Some(space) => space,
                None => {
                    return Ok(Err(
                        "what layers add to networks is left out: the file is named after no built-in space; say which by --space"
                            .into(),
                    ));
                }
            },
        };
        let images = match (self.input, self.classes, &self.data) {
            (Some(shape), Some(classes), _) => Ok(Images { shape, classes }),
            (_, _, Some(spec)) => Ok(space::images(&Data::load(spec)?)),
            _ => images(table, &space),
        };
        Ok(images.map(|images| (space, images)))
    }
}

impl Known {
    fn fit(&mut self, (space, images): (SearchSpace, Images)) {
        let networks = Networks { space: &space, images };
        let planned = self.table.header.networks;
        let measure = self.command(&space, images);
        let why = match LatencyModel::new(&self.table, &networks) {
            _ if planned == 0 => {
                Err(format!("the table is of lone layers: what they add to networks is found by `{measure}`"))
            }
            Ok(model) => Ok(model),
            Err(TableError::Missing { missing, .. }) => Err(format!(
                "what layers add to networks is left out: {} networks are not measured; go on with `{measure}`",
                missing.len()
            )),
            Err(why) => Err(why.to_string()),
        };
        match why {
            Ok(model) => self.model = Some(model),
            Err(note) => self.note = Some(note),
        }
        self.networks = Some((space, images));
    }

    fn command(&self, space: &SearchSpace, Images { shape, classes }: Images) -> String {
        let header = &self.table.header;
        format!(
            "nas-profile --device {} --runtime {} --threads {} --space {} --input {shape} --classes {classes}",
            header.device,
            header.runtime,
            header.threads.unwrap_or(1),
            space.name
        )
    }

    /// Those that the model is of.
    pub fn fitted(&self) -> Option<(&LatencyModel, Networks<'_>)> {
        let (space, images) = self.networks.as_ref()?;
        Some((self.model.as_ref()?, Networks { space, images: *images }))
    }
}

fn named_after(path: &Path) -> Option<SearchSpace> {
    let name = path.file_name()?.to_str()?;
    SearchSpace::load(name.split('.').next()?).ok()
}

/// The images that the table's validations and networks are for; where it has none, its stems and heads.
fn images(table: &LatencyTable, space: &SearchSpace) -> Result<Images, String> {
    let timings = table.timings();
    let layers =
        || timings.keys().filter_map(|s| if let Subject::Layer(layer) = s { Some(*layer) } else { None });
    let validated = table.header.validations.iter().map(|v| Images { shape: v.input, classes: v.classes });
    let measured = timings.keys().filter_map(|subject| {
        let Subject::Network(network) = subject else { return None };
        let images = Images { shape: network.first()?.input, classes: network.last()?.channels };
        Networks { space, images }.ops(subject).map(|_| images)
    });
    let alone = layers().filter(|stem| *stem == space.stem(stem.input)).flat_map(|stem| {
        let heads = layers().filter(move |head| *head == space.head(stem.input, head.channels));
        heads.map(move |head| Images { shape: stem.input, classes: head.channels })
    });
    // A stem may look like any other layer.
    let whole = distinct(validated.chain(measured));
    let found = if whole.is_empty() { distinct(alone) } else { whole };
    let said = |images: &Images| format!("{} with {} classes", images.shape, images.classes);
    match found.as_slice() {
        [images] => Ok(*images),
        [] => Err(format!(
            "what layers add to networks is left out: the table has no network of the space {}; say the space by --space, and the images by --input and --classes",
            space.name
        )),
        many => Err(format!(
            "what layers add to networks is left out: the table is of several images ({}); say which by --input and --classes",
            many.iter().map(said).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn distinct(all: impl Iterator<Item = Images>) -> Vec<Images> {
    let mut found: Vec<Images> = vec![];
    for images in all {
        if !found.contains(&images) {
            found.push(images);
        }
    }
    found
}
