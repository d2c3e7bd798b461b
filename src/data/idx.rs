//! IDX files, the format of MNIST and Fashion-MNIST: a big-endian header followed by bytes, gzipped or plain.
//! Layout: <https://yann.lecun.com/exdb/mnist>.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::{Data, Dataset, Error, Format, folder, read_file};
use crate::bounded::Side;

pub const FORMAT: Format = Format {
    name: "idx",
    files: "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
            t10k-labels-idx1-ubyte, each plain or .gz",
    present: |dir| {
        ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"]
            .iter()
            .any(|name| dir.join(name).exists() || dir.join(format!("{name}.gz")).exists())
    },
    load,
};

/// Unsigned bytes in three dimensions: images, rows, columns.
const IMAGES: u32 = 0x0803;
/// Unsigned bytes in one dimension.
const LABELS: u32 = 0x0801;
/// Where the content starts, after the magic number and the dimensions.
const IMAGES_START: usize = 16;
const LABELS_START: usize = 8;

/// The name of a file, for messages, and its uncompressed content.
struct File {
    name: String,
    bytes: Vec<u8>,
}

/// Loads a folder. The class names are the lines of `classes.txt`, or the numbers of the classes if there is no such
/// file.
fn load(dir: &Path, _: Option<Side>) -> Result<Data, Error> {
    let names = dir.join("classes.txt");
    let names = match names.exists() {
        true => Some(String::from_utf8_lossy(&read_file(&names)?).into_owned()),
        false => None,
    };
    assemble(folder::name(dir), names.as_deref(), |stem| {
        let candidates = [dir.join(stem), dir.join(format!("{stem}.gz"))];
        let Some(path) = candidates.into_iter().find(|path| path.exists()) else {
            return Err(Error::Missing { dir: dir.to_owned(), wanted: format!("{stem} or {stem}.gz") });
        };
        let bytes = read_file(&path)?;
        let name = path.display().to_string();
        if path.extension().is_some_and(|ext| ext == "gz") { unpack(name, &bytes) } else { Ok(File { name, bytes }) }
    })
}

/// Returns the data set that is compiled into the program.
pub fn embedded() -> Result<Data, Error> {
    macro_rules! file {
        ($name:literal) => {
            ($name, include_bytes!(concat!("fashion_mnist/", $name, ".gz")).as_slice())
        };
    }
    let files = [
        file!("train-images-idx3-ubyte"),
        file!("train-labels-idx1-ubyte"),
        file!("t10k-images-idx3-ubyte"),
        file!("t10k-labels-idx1-ubyte"),
    ];
    let classes = include_str!("fashion_mnist/classes.txt");
    assemble("Fashion-MNIST, 8000 + 2000 images".into(), Some(classes), |stem| {
        match files.iter().find(|(name, _)| *name == stem) {
            Some((name, bytes)) => unpack(format!("embedded {name}.gz"), bytes),
            None => Err(Error::Missing { dir: "embedded".into(), wanted: stem.to_owned() }),
        }
    })
}

fn unpack(name: String, packed: &[u8]) -> Result<File, Error> {
    let mut bytes = Vec::new();
    match MultiGzDecoder::new(packed).read_to_end(&mut bytes) {
        Ok(_) => Ok(File { name, bytes }),
        Err(error) => Err(Error::Corrupt {
            file: name,
            offset: bytes.len() as u64,
            expected: "a complete gzip stream".into(),
            found: error.to_string(),
        }),
    }
}

fn assemble(name: String, classes: Option<&str>, open: impl Fn(&str) -> Result<File, Error>) -> Result<Data, Error> {
    let train = Part::read("train", &open)?;
    let test = Part::read("t10k", &open)?;
    if test.shape != train.shape {
        let show = |[_, height, width]: [usize; 3]| format!("{height} rows and {width} columns");
        let expected = format!("{}, as in the training images", show(train.shape));
        return Err(corrupt(&test.images, 8, expected, show(test.shape)));
    }
    let named = classes.is_some();
    let classes: Vec<String> = match classes {
        Some(names) => names.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        None => {
            let last = train.labels.bytes[LABELS_START..].iter().max().copied().unwrap_or(0);
            (0..=last).map(|label| label.to_string()).collect()
        }
    };
    Ok(Data { name, train: train.dataset(&classes, named)?, test: test.dataset(&classes, named)? })
}

/// A file of images and a file of labels, both with valid headers and for the same number of images.
struct Part {
    images: File,
    labels: File,
    shape: [usize; 3],
}

impl Part {
    fn read(prefix: &str, open: impl Fn(&str) -> Result<File, Error>) -> Result<Part, Error> {
        let images = open(&format!("{prefix}-images-idx3-ubyte"))?;
        let labels = open(&format!("{prefix}-labels-idx1-ubyte"))?;
        let [count, height, width] = header(&images, IMAGES)?;
        let [found] = header(&labels, LABELS)?;
        if found != count {
            return Err(corrupt(&labels, 4, format!("{count} labels, one per image"), found.to_string()));
        }
        Ok(Part { images, labels, shape: [1, height, width] })
    }

    /// Returns the images with their labels. `named` says whether the classes are those of `classes.txt`.
    fn dataset(self, classes: &[String], named: bool) -> Result<Dataset, Error> {
        let labels: Vec<usize> = self.labels.bytes[LABELS_START..].iter().map(|&label| label.into()).collect();
        if let Some(k) = labels.iter().position(|&label| label >= classes.len()) {
            let by = if named { ", the number of names in classes.txt" } else { "" };
            let expected = format!("a label below {}{by}", classes.len());
            return Err(corrupt(&self.labels, LABELS_START + k, expected, labels[k].to_string()));
        }
        let mut images = self.images.bytes;
        images.drain(..IMAGES_START);
        Ok(Dataset { shape: self.shape, classes: classes.to_vec(), images, labels })
    }
}

/// Checks the magic number and the length of a file, and returns its `D` dimensions, all of which are above 0.
fn header<const D: usize>(file: &File, magic: u32) -> Result<[usize; D], Error> {
    let length = file.bytes.len();
    let start = 4 + 4 * D;
    if length < start {
        return Err(corrupt(file, length, format!("a header of {start} bytes"), format!("{length} bytes")));
    }
    let word = |k: usize| file.bytes[4 * k..4 * k + 4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
    if word(0) != magic {
        return Err(corrupt(file, 0, format!("the magic number {magic:#06x}"), format!("{:#06x}", word(0))));
    }
    let dims: [u32; D] = std::array::from_fn(|d| word(1 + d));
    if let Some(d) = dims.iter().position(|&dim| dim == 0) {
        return Err(corrupt(file, 4 + 4 * d, "a dimension above 0".into(), "0".into()));
    }
    let total = start as u128 + dims.iter().map(|&dim| u128::from(dim)).product::<u128>();
    if length as u128 != total {
        let at = total.min(length as u128) as usize;
        return Err(corrupt(file, at, format!("{total} bytes in all for {dims:?}"), format!("{length} bytes")));
    }
    Ok(dims.map(|dim| dim as usize))
}

fn corrupt(file: &File, offset: usize, expected: String, found: String) -> Error {
    Error::Corrupt { file: file.name.clone(), offset: offset as u64, expected, found }
}
