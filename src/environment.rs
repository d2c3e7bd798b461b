//! Environment variables: those that libgomp and malloc read when a program starts, and paths.

use std::path::PathBuf;
use std::process::Command;

/// OpenMP threads that wait must not spin (2 to 5 times faster where cores are shared), and memory that
/// activations give back must stay with the program (a seventh of a training step otherwise goes to the
/// kernel for it).
const VARIABLES: [(&str, &str); 3] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
];

/// Starts this program again with the variables that are not set yet; returns where all are, or where
/// it cannot.
#[cfg(feature = "torch")]
pub fn start_again() {
    let missing: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if let (false, Ok(program)) = (missing.is_empty(), std::env::current_exe()) {
        use std::os::unix::process::CommandExt;
        let error = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
        log::warn!("training will be slower: cannot start again with other variables: {error}");
    }
}

/// A path that a variable names, if it is set to anything.
pub fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Keeps them from a program that is to be measured as it would run by itself.
pub fn forget(command: &mut Command) {
    for (name, _) in VARIABLES {
        command.env_remove(name);
    }
}
