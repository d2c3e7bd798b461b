use super::ssh::{Connection, Upload};
use super::stderr::StderrTail;
use super::{Board, DeviceError, Site, parts};
use crate::environment;
use nas_probe::{Runtime, printable};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// A probe that runs on a device.
pub struct Link {
    /// The probe's stdin and stdout.
    pub stream: UnixStream,
    far: Far,
}

/// The threads return the last line of stderr; over SSH it follows how the probe ended.
enum Far {
    /// A child process on this machine.
    Local {
        probe: Child,
        stderr: JoinHandle<String>,
    },
    Ssh {
        pump: JoinHandle<String>,
    },
}

impl Link {
    /// Uploads what is missing on the device, and starts the probe there.
    ///
    /// # Errors
    /// Fails if the device cannot be reached, or if there is no probe or no library for it.
    pub fn open(board: &Board) -> Result<Link, DeviceError> {
        match &board.site {
            None => Self::local(board),
            Some(site) => Self::ssh(board, site),
        }
    }

    fn ssh(board: &Board, site: &Site) -> Result<Link, DeviceError> {
        let connection = Connection::open(site)?;
        check_arch(&connection, board)?;
        let upload = |name, path: &Path, executable| -> Result<String, DeviceError> {
            let unreadable = |e: std::io::Error| DeviceError::Start { path: path.into(), reason: e.to_string() };
            let bytes = std::fs::read(path).map_err(unreadable)?;
            Ok(at_home(&connection.upload(&Upload { name, bytes: &bytes, executable })?))
        };
        // This may compile for minutes, so the connection to the board comes first.
        let probe = upload("nas-probe", &parts::probe(&board.device)?, true)?;
        let ort = ort_args(board, |path| upload("libonnxruntime.so", &path, false))?;
        let models = format!("{}/models", site.folder);
        let command: Vec<String> = [probe].into_iter().chain(probe_args(board, models, ort)).collect();
        let remote = connection.start(&shell_words::join(command))?;
        Ok(Link { stream: remote.stream, far: Far::Ssh { pump: remote.pump } })
    }

    fn local(board: &Board) -> Result<Link, DeviceError> {
        let path = parts::probe(&board.device)?;
        let failed = |e: std::io::Error| DeviceError::Start { path: path.clone(), reason: e.to_string() };
        let ort = ort_args(board, |path| Ok(path.display().to_string()))?;
        let folder = board.device.folder.clone().map_or_else(cache_dir, |folder| Ok(PathBuf::from(folder)))?;
        let mut command = Command::new(&path);
        command.args(probe_args(board, folder.join("models").display().to_string(), ort));
        environment::forget(&mut command);
        let (stream, theirs) = UnixStream::pair().map_err(failed)?;
        let stdin = OwnedFd::from(theirs.try_clone().map_err(failed)?);
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped());
        let mut probe = command.spawn().map_err(failed)?;
        let stderr = probe.stderr.take();
        let last_line = move || stderr.map(|stderr| StderrTail::read(stderr).last_line()).unwrap_or_default();
        Ok(Link { stream, far: Far::Local { probe, stderr: std::thread::spawn(last_line) } })
    }

    /// Ends the probe without waiting for a board that may not answer.
    pub fn abandon(self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Far::Local { mut probe, .. } = self.far {
            let _ = probe.kill();
            let _ = probe.wait();
        }
    }

    /// Ends the probe if it is still running. Returns how it ended, and its last line on stderr.
    pub fn ended(self) -> String {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let unknown = || "the reason is not known".to_string();
        match self.far {
            Far::Local { mut probe, stderr } => {
                let _ = probe.kill();
                let status = probe.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                format!("{status}{}", stderr.join().unwrap_or_default())
            }
            Far::Ssh { pump } => pump.join().unwrap_or_else(|_| unknown()),
        }
    }
}

/// Returns the arguments that name ONNX Runtime's library, if this runtime is wanted. `place` puts a library of this
/// machine on the device and returns its path there.
fn ort_args(
    board: &Board,
    place: impl FnOnce(PathBuf) -> Result<String, DeviceError>,
) -> Result<Vec<String>, DeviceError> {
    if !board.runtimes.contains(&Runtime::Ort) {
        return Ok(vec![]);
    }
    let library = match &board.device.ort_dylib {
        Some(path) => Some(path.display().to_string()),
        None => parts::ort(&board.device)?.map(place).transpose()?,
    };
    Ok(library.into_iter().flat_map(|library| ["--ort".to_string(), library]).collect())
}

/// Returns the arguments of a probe, over either link.
fn probe_args(board: &Board, models: String, ort: Vec<String>) -> Vec<String> {
    let mut args = vec!["--models".to_string(), models];
    args.extend(ort);
    if !board.device.providers.is_empty() {
        args.extend(["--providers".into(), board.device.providers.join(",")]);
    }
    args
}

/// Returns the path of a program as a shell in the home folder needs it. A name without a `/` would be looked up in
/// `PATH`.
fn at_home(path: &str) -> String {
    if path.starts_with('/') { path.into() } else { format!("./{path}") }
}

/// Checks that the board can run the probe. On another kind of CPU, the error of the shell would say little.
fn check_arch(connection: &Connection, board: &Board) -> Result<(), DeviceError> {
    let Some(target) = &board.device.target else { return Ok(()) };
    let found = connection.run("uname -m")?;
    let found = found.trim();
    let expected = target.split('-').next().unwrap_or_default();
    let runs = match expected {
        // A 64-bit kernel runs 32-bit programs too.
        "armv7" => ["armv7l", "armv8l", "aarch64"].contains(&found),
        expected => found == expected,
    };
    if runs {
        return Ok(());
    }
    let (device, target) = (board.to_string(), target.clone());
    Err(DeviceError::WrongArch { device, target, found: printable(found) })
}

/// Returns the cache folder of this program.
///
/// # Errors
/// Fails if this user has no cache folder. In a shared folder, others could plant files.
fn cache_dir() -> Result<PathBuf, DeviceError> {
    let of_user = || Some(environment::path("HOME")?.join(".cache"));
    let cache = environment::path("XDG_CACHE_HOME").or_else(of_user);
    Ok(cache.ok_or(DeviceError::NoCache)?.join("edge-nas"))
}
