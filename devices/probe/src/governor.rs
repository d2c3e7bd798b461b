//! The scaling governor: set for a session, and put back after it however it ends.

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

/// In the models' folder, while a governor is set: what to put back, as JSON pairs of file and text.
/// A probe that lives holds a lock on it; one that was killed has left it for the next to put back.
const LEFT: &str = "governor.left";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this device has no scaling governor to set; do without, or name its files in sensors.governor")]
    None,
    #[error("can't read the scaling governor in {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "can't set the scaling governor to {governor} in {path}: {error}; let this login write that file, or \
         do without"
    )]
    Write { path: PathBuf, governor: String, error: io::Error },
    #[error("can't note in {path} what to put back, so the scaling governor stays as it is: {error}")]
    Note { path: PathBuf, error: io::Error },
    #[error("another probe has set the scaling governor ({0} is locked); wait for it to end")]
    Another(PathBuf),
}

/// The governor of this session, if it set one. Dropping it puts back what was there.
#[derive(Default)]
pub struct Governor(Mutex<Option<Held>>);

/// What was in each file that was written.
struct Held {
    was: Vec<(PathBuf, String)>,
    note: PathBuf,
    /// Locked until dropped.
    _lock: File,
}

impl Governor {
    /// A governor that a signal which ends the process puts back first. SIGPIPE is no such signal:
    /// Rust ignores it, and the write that failed ends the probe.
    ///
    /// # Errors
    /// The system's, where it takes no handler.
    pub fn start() -> io::Result<Arc<Governor>> {
        let governor = Arc::new(Governor::default());
        let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
        let shared = Arc::clone(&governor);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // Locked until the process is gone, so that none is set in between.
                let mut held = shared.held();
                held.take();
                let _ = emulate_default_handler(signal);
            }
        });
        Ok(governor)
    }

    /// Sets `governor` in all `files`, in place of one set before; returns what was there (several
    /// that differ joined by commas). What to put back is noted in `folder` first.
    ///
    /// # Errors
    /// As [`Error`]; the files are then as they were.
    pub fn set(&self, files: &[PathBuf], governor: &str, folder: &Path) -> Result<String, Error> {
        let mut held = self.held();
        held.take();
        let was: Vec<_> =
            files.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<Result<_, Error>>()?;
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

    /// Puts back what was there before [`Governor::set`].
    pub fn put_back(&self) {
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
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&note)?;
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
        put_back(&self.was, &self.note);
    }
}

/// Puts back what a probe that was killed has left in `folder`. Nothing if that probe still lives.
pub fn put_back_left(folder: &Path) {
    let note = folder.join(LEFT);
    let Ok(file) = File::open(&note) else { return };
    if file.try_lock().is_err() {
        return;
    }
    // One that was cut off while it was written: no governor had been set yet.
    let was: Vec<(PathBuf, String)> =
        fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    put_back(&was, &note);
}

/// Writes each file's text back and removes the note, which stays where one could not be written.
fn put_back(was: &[(PathBuf, String)], note: &Path) {
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
    fn it_is_set_everywhere_and_put_back_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "schedutil"]);
        let governor = Governor::default();
        assert_eq!(governor.set(&files, "performance", &folder).unwrap(), "ondemand,schedutil");
        assert_eq!(now(&files), ["performance"; 2]);
        assert!(folder.join(LEFT).exists());
        // Another takes its place, and still knows what was there first.
        assert_eq!(governor.set(&files, "powersave", &folder).unwrap(), "ondemand,schedutil");
        assert_eq!(now(&files), ["powersave"; 2]);
        drop(governor);
        assert_eq!(now(&files), ["ondemand", "schedutil"]);
        assert!(!folder.join(LEFT).exists());
    }

    #[test]
    fn one_that_can_not_be_set_leaves_all_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "ondemand"]);
        let governor = Governor::default();
        assert!(matches!(governor.set(&[], "performance", &folder), Err(Error::None)));
        let missing = [files[0].clone(), root.path().join("none")];
        assert!(matches!(governor.set(&missing, "performance", &folder), Err(Error::Read { .. })));
        // It can be read, and nobody can write it.
        let fixed = [files[0].clone(), "/proc/version".into()];
        let error = governor.set(&fixed, "performance", &folder).unwrap_err();
        assert!(matches!(&error, Error::Write { path, .. } if *path == fixed[1]), "{error}");
        assert!(!folder.join(LEFT).exists());
        assert_eq!(now(&files), ["ondemand"; 2]);
        // A folder that can't be one, because a file is in its place.
        assert!(matches!(governor.set(&files, "performance", &files[0]), Err(Error::Note { .. })));
        assert_eq!(now(&files), ["ondemand"; 2]);
    }

    #[test]
    fn what_is_there_already_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let governor = Governor::default();
        assert_eq!(governor.set(&files, "performance", &folder).unwrap(), "performance");
        assert!(!folder.exists());
    }

    #[test]
    fn two_at_once_do_not_get_in_each_others_way() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["ondemand", "ondemand"]);
        let one = Governor::default();
        one.set(&files, "performance", &folder).unwrap();
        put_back_left(&folder);
        assert_eq!(now(&files), ["performance"; 2]);
        let two = Governor::default();
        assert!(matches!(two.set(&files, "powersave", &folder), Err(Error::Another(_))));
        drop(one);
        assert_eq!(now(&files), ["ondemand"; 2]);
    }

    #[test]
    fn what_was_left_is_put_back_and_a_note_cut_off_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let note = folder.join(LEFT);
        fs::create_dir(&folder).unwrap();
        fs::write(&note, serde_json::to_vec(&[(&files[1], "ondemand")]).unwrap()).unwrap();
        put_back_left(&folder);
        assert_eq!(now(&files), ["performance", "ondemand"]);
        assert!(!note.exists());
        fs::write(&note, "[[\"/sys").unwrap();
        put_back_left(&folder);
        assert!(!note.exists());
        // What can't be put back is kept for another try.
        fs::write(&note, serde_json::to_vec(&[(root.path().join("gone"), "ondemand")]).unwrap()).unwrap();
        put_back_left(&folder);
        assert!(note.exists());
        put_back_left(root.path());
    }
}
