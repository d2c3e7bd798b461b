//! Reads and sets the cores that the process may run on.

use std::io;

/// The numbers of the cores that the process may use, in ascending order.
///
/// # Errors
/// The error of the system call; [`io::ErrorKind::Unsupported`] on systems other than Linux.
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
    // SAFETY: each core number is less than the size of the set.
    Ok((0..MOST_CORES).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

#[cfg(target_os = "linux")]
const MOST_CORES: usize = libc::CPU_SETSIZE as usize;

/// Restricts every thread of the process to `cores`.
///
/// # Errors
/// The error of the system call; [`io::ErrorKind::Unsupported`] on systems other than Linux.
#[cfg(target_os = "linux")]
pub fn allow(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < MOST_CORES) {
        // SAFETY: the core number is less than the size of the set.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    let allow = |thread: libc::pid_t| {
        // SAFETY: the call only reads the set, whose size is passed.
        match unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // The calling thread comes first, since new threads inherit its cores.
    allow(0)?;
    for thread in std::fs::read_dir("/proc/self/task")? {
        match thread?.file_name().to_string_lossy().parse().map(allow) {
            // The thread has ended since it was listed.
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

/// Pins the process to `cores`, each of which must be in `all`. Returns them sorted and without duplicates.
///
/// # Errors
/// A one-line message that names a core that is not in `all`, or the error of the system.
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
        Ok(now) => Err(format!("tried to pin to {}, but the probe may use {}", list(&cores), list(&now))),
        Err(e) => Err(format!("can't pin to {}: {e}", list(&cores))),
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_core_is_named() {
        let all = allowed().unwrap();
        let error = pin(&[all[0], 4_096], &all).unwrap_err();
        assert!(error.contains("no core 4096"), "{error}");
        assert_eq!(allowed().unwrap(), all);
    }
}
