//! Estimates how many cores other processes keep busy, from /proc/stat and the CPU time of this process.

use std::{
    fs,
    time::{Duration, Instant},
};

/// A shorter interval gives no estimate, since /proc/stat usually counts in steps of 10 ms.
const SHORTEST: Duration = Duration::from_millis(50);

/// The counters at one moment.
pub struct Busy {
    at: Instant,
    /// The text of /proc/stat and the CPU time of this process; `None` if the device does not report them.
    counters: Option<(String, Duration)>,
}

impl Busy {
    pub fn now() -> Busy {
        let counters = fs::read_to_string("/proc/stat").ok().zip(own_time());
        Busy { at: Instant::now(), counters }
    }

    /// How many of `cores` (of all cores if empty) other processes kept busy since `self` was taken. It is at least this
    /// many: the counters are rounded, which could otherwise pass for the load of another process.
    pub fn others(self, cores: &[usize]) -> Option<f64> {
        let now = Busy::now();
        let ((before, own_before), (after, own_after)) = self.counters.zip(now.counters)?;
        others(&before, &after, cores, own_after.checked_sub(own_before)?, now.at - self.at, ticks_per_second()?)
    }
}

fn others(
    before: &str,
    after: &str,
    cores: &[usize],
    own: Duration,
    elapsed: Duration,
    ticks_per_second: f64,
) -> Option<f64> {
    if elapsed < SHORTEST {
        return None;
    }
    let ticks = busy_ticks(after, cores)?.checked_sub(busy_ticks(before, cores)?)?;
    // Each counter may be ahead by up to a tick.
    let ticks = ticks.saturating_sub(cores.len().max(1) as u64);
    let seconds = ticks as f64 / ticks_per_second - own.as_secs_f64();
    Some((seconds / elapsed.as_secs_f64()).max(0.0))
}

/// Ticks during which `cores` (all cores if empty) were not idle, including time stolen by a hypervisor.
fn busy_ticks(stat: &str, cores: &[usize]) -> Option<u64> {
    let of_line = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        // The columns are user, nice, system, idle, iowait, irq, softirq, steal, guest and guest_nice. The
        // times of guests are already part of user and nice. Old kernels have fewer columns.
        let [user, nice, system, _, rest @ ..] = ticks.as_slice() else { return None };
        Some(user + nice + system + rest.iter().skip(1).take(3).sum::<u64>())
    };
    match cores {
        [] => of_line("cpu"),
        _ => cores.iter().map(|core| of_line(&format!("cpu{core}"))).sum(),
    }
}

/// CPU time of this process and of the children that it has waited for.
#[cfg(target_os = "linux")]
fn own_time() -> Option<Duration> {
    let of = |who| {
        // SAFETY: zeros are a valid rusage, and the call fills it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::getrusage(who, &mut usage) == 0).then_some(usage)?
        };
        let time = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
        Some(time(usage.ru_utime) + time(usage.ru_stime))
    };
    Some(of(libc::RUSAGE_SELF)? + of(libc::RUSAGE_CHILDREN)?)
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> Option<f64> {
    // SAFETY: sysconf takes and returns plain numbers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (ticks > 0).then_some(ticks as f64)
}

#[cfg(not(target_os = "linux"))]
fn own_time() -> Option<Duration> {
    None
}

#[cfg(not(target_os = "linux"))]
fn ticks_per_second() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
cpu  100 10 50 1000 5 1 2 4 7 0
cpu0 60 5 30 500 3 1 1 4 7 0
cpu1 40 5 20 500 2 0 1 0 0 0
cpu10 9 9 9 9 9 9 9 9 9 9
intr 1 2 3
";
    /// 200 ticks later: core 0 was busy for 145 of them (10 were stolen), core 1 for 30.
    const AFTER: &str = "\
cpu  220 20 80 1190 35 6 7 14 17 0
cpu0 170 5 50 540 13 6 1 14 17 0
cpu1 50 15 30 650 22 0 1 0 0 0
cpu10 9 9 9 9 9 9 9 9 9 9
";

    fn check(cores: &[usize], own_ms: u64, expected: f64) {
        let own = Duration::from_millis(own_ms);
        let got = others(BEFORE, AFTER, cores, own, Duration::from_secs(2), 100.0);
        assert!(got.is_some_and(|got| (got - expected).abs() < 1e-9), "{cores:?} {own_ms}: {got:?}");
    }

    #[test]
    fn busy_time_of_others_excludes_idle_time_and_our_own() {
        // Core 0: 110 user, 20 system, 5 irq, 10 steal, less one: 1.44 s of 2 s.
        check(&[0], 0, 0.72);
        check(&[0], 1_000, 0.22);
        // Core 1: 10 user, 10 nice, 10 system, less one.
        check(&[1], 0, 0.145);
        check(&[0, 1], 1_730, 0.0);
        check(&[1], 290, 0.0);
        // All cores: 120 + 10 + 30 + 5 + 5 + 10, less one.
        check(&[], 390, 0.7);
    }

    /// The probe runs for 54 ms on the core that it is pinned to, and the counter shows six ticks instead of five.
    #[test]
    fn a_rounded_counter_is_not_the_load_of_others() {
        let [before, after] = [100, 106].map(|user| format!("cpu0 {user} 0 0 500 0 0 0 0 0 0\n"));
        let ms = Duration::from_millis;
        assert_eq!(others(&before, &after, &[0], ms(54), ms(54), 100.0), Some(0.0));
        // Another process has half of the core.
        let load = others(&before, &after, &[0], ms(27), ms(54), 100.0);
        assert!(load.is_some_and(|load| (0.4..0.5).contains(&load)), "{load:?}");
    }

    #[test]
    fn short_intervals_and_invalid_counters_give_none() {
        let ask = |before, cores: &[usize], elapsed| {
            others(before, AFTER, cores, Duration::ZERO, Duration::from_millis(elapsed), 100.0)
        };
        assert!(ask(BEFORE, &[0], 50).is_some());
        assert_eq!(ask(BEFORE, &[0], 49), None);
        assert_eq!(ask(BEFORE, &[2], 2_000), None);
        assert_eq!(ask("", &[], 2_000), None);
        assert_eq!(ask("cpu  1 x\n", &[], 2_000), None);
        // A counter that went backwards.
        assert_eq!(others(AFTER, BEFORE, &[0], Duration::ZERO, Duration::from_secs(2), 100.0), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn own_cpu_time_includes_a_spinning_loop() {
        let (start, busy) = (own_time(), Busy::now());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {}
        let own = own_time().zip(start).map(|(now, then)| now - then);
        assert!(own.is_some_and(|own| own > Duration::from_millis(30)), "{own:?}");
        assert!(busy.others(&[]).is_some_and(|others| others >= 0.0));
    }
}
