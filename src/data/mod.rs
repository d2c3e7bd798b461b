//! Labelled images: data sets, splits, and batches.
//!
//! Files are checked while they are read: a data set that loads is complete and consistent, and any problem is an
//! [`Error`] that names the file, the offset and what was expected there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;

use crate::artifact::Digest;
use crate::bounded::Side;
use crate::named::as_text;
use serde::{Deserialize, Serialize};

mod batches;
mod cifar10;
mod folder;
mod idx;

pub use batches::{Augment, Batch, Batches, Border, Epoch, Normalisation, ahead, split};

/// Labelled images of one shape, with one byte per value.
pub struct Dataset {
    /// Channels, height and width of each image.
    pub shape: [usize; 3],
    /// The name of each class, by label.
    pub classes: Vec<String>,
    images: Vec<u8>,
    labels: Vec<usize>,
}

impl Dataset {
    /// Number of images; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The indices of all images.
    pub fn indices(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// Image `i` in CHW order. Panics if `i` is not below [`len`](Self::len).
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.shape.iter().product::<usize>();
        &self.images[i * size..(i + 1) * size]
    }

    /// The label of image `i`, an index into [`classes`](Self::classes). Panics like [`image`](Self::image).
    pub fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    /// Returns the number of images of each class that has any, by label.
    fn counts(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        self.labels.iter().for_each(|label| *counts.entry(*label).or_default() += 1);
        counts
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

/// A data set, divided into training and test images by its authors. The test images serve only for the reported
/// accuracy; a search [`split`]s the training images.
pub struct Data {
    /// A human-readable name.
    pub name: String,
    /// The images that are trained on, including during a search.
    pub train: Dataset,
    /// The test images, which have the shape and the classes of `train`.
    pub test: Dataset,
}

impl Data {
    /// Reads and checks the data set that `spec` names. Warns, once per process, if one class has more than twice as
    /// many training images as another.
    ///
    /// # Errors
    /// Fails if a file or folder is missing, unreadable, truncated or inconsistent.
    pub fn load(spec: &DataSpec) -> Result<Data, Error> {
        let DataSpec::Folder { format, dir, side } = spec else { return idx::embedded() };
        fs::read_dir(dir).map_err(|cause| Error::Read { path: dir.clone(), cause })?;
        let format = match format {
            Some(format) => format,
            None => FORMATS
                .into_iter()
                .find(|format| (format.present)(dir))
                .ok_or_else(|| Error::Unrecognised { dir: dir.clone() })?,
        };
        if side.is_some() && *format != folder::FORMAT {
            return Err(Error::Unscaled { dir: dir.clone(), format: format.name });
        }
        (format.load)(dir, *side)?.checked()
    }

    /// Checks that there are several classes, and that the accuracy on each can be measured.
    ///
    /// # Errors
    /// Fails if only one class has training images, or if a class with training images has no test images.
    fn checked(self) -> Result<Data, Error> {
        let (trained, tested) = (self.train.counts(), self.test.counts());
        let name = |class: &usize| self.train.classes[*class].clone();
        if let (1, Some(class)) = (trained.len(), trained.keys().next().map(name)) {
            return Err(Error::OneClass { name: self.name, class });
        }
        if let Some(class) = trained.keys().find(|class| !tested.contains_key(class)).map(name) {
            return Err(Error::Untested { name: self.name, class });
        }
        let by_count = |(_, count): &(&usize, &usize)| **count;
        let extremes = trained.iter().min_by_key(by_count).zip(trained.iter().max_by_key(by_count));
        if let Some(((rare, fewest), (frequent, most))) =
            extremes.filter(|((_, fewest), (_, most))| **most > 2 * *fewest)
        {
            static SAID: Once = Once::new();
            let (data, rare, frequent) = (&self.name, name(rare), name(frequent));
            SAID.call_once(|| {
                log::warn!("{data} has {most} training images of class `{frequent}`, and {fewest} of `{rare}`");
            });
        }
        Ok(self)
    }

    /// Returns the digest of the shape and of all images, labels and class names. It does not depend on the name of the
    /// data set or on its folder.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        self.train.hash(&mut hasher);
        self.test.hash(&mut hasher);
        hasher.finalize().into()
    }
}

/// Reads a file of a data set. A FIFO or a device, which might never end, is rejected.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let read = |cause| Error::Read { path: path.to_owned(), cause };
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(Error::Stray { path: path.to_owned(), wanted: "a regular file" });
    }
    fs::read(path).map_err(read)
}

/// A format of data sets that are stored in a folder.
pub struct Format {
    /// The part of a [`DataSpec`] before the colon.
    pub name: &'static str,
    /// The files of such a folder, for messages.
    pub files: &'static str,
    /// Whether a folder seems to have this format.
    present: fn(&Path) -> bool,
    /// Reads a folder. Only [`folder`] accepts a side, to which it scales its images.
    load: fn(&Path, Option<Side>) -> Result<Data, Error>,
}

