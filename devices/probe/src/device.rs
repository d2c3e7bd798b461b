//! Fixed properties of the device. Its changing state is read in [`crate::sensors`].

use crate::affinity;
use std::{collections::BTreeSet, fs};

/// The number of cores that the process may run on, which is lower if the process is pinned. A quota of CPU time, as in
/// containers, does not lower it.
pub fn cores() -> usize {
    let parallelism = || std::thread::available_parallelism().map_or(1, usize::from);
    affinity::allowed().map_or_else(|_| parallelism(), |cores| cores.len())
}

/// The number of cores that the machine uses, including those that the process may not use.
pub fn online() -> usize {
    // SAFETY: sysconf takes and returns plain numbers.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(0).max(cores())
}

/// Name of the C library, with its version if it is glibc.
pub fn libc() -> String {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: glibc returns a static string.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("glibc {}", version.to_string_lossy())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        if cfg!(target_env = "musl") { "musl" } else { "other" }.to_owned()
    }
}

pub fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu_of(&info).unwrap_or_else(|| "unknown (not in /proc/cpuinfo)".to_owned())
}

/// The model name of the CPU on x86. An arm64 kernel does not report one, so there it is the implementer and
/// part number of each kind of core: `0x41/0xd08` is a Cortex-A72. A big.LITTLE CPU has two kinds.
fn cpu_of(info: &str) -> Option<String> {
    let fields = || info.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim()));
    let all = |key| fields().filter(move |(k, _)| *k == key).map(|(_, v)| v);
    if let Some(name) = all("model name").next() {
        return Some(name.to_owned());
    }
    let parts: BTreeSet<_> =
        all("CPU implementer").zip(all("CPU part")).map(|(by, part)| format!("{by}/{part}")).collect();
    let parts: Vec<_> = parts.into_iter().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_on_x86_and_on_arm() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n";
        assert_eq!(cpu_of(x86).unwrap(), "Some CPU @ 2.00GHz");
        let core = |part: &str| format!("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n");
        assert_eq!(cpu_of(&core("0xd08").repeat(4)).unwrap(), "0x41/0xd08");
        assert_eq!(cpu_of(&(core("0xd03") + &core("0xd09"))).unwrap(), "0x41/0xd03 0x41/0xd09");
        assert_eq!(cpu_of("processor: 0\n"), None);
    }
}
