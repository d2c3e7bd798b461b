//! Reads the state of the device, from the files that its description names or the standard files of Linux.

use crate::children;
use nas_probe::{Conditions, Rail, Sensors, Throttle, ThrottleKind, printable};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const POLICIES: &str = "sys/devices/system/cpu/cpufreq/policy*/scaling_governor";
const ZONES: &str = "sys/class/thermal/thermal_zone*/temp";
/// x86 counts how often a core or its package was too hot.
const THROTTLE_COUNTS: &str = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count";
const COOLING_TYPES: &str = "sys/class/thermal/cooling_device*/type";
/// Prefixes of the types of cooling devices that lower the CPU's clock, unlike a fan, which is a cooling
/// device too: the kernel's cpufreq_cooling, by its name before and since Linux 5.12, and that of ACPI.
const COOLING_BY_CLOCK: [&str; 3] = ["thermal-cpufreq-", "cpufreq-", "Processor"];

/// How long the command of a power rail may take.
const COMMAND: Duration = Duration::from_secs(2);

/// The files to read, once they have been looked up.
pub struct Watch {
    root: PathBuf,
    governor: Vec<PathBuf>,
    clock: Vec<PathBuf>,
    /// Whether these are the clocks of all cores, of which the process may be on any.
    any_core: bool,
    temperature: Vec<PathBuf>,
    throttle: Vec<ThrottleFile>,
    power: Vec<Source>,
    /// Files that were named and do not exist, one line each.
    notes: Vec<String>,
}

/// A file that reports throttling.
struct ThrottleFile {
    file: PathBuf,
    kind: ThrottleKind,
    mask: u64,
    /// Value of a counter at the last reading.
    counted: u64,
}

enum Source {
    Milliwatts(PathBuf),
    Product { millivolts: PathBuf, milliamps: PathBuf },
    Command(Vec<String>),
}

impl Watch {
    /// Looks up the files of `sensors` below `root`. `pinned` holds the cores that the process is pinned to,
    /// and is empty if it is not pinned. A name that matches no file is noted, and its value is then absent.
    ///
    /// # Errors
    /// The errors of [`Sensors::check`], and invalid patterns.
    pub fn new(root: &Path, sensors: &Sensors, pinned: &[usize]) -> Result<Watch, String> {
        sensors.check()?;
        let mut notes = vec![];
        let mut named = |patterns: &[String], generic: &[String]| match patterns {
            [] => files(root, generic),
            _ => {
                let found = files(root, patterns)?;
                if found.is_empty() {
                    notes.push(format!("no file matches {}", patterns.join(", ")));
                }
                Ok(found)
            }
        };
        let of_core = |core: &str, file: &str| format!("sys/devices/system/cpu/cpu{core}/cpufreq/{file}");
        let cores =
            if pinned.is_empty() { vec!["[0-9]*".to_owned()] } else { pinned.iter().map(usize::to_string).collect() };
        let clocks: Vec<_> = cores.iter().map(|core| of_core(core, "scaling_cur_freq")).collect();
        let mut governor = named(&sensors.governor, &[POLICIES.to_owned()])?;
        if governor.is_empty() && sensors.governor.is_empty() {
            governor = files(root, &[of_core("0", "scaling_governor")])?;
        }
        let mut throttle = Vec::new();
        for Throttle { file, kind, mask } in &sensors.throttle {
            for file in files(root, std::slice::from_ref(file))? {
                throttle.push(ThrottleFile { file, kind: *kind, mask: *mask, counted: 0 });
            }
        }
        if sensors.throttle.is_empty() {
            throttle = generic_throttle(root)?;
        }
        let clock = named(&sensors.clock, &clocks)?;
        let temperature = named(&sensors.temperature, &[ZONES.to_owned()])?;
        // Kernels differ in which of these files they have; one is enough.
        if throttle.is_empty() && !sensors.throttle.is_empty() {
            let files: Vec<_> = sensors.throttle.iter().map(|throttle| throttle.file.as_str()).collect();
            notes.push(format!("no file matches {}", files.join(", ")));
        }
        let power = sensors.power.iter().map(|rail| source(root, rail, &mut notes)).collect();
        let (root, any_core) = (root.to_owned(), pinned.is_empty() && sensors.clock.is_empty());
        let mut watch = Watch { root, governor, clock, any_core, temperature, throttle, power, notes };
        // This sets the counters' initial values.
        watch.throttled();
        Ok(watch)
    }

    /// Files that the description names and the device does not have, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The files that hold the scaling governor.
    pub fn governors(&self) -> &[PathBuf] {
        &self.governor
    }

    /// Memory that can still be used without swapping, in bytes.
    pub fn free_bytes(&self) -> Option<u64> {
        text(&self.root.join("proc/meminfo")).ok().as_deref().and_then(free)
    }

    /// Reads the present state. A value that is out of its bounds is not reported.
    pub fn read(&mut self) -> Conditions {
        let governors: Vec<_> = self.governor.iter().filter_map(|file| Some(printable(&text(file).ok()?))).collect();
        let load = text(&self.root.join("proc/loadavg")).ok();
        let clocks = self.clock.iter().filter_map(|file| text(file).ok()?.parse().ok());
        let read = Conditions {
            governor: joined(governors.iter().map(String::as_str)),
            // Cores that the process is not on may be idle.
            khz: if self.any_core { clocks.max() } else { clocks.min() },
            // A thermal zone that is switched off gives an error instead of a temperature.
            millicelsius: self.temperature.iter().filter_map(|file| text(file).ok()?.parse().ok()).max(),
            load1: load.and_then(|load| load.split_whitespace().next()?.parse().ok()),
            free_bytes: self.free_bytes(),
            throttled: self.throttled(),
            power_mw: self.power(),
        };
        read.plausible()
    }

