//! The models on the device, identified by the SHA-256 of their ONNX bytes: graphs in memory, and files
//! `FOLDER/DIGEST.onnx`.

use crate::{private::make_folder, temporary::Temporary};
use nas_exporters::{Graph, Param, Precision, onnx};
use nas_probe::DeployedGraph;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the probe was given no folder for models (--models DIR)")]
    NoFolder,
    #[error("`{0}` does not name a model: send the SHA-256 of its bytes as 64 lowercase hex digits")]
    Name(String),
    #[error("it is not on the device; send it first")]
    Absent,
    #[error("the bytes that arrived have the digest {0}; send them again")]
    Digest(String),
    #[error("can't write {path} ({bytes} bytes): {error}")]
    Write { path: PathBuf, bytes: u64, error: io::Error },
    #[error("its graph has more than {MOST_WEIGHTS} weights; a device measures smaller networks only")]
    Large,
    #[error("its graph cannot be written as ONNX: {0}")]
    Graph(String),
    #[error("its graph gives the digest {0} on the device; build host and probe from the same version")]
    Differs(String),
}

/// Maximum number of weights of a graph: its file takes 1 GiB.
const MOST_WEIGHTS: usize = 1 << 28;

/// A temporary file of this age was left by a probe that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);

/// The models of a device: files in a folder, and graphs from which such files are made.
pub struct Store {
    folder: Option<PathBuf>,
    graphs: HashMap<String, (Graph, Precision)>,
}

/// The ONNX file of a model. A file that was made from a graph is deleted when this is dropped.
pub struct ModelFile {
    pub path: PathBuf,
    pub bytes: u64,
    #[allow(dead_code)]
    pub temporary: Option<Temporary>,
}

impl Store {
    /// Creates a store without models. The folder is created when the first model is stored.
    pub fn new(folder: Option<PathBuf>) -> Store {
        Store { folder, graphs: HashMap::new() }
    }

    /// Removes the temporary files of probes that were killed. Others may be in use, but not for as long as a day.
    pub fn remove_left_behind(&self) {
        let Some(files) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        for path in files.filter_map(|file| Some(file.ok()?.path())).filter(|path| is_temporary(path)) {
            let modified = fs::metadata(&path).and_then(|found| found.modified());
            if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_BEHIND)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Returns the folder of models.
    ///
    /// # Errors
    /// [`Error::NoFolder`] if there is none.
    pub fn folder(&self) -> Result<&Path, Error> {
        self.folder.as_deref().ok_or(Error::NoFolder)
    }

    /// Keeps networks as graphs.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`], [`Error::Large`].
    pub fn keep(&mut self, graphs: Vec<DeployedGraph>) -> Result<(), Error> {
        for DeployedGraph { model, graph, precision } in graphs {
            self.path_of(&model)?;
            let weights = |sum: usize, param: Param| {
                param.dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).and_then(|n| sum.checked_add(n))
            };
            if graph.params().into_iter().try_fold(0, weights).is_none_or(|weights| weights > MOST_WEIGHTS) {
                return Err(Error::Large);
            }
            self.graphs.insert(model, (graph, precision));
        }
        Ok(())
    }

    /// Returns the file of a model. It is made from the graph of the model if there is one.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`], [`Error::Absent`], [`Error::Graph`], [`Error::Write`];
    /// [`Error::Differs`] if the graph gives another ONNX file than on the host.
    pub fn file(&self, model: &str) -> Result<ModelFile, Error> {
        let path = self.path_of(model)?;
        if let Some((graph, precision)) = self.graphs.get(model) {
            let bytes = onnx::untrained(graph, *precision).map_err(|e| Error::Graph(e.to_string()))?;
            let digest = nas_probe::sha256(&bytes);
            if digest != model {
                return Err(Error::Differs(digest));
            }
            // Two probes may write the same model at the same time.
            let path = path.with_extension(format!("{}.onnx", std::process::id()));
            let temporary = Some(Temporary::new(path.clone()));
            let file = ModelFile { path, bytes: bytes.len() as u64, temporary };
            let write = || {
                make_folder(self.folder.as_deref().unwrap_or(Path::new(".")))?;
                fs::write(&file.path, &bytes)
            };
            return match write() {
                Ok(()) => Ok(file),
                Err(error) => Err(Error::Write { path: file.path.clone(), bytes: file.bytes, error }),
            };
        }
        let bytes = fs::metadata(&path).map_err(|_| Error::Absent)?.len();
        if path.is_file() { Ok(ModelFile { path, bytes, temporary: None }) } else { Err(Error::Absent) }
    }

    /// Returns those of `models` that are not stored completely. Their digests are checked, since a power failure may
    /// leave an incomplete file.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`].
    pub fn missing(&self, models: Vec<String>) -> Result<Vec<String>, Error> {
        let mut missing = Vec::new();
        for model in models {
            let path = self.path_of(&model)?;
            if digest_of_file(&path).ok().as_ref() != Some(&model) {
                missing.push(model);
            }
        }
        Ok(missing)
    }

