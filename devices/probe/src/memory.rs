//! Measures the peak memory of a model, in a new process of this program that runs only this model.

use crate::{
    noise::feed,
    options::Options,
    runtime,
    words::{one_line, words},
};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
};

/// The argument that makes the program measure its own peak memory with one model:
/// `--peak RUNTIME THREADS MODEL`, after all other arguments. It is not in the usage, since only the probe
/// itself passes it.
pub const PEAK: &str = "--peak";

const RUNS: usize = 3;

/// What the child prints, as JSON.
#[derive(Serialize, Deserialize)]
struct Peak {
    bytes: u64,
}

/// Peak resident memory, in bytes, of a new process that loads the model of a file and runs it.
///
/// # Errors
/// Why the process could not be run; or its exit status, with the last line that it wrote to stderr.
pub fn peak(options: &Options, runtime: Runtime, threads: usize, model: &Path) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| format!("can't find this program: {e}"))?;
    let mut child = Command::new(program);
    if let Some(library) = &options.ort_library {
        child.arg("--ort").arg(library);
    }
    if !options.providers.is_empty() {
        child.arg("--providers").arg(options.providers.join(","));
    }
    child.arg(PEAK).arg(runtime.name()).arg(threads.to_string()).arg(model).stdin(Stdio::null());
    end_with_this(&mut child);
    let output = child.output().map_err(|e| format!("can't start the process that measures memory: {e}"))?;
    if output.status.success() {
        let reported: Result<Peak, _> = serde_json::from_slice(&output.stdout);
        return reported
            .map(|peak| peak.bytes)
            .map_err(|e| format!("the process that measures memory reported no peak: {e}"));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().map(|line| line.strip_prefix("nas-probe: ").unwrap_or(line));
    let last = last.map_or(String::new(), |words| format!(": {words}"));
    Err(format!("the process that measures memory failed, {}{last}", output.status))
}

/// Runs a model as the arguments after [`PEAK`] say, and prints the peak memory of this process.
///
/// # Errors
/// One line about what failed.
pub fn child(options: &Options, args: &[OsString]) -> Result<(), String> {
    let [runtime, threads, model] = args else {
        return Err(format!("{PEAK} takes a runtime, threads and a model"));
    };
    let text = |arg: &OsStr| arg.to_string_lossy().into_owned();
    let runtime: Runtime = text(runtime).parse()?;
    let threads = text(threads).parse().map_err(|e| format!("{}: {e}", threads.display()))?;
    let run = || -> Result<(), runtime::Error> {
        let opened = runtime::open(runtime, options.ort_library.as_deref(), &options.providers);
        let mut model = runtime::load(&opened, Path::new(model), threads)?;
        feed(model.as_mut())?;
        (0..RUNS).try_for_each(|_| model.run())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ran) => ran.map_err(|e| one_line(&e.to_string()))?,
        Err(panic) => return Err(format!("the runtime panicked: {}", one_line(&words(panic)))),
    }
    let peak = Peak { bytes: own_peak().map_err(|e| format!("the system reports no peak memory: {e}"))? };
    println!("{}", serde_json::to_string(&peak).map_err(|e| e.to_string())?);
    Ok(())
}

/// Peak resident memory since the program was started, in bytes. `ru_maxrss` of getrusage is not suitable,
/// since on Linux it survives an exec and so starts with the value of the parent.
fn own_peak() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/self/status has no VmHWM"))
}

/// Makes the kernel kill the child when this process ends, however it ends.
#[cfg(target_os = "linux")]
fn end_with_this(child: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: both calls take plain numbers and are safe between fork and exec.
        let (asked, has) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong), libc::getppid()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the call.
        if has as u32 == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { child.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_this(_: &mut Command) {}
