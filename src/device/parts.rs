//! What a device needs: the probe for its target, and ONNX Runtime for its architecture.

use super::{Device, DeviceError};
use crate::environment;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the probe for a device: `NAS_PROBE`, this machine's own, or one that `scripts/build-probe` builds.
///
/// # Errors
/// Fails if there is no probe. The error says how to build one.
pub fn probe(device: &Device) -> Result<PathBuf, DeviceError> {
    if let Some(path) = environment::path("NAS_PROBE") {
        return existing(path);
    }
    match &device.target {
        Some(target) if !is_own(target) => {
            script("build-probe", &[target]).map(|printed| PathBuf::from(printed.trim()))
        }
        _ => existing(own_probe()),
    }
}

/// Returns ONNX Runtime's shared library for a device, by default that of the official wheels.
///
/// # Errors
/// Fails if there is no library for the architecture of the device, or if it cannot be downloaded.
pub fn ort(device: &Device) -> Result<Option<PathBuf>, DeviceError> {
    match &device.target {
        Some(target) if !is_own(target) => {
            let arch = target.split('-').next().unwrap_or_default();
            script("setup", &["--ort", arch]).map(|printed| Some(PathBuf::from(printed.trim())))
        }
        _ => {
            let set_up = || in_clone(Path::new(".deps/onnxruntime/libonnxruntime.so"));
            Ok(environment::path("ORT_DYLIB_PATH").or_else(set_up))
        }
    }
}

/// Returns whether a target is that of this machine.
fn is_own(target: &str) -> bool {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    target == format!("{}-unknown-{}-{libc}", std::env::consts::ARCH, std::env::consts::OS)
}

fn existing(path: PathBuf) -> Result<PathBuf, DeviceError> {
    if path.is_file() { Ok(path) } else { Err(DeviceError::NoProbe { path }) }
}

/// Returns `nas-probe` beside this program, or in the folder above for tests and benchmarks, whose programs are in
/// `deps`.
fn own_probe() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("nas-probe");
    match own.parent().and_then(|dir| dir.parent()) {
        Some(above) if !beside.is_file() => above.join("nas-probe"),
        _ => beside,
    }
}

/// Returns a file of the clone in which this program was built, as `target/PROFILE/nas`. A program that was copied
/// elsewhere finds no files, since others could plant them in other folders.
fn in_clone(file: &Path) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let target = own.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "target"))?;
    Some(target.parent()?.join(file)).filter(|path| path.is_file())
}

/// Runs a script of the repository, whose messages on stderr are shown, and returns its stdout.
fn script(name: &str, args: &[&str]) -> Result<String, DeviceError> {
    let command = format!("scripts/{name} {}", args.join(" "));
    let Some(path) = in_clone(&Path::new("scripts").join(name)) else {
        return Err(DeviceError::NoScript { command });
    };
    let run = Command::new(path).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    match run {
        Ok(done) if done.status.success() => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Ok(done) => Err(DeviceError::Script { command, reason: done.status.to_string() }),
        Err(error) => Err(DeviceError::Script { command, reason: error.to_string() }),
    }
}
