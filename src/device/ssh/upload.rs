use super::{Connection, SshError};
use crate::progress;
use nas_probe::{printable, sha256};
use ssh2::{OpenFlags, OpenType};
use std::io::Write;
use std::path::Path;

/// Bytes that are written between two updates of the progress bar.
const CHUNK: usize = 256 << 10;

/// A file to upload.
pub struct Upload<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
    pub executable: bool,
}

impl Connection {
    /// Stores a file in the site's folder on the board, unless it is there already, and returns its path. Its name
    /// there ends in the digest of its content, and the file gets this name only after the board has computed the same
    /// digest.
    ///
    /// # Errors
    /// Fails if the folder cannot be written, the disk is full, or the link breaks.
    pub fn upload(&self, file: &Upload) -> Result<String, SshError> {
        let digest = sha256(file.bytes);
        let folder = &self.site.folder;
        let path = format!("{folder}/{}-{}", file.name, &digest[..16]);
        let doing = format!("uploading {}", file.name);
        let failed = |e| self.failed(&doing, e);
        let sftp = self.session.sftp().map_err(failed)?;
        let size = file.bytes.len() as u64;
        let found = sftp.stat(Path::new(&path));
        // The file may have been damaged or replaced since it was uploaded.
        if found.as_ref().is_ok_and(|stat| stat.size == Some(size)) && self.digest(&path)? == digest {
            return Ok(path);
        }
        self.make_folder(&sftp)?;
        let part = format!("{path}.part");
        let sent = self.send(&sftp, &part, file).and_then(|()| {
            if self.digest(&part)? != digest {
                return Err(SshError::Damaged { to: self.site.to_string(), name: file.name.into() });
            }
            if found.is_ok() {
                // SFTP does not replace a file.
                sftp.unlink(Path::new(&path)).map_err(failed)?;
            }
            sftp.rename(Path::new(&part), Path::new(&path), None).map_err(failed)
        });
        if sent.is_err() {
            let _ = sftp.unlink(Path::new(&part));
        }
        sent.map(|()| path)
    }

    /// Returns the SHA-256 of a file on the board, as the board computes it.
    fn digest(&self, path: &str) -> Result<String, SshError> {
        let printed = self.run(&format!("sha256sum {}", shell_words::quote(path)))?;
        // A backslash marks a name with special characters.
        Ok(printed.trim_start_matches('\\').chars().take(64).collect())
    }

    fn make_folder(&self, sftp: &ssh2::Sftp) -> Result<(), SshError> {
        let folder = Path::new(&self.site.folder);
        let mut above: Vec<&Path> = folder.ancestors().filter(|a| !a.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if sftp.stat(folder).is_err()
                && let Err(error) = sftp.mkdir(folder, 0o755)
            {
                return Err(self.unwritable(&folder.display().to_string(), &error));
            }
        }
        Ok(())
    }

    fn send(&self, sftp: &ssh2::Sftp, part: &str, file: &Upload) -> Result<(), SshError> {
        let mode = if file.executable { 0o755 } else { 0o644 };
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let opened = sftp.open_mode(part, flags, mode, OpenType::File);
        let mut to = opened.map_err(|e| self.unwritable(part, &e))?;
        let needed = file.bytes.len() as u64;
        // For a full disk, libssh2 reports only "failure".
        let room = |to: &mut ssh2::File, needed| match to.statvfs() {
            Ok(disk) if disk.f_bavail * disk.f_frsize < needed => Err(SshError::DiskFull {
                to: self.site.to_string(),
                path: self.site.folder.clone(),
                name: file.name.into(),
                free: disk.f_bavail * disk.f_frsize,
                needed,
            }),
            _ => Ok(()),
        };
        room(&mut to, needed)?;
        let bar = progress::bytes("upload", file.name, needed);
        for chunk in file.bytes.chunks(CHUNK) {
            if let Err(error) = to.write_all(chunk) {
                let why = self.broken(&format!("uploading {}", file.name), error);
                return Err(match why {
                    SshError::Failed { .. } => room(&mut to, needed).err().unwrap_or(why),
                    silent => silent,
                });
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        to.close().map_err(|e| self.failed(&format!("uploading {}", file.name), e))
    }

    fn unwritable(&self, path: &str, error: &ssh2::Error) -> SshError {
        let (to, user) = (self.site.to_string(), self.site.user.clone());
        SshError::Folder { to, path: path.into(), user, reason: printable(error.message()) }
    }
}
