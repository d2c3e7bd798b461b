//! One measurement at a time: a lock that the kernel releases when the probe ends, however it ends.

use crate::private;
use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    time::{Duration, Instant},
};

/// Name of a file in the folder of models. The probe that measures locks it, and writes into it which process it is.
const FILE: &str = "measuring.lock";
/// A probe whose host has just gone needs a moment to end.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "another measurement runs on this device: {0}; wait for it, since each would disturb the other, or end that process"
    )]
    Other(String),
    #[error("can't lock {path}: {error}")]
    Io { path: String, error: io::Error },
}

/// A lock on the device, which is released when this is dropped.
pub struct DeviceLock(#[allow(dead_code)] File);

impl DeviceLock {
    /// Locks the device. Waits a few seconds if another process holds the lock.
    ///
    /// # Errors
    /// See [`Error`]. The first variant names the other process.
    pub fn acquire(folder: &Path) -> Result<DeviceLock, Error> {
        let failed = |error| Error::Io { path: folder.join(FILE).display().to_string(), error };
        let mut file = private::open(folder, FILE).map_err(failed)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.take(1 << 10).read_to_string(&mut holder);
                    let holder = holder.trim();
                    return Err(Error::Other(if holder.is_empty() { "an unknown process" } else { holder }.into()));
                }
            }
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", describe())
        };
        write().map_err(failed)?;
        Ok(DeviceLock(file))
    }
}

/// Describes this process, as in `process 1234 of pi, started from 192.168.1.2`.
fn describe() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut text = format!("process {}", std::process::id());
    if let Some(user) = variable("USER").or_else(|| variable("LOGNAME")) {
        text += &format!(" of {user}");
    }
    // The variable contains the client's address and port, and the board's own port.
    if let Some(client) = variable("SSH_CLIENT").as_deref().and_then(|client| client.split(' ').next()) {
        text += &format!(", started from {client}");
    }
    text
}
