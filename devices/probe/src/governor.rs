//! Sets the scaling governor for a session, and restores the previous one however the session ends.

use crate::sensors::{joined, text};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Name of the note, a file in the folder of models that exists while a governor is set. It holds the
/// governors to restore, as JSON pairs of path and text. A running probe keeps it locked. If the probe is
/// killed, the note remains, and the next probe restores the governors from it.
const LEFT: &str = "governor.left";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this device has no scaling governor to set; omit it, or name its files in sensors.governor")]
    None,
    #[error("can't read the scaling governor in {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "can't set the scaling governor to {governor} in {path}: {error}; give this user write access to \
         it, or leave the governor as it is"
    )]
    Write { path: PathBuf, governor: String, error: io::Error },
    #[error("can't record the present scaling governor in {path}, so it is not changed: {error}")]
    Note { path: PathBuf, error: io::Error },
    #[error("another probe has set the scaling governor ({0} is locked); wait for it to end")]
    Another(PathBuf),
}

/// The governor that this session has set, if any. Dropping it restores the previous one.
#[derive(Default)]
pub struct Governor(Mutex<Option<Held>>);

/// A governor that is set.
struct Held {
    /// The files that were written, with their previous text.
    was: Vec<(PathBuf, String)>,
    note: PathBuf,
    /// The note, locked until this is dropped.
    _lock: File,
}

impl Governor {
    /// Returns a governor that is also restored before SIGTERM, SIGHUP or SIGINT ends the process. SIGPIPE
    /// needs no handler: Rust ignores it, and the failed write ends the probe.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub fn start() -> io::Result<Arc<Governor>> {
        let governor = Arc::new(Governor::default());
        let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
        let shared = Arc::clone(&governor);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // The lock is held until the process ends, so that no governor is set in the meantime.
                let mut held = shared.held();
                held.take();
                let _ = emulate_default_handler(signal);
            }
        });
        Ok(governor)
    }

    /// Sets `governor` in all `files`, after restoring one that was set before. The governors to restore are
    /// first written to the note in `folder`. Returns them, joined by commas if they differ.
    ///
    /// # Errors
    /// As in [`Error`]; the files then have their previous text.
    pub fn set(&self, files: &[PathBuf], governor: &str, folder: &Path) -> Result<String, Error> {
        let mut held = self.held();
        held.take();
        let was: Vec<_> = files.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<Result<_, Error>>()?;
        let names = joined(was.iter().map(|(_, text)| text.as_str())).ok_or(Error::None)?;
        let other: Vec<_> = was.into_iter().filter(|(_, text)| text != governor).collect();
        if !other.is_empty() {
            let set = held.insert(Held::note(other, folder)?);
            if let Err(error) = set.was.iter().try_for_each(|(path, _)| put(path, governor)) {
                held.take();
                return Err(error);
            }
        }
        Ok(names)
    }

    /// Restores the governors from before [`Governor::set`].
    pub fn restore(&self) {
        self.held().take();
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn note(was: Vec<(PathBuf, String)>, folder: &Path) -> Result<Held, Error> {
        let note = folder.join(LEFT);
        let write = || -> io::Result<Option<File>> {
            fs::create_dir_all(folder)?;
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&note)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec(&was)?)?;
            file.sync_all()?;
            Ok(Some(file))
        };
        match write() {
            Ok(Some(lock)) => Ok(Held { was, note, _lock: lock }),
            Ok(None) => Err(Error::Another(note)),
            Err(error) => Err(Error::Note { path: note, error }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        restore(&self.was, &self.note);
    }
}

/// Restores the governors from the note that a killed probe has left in `folder`. Does nothing if that probe
/// is still running.
pub fn restore_left_behind(folder: &Path) {
    let note = folder.join(LEFT);
    let Ok(file) = File::open(&note) else { return };
    if file.try_lock().is_err() {
        return;
    }
    // An incomplete note means that the probe was killed before it set a governor.
    let was: Vec<(PathBuf, String)> =
        fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    restore(&was, &note);
}

/// Writes the previous text to each file, then removes the note, unless a file could not be written.
fn restore(was: &[(PathBuf, String)], note: &Path) {
    let mut all = true;
    let changed = |(path, text): &&(PathBuf, String)| read(path).ok().as_ref() != Some(text);
    for (path, text) in was.iter().filter(changed) {
        if let Err(error) = put(path, text) {
            eprintln!("nas-probe: {error}");
            all = false;
        }
    }
    if all {
        let _ = fs::remove_file(note);
    }
}

