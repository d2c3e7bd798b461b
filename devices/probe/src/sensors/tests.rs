#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use tempfile::TempDir;

fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, text) in files {
        write(&root, file, text);
    }
    root
}

fn write(root: &TempDir, file: &str, text: &str) {
    let path = root.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn watch(root: &TempDir, sensors: Sensors, cores: &[usize]) -> Watch {
    Watch::new(root.path(), &sensors, cores).unwrap()
}

fn throttle(file: &str, kind: ThrottleKind, mask: u64) -> Sensors {
    Sensors { throttle: vec![Throttle { file: file.to_owned(), kind, mask }], ..Sensors::default() }
}

#[test]
fn standard_linux_files_are_read_by_default() {
    assert_eq!(watch(&root(&[]), Sensors::default(), &[]).read(), Conditions::default());
    let root = root(&[
        ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "ondemand\n"),
        ("sys/devices/system/cpu/cpufreq/policy2/scaling_governor", "ondemand\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n"),
        ("sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq", "1800000\n"),
        ("sys/class/thermal/thermal_zone0/temp", "48000\n"),
        ("sys/class/thermal/thermal_zone1/temp", "51250\n"),
        ("sys/class/thermal/thermal_zone2/temp", "\n"),
        ("sys/class/thermal/cooling_device0/temp", "99000\n"),
        ("proc/loadavg", "0.25 0.10 0.05 1/100 4242\n"),
        ("proc/meminfo", "MemTotal:  8 kB\nMemFree:   1 kB\nMemAvailable:      3 kB\n"),
    ]);
    let expected = Conditions {
        governor: Some("ondemand".to_owned()),
        khz: Some(1_800_000),
        millicelsius: Some(51_250),
        load1: Some(0.25),
        free_bytes: Some(3 * 1024),
        throttled: None,
        power_mw: None,
    };
    assert_eq!(watch(&root, Sensors::default(), &[]).read(), expected);
    // If the process is pinned, the clock is the lowest of its cores.
    assert_eq!(watch(&root, Sensors::default(), &[2]).read().khz, Some(1_800_000));
    assert_eq!(watch(&root, Sensors::default(), &[0, 2]).read().khz, Some(1_500_000));
    // Without policies, core 0 has the governor.
    fs::remove_dir_all(root.path().join("sys/devices/system/cpu/cpufreq")).unwrap();
    assert_eq!(watch(&root, Sensors::default(), &[]).read().governor.unwrap(), "performance");
}

#[test]
fn a_description_can_name_other_files() {
    let root = root(&[
        ("a/g0", "ondemand"),
        ("a/g1", "performance"),
        ("a/c0", "900000"),
        ("a/c1", "600000"),
        ("a/t0", "-5000"),
        ("a/t1", "-7000"),
        ("sys/class/thermal/thermal_zone0/temp", "48000"),
    ]);
    let list = |pattern: &str| vec![pattern.to_owned()];
    let sensors =
        Sensors { governor: list("/a/g*"), clock: list("/a/c?"), temperature: list("/a/t*"), ..Sensors::default() };
    let mut watch = watch(&root, sensors, &[]);
    assert_eq!(watch.governors(), ["a/g0", "a/g1"].map(|file| root.path().join(file)));
    let expected = Conditions {
        governor: Some("ondemand,performance".to_owned()),
        khz: Some(600_000),
        millicelsius: Some(-5_000),
        ..Conditions::default()
    };
    assert_eq!(watch.read(), expected);
    // A named file that does not exist gives no value, and is not replaced by the standard one.
    let sensors = Sensors { temperature: list("/nowhere"), ..Sensors::default() };
    assert_eq!(super::Watch::new(root.path(), &sensors, &[]).unwrap().read().millicelsius, None);
    let sensors = Sensors { clock: list("/a/***"), ..Sensors::default() };
    assert!(Watch::new(root.path(), &sensors, &[]).is_err_and(|e| e.contains("/a/***")));
}

#[test]
fn a_mask_reports_throttling_by_its_current_bits() {
    let root = root(&[("m", "0x50000\n")]);
    let mut watch = watch(&root, throttle("/m", ThrottleKind::Mask, 0xf), &[]);
    assert_eq!(watch.read().throttled, Some(false), "only past throttling");
    for (text, expected) in [("0x50005", Some(true)), ("4", Some(true)), ("0x0", Some(false)), ("?", None)] {
        write(&root, "m", text);
        assert_eq!(watch.read().throttled, expected, "{text}");
    }
}

#[test]
fn a_counter_reports_throttling_if_it_rose_since_the_last_reading() {
    let root = root(&[("n", "7")]);
    let mut watch = watch(&root, throttle("/n", ThrottleKind::Counter, 0), &[]);
    assert_eq!(watch.read().throttled, Some(false), "the 7 events were before the first reading");
    write(&root, "n", "9");
    assert_eq!([watch.read().throttled, watch.read().throttled], [Some(true), Some(false)]);
}

#[test]
fn default_throttling_is_an_x86_counter_or_a_lowered_clock_but_not_a_fan() {
    let count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
    let root = root(&[
        (count, "3"),
        ("sys/class/thermal/cooling_device0/type", "pwm-fan"),
        ("sys/class/thermal/cooling_device0/cur_state", "4"),
        ("sys/class/thermal/cooling_device1/type", "cpufreq-cpu0"),
        ("sys/class/thermal/cooling_device1/cur_state", "0"),
    ]);
    let mut watch = watch(&root, Sensors::default(), &[]);
    assert_eq!(watch.read().throttled, Some(false));
    write(&root, count, "4");
    assert_eq!(watch.read().throttled, Some(true));
    write(&root, "sys/class/thermal/cooling_device1/cur_state", "1");
    assert_eq!([watch.read().throttled, watch.read().throttled], [Some(true); 2]);
}

#[test]
fn power_is_the_sum_of_all_rails_or_none() {
    let root = root(&[("w", "1500\n"), ("v", "5000\n"), ("hwmon3/a", "200\n")]);
    let file = |name: &str| Some(name.to_owned());
    let print = "echo ' DDR_A current(1)=0.5A'; echo ' X_A current(2)=9A'; echo ' DDR_V volt(9)=3.0V'";
    let rails = vec![
        Rail { milliwatts: file("/w"), ..Rail::default() },
        Rail { millivolts: file("/v"), milliamps: file("/hwmon*/a"), ..Rail::default() },
        Rail { command: Some(["sh", "-c", print].map(str::to_owned).into()), ..Rail::default() },
    ];
    let read = |power| watch(&root, Sensors { power, ..Sensors::default() }, &[]).read().power_mw;
    assert_eq!(read(rails.clone()), Some(1500.0 + 1000.0 + 1500.0));
    let broken = [
        Rail { milliwatts: file("/none"), ..Rail::default() },
        Rail { command: Some(vec!["no-such-program-here".to_owned()]), ..Rail::default() },
        Rail { command: Some(vec!["false".to_owned()]), ..Rail::default() },
        Rail { command: Some(vec!["true".to_owned()]), ..Rail::default() },
    ];
    for rail in broken {
        assert_eq!(read([rails.clone(), vec![rail.clone()]].concat()), None, "{rail:?}");
    }
    assert_eq!(read(vec![]), None);
}