    /// Stores a model as a file, completely or not at all.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`], [`Error::Digest`], [`Error::Write`].
    pub fn put(&self, model: &str, bytes: &[u8]) -> Result<(), Error> {
        let (folder, path) = (self.folder()?, self.path_of(model)?);
        let digest = nas_probe::sha256(bytes);
        if digest != model {
            return Err(Error::Digest(digest));
        }
        // Two probes may store the same model at the same time.
        let part = Temporary::new(path.with_extension(format!("{}.part", std::process::id())));
        let write = || {
            make_folder(folder)?;
            fs::write(part.path(), bytes)?;
            fs::rename(part.path(), &path)
        };
        write().map_err(|error| Error::Write { path, bytes: bytes.len() as u64, error })
    }

    fn path_of(&self, model: &str) -> Result<PathBuf, Error> {
        let folder = self.folder()?;
        if !is_digest(model) {
            return Err(Error::Name(model.to_owned()));
        }
        Ok(folder.join(format!("{model}.onnx")))
    }
}

/// Returns whether this is `DIGEST.PROCESS.onnx` or `DIGEST.PROCESS.part`.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parts: Vec<&str> = name.split('.').collect();
    matches!(parts[..], [digest, process, "onnx" | "part"] if is_digest(digest) && process.parse::<u32>().is_ok())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn digest_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// SHA-256 of `abc`, from FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_model_is_stored_completely_or_missing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().join("a/b")));
        let missing = || store.missing(vec![ABC.to_owned()]).unwrap();
        assert_eq!(missing(), [ABC]);
        assert!(matches!(store.file(ABC), Err(Error::Absent)));
        store.put(ABC, b"abc").unwrap();
        let file = store.file(ABC).unwrap().path.clone();
        assert_eq!(fs::read(&file).unwrap(), b"abc");
        assert!(missing().is_empty());
        fs::write(&file, "ab").unwrap();
        assert_eq!(missing(), [ABC]);
        store.put(ABC, b"abc").unwrap();
        assert!(missing().is_empty());
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn the_file_of_a_graph_exists_only_while_it_is_used() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::new(Some(root.path().to_owned()));
        let mut graph = Graph::new(nas_exporters::Shape::new(2, 4, 4));
        graph.add("relu", nas_exporters::Op::Relu, &[graph.input()]);
        let precision = Precision::Fp32;
        let bytes = onnx::untrained(&graph, precision).unwrap();
        let model = nas_probe::sha256(&bytes);
        let files = || fs::read_dir(root.path()).unwrap().count();
        store.keep(vec![DeployedGraph { model: model.clone(), graph: graph.clone(), precision }]).unwrap();
        assert_eq!(files(), 0);
        let file = store.file(&model).unwrap();
        assert_eq!((fs::read(&file.path).unwrap(), file.bytes), (bytes.clone(), bytes.len() as u64));
        drop(file);
        assert_eq!(files(), 0);
        store.keep(vec![DeployedGraph { model: ABC.to_owned(), graph, precision }]).unwrap();
        assert!(matches!(store.file(ABC), Err(Error::Differs(digest)) if digest == model));
    }

    #[test]
    fn temporary_files_that_were_left_behind_are_removed_after_a_day() {
        let root = tempfile::tempdir().unwrap();
        let names = ["onnx", "7.onnx", "8.part", "9.onnx"].map(|end| format!("{ABC}.{end}"));
        let old = std::time::SystemTime::now() - 2 * LEFT_BEHIND;
        for name in &names {
            let file = File::create(root.path().join(name)).unwrap();
            file.set_modified(old).unwrap();
        }
        fs::write(root.path().join(&names[3]), "in use").unwrap();
        Store::new(Some(root.path().to_owned())).remove_left_behind();
        let left = names.clone().map(|name| root.path().join(name).exists());
        assert_eq!(left, [true, false, false, true]);
    }

    #[test]
    fn a_name_must_be_the_digest_of_the_bytes() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().to_owned()));
        for name in ["", "abc", &ABC.to_uppercase(), &format!("../{}", &ABC[3..])] {
            assert!(matches!(store.put(name, b"abc"), Err(Error::Name(_))), "{name}");
            assert!(store.file(name).is_err() && store.missing(vec![name.to_owned()]).is_err());
        }
        assert!(matches!(store.put(ABC, b"abd"), Err(Error::Digest(_))));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(matches!(Store::new(None).put(ABC, b"abc"), Err(Error::NoFolder)));
    }

    #[test]
    fn a_failed_write_names_its_path_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().to_owned()));
        let in_the_way = root.path().join(format!("{ABC}.onnx"));
        fs::create_dir(&in_the_way).unwrap();
        let error = store.put(ABC, b"abc").unwrap_err().to_string();
        assert!(error.contains(&in_the_way.display().to_string()), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