fn read(path: &Path) -> Result<String, Error> {
    text(path).map_err(|error| Error::Read { path: path.to_owned(), error })
}

fn put(path: &Path, governor: &str) -> Result<(), Error> {
    let write = || OpenOptions::new().write(true).truncate(true).open(path)?.write_all(governor.as_bytes());
    write().map_err(|error| Error::Write { path: path.to_owned(), governor: governor.to_owned(), error })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Two policies under a temporary root, with a folder for the note.
    fn policies(root: &Path, governors: [&str; 2]) -> (Vec<PathBuf>, PathBuf) {
        let files = [0, 1].map(|n| root.join(format!("policy{n}")));
        for (file, governor) in files.iter().zip(governors) {
            fs::write(file, governor.to_owned() + "\n").unwrap();
        }
        (files.into(), root.join("models"))
    }

    fn now(files: &[PathBuf]) -> Vec<String> {
        files.iter().map(|file| fs::read_to_string(file).unwrap().trim().to_owned()).collect()
    }

    #[test]
    fn all_files_are_set_and_each_gets_its_own_governor_back() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "schedutil"]);
        let governor = Governor::default();
        assert_eq!(governor.set(&files, "performance", &folder).unwrap(), "ondemand,schedutil");
        assert_eq!(now(&files), ["performance"; 2]);
        assert!(folder.join(LEFT).exists());
        // A second governor replaces the first, and the original ones are still those to restore.
        assert_eq!(governor.set(&files, "powersave", &folder).unwrap(), "ondemand,schedutil");
        assert_eq!(now(&files), ["powersave"; 2]);
        drop(governor);
        assert_eq!(now(&files), ["ondemand", "schedutil"]);
        assert!(!folder.join(LEFT).exists());
    }

    #[test]
    fn a_governor_that_cannot_be_set_leaves_all_files_unchanged() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "ondemand"]);
        let governor = Governor::default();
        assert!(matches!(governor.set(&[], "performance", &folder), Err(Error::None)));
        let missing = [files[0].clone(), root.path().join("none")];
        assert!(matches!(governor.set(&missing, "performance", &folder), Err(Error::Read { .. })));
        // This file is readable, but not even root can write it.
        let fixed = [files[0].clone(), "/proc/version".into()];
        let error = governor.set(&fixed, "performance", &folder).unwrap_err();
        assert!(matches!(&error, Error::Write { path, .. } if *path == fixed[1]), "{error}");
        assert!(!folder.join(LEFT).exists());
        assert_eq!(now(&files), ["ondemand"; 2]);
        // The folder cannot be created, because a file has its name.
        assert!(matches!(governor.set(&files, "performance", &files[0]), Err(Error::Note { .. })));
        assert_eq!(now(&files), ["ondemand"; 2]);
    }

    #[test]
    fn a_governor_that_is_already_set_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let governor = Governor::default();
        assert_eq!(governor.set(&files, "performance", &folder).unwrap(), "performance");
        assert!(!folder.exists());
    }

    #[test]
    fn a_second_governor_does_not_disturb_the_first() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "ondemand"]);
        let one = Governor::default();
        one.set(&files, "performance", &folder).unwrap();
        restore_left_behind(&folder);
        assert_eq!(now(&files), ["performance"; 2]);
        let two = Governor::default();
        assert!(matches!(two.set(&files, "powersave", &folder), Err(Error::Another(_))));
        drop(one);
        assert_eq!(now(&files), ["ondemand"; 2]);
    }

    #[test]
    fn a_note_left_behind_is_restored_and_an_incomplete_one_removed() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let note = folder.join(LEFT);
        fs::create_dir(&folder).unwrap();
        fs::write(&note, serde_json::to_vec(&[(&files[1], "ondemand")]).unwrap()).unwrap();
        restore_left_behind(&folder);
        assert_eq!(now(&files), ["performance", "ondemand"]);
        assert!(!note.exists());
        fs::write(&note, "[[\"/sys").unwrap();
        restore_left_behind(&folder);
        assert!(!note.exists());
        // The note is kept if a file cannot be restored.
        fs::write(&note, serde_json::to_vec(&[(root.path().join("gone"), "ondemand")]).unwrap()).unwrap();
        restore_left_behind(&folder);
        assert!(note.exists());
        restore_left_behind(root.path());
    }
}
