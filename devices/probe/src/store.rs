//! The models on the device: `FOLDER/DIGEST.onnx`, each under the SHA-256 of its bytes.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the probe was given no folder for models (--models DIR)")]
    NoFolder,
    #[error("`{0}` names no model: send the SHA-256 of its bytes as 64 lowercase hex digits")]
    Name(String),
    #[error("it is not on the device; put it there first")]
    Absent,
    #[error("its bytes arrived with the digest {0}; send them again")]
    Digest(String),
    #[error("can't write {path}: {error}")]
    Write { path: PathBuf, error: io::Error },
}

pub struct Store(Option<PathBuf>);

impl Store {
    /// The folder is made when the first model is put there.
    pub fn new(folder: Option<PathBuf>) -> Store {
        Store(folder)
    }

    /// # Errors
    /// [`Error::NoFolder`].
    pub fn folder(&self) -> Result<&Path, Error> {
        self.0.as_deref().ok_or(Error::NoFolder)
    }

    /// The file of a model that is here.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`], [`Error::Absent`].
    pub fn file(&self, model: &str) -> Result<PathBuf, Error> {
        let path = self.place(model)?;
        if path.is_file() { Ok(path) } else { Err(Error::Absent) }
    }

    /// Those of `models` that are not here in full: a power cut may leave an empty file.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`].
    pub fn missing(&self, models: Vec<String>) -> Result<Vec<String>, Error> {
        let mut missing = Vec::new();
        for model in models {
            let path = self.place(&model)?;
            if digest_of_file(&path).ok().as_ref() != Some(&model) {
                missing.push(model);
            }
        }
        Ok(missing)
    }

    /// Lays a model down; a file of that name is there in full or not at all.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::Name`], [`Error::Digest`], [`Error::Write`].
    pub fn put(&self, model: &str, bytes: &[u8]) -> Result<(), Error> {
        let (folder, path) = (self.folder()?, self.place(model)?);
        let digest = nas_probe::sha256(bytes);
        if digest != model {
            return Err(Error::Digest(digest));
        }
        // Two probes may put the same model at the same time.
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let write = || {
            fs::create_dir_all(folder)?;
            fs::write(&part, bytes)?;
            fs::rename(&part, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&part);
            Error::Write { path, error }
        })
    }

    fn place(&self, model: &str) -> Result<PathBuf, Error> {
        let folder = self.folder()?;
        if model.len() != 64 || !model.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::Name(model.to_owned()));
        }
        Ok(folder.join(format!("{model}.onnx")))
    }
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
    fn a_model_is_here_in_full_or_missing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().join("a/b")));
        let missing = || store.missing(vec![ABC.to_owned()]).unwrap();
        assert_eq!(missing(), [ABC]);
        assert!(matches!(store.file(ABC), Err(Error::Absent)));
        store.put(ABC, b"abc").unwrap();
        let file = store.file(ABC).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"abc");
        assert!(missing().is_empty());
        fs::write(&file, "ab").unwrap();
        assert_eq!(missing(), [ABC]);
        store.put(ABC, b"abc").unwrap();
        assert!(missing().is_empty());
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn a_name_is_a_digest_and_the_digest_is_the_bytes() {
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
    fn what_can_not_be_written_is_told_with_its_path_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().to_owned()));
        let in_the_way = root.path().join(format!("{ABC}.onnx"));
        fs::create_dir(&in_the_way).unwrap();
        let error = store.put(ABC, b"abc").unwrap_err().to_string();
        assert!(error.contains(&in_the_way.display().to_string()), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
