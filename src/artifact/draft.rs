use super::{ArtifactError, create_parent, io};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file that is being written under a temporary name, `NAME.part` beside the final file, until it is published.
/// Dropping the draft before that removes the temporary file.
pub struct Draft {
    part: PathBuf,
    to: PathBuf,
}

impl Draft {
    /// Prepares to write the file `path`, or the file that it links to. Creates the folder if necessary.
    ///
    /// # Errors
    /// Fails if the folder cannot be created, or if `path` exists and is not a regular file.
    pub fn of(path: &Path) -> Result<Draft, ArtifactError> {
        let to = resolved(path)?;
        if fs::metadata(&to).is_ok_and(|found| !found.is_file()) {
            return Err(ArtifactError::NotAFile { path: to });
        }
        create_parent(&to)?;
        let mut name = to.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        Ok(Draft { part: to.with_file_name(name), to })
    }

    /// Returns the path to write to.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Gives the file its final name, once its content is on the disk.
    ///
    /// # Errors
    /// Fails if the file cannot be written to the disk or renamed.
    pub fn publish(self) -> Result<(), ArtifactError> {
        let publish = || {
            fs::File::open(&self.part)?.sync_all()?;
            fs::rename(&self.part, &self.to)
        };
        io("write", &self.to, publish())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part);
    }
}

/// Writes a complete file. A device or a pipe is written to rather than replaced.
///
/// # Errors
/// Fails if the file cannot be written. An existing file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let write = || OpenOptions::new().write(true).open(path)?.write_all(bytes);
        return io("write", path, write());
    }
    let draft = Draft::of(path)?;
    io("write", path, fs::write(draft.path(), bytes))?;
    draft.publish()
}

/// The longest chain of symbolic links that the kernel follows.
const MOST_LINKS: usize = 40;

/// Returns the file that a symbolic link leads to, which need not exist. Returns any other path unchanged.
fn resolved(path: &Path) -> Result<PathBuf, ArtifactError> {
    let mut to = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&to) {
            Ok(target) => to = to.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(to),
        }
    }
    io("write", path, Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)))
}

/// Rejects an output file that is also one of `inputs`. Without `force`, also rejects an existing file of another kind
/// than the one to be written; `is_kind` recognises that kind by the content.
///
/// # Errors
/// [`ArtifactError::Input`] and [`ArtifactError::OtherKind`], respectively.
pub fn check_output(
    path: &Path,
    inputs: &[&Path],
    force: bool,
    is_kind: impl FnOnce(&[u8]) -> bool,
) -> Result<(), ArtifactError> {
    let Ok(real) = fs::canonicalize(path) else { return Ok(()) };
    if inputs.iter().any(|input| fs::canonicalize(input).is_ok_and(|input| input == real)) {
        return Err(ArtifactError::Input { path: path.into() });
    }
    if force || !real.is_file() {
        return Ok(());
    }
    let bytes = io("read", path, fs::read(&real))?;
    if is_kind(&bytes) { Ok(()) } else { Err(ArtifactError::OtherKind { path: path.into() }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, symlink};

    #[test]
    fn a_link_stays_and_its_target_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "below/target"].map(|name| dir.path().join(name));
        symlink("below/target", &link).unwrap();
        for text in ["new", "replaced"] {
            write(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(write(&dir.path().join("loop"), b"").is_err());
    }

    #[test]
    fn what_is_no_regular_file_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(matches!(Draft::of(&pipe), Err(ArtifactError::NotAFile { .. })));
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_no_part() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write(&dir.path().join("taken"), b"x").is_err());
        let draft = Draft::of(&dir.path().join("dropped")).unwrap();
        fs::write(draft.path(), "half").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_output_is_neither_an_input_nor_a_file_of_another_kind() {
        let dir = tempfile::tempdir().unwrap();
        let [table, notes] = ["table", "notes"].map(|name| dir.path().join(name));
        fs::write(&table, "a table").unwrap();
        fs::write(&notes, "my notes").unwrap();
        symlink("table", dir.path().join("link")).unwrap();
        let is_table = |bytes: &[u8]| bytes.starts_with(b"a table");
        let check = |path: &Path, force| check_output(path, &[&table], force, is_table);
        assert!(matches!(check(&dir.path().join("link"), true), Err(ArtifactError::Input { .. })));
        assert!(matches!(check(&notes, false), Err(ArtifactError::OtherKind { .. })));
        assert!(check(&notes, true).is_ok() && check(&dir.path().join("new"), false).is_ok());
        assert!(check_output(&table, &[], false, is_table).is_ok());
    }
}
