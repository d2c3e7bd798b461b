use super::{ArtifactError, create_parent, io};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The right to change a run or a latency table, which only one process has at a time. The kernel releases it when the
/// process ends, however it ends.
///
/// The lock is taken on a separate file, which holds the process id and is removed with the lock.
#[derive(Debug)]
pub struct Lock {
    file: PathBuf,
    /// The folders that were created for the lock, innermost first. They are removed with it if they are still empty.
    created: Vec<PathBuf>,
    _held: File,
}

impl Lock {
    /// Locks a folder, which is created if it does not exist. The lock file is `.lock` in that folder.
    ///
    /// # Errors
    /// [`ArtifactError::Locked`], which names the process that holds the lock. Also fails if the lock file cannot be
    /// written.
    pub fn of_folder(folder: &Path) -> Result<Lock, ArtifactError> {
        Self::take(folder, folder.join(".lock"))
    }

    /// Locks a file. The lock file is `.NAME.lock` in the same folder.
    ///
    /// # Errors
    /// Same as [`Lock::of_folder`].
    pub fn of_file(file: &Path) -> Result<Lock, ArtifactError> {
        let name = file.file_name().unwrap_or_default().display();
        Self::take(file, file.with_file_name(format!(".{name}.lock")))
    }

    fn take(what: &Path, path: PathBuf) -> Result<Lock, ArtifactError> {
        let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let created = folders.take_while(|folder| !folder.exists()).map(PathBuf::from).collect();
        create_parent(&path)?;
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = io("lock", &path, opened)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&file).take(32).read_to_string(&mut holder);
                    let holder = holder.trim().parse().ok();
                    return Err(ArtifactError::Locked { path: what.into(), holder });
                }
                Err(TryLockError::Error(source)) => return io("lock", &path, Err(source)),
            }
            // The previous holder may have removed the file between the two calls. The lock is then on a file without a
            // name.
            let is_there = io("lock", &path, file.metadata())?;
            if !std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (is_there.dev(), is_there.ino())) {
                continue;
            }
            let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            io("lock", &path, written)?;
            return Ok(Lock { file: path, created, _held: file });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
        // This removes only empty folders.
        self.created.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_process_that_holds_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/run");
        let of_file = || Lock::of_file(&dir.path().join("t.jsonl"));
        let of_folder = || Lock::of_folder(&run);
        for take in [&of_file as &dyn Fn() -> _, &of_folder] {
            let held = take().unwrap();
            match take() {
                Err(ArtifactError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
                other => panic!("{other:?}"),
            }
            drop(held);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // A file that a killed process left behind does not lock anything.
        std::fs::write(dir.path().join(".t.jsonl.lock"), "1\n").unwrap();
        drop(of_file().unwrap());
    }
}
