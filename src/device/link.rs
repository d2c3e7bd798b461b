use super::{Device, DeviceError, LinkKind};
use crate::{artifact, environment};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The way to a device: lays files there, and starts the probe.
pub enum Link {
    /// This machine: files go to a folder, and the probe is a child process.
    Local { folder: PathBuf, ort_dylib: Option<PathBuf> },
}

impl Link {
    pub fn open(device: &Device) -> Link {
        match device.link {
            LinkKind::Local => Link::Local {
                folder: cache_dir().join("models"),
                ort_dylib: device.ort_dylib.clone().or_else(local_ort_dylib),
            },
        }
    }

    /// Lays a file on the device, if it is not there yet, under the name of its content, and gives
    /// its path there.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put(&self, bytes: &[u8], suffix: &str) -> Result<String, DeviceError> {
        match self {
            Link::Local { folder, .. } => {
                let path = folder.join(format!("{}{suffix}", &blake3::hash(bytes).to_hex()[..32]));
                if std::fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64) {
                    return Ok(path.display().to_string());
                }
                artifact::write(&path, bytes)?;
                Ok(path.display().to_string())
            }
        }
    }

    /// Starts the probe with its three standard streams piped.
    ///
    /// # Errors
    /// Where there is no probe.
    pub fn start_probe(&self) -> Result<Child, DeviceError> {
        match self {
            Link::Local { ort_dylib, .. } => {
                let path = local_probe();
                if !path.is_file() {
                    return Err(DeviceError::NoProbe { path });
                }
                let mut command = Command::new(&path);
                if let Some(library) = ort_dylib {
                    command.arg("--ort").arg(library);
                }
                environment::forget(&mut command);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().map_err(|e| DeviceError::Start { path, reason: e.to_string() })
            }
        }
    }
}

fn cache_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("edge-nas")
}

/// `NAS_PROBE`, or `nas-probe` beside this program (below it for tests and benchmarks, whose programs
/// lie in `deps`).
fn local_probe() -> PathBuf {
    if let Some(path) = std::env::var_os("NAS_PROBE").filter(|v| !v.is_empty()) {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("nas-probe");
    match own.parent().and_then(|dir| dir.parent()) {
        Some(above) if !beside.is_file() => above.join("nas-probe"),
        _ => beside,
    }
}

/// `ORT_DYLIB_PATH`, or what `scripts/setup` made above this program or the current folder.
fn local_ort_dylib() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()) {
        return Some(path.into());
    }
    let starts = [std::env::current_exe().ok(), std::env::current_dir().ok()];
    let folders = starts.iter().flatten().flat_map(|start| start.ancestors());
    folders.map(|dir| dir.join(".deps/onnxruntime/libonnxruntime.so")).find(|path| path.is_file())
}