/// All formats, in the order in which they are tried for a folder whose format is not given. A new format needs a file
/// that defines such a constant, and an entry in this list.
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

/// The name of a data set: `embedded`, `FORMAT:FOLDER`, or only a folder, whose format is recognised by its files. `@N`
/// after a folder by class scales its images to squares with a side of N pixels. Serialised as this text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "crate::named::Text", into = "String")]
pub enum DataSpec {
    /// 8000 training and 2000 test images of Fashion-MNIST, compiled into the program.
    #[default]
    Embedded,
    /// Files that the user provides.
    Folder {
        /// `None` if the format is recognised when the data set is loaded.
        format: Option<&'static Format>,
        /// The folder of the files.
        dir: PathBuf,
        /// The side, in pixels, to which images are scaled.
        side: Option<Side>,
    },
}

impl FromStr for DataSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (rest, side) = match text.rsplit_once('@') {
            Some((rest, side)) if !side.is_empty() && side.bytes().all(|byte| byte.is_ascii_digit()) => {
                let side = side.parse().map_err(|reason| Error::Side { text: text.to_owned(), reason })?;
                (rest, Some(side))
            }
            _ => (text, None),
        };
        let (name, dir) = match rest.split_once(':') {
            Some((name, dir)) if !name.contains('/') => (Some(name), dir),
            _ => (None, rest),
        };
        let format = name.map(|name| FORMATS.into_iter().find(|format| format.name == name));
        match format {
            None if rest == "embedded" && side.is_none() => Ok(DataSpec::Embedded),
            None if rest == "embedded" => Err(Error::Spec { text: text.to_owned() }),
            Some(None) => Err(Error::Spec { text: text.to_owned() }),
            _ if dir.is_empty() => Err(Error::Spec { text: text.to_owned() }),
            format => Ok(DataSpec::Folder { format: format.flatten(), dir: dir.into(), side }),
        }
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let DataSpec::Folder { format, dir, side } = self else { return f.write_str("embedded") };
        format.iter().try_for_each(|format| write!(f, "{}:", format.name))?;
        write!(f, "{}", dir.display())?;
        side.iter().try_for_each(|side| write!(f, "@{side}"))
    }
}

as_text!(DataSpec, Error);

/// Why a data set cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "data set `{text}` is not known: use `embedded`, a folder (`./NAME` if its name contains a colon), or one of {}",
        FORMATS.map(|format| format!("`{}:FOLDER`", format.name)).join(", ")
    )]
    Spec { text: String },
    #[error(
        "data set `{text}`: {reason}; write `folder:FOLDER@64`, or a `/` behind a folder whose name ends like this"
    )]
    Side { text: String, reason: String },
    #[error("{} is of the format {format}, whose images are not scaled; leave out the `@` and what follows", dir.display())]
    Unscaled { dir: PathBuf, format: &'static str },
    #[error("cannot read {}: {cause}; check the path and its permissions", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "{} contains no data set: looked for {}",
        dir.display(),
        FORMATS.map(|format| format!("{} ({})", format.files, format.name)).join("; or ")
    )]
    Unrecognised { dir: PathBuf },
    #[error("{wanted} is missing in {}; add it", dir.display())]
    Missing { dir: PathBuf, wanted: String },
    /// `offset` is in bytes of the file, or of the uncompressed content of a `.gz` file.
    #[error(
        "{file}, byte {offset}: expected {expected}, found {found}; the file is truncated or damaged; download it again"
    )]
    Corrupt { file: String, offset: u64, expected: String, found: String },
    /// Sizes are (width, height) in pixels.
    #[error(
        "{} has {}x{} pixels, expected {}x{} as in {}; write `@` and a side behind the folder, such as `@64`, to scale all images",
        path.display(), found.0, found.1, expected.0, expected.1, first.display()
    )]
    ImageSize { path: PathBuf, found: (u32, u32), expected: (u32, u32), first: PathBuf },
    #[error("{} is not {wanted}; convert it or move it away", path.display())]
    Stray { path: PathBuf, wanted: &'static str },
    #[error("{path:?} is not a class: the name of a class must be UTF-8; rename the folder")]
    ClassName { path: PathBuf },
    #[error("all training images of {name} are of one class, `{class}`; add images of a second class")]
    OneClass { name: String, class: String },
    #[error(
        "class `{class}` of {name} has training images and no test images; add some, or remove the class, whose accuracy cannot be measured"
    )]
    Untested { class: String, name: String },
    #[error(
        "a share of {fraction} of {images} images leaves one part empty; change the share (--held-out, or --image-share of a search), or use more images"
    )]
    Split { fraction: f64, images: usize },
    #[error("a padding of {padding} pixels is larger than the images, which have {width}x{height}; lower --padding")]
    Padding { padding: usize, height: usize, width: usize },
    #[error(
        "channel {channel} has a single value in all {images} images, so it cannot be normalised; check the images"
    )]
    Flat { channel: usize, images: usize },
}
