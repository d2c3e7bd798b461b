//! Files that do not outlive the probe.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file, whether it exists yet or not, that is removed when this is dropped or when the probe ends.
pub struct Temporary(PathBuf);

impl Temporary {
    pub fn new(path: PathBuf) -> Temporary {
        files().insert(path.clone());
        Temporary(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut files = files();
        let _ = fs::remove_file(&self.0);
        files.remove(&self.0);
    }
}

/// Removes all temporary files. No new one is registered while the guard is alive.
pub fn remove_all() -> impl Drop {
    let files = files();
    files.iter().for_each(|path| drop(fs::remove_file(path)));
    files
}

fn files() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}
