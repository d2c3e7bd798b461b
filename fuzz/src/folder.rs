use std::path::{Path, PathBuf};

/// A temporary folder that the executions of a target share.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Creates the folder.
    ///
    /// # Panics
    /// Panics if the folder cannot be created.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap_or_else(|e| panic!("cannot create a temporary folder: {e}")))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    ///
    /// # Panics
    /// Panics if the file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")));
        written.and_then(|()| std::fs::write(&path, bytes)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Removes everything in the folder.
    pub fn clear(&self) {
        for entry in std::fs::read_dir(self.0.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}
