//! What the device tells of itself. Only Linux's files are read; elsewhere most is absent.

use nas_probe::Conditions;
use std::{collections::BTreeSet, fs, path::Path};

pub fn conditions() -> Conditions {
    conditions_under(Path::new("/"))
}

fn conditions_under(root: &Path) -> Conditions {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let zones = fs::read_dir(root.join("sys/class/thermal")).into_iter().flatten().flatten();
    let heat = |zone: fs::DirEntry| {
        let is_zone = zone.file_name().to_string_lossy().starts_with("thermal_zone");
        // A zone that is switched off gives an error instead of a temperature.
        is_zone.then(|| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse().ok())?
    };
    Conditions {
        governor: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(|s| s.trim().to_owned()),
        khz: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").and_then(|s| s.trim().parse().ok()),
        millicelsius: zones.filter_map(heat).max(),
        load1: read("proc/loadavg").and_then(|s| s.split_whitespace().next()?.parse().ok()),
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The C library that the process runs on.
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
    cpu_of(&info).unwrap_or_else(|| "not told by /proc/cpuinfo".to_owned())
}

/// The CPU's name on x86. An arm64 kernel gives none, but the implementer and part number of each
/// core: `0x41/0xd08` is a Cortex-A72, and big.LITTLE has two of them.
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
    fn conditions_are_read_where_the_device_tells_them_and_absent_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(conditions_under(root.path()), Conditions::default());
        for (file, text) in [
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48000\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51250\n"),
            ("sys/class/thermal/thermal_zone2/temp", "\n"),
            ("sys/class/thermal/cooling_device0/temp", "99000\n"),
            ("proc/loadavg", "0.25 0.10 0.05 1/100 4242\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let told = Conditions {
            governor: Some("ondemand".to_owned()),
            khz: Some(1_500_000),
            millicelsius: Some(51_250),
            load1: Some(0.25),
        };
        assert_eq!(conditions_under(root.path()), told);
    }

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
