//! Environment variables: those that libgomp and malloc read when a program starts, and paths.

use std::path::PathBuf;
use std::process::Command;

/// Waiting OpenMP threads must not spin, which makes training 2 to 5 times faster if cores are shared, and the memory
/// of freed activations must stay with the program, or the kernel takes a seventh of a training step; in huge pages it
/// is a tenth faster where activations are large.
const VARIABLES: [(&str, &str); 4] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];

/// Starts this program again with those of the variables that are not set yet. Returns if all are set, or if the
/// program cannot be started again.
#[cfg(feature = "torch")]
pub fn start_again() {
    let missing: Vec<_> = VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if let (false, Ok(program)) = (missing.is_empty(), std::env::current_exe()) {
        use std::os::unix::process::CommandExt;
        let error = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
        log::warn!("training will be slower: cannot start nas again with other environment variables: {error}");
    }
}

/// Lets a file that grows beyond the process's limit (`ulimit -f`) fail to be written, as on a full disk: without a
/// handler, SIGXFSZ ends the process.
pub fn report_too_large_files() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Where the handler cannot be installed, the signal ends the process as before.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen);
}

/// The path that a variable names, if it is set and not empty.
pub fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Removes the variables for a program that must be measured as it runs without them.
pub fn forget(command: &mut Command) {
    for (name, _) in VARIABLES {
        command.env_remove(name);
    }
}
