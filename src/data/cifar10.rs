//! CIFAR-10, binary version: records of a label and 32x32 pixels, red plane first.
//! Layout: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::path::Path;

use super::{Data, Dataset, Error, Format, read_file};
use crate::bounded::Side;

pub const FORMAT: Format = Format {
    name: "cifar10",
    files: "data_batch_1.bin to data_batch_5.bin, test_batch.bin and batches.meta.txt",
    present: |dir| {
        let dir = within(dir);
        dir.join("data_batch_1.bin").exists() || dir.join("test_batch.bin").exists()
    },
    load,
};

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const RECORD: usize = 1 + PIXELS;
const CLASSES: usize = 10;
/// The folder inside the official archive.
const ARCHIVE: &str = "cifar-10-batches-bin";

fn within(dir: &Path) -> std::path::PathBuf {
    let inner = dir.join(ARCHIVE);
    if inner.is_dir() { inner } else { dir.to_owned() }
}

fn load(dir: &Path, _: Option<Side>) -> Result<Data, Error> {
    let dir = within(dir);
    let classes = class_names(&dir)?;
    let train = [1, 2, 3, 4, 5].map(|k| format!("data_batch_{k}.bin"));
    Ok(Data {
        name: "CIFAR-10".into(),
        train: read(&dir, &train, &classes)?,
        test: read(&dir, &["test_batch.bin".into()], &classes)?,
    })
}

fn class_names(dir: &Path) -> Result<Vec<String>, Error> {
    let bytes = bytes(dir, "batches.meta.txt")?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != CLASSES {
        return Err(Error::Corrupt {
            file: dir.join("batches.meta.txt").display().to_string(),
            offset: bytes.len() as u64,
            expected: format!("{CLASSES} class names in all, one per line"),
            found: names.len().to_string(),
        });
    }
    Ok(names)
}

fn read(dir: &Path, files: &[String], classes: &[String]) -> Result<Dataset, Error> {
    let mut set = Dataset { shape: SHAPE, classes: classes.to_vec(), images: Vec::new(), labels: Vec::new() };
    for name in files {
        let bytes = bytes(dir, name)?;
        let corrupt = |offset: usize, expected: String, found: String| Error::Corrupt {
            file: dir.join(name).display().to_string(),
            offset: offset as u64,
            expected,
            found,
        };
        let records = bytes.chunks_exact(RECORD);
        let rest = records.remainder().len();
        if bytes.is_empty() || rest != 0 {
            let expected = format!("a record of {RECORD} bytes");
            return Err(corrupt(bytes.len() - rest, expected, format!("{rest} bytes")));
        }
        set.images.reserve(records.len() * PIXELS);
        for (k, record) in records.enumerate() {
            let label = usize::from(record[0]);
            if label >= CLASSES {
                return Err(corrupt(k * RECORD, format!("a label below {CLASSES}"), label.to_string()));
            }
            set.labels.push(label);
            set.images.extend_from_slice(&record[1..]);
        }
    }
    Ok(set)
}

fn bytes(dir: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let path = dir.join(name);
    if !path.exists() {
        return Err(Error::Missing { dir: dir.to_owned(), wanted: name.to_owned() });
    }
    read_file(&path)
}
