//! Measures the peak memory of a model, in a new process of this program that runs only this model. It is the first
//! process that loads a model, so it has limits of time and of memory.

use crate::{
    children,
    deadline::Deadline,
    governor::Governor,
    measure::FIRST,
    messages::{one_line, panic_message},
    noise::feed,
    options::Options,
    runtime,
    watchdog::Watchdog,
};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// The argument that makes the program measure its own peak memory with one model:
/// `--peak RUNTIME THREADS MODEL MILLISECONDS BYTES`, after all other arguments. It is not in the usage, since only the
/// probe itself passes it.
pub const PEAK: &str = "--peak";

const RUNS: usize = 3;
/// Parts of the child's work that may each take the timeout: loading, the first inference, and the others.
const PARTS: u32 = 3;
/// How much longer the child may take, to open a runtime and to say that it is late.
const GRACE: Duration = Duration::from_secs(10);
/// How runtimes and Rust report that they ran out of memory.
const NO_MEMORY: [&str; 4] = ["memory allocation of", "bad_alloc", "bad allocation", "Failed to allocate memory"];

/// What the child prints, as JSON.
#[derive(Serialize, Deserialize)]
struct Peak {
    bytes: u64,
}

/// Limits of the child.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Limit of each part of its work.
    pub timeout: Duration,
    /// Limit of its data, as RLIMIT_DATA counts them, in bytes.
    pub memory: Option<u64>,
}

impl Limits {
    /// Limits memory to three quarters of what is free.
    pub fn new(timeout: Duration, free_bytes: Option<u64>) -> Limits {
        Limits { timeout, memory: free_bytes.map(|free| free / 4 * 3) }
    }

    /// Returns how long the child may take.
    pub fn longest(&self) -> Duration {
        self.timeout.saturating_mul(PARTS).saturating_add(GRACE)
    }
}

/// Returns the peak resident memory, in bytes, of a new process that loads the model of a file and runs it.
///
/// # Errors
/// The reason why the process could not be run, the message of the process, or its exit status with the last line that
/// it wrote to stderr.
pub fn peak(options: &Options, runtime: Runtime, threads: usize, model: &Path, limits: Limits) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| format!("can't find this program: {e}"))?;
    let mut child = Command::new(program);
    if let Some(library) = &options.ort_library {
        child.arg("--ort").arg(library);
    }
    if !options.providers.is_empty() {
        child.arg("--providers").arg(options.providers.join(","));
    }
    child.arg(PEAK).arg(runtime.name()).arg(threads.to_string()).arg(model);
    child.arg(limits.timeout.as_millis().to_string()).arg(limits.memory.unwrap_or(u64::MAX).to_string());
    let output = children::output(&mut child, limits.longest()).map_err(|e| match e.kind() {
        io::ErrorKind::TimedOut => Deadline::new("measuring its memory", limits.longest()).late().to_string(),
        _ => format!("can't run the process that measures memory: {e}"),
    })?;
    if output.status.success() {
        let reported: Result<Peak, _> = serde_json::from_str(&output.stdout);
        return reported
            .map(|peak| peak.bytes)
            .map_err(|e| format!("the process that measures memory reported no peak: {e}"));
    }
    if let (Some(limit), true) = (limits.memory, NO_MEMORY.iter().any(|words| output.stderr.contains(words))) {
        let mb = limit / 1_000_000;
        return Err(format!("it needs more than {mb} MB of memory, three quarters of what is free on the device"));
    }
    let last = output.stderr.lines().last().map(|line| line.strip_prefix("nas-probe: ").unwrap_or(line));
    match (output.status.code(), last) {
        (Some(1), Some(reason)) => Err(reason.to_owned()),
        (_, last) => {
            let last = last.map_or(String::new(), |words| format!(": {words}"));
            Err(format!("the process that measures memory failed, {}{last}", output.status))
        }
    }
}

/// Runs a model as the arguments after [`PEAK`] say, and prints the peak memory of this process.
///
/// # Errors
/// A one-line message that says what failed.
pub fn child(options: &Options, args: &[OsString]) -> Result<(), String> {
    let [runtime, threads, model, millis, bytes] = args else {
        return Err(format!("{PEAK} takes a runtime, threads, a model, milliseconds and bytes"));
    };
    let text = |arg: &OsStr| arg.to_string_lossy().into_owned();
    let number = |arg: &OsStr| text(arg).parse::<u64>().map_err(|e| format!("{}: {e}", arg.display()));
    let runtime: Runtime = text(runtime).parse()?;
    let threads = number(threads)? as usize;
    let watchdog = Watchdog::start(&Arc::new(Governor::default()), false)
        .map_err(|e| format!("can't install the signal handlers: {e}"))?;
    watchdog.set_timeout(Duration::from_millis(number(millis)?));
    limit_memory(number(bytes)?).map_err(|e| format!("can't limit the memory: {e}"))?;
    let run = || -> Result<(), runtime::Error> {
        let opened = runtime::open(runtime, options.ort_library.as_deref(), &options.providers);
        watchdog.begin(0);
        let loading = watchdog.part(runtime::LOADING, Duration::ZERO);
        let mut model = runtime::load(&opened, Path::new(model), threads)?;
        loading.check(Instant::now())?;
        feed(model.as_mut())?;
        let first = watchdog.part(FIRST, Duration::ZERO);
        model.run()?;
        first.check(Instant::now())?;
        watchdog.part("a few inferences", Duration::ZERO);
        (1..RUNS).try_for_each(|_| model.run())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ran) => ran.map_err(|e| one_line(&e.to_string()))?,
        Err(panic) => return Err(format!("the runtime panicked: {}", one_line(&panic_message(panic)))),
    }
    watchdog.done();
    let peak = Peak { bytes: own_peak().map_err(|e| format!("the system reports no peak memory: {e}"))? };
    println!("{}", serde_json::to_string(&peak).map_err(|e| e.to_string())?);
    Ok(())
}

/// Limits the private memory that this process can write. A process that runs out of memory leaves no core file.
fn limit_memory(bytes: u64) -> io::Result<()> {
    for (what, most) in [(libc::RLIMIT_DATA, bytes), (libc::RLIMIT_CORE, 0)] {
        // A limit that does not fit into the number type of a 32-bit system is no limit there.
        #[allow(clippy::useless_conversion)]
        let most = libc::rlim_t::try_from(most).unwrap_or(libc::RLIM_INFINITY);
        // SAFETY: zeros are a valid rlimit, and the calls read or fill it.
        let set = unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(what, &mut limit);
            // A lower limit stays as it is.
            limit.rlim_max = limit.rlim_max.min(most);
            limit.rlim_cur = limit.rlim_cur.min(most);
            libc::setrlimit(what, &limit)
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
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
