//! Files that only this user can have written, in the folder of models.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Creates a folder and its parents for this user alone.
///
/// # Errors
/// The error of the system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a file of a folder for reading and writing, and creates both if necessary. A folder of this user that others can
/// enter is closed to them.
///
/// # Errors
/// Fails if the folder or the file belongs to another user, or if the file is not a regular one. Also returns the
/// errors of the system.
pub fn open(folder: &Path, name: &str) -> io::Result<File> {
    make_folder(folder)?;
    let found = fs::metadata(folder)?;
    if found.uid() == me() && found.mode() & OTHERS != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let mut options = OpenOptions::new();
    open_checked(folder, name, options.read(true).write(true).create(true).mode(0o600))
}

/// Opens a file of a folder for reading, if only this user can have written it.
///
/// # Errors
/// Same as [`open`]. Also fails if others can enter the folder or read the file, or if the file does not exist.
pub fn existing(folder: &Path, name: &str) -> io::Result<File> {
    open_checked(folder, name, OpenOptions::new().read(true))
}

fn open_checked(folder: &Path, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    check(&fs::metadata(folder)?, folder)?;
    // A FIFO must not block, and a link is not followed.
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(folder.join(name))?;
    let found = file.metadata()?;
    check(&found, &folder.join(name))?;
    if found.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn check(found: &Metadata, path: &Path) -> io::Result<()> {
    if found.uid() == me() && found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!("{path} belongs to another user or is open to others; give it to this user alone")))
}

fn me() -> libc::uid_t {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}
