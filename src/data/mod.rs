//! Labelled images: read from files, divided by seed, served as batches.
//!
//! Files are checked as they are read: what loads is whole and consistent, and what does not is one [`Error`]
//! that names the file, the offset and what was expected there.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod batches;
mod cifar10;
mod folder;
mod idx;

pub use batches::{Augment, Batch, Batches, Epoch, Normalisation, split};

/// Labelled images of one shape, one byte a value.
pub struct Dataset {
    /// Channels, height and width of each image.
    pub shape: [usize; 3],
    /// The name of each class, by label.
    pub classes: Vec<String>,
    images: Vec<u8>,
    labels: Vec<usize>,
}

impl Dataset {
    /// How many images there are; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Image `i` in CHW order. Panics where `i` is not below [`len`](Self::len).
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.shape.iter().product::<usize>();
        &self.images[i * size..(i + 1) * size]
    }

    /// The label of image `i`, an index into [`classes`](Self::classes). Panics like [`image`](Self::image).
    pub fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut number = |n: usize| _ = hasher.update(&(n as u64).to_le_bytes());
        self.shape.iter().copied().for_each(&mut number);
        number(self.labels.len());
        self.labels.iter().copied().for_each(&mut number);
        number(self.classes.len());
        self.classes.iter().for_each(|name| _ = hasher.update(name.as_bytes()).update(&[0]));
        hasher.update(&self.images);
    }
}

/// A data set as its authors divided it. The test images are for the final figures only: training and search
/// [`split`] the training images among themselves.
pub struct Data {
    /// A name for people to read.
    pub name: String,
    /// What to learn from, search included.
    pub train: Dataset,
    /// Of the same shape and classes as `train`.
    pub test: Dataset,
}

impl Data {
    /// Reads and checks the data set that `spec` names.
    ///
    /// # Errors
    /// Any file or folder that is missing, unreadable, truncated or inconsistent.
    pub fn load(spec: &DataSpec) -> Result<Data, Error> {
        let DataSpec::Folder { format, dir } = spec else { return idx::embedded() };
        fs::read_dir(dir).map_err(|cause| Error::Read { path: dir.clone(), cause })?;
        let format = match format {
            Some(format) => format,
            None => FORMATS
                .into_iter()
                .find(|format| (format.present)(dir))
                .ok_or_else(|| Error::Unrecognised { dir: dir.clone() })?,
        };
        (format.load)(dir)
    }

    /// BLAKE3, in hex, of all images, labels, class names and the shape; of neither the name nor the place.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.train.hash(&mut hasher);
        self.test.hash(&mut hasher);
        hasher.finalize().to_hex().to_string()
    }
}

/// One way in which data sets are stored in a folder.
pub struct Format {
    /// What stands before the colon in a [`DataSpec`].
    pub name: &'static str,
    /// The files that such a folder holds.
    pub files: &'static str,
    /// Whether a folder looks like this format.
    present: fn(&Path) -> bool,
    load: fn(&Path) -> Result<Data, Error>,
}

/// The formats known, in the order in which a bare folder is tried. A new one is a file with such a constant,
/// and a place in this list.
pub const FORMATS: [&Format; 3] = [&cifar10::FORMAT, &idx::FORMAT, &folder::FORMAT];

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Which data set: `embedded`, `FORMAT:FOLDER`, or a bare folder, whose format shows in its files.
/// Serialised as that text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataSpec {
    /// 8000 training and 2000 test images of Fashion-MNIST, compiled into the program.
    #[default]
    Embedded,
    /// Files that the user has.
    Folder {
        /// `None`: recognised on load.
        format: Option<&'static Format>,
        /// The folder of the files.
        dir: PathBuf,
    },
}

impl FromStr for DataSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, dir) = match text.split_once(':') {
            Some((name, dir)) if !name.contains('/') => (Some(name), dir),
            _ => (None, text),
        };
        let format = name.map(|name| FORMATS.into_iter().find(|format| format.name == name));
        match format {
            None if text == "embedded" => Ok(DataSpec::Embedded),
            Some(None) => Err(Error::Spec { text: text.to_owned() }),
            _ if dir.is_empty() => Err(Error::Spec { text: text.to_owned() }),
            format => Ok(DataSpec::Folder { format: format.flatten(), dir: dir.into() }),
        }
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DataSpec::Embedded => f.write_str("embedded"),
            DataSpec::Folder { format: Some(format), dir } => write!(f, "{}:{}", format.name, dir.display()),
            DataSpec::Folder { format: None, dir } => write!(f, "{}", dir.display()),
        }
    }
}

impl TryFrom<String> for DataSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DataSpec> for String {
    fn from(spec: DataSpec) -> String {
        spec.to_string()
    }
}

/// Why a data set can't be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "data `{text}` is none of `embedded`, a folder (`./NAME` where the name has a colon), and {}",
        FORMATS.map(|format| format!("`{}:FOLDER`", format.name)).join(", ")
    )]
    Spec { text: String },
    #[error("cannot read {}: {cause}; check the path and its permissions", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "{} holds no data set: looked for {}",
        dir.display(),
        FORMATS.map(|format| format!("{} ({})", format.files, format.name)).join("; or ")
    )]
    Unrecognised { dir: PathBuf },
    #[error("{} is missing in {}; copy it there from the data set", wanted, dir.display())]
    Missing { dir: PathBuf, wanted: String },
    /// `offset` counts bytes, uncompressed ones in a `.gz` file.
    #[error(
        "{file}, byte {offset}: expected {expected}, found {found}; the file is truncated or damaged, get it again"
    )]
    Corrupt { file: String, offset: u64, expected: String, found: String },
    /// Sizes are (width, height) in pixels.
    #[error(
        "{} has {}x{} pixels, expected {}x{} as in {}; bring all images to one size",
        path.display(), found.0, found.1, expected.0, expected.1, first.display()
    )]
    ImageSize { path: PathBuf, found: (u32, u32), expected: (u32, u32), first: PathBuf },
    #[error("{} is not {wanted}; convert it or move it away", path.display())]
    Stray { path: PathBuf, wanted: &'static str },
    #[error(
        "a fraction of {fraction} of {images} images leaves one part empty; take one between 0 and 1, or more images"
    )]
    Split { fraction: f64, images: usize },
    #[error(
        "channel {channel} has a single value in all {images} images, so it can't be normalised; check the images"
    )]
    Flat { channel: usize, images: usize },
}