    /// Returns whether any of the readable files reports throttling, or `None` if none can be read.
    fn throttled(&mut self) -> Option<bool> {
        let reports: Vec<_> = self.throttle.iter_mut().filter_map(ThrottleFile::read).collect();
        (!reports.is_empty()).then(|| reports.contains(&true))
    }

    /// Returns the sum of all rails, in milliwatts, or `None` if one of them cannot be read, since a partial sum would
    /// be misleading.
    fn power(&self) -> Option<f64> {
        (!self.power.is_empty()).then(|| self.power.iter().map(Source::milliwatts).sum())?
    }
}

impl ThrottleFile {
    fn read(&mut self) -> Option<bool> {
        let text = text(&self.file).ok()?;
        match self.kind {
            ThrottleKind::Mask => {
                let bits = u64::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()?;
                Some(bits & self.mask != 0)
            }
            ThrottleKind::Counter => {
                let count = text.parse().ok()?;
                Some(std::mem::replace(&mut self.counted, count) < count)
            }
            ThrottleKind::State => Some(text.parse::<i64>().ok()? > 0),
        }
    }
}

impl Source {
    fn milliwatts(&self) -> Option<f64> {
        let number = |file: &Path| text(file).ok()?.parse::<f64>().ok();
        match self {
            Source::Milliwatts(file) => number(file),
            Source::Product { millivolts, milliamps } => Some(number(millivolts)? * number(milliamps)? / 1e3),
            Source::Command(command) => {
                let (program, arguments) = command.split_first()?;
                let output = children::output(Command::new(program).args(arguments), COMMAND).ok()?;
                output.status.success().then(|| adc(&output.stdout))?
            }
        }
    }
}

/// The text of a file, without surrounding white space. At most 64 KiB are read.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(1 << 16).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// The distinct governors, joined by commas; `None` if there are none.
pub fn joined<'a>(governors: impl Iterator<Item = &'a str>) -> Option<String> {
    let different: Vec<_> = governors.collect::<BTreeSet<_>>().into_iter().collect();
    (!different.is_empty()).then(|| different.join(","))
}

/// The files that match `patterns`, in the order of the patterns, and sorted by name within each.
fn files(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, String> {
    let root = glob::Pattern::escape(root.to_string_lossy().trim_end_matches('/'));
    let mut found = Vec::new();
    for pattern in patterns {
        let paths = glob::glob(&format!("{root}/{}", pattern.trim_start_matches('/')))
            .map_err(|e| format!("{pattern} is not a valid file pattern: {e}"))?;
        found.extend(paths.flatten());
    }
    Ok(found)
}

fn generic_throttle(root: &Path) -> Result<Vec<ThrottleFile>, String> {
    let throttle = |file, kind| ThrottleFile { file, kind, mask: 0, counted: 0 };
    let counts = files(root, &[THROTTLE_COUNTS.to_owned()])?;
    let types = files(root, &[COOLING_TYPES.to_owned()])?;
    let by_clock =
        |file: &PathBuf| text(file).is_ok_and(|is| COOLING_BY_CLOCK.iter().any(|start| is.starts_with(start)));
    let states = types.into_iter().filter(by_clock).map(|file| file.with_file_name("cur_state"));
    Ok(counts
        .into_iter()
        .map(|file| throttle(file, ThrottleKind::Counter))
        .chain(states.map(|file| throttle(file, ThrottleKind::State)))
        .collect())
}

/// Looks up the files of a rail that has passed [`Sensors::check`].
fn source(root: &Path, rail: &Rail, notes: &mut Vec<String>) -> Source {
    // The first file that matches. If there is none, the pattern is kept as a path, which cannot be read.
    let mut file = |pattern: &String| {
        let found = files(root, std::slice::from_ref(pattern)).ok().and_then(|f| f.into_iter().next());
        found.unwrap_or_else(|| {
            notes.push(format!("no file matches {pattern} of the power rail {}", rail.name));
            root.join(pattern.trim_start_matches('/'))
        })
    };
    match rail {
        Rail { milliwatts: Some(watts), .. } => Source::Milliwatts(file(watts)),
        Rail { millivolts: Some(volts), milliamps: Some(amps), .. } => {
            Source::Product { millivolts: file(volts), milliamps: file(amps) }
        }
        rail => Source::Command(rail.command.clone().unwrap_or_default()),
    }
}

/// Returns the sum, in milliwatts, of all rails that have both a line `NAME_A current(N)=0.5A` and a line `NAME_V
/// volt(N)=3.3V`.
fn adc(output: &str) -> Option<f64> {
    let readings = |of: &'static str| {
        output.lines().filter_map(move |line| {
            let name = line.split_whitespace().next()?.strip_suffix(of)?.strip_suffix('_')?;
            Some((name, line.rsplit_once('=')?.1.trim().strip_suffix(of)?.parse::<f64>().ok()?))
        })
    };
    let rails: Vec<f64> = readings("A")
        .filter_map(|(rail, amps)| {
            let volts = readings("V").find(|(name, _)| *name == rail)?.1;
            Some(amps * volts * 1e3)
        })
        .collect();
    (!rails.is_empty()).then(|| rails.iter().sum())
}

/// MemAvailable of /proc/meminfo, in bytes.
fn free(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
