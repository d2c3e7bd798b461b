//! Environment variables: those that libgomp and malloc read when a program starts, and those that hold paths.

use std::path::PathBuf;
use std::process::Command;

/// Variables that make training faster. Waiting OpenMP threads must not spin, which makes training 2 to 5 times faster
/// if cores are shared. The memory of freed activations must stay with the program, or the kernel takes a seventh of a
/// training step. With huge pages, training is a tenth faster where activations are large.
const VARIABLES: [(&str, &str); 4] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];

/// Restarts this program with those of the variables that are not set yet. Returns if all are set, or if the program
/// cannot be restarted.
#[cfg(feature = "torch")]
pub fn start_again() {
    let missing: Vec<_> = VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if let (false, Ok(program)) = (missing.is_empty(), std::env::current_exe()) {
        use std::os::unix::process::CommandExt;
        let error = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
        log::warn!("training will be slower: cannot start nas again with other environment variables: {error}");
    }
}

/// Makes writing a file beyond the process's size limit (`ulimit -f`) fail with an error, as on a full disk. Without a
/// handler, SIGXFSZ ends the process.
pub fn report_too_large_files() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // If the handler cannot be installed, the signal ends the process as before.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen);
}

/// Returns the path in a variable, if it is set and not empty.
pub fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Removes the variables from the environment of a program that must be measured as it runs without them.
pub fn forget(command: &mut Command) {
    for (name, _) in VARIABLES {
        command.env_remove(name);
    }
}
