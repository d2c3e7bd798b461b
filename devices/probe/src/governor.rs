//! Sets the scaling governor for a session, and restores the previous one however the session ends.

use crate::{
    private,
    sensors::{joined, text},
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Name of the note, a file in the folder of models that exists while a governor is set. It holds the
/// governors to restore, as JSON pairs of path and text. A running probe keeps it locked. If the probe is
/// killed, the note remains, and the next probe restores the governors from it. Only this user can write it.
const LEFT: &str = "governor.left";

/// Files, each with its previous text.
type Texts = Vec<(PathBuf, String)>;

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
    was: Texts,
    /// What else the note of a killed probe names.
    other: Texts,
    note: PathBuf,
    /// The note, locked until this is dropped.
    _lock: File,
}

impl Governor {
    /// Sets `governor` in all `files`, after restoring one that was set before. The governors to restore are
    /// first written to the note in `folder`. Returns them, joined by commas if they differ.
    ///
    /// # Errors
    /// See [`Error`]. The files then have their previous text.
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

    /// Restores the governors from before [`Governor::set`]. None is set while the guard is alive.
    pub fn end(&self) -> impl Drop {
        let mut held = self.held();
        held.take();
        held
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn note(was: Texts, folder: &Path) -> Result<Held, Error> {
        let note = folder.join(LEFT);
        let write = || -> io::Result<Option<(File, Texts)>> {
            let mut file = private::open(folder, LEFT)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut other = noted(&mut file);
            other.retain(|(path, _)| was.iter().all(|(set, _)| set != path));
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&serde_json::to_vec(&[was.as_slice(), &other].concat())?)?;
            file.sync_all()?;
            Ok(Some((file, other)))
        };
        match write() {
            Ok(Some((lock, other))) => Ok(Held { was, other, note, _lock: lock }),
            Ok(None) => Err(Error::Another(note)),
            Err(error) => Err(Error::Note { path: note, error }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        restore(&self.was, &self.other, &self.note);
    }
}

/// Restores those of `governors` that are in the note which a killed probe has left in `folder`. Does nothing if that
/// probe is still running, or if another user could have written the note. A note with other files is kept for a setup
/// that names them.
pub fn restore_left_behind(folder: &Path, governors: &[PathBuf]) {
    let Ok(mut file) = private::existing(folder, LEFT) else { return };
    if file.try_lock().is_err() {
        return;
    }
    let (named, other): (Vec<_>, Vec<_>) = noted(&mut file).into_iter().partition(|(path, _)| governors.contains(path));
    restore(&named, &other, &folder.join(LEFT));
}

/// Reads a note. An incomplete one is empty: the probe was killed before it set a governor.
fn noted(note: &mut File) -> Texts {
    let mut text = String::new();
    note.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Writes the previous text to each file, then reduces the note to the `other` files, or removes it if there are none.
/// The note is unchanged if a file could not be written.
fn restore(was: &[(PathBuf, String)], other: &[(PathBuf, String)], note: &Path) {
    if !put_back(was) {
        return;
    }
    let _ = match other {
        [] => fs::remove_file(note),
        _ => serde_json::to_vec(other).map_err(io::Error::from).and_then(|text| fs::write(note, text)),
    };
}

/// Writes the previous text to each file. Returns whether all of them have it now.
fn put_back(was: &[(PathBuf, String)]) -> bool {
    let mut all = true;
    let changed = |(path, text): &&(PathBuf, String)| read(path).ok().as_ref() != Some(text);
    for (path, text) in was.iter().filter(changed) {
        if let Err(error) = put(path, text) {
            // It is possible that nobody reads stderr any more.
            let _ = writeln!(io::stderr(), "nas-probe: {error}");
            all = false;
        }
    }
    all
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
        restore_left_behind(&folder, &files);
        assert_eq!(now(&files), ["performance"; 2]);
        let two = Governor::default();
        assert!(matches!(two.set(&files, "powersave", &folder), Err(Error::Another(_))));
        drop(one);
        assert_eq!(now(&files), ["ondemand"; 2]);
    }

    /// A note as a killed probe leaves it.
    fn leave(folder: &Path, text: &str) {
        private::open(folder, LEFT).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_note_left_behind_is_restored_and_an_incomplete_one_removed() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let note = folder.join(LEFT);
        leave(&folder, &serde_json::to_string(&[(&files[1], "ondemand")]).unwrap());
        restore_left_behind(&folder, &files);
        assert_eq!(now(&files), ["performance", "ondemand"]);
        assert!(!note.exists());
        leave(&folder, "[[\"/sys");
        restore_left_behind(&folder, &files);
        assert!(!note.exists());
        // The note is kept if a file cannot be restored.
        let gone = root.path().join("gone");
        leave(&folder, &serde_json::to_string(&[(&gone, "ondemand")]).unwrap());
        restore_left_behind(&folder, &[gone]);
        assert!(note.exists());
        restore_left_behind(root.path(), &files);
    }

    #[test]
    fn a_note_of_other_files_outlives_a_session_that_does_not_name_them() {
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "ondemand"]);
        leave(&folder, &serde_json::to_string(&[(&files[0], "schedutil")]).unwrap());
        restore_left_behind(&folder, &files[1..]);
        let governor = Governor::default();
        governor.set(&files[1..], "performance", &folder).unwrap();
        drop(governor);
        assert_eq!(now(&files), ["performance", "ondemand"]);
        restore_left_behind(&folder, &files);
        assert_eq!(now(&files), ["schedutil", "ondemand"]);
        assert!(!folder.join(LEFT).exists());
    }

    #[test]
    fn only_governor_files_are_restored_and_only_from_a_note_of_this_user() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let (files, folder) = policies(root.path(), ["performance", "performance"]);
        let note = folder.join(LEFT);
        let planted = root.path().join("shadow");
        fs::write(&planted, "secret").unwrap();
        leave(&folder, &serde_json::to_string(&[(&planted, "root::0"), (&files[0], "ondemand")]).unwrap());
        restore_left_behind(&folder, &files);
        assert_eq!(fs::read_to_string(&planted).unwrap(), "secret");
        assert_eq!(now(&files), ["ondemand", "performance"]);
        fs::remove_file(&note).unwrap();

        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = || {
            restore_left_behind(&folder, &files);
            assert_eq!(now(&files), ["ondemand", "performance"]);
        };
        let text = serde_json::to_string(&[(&files[1], "ondemand")]).unwrap();
        leave(&folder, &text);
        mode(&note, 0o666);
        refused();
        mode(&note, 0o600);
        mode(&folder, 0o777);
        refused();
        mode(&folder, 0o700);
        fs::rename(&note, root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), &note).unwrap();
        refused();
        fs::rename(root.path().join("elsewhere"), &note).unwrap();
        restore_left_behind(&folder, &files);
        assert_eq!(now(&files), ["ondemand", "ondemand"]);
    }
}
