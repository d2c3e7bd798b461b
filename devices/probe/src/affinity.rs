//! Which cores the process runs on.

use std::io;

/// The cores that the process may use, in order.
///
/// # Errors
/// The system's; always where it isn't Linux.
#[cfg(target_os = "linux")]
pub fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t of zeros is an empty set, and the call writes no more than its size.
    let (result, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of_val(&set), &mut set), set)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every core that is asked for lies within the set.
    Ok((0..MOST_CORES).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

#[cfg(target_os = "linux")]
const MOST_CORES: usize = libc::CPU_SETSIZE as usize;

/// Moves every thread of the process onto `cores`.
///
/// # Errors
/// The system's; always where it isn't Linux.
#[cfg(target_os = "linux")]
pub fn allow(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < MOST_CORES) {
        // SAFETY: the core lies within the set.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    let allow = |thread: libc::pid_t| {
        // SAFETY: the set is read, and has the size that is said.
        match unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // The calling thread first: threads that start from now on inherit its cores.
    allow(0)?;
    for thread in std::fs::read_dir("/proc/self/task")? {
        match thread?.file_name().to_string_lossy().parse().map(allow) {
            // It ended since it was listed.
            Ok(Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Ok(result) => result?,
            Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub fn allowed() -> io::Result<Vec<usize>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub fn allow(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Pins the process to `cores`, of which each must be one of `all`; gives them in order.
///
/// # Errors
/// One line that names the core.
pub fn pin(cores: &[usize], all: &[usize]) -> Result<Vec<usize>, String> {
    let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    if let Some(core) = cores.iter().find(|core| !all.contains(core)) {
        return Err(format!("there is no core {core} to pin to; the probe may use {}", list(all)));
    }
    let set = || {
        allow(&cores)?;
        allowed()
    };
    match set() {
        Ok(now) if now == cores => Ok(cores),
        Ok(now) => Err(format!("pinned to {}, the probe may use {}", list(&cores), list(&now))),
        Err(e) => Err(format!("can't pin to {}: {e}", list(&cores))),
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let all = allowed().unwrap();
        let error = pin(&[all[0], 4_096], &all).unwrap_err();
        assert!(error.contains("no core 4096"), "{error}");
        assert_eq!(allowed().unwrap(), all);
    }
}
