use super::{Board, Session};
use nas_probe::Conditions;
use serde::Serialize;

/// One thing about a board that matters to measuring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub what: String,
    pub found: String,
    /// How to fix it; `None` if it is fine or not reported.
    pub fix: Option<String>,
}

/// Degrees Celsius at which a small board without a fan is close to throttling: the firmware of the Raspberry Pi
/// throttles at 80 (its documentation, "Frequency management and thermal control").
const HOT: i64 = 70;
/// The least free memory, in bytes, that a runtime and a network need.
const MEMORY: u64 = 128 << 20;
/// Load average above which other programs disturb a measurement.
const LOAD: f64 = 0.5;

/// Returns what the probe reports about a board: what is fine, and what is not.
pub fn findings(session: &Session, board: &Board) -> Vec<Finding> {
    let hello = session.hello();
    let fact = |what: &str, found: String| Finding { what: what.into(), found, fix: None };
    let mut findings = vec![
        fact("CPU", format!("{}, {} cores, {}", hello.cpu, hello.cores, hello.arch)),
        fact("libc", hello.libc.clone()),
    ];
    findings.extend(state(&session.ready().conditions, board));
    for &runtime in &board.runtimes {
        let info = hello.runtimes.iter().find(|info| info.runtime == runtime);
        let about = |line: &&String| line.starts_with(runtime.name());
        let reasons: Vec<String> = hello.unavailable.iter().filter(about).cloned().collect();
        let found = match info {
            Some(info) if info.providers.is_empty() => info.version.clone(),
            Some(info) => format!("{} on {}", info.version, info.providers.join(", ")),
            None => "missing".into(),
        };
        let fix = (!reasons.is_empty()).then(|| reasons.join("; "));
        findings.push(Finding { what: runtime.name().into(), found, fix });
    }
    findings
}

fn state(now: &Conditions, board: &Board) -> Vec<Finding> {
    let finding = |what: &str, found: Option<String>, wrong: bool, fix: String| Finding {
        what: what.into(),
        found: found.unwrap_or_else(|| "not reported".into()),
        fix: wrong.then_some(fix),
    };
    let files = match board.device.sensors.governor.as_slice() {
        [] => "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor".into(),
        files => files.join(" "),
    };
    let uneven = now.governor.as_ref().is_some_and(|governor| governor != "performance");
    let degrees = now.millicelsius.map(|millis| millis / 1000);
    let megabytes = now.free_bytes.map(|bytes| format!("{} MiB", bytes >> 20));
    vec![
        finding(
            "governor",
            now.governor.clone(),
            uneven,
            format!(
                "measure with `--governor performance` (as root), or run on the board: `echo performance | sudo tee {files}`"
            ),
        ),
        finding("clock", now.khz.map(|khz| format!("{} MHz", khz / 1000)), false, String::new()),
        finding(
            "temperature",
            degrees.map(|degrees| format!("{degrees} °C")),
            degrees.is_some_and(|degrees| degrees >= HOT),
            "let it cool down, or fit a heat sink or a fan".into(),
        ),
        finding(
            "throttled",
            now.throttled.map(|throttled| if throttled { "yes".into() } else { "no".into() }),
            now.throttled == Some(true),
            "use the power supply that the manufacturer recommends, and let the board cool down".into(),
        ),
        finding(
            "load",
            now.load1.map(|load| load.to_string()),
            now.load1.is_some_and(|load| load > LOAD),
            "find out with `top` what else is running, and stop it".into(),
        ),
        finding(
            "free memory",
            megabytes,
            now.free_bytes.is_some_and(|bytes| bytes < MEMORY),
            "stop other programs, or the desktop: `sudo systemctl isolate multi-user.target`".into(),
        ),
        finding("power", now.power_mw.map(|power| format!("{power:.0} mW")), false, String::new()),
    ]
}
